"""The only file that imports the host: files, memory management, progress and previews. Without a host, the stub replaces it."""

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

    # The smallest autoencoder that the host can build itself: its constructor sets every attribute of its methods.
    SMALLEST_VAE = {
        "ddconfig": {
            "double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1],
            "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
        },
        "embed_dim": 4,
    }  # fmt: skip

    class Vae(comfy.sd.VAE):
        """A VAE of this pack as a VAE of the host, with its memory management, precision, tiling and VAE Decode / Encode nodes.

        The constructor of the host makes a small VAE, and with it all attributes of its methods in this version; then the
        network of the pack replaces it.
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

    latent_formats = latent_preview = None  # no previews

NO_FILES = "(none found)"  # the one choice of a list without files

__all__ = [
    "HOSTED", "NO_FILES", "ComfyExtension", "InputImpl", "ProgressBar", "Vae", "check_prefix", "compute_device", "find_file",
    "find_folder", "folder_paths", "graph_metadata", "io", "latent_formats", "latent_preview", "list_files", "list_folders",
    "free_memory", "image_preview", "manage", "manage_whole", "output_file", "load_networks", "load_whole_networks", "progress", "available_memory", "saved_file", "ui",
    "use_host_layers", "weights_dtype",
]  # fmt: skip


def _vae_bytes(pixels: int, dtype: torch.dtype) -> int:
    """Working memory of encoding or decoding one image: about 2000 numbers per pixel, as the host estimates for the SD1.5 VAE."""
    return 2000 * pixels * model_management.dtype_size(dtype)


def list_files(kind: str, suffixes: tuple[str, ...] = (".safetensors",)) -> list[str]:
    """The files of these endings in `models/<kind>`, `output/<kind>` and the folders of the host settings for that kind."""
    return [name for name in _all_files(kind) if name.endswith(suffixes)]


def list_folders(kind: str) -> dict[str, list[str]]:
    """The folders there, as `a/b/`, and their files in the notation of the host."""
    folders: dict[str, list[str]] = {}
    for name in _all_files(kind):
        folders.setdefault(os.path.dirname(name).replace(os.sep, "/") + "/", []).append(name)
    return folders


def find_folder(kind: str, name: str) -> str:
    """The path of one of those folders."""
    for file in list_folders(kind).get(name, []):
        return os.path.dirname(folder_paths.get_full_path_or_raise(kind, file))
    raise PortraitError(
        f"there is no folder '{name}' in {os.path.join(folder_paths.models_dir, kind)} or output/{kind}"
    )


def _all_files(kind: str) -> list[str]:
    for parent in (folder_paths.models_dir, folder_paths.get_output_directory()):
        folder_paths.add_model_folder_path(kind, os.path.join(parent, kind))
    return filenames(kind)


def filenames(kind: str) -> list[str]:
    """The files of a kind of models, as the host lists them, below its folders."""
    try:
        return folder_paths.get_filename_list(kind)
    except FileNotFoundError:  # the host's list remembers a folder that was removed since, and would fail from now on
        folder_paths.filename_list_cache.pop(kind, None)
        return folder_paths.get_filename_list(kind)


def find_file(kind: str, name: str, suffixes: tuple[str, ...] = (".safetensors",)) -> str:
    """The path of one of those files; PortraitError names the folders that were searched."""
    if name in list_files(kind, suffixes):
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
    """(path of a new numbered file in the output folder, its result for the interface); a prefix that leads outside raises.

    The name is reserved while the block lasts, and released if nothing was written.
    """
    root = folder_paths.get_output_directory()
    folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, root, width, height)
    with reserved_file(folder, stem, suffix, counter) as path:
        yield str(path), ui.SavedResult(path.name, subfolder, io.FolderType.output)


def check_prefix(prefix: str | None) -> bool | str:
    """For a node's `validate_inputs`: True, or why no file of this prefix can be written. None: the input is linked and not known
    before the run."""
    return True if prefix is None else prefix_problem(folder_paths.get_output_directory(), prefix) or True


def graph_metadata(hidden: Any) -> dict[str, str]:
    """The metadata that the nodes of the host store in a saved file, so that dropping it on the page opens the graph: `prompt`, and
    `workflow` of the page. hidden: of the running node, None outside a run."""
    if hidden is None or (HOSTED and args.disable_metadata):
        return {}
    stored = {} if hidden.prompt is None else {"prompt": hidden.prompt}
    return {name: json.dumps(value) for name, value in {**stored, **(hidden.extra_pnginfo or {})}.items()}


def weights_dtype() -> torch.dtype:
    """The precision of the weights: the choice of the host for its device, float32 without a host.

    Networks compute in the precision of their weights: where the device cannot compute in that choice, such as fp8, it is the
    precision in which the host would compute.
    """
    if not HOSTED:
        return torch.float32
    device = model_management.get_torch_device()
    chosen = model_management.unet_dtype(device)
    return model_management.unet_manual_cast(chosen, device) or chosen


def compute_device() -> torch.device | None:
    """The device that the host computes on; None without a host: that of the weights."""
    return model_management.get_torch_device() if HOSTED else None


LAYER_ARGUMENTS: dict[type[nn.Module], Callable[[Any], tuple[Any, ...]]] = {  # of the constructors
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
    """Replaces the layers of torch by those of the host, with the same weights. These cast their weights to the device and precision
    of the input when they run, so that the host may keep any part of them on another device; the results are the same."""
    for parent in list(networks.modules()):
        for name, layer in list(parent.named_children()):
            arguments = LAYER_ARGUMENTS.get(type(layer))
            if arguments is None:
                continue
            with torch.device("meta"):  # its weights are replaced below
                hosted = getattr(comfy.ops.manual_cast, type(layer).__name__)(*arguments(layer))
            for kind, weight in layer.named_parameters():
                setattr(hosted, kind, weight)
            setattr(parent, name, hosted.train(layer.training))
    return networks


def manage(networks: nn.Module) -> Any:
    """Puts networks under the memory management of the host, which may load them in parts: the handle for `load_networks`, None
    without a host."""
    return _patcher(use_host_layers(networks)) if HOSTED else None


def manage_whole(networks: nn.Module) -> Any:
    """The same for networks that read weights outside of their layers and so must be on one device: for `load_whole_networks`."""
    return _patcher(networks) if HOSTED else None


def _patcher(networks: nn.Module) -> Any:
    offload = model_management.unet_offload_device()
    # The host expects them there; networks made from others in use are on the device of those.
    return ModelPatcher(networks.to(offload), load_device=model_management.get_torch_device(), offload_device=offload)


def available_memory(handle: Any) -> int | None:
    """Bytes of working memory on the device of a managed network, beside it and without all others; None without a host."""
    if not HOSTED:
        return None
    device = handle.load_device
    free = model_management.get_free_memory(device)
    if model_management.is_device_cpu(device):
        return int(free)  # the networks are in this memory already and stay there
    loaded = sum(model.loaded_size() for model in model_management.loaded_models() if model.load_device == device)
    return int(free + loaded - model_management.extra_reserved_memory() - handle.model_size())


def load_networks(handles: list[Any], memory: int) -> None:
    """Loads managed networks, or as much of them as fits, onto the device of the host with `memory` bytes of working memory."""
    if HOSTED and handles:
        model_management.load_models_gpu(handles, memory_required=memory)


def load_whole_networks(handles: list[Any], memory: int) -> None:
    """The same for networks of `manage_whole`: all of their weights, or none where the host allows no weights on its device."""
    if HOSTED and handles:
        model_management.load_models_gpu(handles, memory_required=memory, force_full_load=True)


def free_memory(memory: int) -> bool:
    """Frees that many bytes on the device of the host for work that it does not manage, by unloading no more of the models than
    necessary; returns whether that device is the CPU."""
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
    """A callback (done, total) that moves the progress bar of the node; in the host every call is a chance to cancel."""
    bar = ProgressBar(1)
    return lambda done, total: bar.update_absolute(done, total)


MAX_TIME_FRACTION = 0.02  # for previews
MIN_INTERVAL = 0.2  # seconds between two previews

Draw = Callable[[Tensor], Any]  # an unscaled latent 1 c h w -> a preview for the progress bar of the host


class PreviewBar:
    """A progress bar of a node: called as (done, total), a chance to cancel every time; `set_preview` puts an image beside it."""

    def __init__(self) -> None:
        self._bar = ProgressBar(1)
        self._position = (0, 1)

    def __call__(self, done: int, total: int) -> None:
        self._position = (done, total)
        self._bar.update_absolute(done, total)

    def set_preview(self, image: Any) -> None:
        self._bar.update_absolute(*self._position, image)


class Preview:
    """Takes the predicted clean latents of the sampler and previews one frame of them now and then: however slow the decoding is, it
    takes at most MAX_TIME_FRACTION of the time. A preview is of the frames that were sampled last."""

    def __init__(self, display: Callable[[Any], None], draw: Draw, clock: Callable[[], float] = time.monotonic) -> None:
        self._display, self._draw, self._clock = display, draw, clock
        self._next = -float("inf")  # when the next preview is due

    def __call__(self, step: int, first: int, clean: Tensor) -> None:
        """clean: n c h w, unscaled, of the frames from `first` on."""
        begin = self._clock()
        if begin < self._next:
            return
        middle = len(clean) // 2
        self._display(self._draw(clean[middle : middle + 1]))
        end = self._clock()
        self._next = end + max(MIN_INTERVAL, (end - begin) / MAX_TIME_FRACTION)


def preview(bar: PreviewBar, model: PortraitModel) -> Preview | None:
    """The preview of the latents on the bar; None where the host shows none (`--preview-method none`)."""
    if latent_preview is None or latent_preview.args.preview_method is latent_preview.LatentPreviewMethod.NoPreviews:
        return None
    draw = vae_previewer(model) if model.config.vae.kind == "portrait" else host_previewer(model)
    return None if draw is None else Preview(bar.set_preview, draw)


def image_preview(bar: PreviewBar) -> Callable[[Tensor], None] | None:
    """Previews finished frames, h w 3 in [0, 1], on the bar now and then; None where the host shows none."""
    if latent_preview is None or latent_preview.args.preview_method is latent_preview.LatentPreviewMethod.NoPreviews:
        return None
    draw = Preview(bar.set_preview, _draw_image)
    return lambda image: draw(0, 0, image[None])


def _draw_image(images: Tensor) -> Any:
    image = latent_preview.preview_to_image(2 * images[0] - 1)
    return ("JPEG", image, latent_preview.MAX_PREVIEW_RESOLUTION)


def vae_previewer(model: PortraitModel) -> Draw:
    """The small VAE of the pack is fast enough for a decoded image; it runs on its present device, so that no model is moved."""

    @torch.no_grad()
    def draw(latent: Tensor) -> Any:
        decoded = model.vae.decode(latent.to(next(model.vae.parameters())))[0].float()  # 3 H W in [-1, 1]
        image = latent_preview.preview_to_image(decoded.movedim(0, -1))
        return ("JPEG", image, latent_preview.MAX_PREVIEW_RESOLUTION)

    return draw


def host_previewer(model: PortraitModel) -> Draw | None:
    """Latents of the Stable Diffusion 1.5 VAE, as the host previews them for its own samplers."""
    device = next(model.networks.denoiser.parameters()).device
    previewer = latent_preview.get_previewer(device, latent_formats.SD15(model.config.vae.scale))
    if previewer is None:
        return None
    return lambda latent: previewer.decode_latent_to_preview_image("JPEG", latent.to(device) * model.config.vae.scale)
