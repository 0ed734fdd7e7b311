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
    answer = {
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
