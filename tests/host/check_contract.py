"""Prints as JSON what the host's VAE and patcher read and the pack's objects lack: `check_contract.py PACK COMFYUI BASE`."""

from __future__ import annotations

import importlib
import json
import sys

from attributes import lacking, methods_of, reached
from dump_schemas import open_in_host

# What the host calls of a model that it loads and moves, see comfy.model_management.LoadedModel and load_models_gpu.
MANAGED = (
    "model_size", "loaded_size", "current_loaded_device", "model_patches_to", "model_patches_models", "model_dtype", "detach",
    "partially_load", "partially_unload", "is_clone", "is_dynamic", "get_free_memory", "lowvram_patch_counter",
)  # fmt: skip


def main() -> None:
    pack = open_in_host(*sys.argv[1:])
    import comfy.sd
    from comfy.model_patcher import ModelPatcher

    host = importlib.import_module(f"{pack.__name__}.nodes.host")
    load = importlib.import_module(f"{pack.__name__}.nodes.loaders")
    portrait = load.read_model(load.model_path("built-in demo"))
    vae = host.Vae(portrait.vae, portrait.config.vae)
    handle = host.manage(portrait.networks.reference)
    of_vae = [name for name in methods_of(comfy.sd.VAE) if name != "__init__"]
    answer = {
        "vae": lacking(vae, "self", comfy.sd.VAE, of_vae),
        "patcher": lacking(handle, "self", ModelPatcher, MANAGED),
        "network": lacking(handle.model, "self.model", ModelPatcher, MANAGED),
        "methods": len(of_vae) + len(reached(ModelPatcher, MANAGED)),
    }
    sys.stdout.write("\n" + json.dumps(answer))


if __name__ == "__main__":
    main()
