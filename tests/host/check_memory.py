"""Prints as JSON what the host does with the pack's networks when it is short of memory: `check_memory.py PACK COMFYUI BASE`."""

from __future__ import annotations

import importlib
import json
import sys

from dump_schemas import load_pack


def main() -> None:
    pack_folder, comfyui, base = sys.argv[1:]
    sys.path.insert(0, comfyui)
    sys.argv = ["main.py", "--cpu", "--base-directory", base]
    import comfy.options

    comfy.options.enable_args_parsing()
    pack = load_pack(pack_folder)
    import torch
    from comfy import model_management
    from comfy.model_patcher import ModelPatcher

    host = importlib.import_module(f"{pack.__name__}.nodes.host")
    sockets = importlib.import_module(f"{pack.__name__}.nodes.sockets")
    load = importlib.import_module(f"{pack.__name__}.nodes.load")
    cpu = torch.device("cpu")

    def layers() -> torch.nn.Module:
        return torch.nn.ModuleList([torch.nn.Linear(64, 64) for _ in range(8)])

    def under_pressure(patcher: ModelPatcher) -> list[float]:
        """Parts of the weights that the host counts as loaded: with no memory for them, and once it wants a little back."""
        patcher.partially_load(cpu, 0.1)
        little = patcher.loaded_size() / patcher.model_size()
        patcher.partially_load(cpu, 1e32)
        patcher.partially_unload(cpu, 1)
        return [little, patcher.loaded_size() / patcher.model_size()]

    model = sockets.LoadedModel.of(load.read_model(load.model_path(load.BUILTIN)))
    model.ready(0)
    conditions = [each.model is model.conditions_handle.model for each in model_management.loaded_models()]
    plan, memory = model.plan(2.0, 6, (128, 128))
    model.ready_to_denoise(memory)
    loaded = {id(each.model) for each in model_management.loaded_models()}
    with torch.inference_mode():  # as the host runs its nodes
        again = model.plan(2.0, 6, (128, 128))

    def are_loaded(*handles: ModelPatcher) -> list[bool]:
        known = [each.model for each in model_management.current_loaded_models]
        return [any(each is handle for each in known) for handle in handles]

    def encoded() -> list[torch.Tensor]:
        """The bank of a fixed latent, by networks that are brought to the device for it."""
        model.ready(0)
        latent = torch.randn(1, model.portrait.config.vae.latent_channels, 16, 16, generator=torch.manual_seed(0))
        with torch.no_grad():
            return list(model.portrait.networks.reference(latent))

    def pushed_out() -> dict[str, object]:
        """What happens when a large model wants all the memory there is, as on a device that is too small for all."""
        ours = (model.conditions_handle, model.denoising_handle)
        large = ModelPatcher(torch.nn.Linear(8192, 8192), cpu, cpu)  # 256 MiB
        before = encoded()
        model.ready_to_denoise(0)
        model_management.load_models_gpu([large])
        told = {"beside": are_loaded(*ours)}
        keep = [each for each in model_management.current_loaded_models if each.model is large]
        model_management.free_memory(1e32, cpu, keep)
        told |= {"pushed_out": are_loaded(*ours), "pusher_stays": are_loaded(large)[0]}
        after = encoded()
        model.ready_to_denoise(0)
        same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        return told | {"back": are_loaded(*ours), "the_same_when_back": same}

    answer = pushed_out() | {
        "plain": under_pressure(ModelPatcher(layers(), cpu, cpu)),
        "ours": under_pressure(host.manage(layers())),
        "conditions_first": conditions,
        "both_loaded": {id(model.conditions_handle.model), id(model.denoising_handle.model)} <= loaded,
        "parts": model.conditions_handle.model_size() + model.denoising_handle.model_size(),
        "whole": model_management.module_size(model.portrait.networks),
        "memory": memory,
        "room": host.room(model.denoising_handle),
        "halves_together": plan.halves_together,
        "the_same_in_inference_mode": again == (plan, memory),
    }
    sys.stdout.write("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
