"""The only file that imports the host. Without one, the stand-in takes its place under the same names."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from ..svp_models.config import VaeConfig
from ..svp_models.errors import PortraitError
from ..svp_models.io.files import reserved_file
from ..svp_models.io.names import prefix_problem

HOSTED = find_spec("comfy_api") is not None

if HOSTED:
    import comfy.sd
    import comfy.utils
    import folder_paths
    import latent_preview
    from comfy import latent_formats, model_management
    from comfy.cli_args import args
    from comfy.model_patcher import ModelPatcher
    from comfy_api.latest import ComfyExtension, InputImpl, io, ui

    class WholePatcher(ModelPatcher):
        """Memory management for plain torch layers: all of them are on the device, or none.

        The host's own layers can run with some of their weights elsewhere. These cannot, so neither `--novram` nor another
        model's wish for memory may move a part of them.
        """

        def partially_load(self, device_to: Any, extra_memory: int = 0, force_patch_weights: bool = False) -> int:
            return super().partially_load(device_to, EVERYTHING, force_patch_weights=force_patch_weights)

        def partially_unload(self, device_to: Any, memory_to_free: int = 0, force_patch_weights: bool = False) -> int:
            return 0  # too little for the host, which then unloads the whole

    ProgressBar = comfy.utils.ProgressBar

    class Vae(comfy.sd.VAE):
        """A VAE of this pack with the host's interface: its memory, tiling and the VAE Decode / Encode nodes work.

        The host's own constructor only knows checkpoints: it is not called, what the host's methods read is set here.
        """

        def __init__(self, model: nn.Module, config: VaeConfig):  # super().__init__ would look for a known checkpoint
            self.memory_used_encode = lambda shape, dtype: _vae_bytes(shape[2] * shape[3], dtype)
            self.memory_used_decode = lambda shape, dtype: _vae_bytes(shape[2] * shape[3] * config.downscale**2, dtype)
            self.downscale_ratio = self.upscale_ratio = config.downscale
            self.downscale_index_formula = self.upscale_index_formula = self.extra_1d_channel = None
            self.latent_channels, self.latent_dim, self.output_channels = config.latent_channels, 2, 3
            self.crop_input, self.not_video, self.pad_channel_value = True, False, None
            self.disable_offload = True  # plain torch layers: all on the device or none
            self.process_input = lambda image: image * 2 - 1
            self.process_output = lambda image: ((image + 1) / 2).clamp(0, 1)
            self.working_dtypes = [torch.bfloat16, torch.float32]
            self.device = model_management.vae_device()
            self.vae_dtype = model_management.vae_dtype(self.device, self.working_dtypes)
            self.output_device = model_management.intermediate_device()
            self.first_stage_model = model.eval().to(self.vae_dtype)
            self.patcher = WholePatcher(
                self.first_stage_model, load_device=self.device, offload_device=model_management.vae_offload_device()
            )
            self.size = model_management.module_size(self.first_stage_model)

else:
    from .standin import ComfyExtension, InputImpl, ProgressBar, Vae, folder_paths, io, ui

    latent_formats = latent_preview = None  # nobody looks on: there are no pictures while a clip is made

NOTHING = "(none found)"  # the one choice of a list without files
EVERYTHING = 1e32  # bytes, as the host writes "no limit"

__all__ = [
    "HOSTED", "NOTHING", "ComfyExtension", "InputImpl", "ProgressBar", "Vae", "check_prefix", "find_file", "find_folder",
    "folder_paths", "graph_texts", "io", "latent_formats", "latent_preview", "leave_device", "list_files", "list_folders", "manage",
    "output_file", "prepare", "progress", "room", "saved_file", "ui", "weights_dtype",
]  # fmt: skip


def _vae_bytes(pixels: int, dtype: torch.dtype) -> int:
    """Working memory of coding one picture: about 2000 numbers per pixel, as the host reckons for SD1.5's VAE."""
    return 2000 * pixels * model_management.dtype_size(dtype)


def list_files(kind: str) -> list[str]:
    """The safetensors files in `models/<kind>`, `output/<kind>` and what the host's settings name for that kind."""
    return [each for each in _all_files(kind) if each.endswith(".safetensors")]


def list_folders(kind: str) -> dict[str, list[str]]:
    """The folders in those places, `a/b/` each, and the files in each as the host lists them."""
    folders: dict[str, list[str]] = {}
    for each in _all_files(kind):
        folders.setdefault(os.path.dirname(each).replace(os.sep, "/") + "/", []).append(each)
    return folders


def find_folder(kind: str, name: str) -> str:
    """The path of one of those folders."""
    for each in list_folders(kind).get(name, []):
        return os.path.dirname(folder_paths.get_full_path_or_raise(kind, each))
    raise PortraitError(
        f"there is no folder '{name}' in {os.path.join(folder_paths.models_dir, kind)} or output/{kind}"
    )


def _all_files(kind: str) -> list[str]:
    for parent in (folder_paths.models_dir, folder_paths.get_output_directory()):
        folder_paths.add_model_folder_path(kind, os.path.join(parent, kind))
    return folder_paths.get_filename_list(kind)


def find_file(kind: str, name: str) -> str:
    """The path of one of those files; PortraitError tells where it was looked for."""
    if name in list_files(kind):
        return folder_paths.get_full_path_or_raise(kind, name)
    raise PortraitError(f"there is no file '{name}' in {os.path.join(folder_paths.models_dir, kind)} or output/{kind}")


def saved_file(name: str) -> str:
    """The path of a file in the output folder."""
    path = os.path.join(folder_paths.get_output_directory(), os.path.relpath(os.path.join("/", name), "/"))
    if not os.path.isfile(path):
        raise PortraitError(f"there is no file {path}: save it again")
    return path


@contextmanager
def output_file(prefix: str, suffix: str, width: int = 0, height: int = 0) -> Iterator[tuple[str, Any]]:
    """(path of a new numbered file in the output folder, what the interface is told); a prefix that leads outside raises.

    The name is nobody else's while the block lasts, and is given back if nothing was written.
    """
    root = folder_paths.get_output_directory()
    folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, root, width, height)
    with reserved_file(folder, stem, suffix, counter) as path:
        yield str(path), ui.SavedResult(path.name, subfolder, io.FolderType.output)


def check_prefix(prefix: str | None) -> bool | str:
    """For a node's `validate_inputs`: True, or why no file of this prefix can be written. None: it is linked and not known
    before the run."""
    return True if prefix is None else prefix_problem(folder_paths.get_output_directory(), prefix) or True


def graph_texts(hidden: Any) -> dict[str, str]:
    """What the host's own nodes store in a saved file, so that dropping it on the page opens the graph: `prompt`, and what the
    page sent with it (`workflow`). hidden: of the running node, None outside a run."""
    if hidden is None or (HOSTED and args.disable_metadata):
        return {}
    stored = {} if hidden.prompt is None else {"prompt": hidden.prompt}
    return {name: json.dumps(value) for name, value in {**stored, **(hidden.extra_pnginfo or {})}.items()}


def weights_dtype() -> torch.dtype:
    """The precision the networks are held in: the host's choice for its device, float32 without one.

    Plain layers compute in what they are held in: of a choice that the device cannot compute in, such as fp8, it is the one
    that the host would compute in instead.
    """
    if not HOSTED:
        return torch.float32
    device = model_management.get_torch_device()
    chosen = model_management.unet_dtype(device)
    return model_management.unet_manual_cast(chosen, device) or chosen


def manage(networks: nn.Module) -> Any:
    """Puts networks under the host's memory management: the handle that `prepare` takes, None without a host."""
    if not HOSTED:
        return None
    rest = model_management.unet_offload_device()
    # The host takes them to rest there; networks made from others that are in use are on the device those are on.
    return WholePatcher(networks.to(rest), load_device=model_management.get_torch_device(), offload_device=rest)


def room(handle: Any) -> int | None:
    """Bytes to work in on the device of a managed network, beside it and once all others have left; None without a host."""
    if not HOSTED:
        return None
    device = handle.load_device
    free = model_management.get_free_memory(device)
    if model_management.is_device_cpu(device):
        return int(free)  # the networks are in this memory already, and nobody leaves it
    loaded = sum(each.loaded_size() for each in model_management.loaded_models() if each.load_device == device)
    return int(free + loaded - model_management.extra_reserved_memory() - handle.model_size())


def prepare(handles: list[Any], memory: int) -> None:
    """Brings managed networks onto the host's device with `memory` bytes left to work in; others make room for them."""
    if HOSTED:
        # Plain torch layers, see WholePatcher: --lowvram too has to load all of them.
        model_management.load_models_gpu(handles, memory_required=memory, force_full_load=True)


def leave_device() -> bool:
    """Takes all models off the host's device for work that it does not manage; tells whether that device is the CPU."""
    if HOSTED:
        model_management.unload_all_models()
    return HOSTED and model_management.is_device_cpu(model_management.get_torch_device())


def check_cancelled() -> None:
    """A chance to cancel the work of a node between two updates of its progress bar."""
    if HOSTED:
        model_management.throw_exception_if_processing_interrupted()


def progress() -> Callable[[int, int], None]:
    """A callback (done, total) that moves the node's progress bar; in the host every call is a chance to cancel."""
    bar = ProgressBar(1)
    return lambda done, total: bar.update_absolute(done, total)
