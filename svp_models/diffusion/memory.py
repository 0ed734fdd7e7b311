"""Working memory of the denoising loop: what one step over a window takes, and the fastest plan that has room for it.

The numbers come from the networks themselves, run on the meta device: shapes without data. Two things are taken for granted.
Attention is memory-efficient (`scaled_dot_product_attention` by a fused kernel: it keeps its result and no table of all
queries by all keys), and what a kernel takes and gives back inside itself is covered by `KERNELS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..config import ModelConfig, UNetConfig
from ..networks.conditions import ConditionKeys, Conditions, ConditionWeights
from ..networks.denoiser import Denoiser
from ..networks.layers import shapes_only
from ..networks.pose_guider import PoseGuider
from .conditioning import GUIDER_FRAMES
from .guidance import FASTEST, KEY_BYTES, MemoryPlan, guided_prediction

PLANS = (FASTEST, MemoryPlan(halves_together=False))  # the fastest first
# Times the tensors: memory inside of convolutions and products, and gaps between blocks. Measured on a CPU in float32, one
# window of 24 frames at 512 x 512 takes 1.24 times its tensors, all memory of the process counted.
KERNELS = 1.25
# Windows of small networks are one batch as long as it works with so many bytes. On a CPU two or three of the built-in model gain what
# more of them do; other devices are not full sooner.
CPU_BYTES, DEVICE_BYTES = 64 * 2**20, 256 * 2**20


class PeakBytes(TorchDispatchMode):
    """Counts the memory of tensors that are made while it is entered; `peak` is the most at any time, in bytes.

    Works on real tensors and on those of the meta device. Views count as what they are views of. copies: convolutions, while they
    run, have two copies of their weights in other orders, as on a CPU.
    """

    def __init__(self, copies: bool = False) -> None:
        super().__init__()
        self.peak, self.copies = 0, copies
        self._living: dict[StorageWeakRef, int] = {}  # storage -> bytes

    def __torch_dispatch__(
        self, operation: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        given = {StorageWeakRef(tensor.untyped_storage()) for tensor in _tensors((args, kwargs))}
        results = [tensor.untyped_storage() for tensor in _tensors(result)]
        new = {StorageWeakRef(storage): storage.nbytes() for storage in results}
        new = {storage: size for storage, size in new.items() if storage not in given}
        if new:
            self._living = {storage: size for storage, size in self._living.items() if not storage.expired()} | new
            copied = 2 * args[1].nbytes if self.copies and operation is torch.ops.aten.convolution.default else 0
            self.peak = max(self.peak, sum(self._living.values()) + copied)
        return result


class _FusedAttention(TorchFunctionMode):
    """Attention that makes nothing but its result, laid out as the fused kernels lay it out."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if function is functional.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return function(*args, **(kwargs or {}))


@lru_cache
def sampling_memory(
    config: ModelConfig, plan: MemoryPlan, cfg: float, frames: int, size: tuple[int, int], dtype: torch.dtype
) -> int:
    """Bytes that one guided prediction over a window works with beside the weights, its conditions included. What the plan stores
    from step to step comes on top.

    frames: of the window; size: width, height in pixels; dtype: of the denoiser.
    """
    unet, width, height = config.unet, *size
    shape = (1, frames, unet.latent_channels, height // config.vae.downscale, width // config.vae.downscale)
    peak = PeakBytes(copies=True)
    with torch.no_grad(), shapes_only():
        denoiser = Denoiser(unet, style=unet.style_attention).to(dtype)
        guider = PoseGuider(config.guider, unet.block_out_channels[0]).to(dtype)
        with _FusedAttention(), peak:
            guider(torch.empty(1, min(frames, GUIDER_FRAMES), 3, height, width, dtype=dtype))
            conditions = window_conditions(config, frames, shape[3:], dtype)
            keys = ConditionKeys(reference=denoiser.reference_keys(conditions.reference, frames))
            conditions = replace(conditions, keys=keys)  # the bank itself stays where it is
            latents, timestep = torch.empty(shape, dtype=dtype), torch.zeros(1)
            guided_prediction(denoiser, latents, timestep, conditions, ConditionWeights(), cfg, plan)
    return int(peak.peak * KERNELS)


def choose_plan(
    config: ModelConfig,
    cfg: float,
    frames: int,
    size: tuple[int, int],
    dtype: torch.dtype,
    budget: int,
    windows: int = 1,
    on_cpu: bool = True,
) -> tuple[MemoryPlan, int]:
    """The fastest plan that works within `budget` bytes, and the bytes it needs; if none does, the one that needs least. What is
    left of the budget may be taken by keys and values that are stored from step to step.

    windows: at most so many are one batch, and no more than suit the device; other arguments as of `sampling_memory`. All plans give
    the same result up to rounding.
    """
    for plan in PLANS:
        needed = sampling_memory(config, plan, cfg, frames, size, dtype)
        if needed <= budget or cfg == 1:  # without guidance there is one half, and the plans do not differ
            break
    together = max(1, min(windows, min(budget, CPU_BYTES if on_cpu else DEVICE_BYTES) // needed))
    needed *= together  # a little less: the portrait is one for all
    return replace(plan, key_bytes=min(max(budget - needed, 0), KEY_BYTES), windows=together), needed


def window_conditions(config: ModelConfig, frames: int, cells: tuple[int, int], dtype: torch.dtype) -> Conditions:
    """Empty conditions of one window with every kind that the model reads, on torch's current device. cells: height, width."""
    unet = config.unet

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    return Conditions(
        reference=tuple(empty(1, *shape) for shape in bank_shapes(unet, cells)),
        reference_latent=empty(1, unet.latent_channels, *cells) if unet.reference_concat else None,
        audio=empty(1, frames, config.audio.tokens, unet.cross_attention_dim),
        kps=empty(1, frames, unet.block_out_channels[0], *cells),
        style=empty(1, frames, config.style.tokens, unet.cross_attention_dim) if unet.style_attention else None,
        reference_warped=empty(1, frames, unet.latent_channels, *cells) if unet.reference_warp else None,
    )


def bank_shapes(unet: UNetConfig, cells: tuple[int, int]) -> list[tuple[int, int]]:
    """tokens, channels of every entry of the reference bank, for a latent of this height and width."""
    last, (height, width) = len(unet.block_out_channels) - 1, cells
    entries = []
    for channels in unet.block_out_channels:
        entries.append((height * width, channels))
        height, width = -(-height // 2), -(-width // 2)  # odd sizes are rounded up on the way down
    down = [level for level in range(last + 1) if unet.attention_levels[level]]
    layers = unet.layers_per_block
    order = [level for level in down for _ in range(layers)] + [last]
    order += [level for level in reversed(down) for _ in range(layers + 1)]
    return [entries[level] for level in order]


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
