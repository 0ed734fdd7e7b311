"""The only file that imports the host. Without one, the stand-in takes its place under the same names.

Pictures of the clip beside the progress bar while it is sampled, where the host wants them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ..svp_models.config import VaeConfig
from ..svp_models.errors import PortraitError
from ..svp_models.io.file_names import prefix_problem
from ..svp_models.io.files import reserved_file
from ..svp_models.model import PortraitModel

HOSTED = find_spec("comfy_api") is not None

if HOSTED:
    import comfy.ops
    import comfy.sd
    import comfy.utils
    import folder_paths
    import latent_preview
    from comfy import latent_formats, model_management
    from comfy.cli_args import args
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.model_patcher import ModelPatcher
    from comfy_api.latest import ComfyExtension, InputImpl, io, ui

    ProgressBar = comfy.utils.ProgressBar

    # The smallest autoencoder that the host can build by itself: its constructor sets everything its methods read.
    SMALLEST_VAE = {
        "ddconfig": {
            "double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1],
            "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
        },
        "embed_dim": 4,
    }  # fmt: skip

    class Vae(comfy.sd.VAE):
        """A VAE of this pack in the host's: its memory, precision, tiling and the VAE Decode / Encode nodes work.

        The host's constructor makes a small VAE of its own, and with it whatever its methods read in this version; then the
        pack's network takes the place of that one.
        """

        def __init__(self, model: nn.Module, config: VaeConfig):
            super().__init__(sd=AutoencoderKL(**SMALLEST_VAE).state_dict(), config={"params": SMALLEST_VAE})
            self.memory_used_encode = lambda shape, dtype: _vae_bytes(shape[2] * shape[3], dtype)
            self.memory_used_decode = lambda shape, dtype: _vae_bytes(shape[2] * shape[3] * config.downscale**2, dtype)
            self.downscale_ratio = self.upscale_ratio = config.downscale
            self.latent_channels = config.latent_channels
            self.first_stage_model = use_host_layers(model.eval().to(self.vae_dtype))
            offload = model_management.vae_offload_device()
            self.patcher = ModelPatcher(self.first_stage_model, load_device=self.device, offload_device=offload)
            self.size = None
            self.model_size()

else:
    from .host_stub import ComfyExtension, InputImpl, ProgressBar, Vae, folder_paths, io, ui

    latent_formats = latent_preview = None  # nobody looks on: there are no pictures while a clip is made

NOTHING = "(none found)"  # the one choice of a list without files

__all__ = [
    "HOSTED", "NOTHING", "ComfyExtension", "InputImpl", "ProgressBar", "Vae", "check_prefix", "compute_device", "find_file",
    "find_folder", "folder_paths", "graph_texts", "io", "latent_formats", "latent_preview", "list_files", "list_folders",
    "make_room", "manage", "manage_whole", "output_file", "prepare", "prepare_whole", "progress", "room", "saved_file", "ui",
    "use_host_layers", "weights_dtype",
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
    """The precision of the networks' weights: the host's choice for its device, float32 without one.

    They compute in the precision of their weights: of a choice that the device cannot compute in, such as fp8, it is the one
    that the host would compute in instead.
    """
    if not HOSTED:
        return torch.float32
    device = model_management.get_torch_device()
    chosen = model_management.unet_dtype(device)
    return model_management.unet_manual_cast(chosen, device) or chosen


def compute_device() -> torch.device | None:
    """The device that the host computes on; None without a host: where the weights lie."""
    return model_management.get_torch_device() if HOSTED else None


LAYER_ARGUMENTS: dict[type[nn.Module], Callable[[Any], tuple[Any, ...]]] = {  # of their constructors
    nn.Linear: lambda layer: (layer.in_features, layer.out_features, layer.bias is not None),
    nn.Conv1d: lambda layer: _convolution_arguments(layer),
    nn.Conv2d: lambda layer: _convolution_arguments(layer),
    nn.GroupNorm: lambda layer: (layer.num_groups, layer.num_channels, layer.eps, layer.affine),
    nn.LayerNorm: lambda layer: (layer.normalized_shape, layer.eps, layer.elementwise_affine, layer.bias is not None),
    nn.Embedding: lambda layer: (layer.num_embeddings, layer.embedding_dim, layer.padding_idx),
}


def _convolution_arguments(layer: Any) -> tuple[Any, ...]:
    sizes = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return (*sizes, layer.groups, layer.bias is not None, layer.padding_mode)


def use_host_layers(networks: nn.Module) -> nn.Module:
    """Replaces torch's layers by the host's of the same name, with the same weights. Those bring their weights to the input's
    device and precision when they run, so that the host may leave any part of them elsewhere; the numbers stay the same."""
    for parent in list(networks.modules()):
        for name, layer in list(parent.named_children()):
            arguments = LAYER_ARGUMENTS.get(type(layer))
            if arguments is None:
                continue
            with torch.device("meta"):  # its weights are those of the layer
                hosted = getattr(comfy.ops.manual_cast, type(layer).__name__)(*arguments(layer))
            for kind, weight in layer.named_parameters():
                setattr(hosted, kind, weight)
            setattr(parent, name, hosted.train(layer.training))
    return networks


def manage(networks: nn.Module) -> Any:
    """Puts networks under the host's memory management, which may load them in parts: the handle that `prepare` takes, None
    without a host."""
    return _patcher(use_host_layers(networks)) if HOSTED else None


def manage_whole(networks: nn.Module) -> Any:
    """The same for networks that read weights outside of their layers and so have to be in one place: for `prepare_whole`."""
    return _patcher(networks) if HOSTED else None


def _patcher(networks: nn.Module) -> Any:
    rest = model_management.unet_offload_device()
    # The host takes them to rest there; networks made from others that are in use are on the device those are on.
    return ModelPatcher(networks.to(rest), load_device=model_management.get_torch_device(), offload_device=rest)


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
    """Brings managed networks, or as much of them as has room, onto the host's device with `memory` bytes left to work in."""
    if HOSTED and handles:
        model_management.load_models_gpu(handles, memory_required=memory)


def prepare_whole(handles: list[Any], memory: int) -> None:
    """The same for networks of `manage_whole`: all of their weights, or none where the host wants no weights on its device."""
    if HOSTED and handles:
        model_management.load_models_gpu(handles, memory_required=memory, force_full_load=True)


def make_room(memory: int) -> bool:
    """Frees that many bytes on the host's device for work that it does not manage, other models leaving only as far as they
    must; whether that device is the CPU."""
    if not HOSTED:
        return False
    device = model_management.get_torch_device()
    model_management.free_memory(memory, device)
    return model_management.is_device_cpu(device)


def check_cancelled() -> None:
    """A chance to cancel the work of a node between two updates of its progress bar."""
    if HOSTED:
        model_management.throw_exception_if_processing_interrupted()


def progress() -> Callable[[int, int], None]:
    """A callback (done, total) that moves the node's progress bar; in the host every call is a chance to cancel."""
    bar = ProgressBar(1)
    return lambda done, total: bar.update_absolute(done, total)


SHARE = 0.02  # of the time that pictures may take
PAUSE = 0.2  # seconds between two pictures at least

Draw = Callable[[Tensor], Any]  # an unscaled latent 1 c h w -> what the host's progress bar takes as a picture


class PictureBar:
    """A node's progress bar: called as (done, total), a chance to cancel every time; `show` puts a picture beside it."""

    def __init__(self) -> None:
        self._bar = ProgressBar(1)
        self._at = (0, 1)

    def __call__(self, done: int, total: int) -> None:
        self._at = (done, total)
        self._bar.update_absolute(done, total)

    def show(self, picture: Any) -> None:
        self._bar.update_absolute(*self._at, picture)


class Preview:
    """Takes the sampler's clean latents and shows one frame of them now and then: however slow the drawing is, it takes no more
    than SHARE of the time. Each picture is of the frames that were sampled last, so a long clip runs by."""

    def __init__(self, show: Callable[[Any], None], draw: Draw, clock: Callable[[], float] = time.monotonic) -> None:
        self._show, self._draw, self._clock = show, draw, clock
        self._next = -float("inf")  # when the next picture is due

    def __call__(self, step: int, first: int, clean: Tensor) -> None:
        """clean: n c h w, unscaled, of the frames from `first` on."""
        begin = self._clock()
        if begin < self._next:
            return
        middle = len(clean) // 2
        self._show(self._draw(clean[middle : middle + 1]))
        end = self._clock()
        self._next = end + max(PAUSE, (end - begin) / SHARE)


def preview(bar: PictureBar, model: PortraitModel) -> Preview | None:
    """What shows the sampler's latents on the bar; None where the host shows none (`--preview-method none`)."""
    if latent_preview is None or latent_preview.args.preview_method is latent_preview.LatentPreviewMethod.NoPreviews:
        return None
    draw = drawn_by_vae(model) if model.config.vae.kind == "portrait" else drawn_by_host(model)
    return None if draw is None else Preview(bar.show, draw)


def drawn_by_vae(model: PortraitModel) -> Draw:
    """The pack's small VAE is quick enough for a true picture; it runs where it lies, so that no model is moved for it."""

    @torch.no_grad()
    def draw(latent: Tensor) -> Any:
        picture = model.vae.decode(latent.to(next(model.vae.parameters())))[0].float()  # 3 H W in [-1, 1]
        image = latent_preview.preview_to_image(picture.movedim(0, -1))
        return ("JPEG", image, latent_preview.MAX_PREVIEW_RESOLUTION)

    return draw


def drawn_by_host(model: PortraitModel) -> Draw | None:
    """Latents of Stable Diffusion 1.5's VAE, as the host draws them for its own samplers."""
    device = next(model.networks.denoiser.parameters()).device
    previewer = latent_preview.get_previewer(device, latent_formats.SD15(model.config.vae.scale))
    if previewer is None:
        return None
    return lambda latent: previewer.decode_latent_to_preview_image("JPEG", latent.to(device) * model.config.vae.scale)
