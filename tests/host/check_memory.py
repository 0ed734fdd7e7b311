"""Prints as JSON what the host does with the pack's networks when it is short of memory: `check_memory.py PACK COMFYUI BASE`."""

from __future__ import annotations

import importlib
import json
import sys

from dump_schemas import open_in_host


def main() -> None:
    pack = open_in_host(*sys.argv[1:])
    import torch
    from comfy import model_management
    from comfy.model_patcher import ModelPatcher
    from torch._subclasses.fake_tensor import FakeTensorMode

    host = importlib.import_module(f"{pack.__name__}.nodes.host")
    sockets = importlib.import_module(f"{pack.__name__}.nodes.types")
    load = importlib.import_module(f"{pack.__name__}.nodes.loaders")
    conditions_type = importlib.import_module(f"{pack.__name__}.svp_models.networks.conditions").Conditions
    cpu = torch.device("cpu")

    model = sockets.LoadedModel.of(load.read_model(load.model_path("built-in demo")))
    host.use_host_layers(model.portrait.vae)
    model.load_for_conditions(0)
    conditions = [each.model is model.conditions_handle.model for each in model_management.loaded_models()]
    plan, memory = model.plan(2.0, 6, (128, 128))
    model.load_for_denoising(memory)
    loaded = {id(each.model) for each in model_management.loaded_models()}
    with torch.inference_mode():  # as the host runs its nodes
        again = model.plan(2.0, 6, (128, 128))

    def are_loaded(*handles: ModelPatcher) -> list[bool]:
        known = [each.model for each in model_management.current_loaded_models]
        return [any(each is handle for each in known) for handle in handles]

    def first_latent() -> torch.Tensor:
        return torch.randn(1, model.portrait.config.vae.latent_channels, 16, 16, generator=torch.manual_seed(0))

    def encoded() -> list[torch.Tensor]:
        """The bank of a fixed latent, by networks that are brought to the device for it."""
        model.load_for_conditions(0)
        with torch.no_grad():
            return list(model.portrait.networks.reference(first_latent()))

    def pushed_out() -> dict[str, object]:
        """What happens when a large model wants all the memory there is, as on a device that is too small for all."""
        ours = (model.conditions_handle, model.denoising_handle)
        large = ModelPatcher(torch.nn.Linear(8192, 8192), cpu, cpu)  # 256 MiB
        before = encoded()
        model.load_for_denoising(0)
        model_management.load_models_gpu([large])
        told = {"beside": are_loaded(*ours)}
        keep = [each for each in model_management.current_loaded_models if each.model is large]
        model_management.free_memory(1e32, cpu, keep)
        told |= {"pushed_out": are_loaded(*ours), "pusher_stays": are_loaded(large)[0]}
        after = encoded()
        model.load_for_denoising(0)
        same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        return told | {"back": are_loaded(*ours), "the_same_when_back": same}

    def in_parts() -> dict[str, object]:
        """The share of its weights that the host has loaded of a network, and whether its result stays, under rising pressure."""
        patcher, (reference, *_) = model.conditions_handle, model.conditions_handle.model
        before, seen = encoded(), {}
        for name, change in (
            ("unloaded_a_little", lambda: patcher.partially_unload(cpu, patcher.model_size() // 3)),
            ("loaded_none", lambda: (patcher.detach(), patcher.partially_load(cpu, 0.1))),
            ("loaded_a_part", lambda: (patcher.detach(), patcher.partially_load(cpu, patcher.model_size() // 2))),
            ("loaded_all", lambda: (patcher.detach(), patcher.partially_load(cpu, 1e32))),
        ):
            change()
            with torch.no_grad():
                after = list(reference(first_latent()))
            seen[name] = patcher.loaded_size() / patcher.model_size()
            seen[f"{name}_the_same"] = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        return seen

    def on_another_device() -> dict[str, str]:
        """Where the results of networks come out whose weights all lie on the CPU and whose inputs on a GPU that is only
        pretended: torch refuses to pretend an operation on tensors of two devices."""
        networks, config = model.portrait.networks, model.portrait.config
        unet, cells, device = config.unet, 16, torch.device("cuda")

        def empty(*shape: int) -> torch.Tensor:
            return torch.empty(shape, device=device)

        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            latent, frames = empty(1, unet.latent_channels, cells, cells), 4
            reference = networks.reference(latent)
            audio = networks.audio_projection(empty(frames, config.audio.window, config.audio.feature_size))
            style = networks.style_projection(empty(frames, config.style.style_size))
            kps = networks.guider(empty(1, frames, 3, 8 * cells, 8 * cells))
            given = conditions_type(
                reference=tuple(reference), reference_latent=latent, audio=audio[None], kps=kps, style=style[None],
                reference_warped=empty(1, frames, unet.latent_channels, cells, cells),
            )  # fmt: skip
            time = torch.zeros(1, device=device)
            noise = networks.denoiser(empty(1, frames, unet.latent_channels, cells, cells), time, given)
            pictures = model.portrait.vae.decode(latent)
            results = {"reference": reference[0], "audio": audio, "style": style, "kps": kps, "noise": noise}
            results |= {"decoded": pictures, "encoded": model.portrait.vae.encode(pictures)}
        return {name: result.device.type for name, result in results.items()}

    answer = (
        pushed_out()
        | in_parts()
        | {
            "devices": on_another_device(),
            "conditions_first": conditions,
            "both_loaded": {id(model.conditions_handle.model), id(model.denoising_handle.model)} <= loaded,
            "parts": model.conditions_handle.model_size() + model.denoising_handle.model_size(),
            "whole": model_management.module_size(model.portrait.networks)
            - model_management.module_size(model.portrait.networks.style_extractor),
            "memory": memory,
            "room": host.available_memory(model.denoising_handle),
            "halves_together": plan.halves_together,
            "the_same_in_inference_mode": again == (plan, memory),
        }
    )
    sys.stdout.write("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
