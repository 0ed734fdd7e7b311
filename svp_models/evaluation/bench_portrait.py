"""The time of a portrait model's networks on this machine, split by part and by kind of layer, beside V-Express' own arithmetic.

Weights are random: neither time nor products depend on them. Figures: see `bench`.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..diffusion.context_windows import frame_windows
from ..diffusion.guidance import guided_prediction
from ..diffusion.memory import window_conditions
from ..errors import PortraitError
from ..media.writer import VideoWriter
from ..networks.audio_projection import AudioProjection
from ..networks.conditions import AS_TRAINED, ConditionKeys, Conditions
from ..networks.denoiser import Denoiser
from ..networks.layers import Downsample, ResnetBlock, Upsample, shapes_only
from ..networks.motion_module import MotionModule
from ..networks.pose_guider import PoseGuider
from ..networks.unet import ReferenceNet
from ..networks.vae import Vae, build_vae
from .bench import CPU, Case, flop_counter, matmul_rate, measure, seconds_on
from .plain_denoiser import SAVINGS, prediction, with_savings

Network = TypeVar("Network", bound=nn.Module)
SPREAD = 0.1  # of random biases and of the weights of norms around 1
# Kinds of layers: by class, by the last part of the module's name otherwise.
KINDS: dict[type[nn.Module], str] = {
    ResnetBlock: "resnets",
    Downsample: "resampling",
    Upsample: "resampling",
    MotionModule: "temporal layers",
}
NAMED = {
    "attn1": "self-attention",
    "reference_attn": "reference attention",
    "attn2": "audio attention",
    "style_attn": "style attention",
    "ff": "feed-forward",
}
REST = "norms, 1 x 1 convolutions and the rest"


@dataclass(frozen=True)
class BenchOptions:
    """What is measured. size: pixels of the frames' sides; frames: of the clip; steps, cfg: as the sampler has them; style:
    whether there is one; each_saving: also every saving alone; repeats: runs of everything."""

    size: int
    frames: int
    steps: int
    cfg: float
    style: bool = False
    each_saving: bool = False
    repeats: int = 5
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    @property
    def computes(self) -> bool:
        return self.device.type != "meta"


@torch.no_grad()
def bench_portrait(config: ModelConfig, options: BenchOptions) -> Iterator[dict[str, Any]]:
    """One row of figures for every part, the machine's own rate first, a whole clip last.

    On the meta device products and bytes alone are counted, for any size.
    """
    device = options.device
    rate = matmul_rate(device, options.dtype) if options.computes else 1.0
    if options.computes:
        yield {"case": "matmul", "gflop_per_second": round(rate, 2), "threads": torch.get_num_threads()}
    clip, products = 0.0, [0.0, 0.0]  # of the sampling, ours and plain
    for case, times in clip_cases(config, options):
        row = measure(case, rate, options.repeats, device)
        clip += row.get("seconds", 0) * case.frames * times
        if case.name in ("keys and values", "denoiser"):
            products[0] += row["gflop"] * times
            products[1] += row.get("plain_gflop", 0) * times
        if case.name == "denoiser":
            row = {"case": "denoiser", "of": "a frame and a step", **row}
            yield row | (
                {"peak_gpu_mb": torch.cuda.max_memory_allocated(device) >> 20} if device.type == "cuda" else {}
            )
            yield {"case": "sampling", "of": "a frame and all steps", "steps": options.steps} | {
                "gflop": round(products[0], 2),
                "plain_gflop": round(products[1], 2),
                "fewer_products": round(products[1] / products[0], 4),
            }
            yield from by_kind(config, options)
            if options.each_saving:
                yield from each_saving(config, options, rate)
        else:
            yield row
    if options.computes:
        video, written = written_video(config, options)
        yield {"case": "writing", "seconds": round(written / options.frames, 5), "bytes": video}
        clip += written
        yield {"case": "clip", "frames": options.frames, "steps": options.steps, "seconds": round(clip, 2)} | {
            "seconds_a_frame": round(clip / options.frames, 4)
        }


def clip_cases(config: ModelConfig, options: BenchOptions) -> Iterator[tuple[Case, float]]:
    """Every part of the way from inputs to frames, and how often a clip needs it. A network is built when its case is asked for,
    so that few are in memory at once."""
    for cases in (_audio_case, _vae_cases, _reference_cases, _denoiser_case):
        yield from cases(config, options)


def _audio_case(config: ModelConfig, options: BenchOptions) -> Iterator[tuple[Case, float]]:
    audio, frames = config.audio, min(options.frames, config.window)
    projection = random_network(lambda: AudioProjection(audio, config.unet.cross_attention_dim), options)
    features = _drawn(options, frames, audio.window, audio.feature_size)
    yield Case("audio", lambda: projection(features), frames=frames), options.frames / frames


def _vae_cases(config: ModelConfig, options: BenchOptions) -> Iterator[tuple[Case, float]]:
    vae = random_network(lambda: build_vae(config.vae), options)
    sides = cells(config, options)
    picture = _drawn(options, 1, 3, *(side * config.vae.downscale for side in sides)).clamp(-1, 1)
    yield Case("VAE encoding", lambda: vae.encode(picture)), 1
    latent, plain = _drawn(options, 1, config.vae.latent_channels, *sides), cast(Vae, with_savings(vae))
    bytes_too = options.computes
    yield (
        Case("VAE decoding", lambda: vae.decode(latent), lambda: plain.decode(latent), bytes=bytes_too),
        options.frames,
    )


def _reference_cases(config: ModelConfig, options: BenchOptions) -> Iterator[tuple[Case, float]]:
    unet, sides = config.unet, cells(config, options)
    reference = random_network(lambda: ReferenceNet(unet), options)
    latent = _drawn(options, 1, unet.latent_channels, *sides)
    yield Case("reference", lambda: torch.stack([bank.mean() for bank in reference(latent)])), 1
    guider = random_network(lambda: PoseGuider(config.guider, unet.block_out_channels[0]), options)
    images = _drawn(options, 1, 1, 3, *(side * config.vae.downscale for side in sides))
    yield Case("keypoint guider", lambda: guider(images)), options.frames


def _denoiser_case(config: ModelConfig, options: BenchOptions) -> Iterator[tuple[Case, float]]:
    windows = len(frame_windows(options.frames, config.window, config.overlap))
    denoiser, latents, conditions = denoiser_inputs(config, options)
    frames, ready = options.frames / windows, prepared(denoiser, conditions)
    keys = ready.keys
    yield Case("keys and values", lambda: prepared(denoiser, conditions).keys.audio[0].keys, frames=frames), windows
    works = (
        partial(exact, denoiser, latents, ready, options.cfg),
        partial(prediction, cast(Denoiser, with_savings(denoiser)), latents, conditions, options.cfg),
    )
    stored = sum(entry.nbytes for part in (keys.reference, keys.audio, keys.style) for entry in part)
    yield Case("denoiser", *works, frames, bytes=options.computes, stored=stored), windows * options.steps


def prepared(denoiser: Denoiser, conditions: Conditions) -> Conditions:
    """Conditions with their keys and values, which the sampler makes once for all steps."""
    bank = conditions.reference
    keys = ConditionKeys(reference=denoiser.reference_keys(bank, conditions.audio.shape[1]))
    ready = replace(conditions, reference=(), keys=keys)
    return denoiser.prepare(ready, [features.shape[1] for features in bank])


def _drawn(options: BenchOptions, *shape: int) -> Tensor:
    return torch.randn(shape, device=options.device, dtype=options.dtype)


def cells(config: ModelConfig, options: BenchOptions) -> tuple[int, int]:
    """Height and width of the latents: of the frames, or of the crops that the model draws."""
    crop, down = config.face_crop, config.vae.downscale
    if crop.width:
        return crop.height // down, crop.width // down
    if options.size % down:
        raise PortraitError(f"size is {options.size}: a multiple of {down} pixels is needed")
    return options.size // down, options.size // down


def denoiser_inputs(config: ModelConfig, options: BenchOptions) -> tuple[Denoiser, Tensor, Conditions]:
    """The denoiser, and random latents and conditions of one window of the clip."""
    unet, frames, sides = config.unet, min(options.frames, config.window), cells(config, options)
    denoiser = random_network(lambda: Denoiser(unet, style=unet.style_attention), options)
    with torch.device(options.device):
        given = window_conditions(config, frames, sides, options.dtype)
        latents = torch.randn(1, frames, unet.latent_channels, *sides, dtype=options.dtype)
    values = {item.name: getattr(given, item.name) for item in fields(given)}
    if not options.style:
        values["style"] = None
    for value in (*given.reference, *values.values()):
        if isinstance(value, Tensor) and options.computes:
            value.normal_()
    return denoiser, latents, Conditions(**values)


def exact(denoiser: nn.Module, latents: Tensor, conditions: Conditions, cfg: float) -> Tensor:
    """The guided prediction as the sampler computes it."""
    timestep = torch.full((len(latents),), 500, device=latents.device)
    return guided_prediction(denoiser, latents, timestep, conditions, AS_TRAINED, cfg)


def by_kind(config: ModelConfig, options: BenchOptions) -> Iterator[dict[str, Any]]:
    """GFLOP and seconds of the denoiser for a frame and a step, split by kind of layer."""
    denoiser, latents, conditions = denoiser_inputs(config, options)
    conditions = prepared(denoiser, conditions)
    windows = len(frame_windows(options.frames, config.window, config.overlap))
    share, spent = windows / options.frames / 1e9, dict.fromkeys([*KINDS.values(), *NAMED.values(), REST], 0.0)
    seconds: dict[str, float] = defaultdict(float)
    with flop_counter() as counter, split(denoiser, counter.get_total_flops) as products:
        exact(denoiser, latents, conditions, options.cfg)
    spent |= {kind: value * share for kind, value in products.spent.items()}
    spent[REST] = counter.get_total_flops() * share - sum(products.spent.values()) * share
    if options.computes:
        begin = seconds_on(options.device)
        with split(denoiser, partial(seconds_on, options.device)) as times:
            exact(denoiser, latents, conditions, options.cfg)
        whole = seconds_on(options.device) - begin
        seconds = {kind: value * share * 1e9 for kind, value in times.spent.items()}
        seconds[REST] = (whole - sum(times.spent.values())) * share * 1e9
    for kind, value in spent.items():
        if value or seconds.get(kind):
            timed = {"seconds": round(seconds[kind], 5)} if options.computes and kind in seconds else {}
            yield {"case": f"denoiser: {kind}", "gflop": round(value, 4), **timed}


class split:
    """Context manager: what a counter adds up inside the layers of a network, by their kind."""

    def __init__(self, network: nn.Module, count: Callable[[], float]) -> None:
        self.network, self.count = network, count
        self.spent: dict[str, float] = defaultdict(float)

    def __enter__(self) -> split:
        self.hooks = []
        inside = "\0"
        for name, module in self.network.named_modules():
            kind = KINDS.get(type(module)) or NAMED.get(name.rpartition(".")[2])
            if kind is None or name.startswith(inside):
                continue
            inside = f"{name}."
            self.hooks.append(module.register_forward_pre_hook(partial(self._add, kind, -1)))
            self.hooks.append(module.register_forward_hook(partial(self._add, kind, 1)))
        return self

    def __exit__(self, *_: Any) -> None:
        for hook in self.hooks:
            hook.remove()

    def _add(self, kind: str, sign: int, *_: Any) -> None:
        self.spent[kind] += sign * self.count()


def each_saving(config: ModelConfig, options: BenchOptions, rate: float) -> Iterator[dict[str, Any]]:
    """The denoiser with every saving alone, against plain arithmetic."""
    denoiser, latents, conditions = denoiser_inputs(config, options)
    plain = partial(prediction, cast(Denoiser, with_savings(denoiser)), latents, conditions, options.cfg)
    frames = latents.shape[1]
    for name in sorted(SAVINGS):
        alone = frozenset({name})
        saving = cast(Denoiser, with_savings(denoiser, alone))
        work = partial(prediction, saving, latents, conditions, options.cfg, alone)
        yield measure(Case(f"denoiser with {name} alone", work, plain, frames), rate, options.repeats, options.device)


def written_video(config: ModelConfig, options: BenchOptions) -> tuple[int, float]:
    """Bytes of a video of random frames, and the CPU seconds of writing it."""
    shape = (options.frames, options.size, options.size, 3)
    frames = np.random.default_rng(0).integers(96, 160, shape, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path, begin = Path(folder) / "bench.mp4", seconds_on(CPU)
        with VideoWriter(path, options.size, options.size, config.fps) as writer:
            writer.write(frames)
        return path.stat().st_size, seconds_on(CPU) - begin


def random_network(build: Callable[[], Network], options: BenchOptions) -> Network:
    """A network with random weights of the size that trained ones have; on the meta device one of shapes alone."""
    with shapes_only():
        network = build().to(options.dtype).eval().requires_grad_(False)
    if not options.computes:
        return network
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, weight in network.named_parameters():
        if weight.dim() > 1:
            bound = (3 / weight[0].numel()) ** 0.5
            weight.data.uniform_(-bound, bound, generator=generator)
        else:
            weight.data.normal_(0.0 if name.endswith("bias") else 1.0, SPREAD, generator=generator)
    for buffer in network.buffers():
        buffer.fill_(1)
    return network.to(options.device)
