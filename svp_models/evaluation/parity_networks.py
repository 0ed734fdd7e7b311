"""Parity with V-Express: pose guider, audio projection, reference bank, the denoiser module by module, and the sampling loop from
its starting noise, with and without guidance."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..config import ModelConfig, SchedulerConfig
from ..diffusion.conditioning import ClipConditions, KpsFeatureCache
from ..diffusion.guidance import guided_prediction
from ..diffusion.noise_schedule import SamplingSchedule, alphas_cumprod, inference_timesteps, pred_x0, sampling_schedule
from ..diffusion.pipeline import ResolvedOptions, WindowedDenoiser, condition_weights
from ..diffusion.samplers import Frames, ddim_step, sample_ddim
from ..errors import PortraitError
from ..face.keypoints import draw_vexpress_keypoints
from ..io.memory_map import as_tensor
from ..model import PortraitModel, PortraitNetworks
from ..networks.attention import TransformerBlock
from ..networks.conditions import Conditions, ConditionWeights, cat
from ..networks.layers import shapes_only
from ..networks.unet import ReferenceNet
from ..networks.vae import build_vae
from .parity import LOOP, NETWORK, PROCESSING, Measure, ParityFolder, check_inputs, compared
from .parity_processing import stored_audio_windows, whole_windows

BANK = "bank."
INPUTS = {
    "kps_guider.images": "1 3 f H W",
    "audio_projection.input": "n rows features",
    "reference_net.latents": "1 latent h w",
    "unet.latents": "1 latent f h w",
    "unet.audio_embeddings": "f tokens d",
    "unet.kps_features": "1 c0 f h w",
}
# unet.<guidance batch or conditions alone>.t<timestep>[.weights_<reference>_<audio>].<noise_pred, or stage.<module>>
STEP = re.compile(r"unet\.(cfg|cond)\.t(\d+)(?:\.weights_([\d.]+)_([\d.]+))?\.(noise_pred|stage\.(.+))")


def check_networks(folder: ParityFolder, config: ModelConfig, networks: PortraitNetworks) -> Iterator[Measure]:
    """All of the folder's network outputs, in the order in which they depend on each other."""
    unet, audio = config.unet, config.audio
    sizes = {"latent": unet.latent_channels, "c0": unet.block_out_channels[0], "d": unet.cross_attention_dim}
    check_inputs(folder, INPUTS, sizes | {"tokens": audio.tokens, "features": audio.feature_size})
    with torch.no_grad():
        images = folder["kps_guider.images"].transpose(1, 2)  # 1 f 3 H W
        yield compared(folder, "kps_guider.features", networks.guider(images).transpose(1, 2), NETWORK)
        tokens = networks.audio_projection(folder["audio_projection.input"])
        yield compared(folder, "audio_projection.output", tokens, NETWORK)
        bank, sample = _run_reference(networks.reference, folder["reference_net.latents"])
        yield from _check_bank(folder, networks, bank)
        yield compared(folder, "reference_net.sample", sample, NETWORK)
        yield from _check_steps(folder, config, networks, bank)


def _run_reference(reference: ReferenceNet, latents: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """The bank, and the network's own output, which nothing but this check reads: b c h w."""
    last = f"up_blocks.{len(reference.up_blocks) - 1}"
    with recorded(reference, {last}) as outputs:
        bank = reference(latents)
    return bank, reference.conv_out(outputs[last])


def _check_bank(folder: ParityFolder, networks: PortraitNetworks, bank: tuple[Tensor, ...]) -> Iterator[Measure]:
    paths = [path for path, module in networks.denoiser.named_modules() if isinstance(module, TransformerBlock)]
    listed = set(folder.values("bank_paths.json"))
    if listed != set(paths):
        odd = sorted(listed ^ set(paths))[0]
        raise PortraitError(f"{folder.path / 'bank_paths.json'}: {odd} is a block of only one of list and network")
    for path, entry in zip(paths, bank, strict=True):
        yield compared(folder, BANK + path, entry, NETWORK)


def _check_steps(
    folder: ParityFolder, config: ModelConfig, networks: PortraitNetworks, bank: tuple[Tensor, ...]
) -> Iterator[Measure]:
    runs: dict[tuple[str, ...], list[re.Match[str]]] = {}
    for name in folder.below("unet."):
        if found := STEP.fullmatch(name):
            runs.setdefault(found.groups("")[:4], []).append(found)
    if not runs:
        raise PortraitError(f"{folder.path}: there is no unet.*.noise_pred in it: the folder is not complete")
    latents = folder["unet.latents"].transpose(1, 2)  # 1 f c h w
    frames = latents.shape[1]
    conditions = Conditions(
        reference=bank,
        reference_latent=None,
        audio=folder["unet.audio_embeddings"].unflatten(0, (-1, frames)),  # 1 f tokens d
        kps=folder["unet.kps_features"].transpose(1, 2),  # 1 f c0 h w
        style=None,
    )
    both = cat(conditions.unconditional(), conditions)
    modules = {path for path, _ in networks.denoiser.named_modules()}
    for (mode, timestep, reference, audio), wanted in runs.items():
        weights = ConditionWeights(float(reference or config.reference_weight), float(audio or config.audio_weight))
        given, noisy = (both, torch.cat([latents, latents])) if mode == "cfg" else (conditions, latents)
        stages = {own_name(found[6]) for found in wanted if found[6]} & modules
        time = torch.full((len(noisy),), int(timestep))
        with recorded(networks.denoiser, stages) as outputs:
            prediction = networks.denoiser(noisy, time, given, weights)
        for found in wanted:
            if not found[6]:
                yield compared(folder, found[0], prediction.transpose(1, 2), NETWORK)
            elif own_name(found[6]) in outputs:
                yield compared(folder, found[0], outputs[own_name(found[6])][:1], NETWORK)  # of frame 0
            else:
                folder.used.add(found[0])
                yield Measure(found[0], NETWORK, math.inf, "our denoiser has no such module")


def own_name(path: str) -> str:
    """V-Express' name of a module of the denoiser -> ours."""
    return path.replace(".temporal_transformer", "")


@contextmanager
def recorded(network: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Collects the latest output of the modules at these paths; of a list of outputs the last one."""
    outputs: dict[str, Tensor] = {}
    hooks = []

    def keep(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor | list[Tensor]) -> None:
            outputs[path] = output[-1] if isinstance(output, list) else output

        return hook

    try:
        for path in paths:
            hooks.append(network.get_submodule(path).register_forward_hook(keep(path)))
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


CELL = 8  # pixels
AFTER_STEP = re.compile(r"(.+)\.latents_after_step(\d+)")
LOOP_INPUTS = {
    "loop.init_latents": "1 latent f h w",
    "loop.reference_latents": "1 latent h w",
    "loop.keypoints": "f 3 2",
    "loop.encoder_states": "1 rows features",
}


def check_loops(folder: ParityFolder, config: ModelConfig, networks: PortraitNetworks) -> Iterator[Measure]:
    """The conditions of the clip, then its latents after the steps that the folder holds and at the end."""
    check_inputs(folder, LOOP_INPUTS, {"latent": config.unet.latent_channels, "features": config.audio.feature_size})
    noise = folder["loop.init_latents"][0].transpose(0, 1)  # f c h w
    height, width = (side * CELL for side in noise.shape[-2:])
    images = torch.from_numpy(draw_vexpress_keypoints(folder["loop.keypoints"], width, height))  # f H W 3
    kps = KpsFeatureCache(networks.guider, images.permute(0, 3, 1, 2).float() / 255, (width, height))
    features = kps.frames(list(range(len(noise))))  # f c0 h w
    yield compared(folder, "loop.kps_features", features.transpose(0, 1)[None], NETWORK)
    theirs = folder["loop.audio_windows"]
    windows = stored_audio_windows(folder["loop.encoder_states"], config.audio, len(noise), theirs.shape[1])
    yield compared(folder, "loop.audio_windows", windows, PROCESSING)
    with torch.no_grad():
        tokens = networks.audio_projection(windows)  # f tokens d
        bank = networks.reference(folder["loop.reference_latents"])
    yield compared(folder, "loop.audio_embeddings", tokens, NETWORK)
    conditions = ClipConditions(tuple(bank), None, tokens, None, kps)
    with shapes_only():
        vae = build_vae(config.vae)  # nothing is decoded
    model = PortraitModel(config, networks, vae, None, "")
    guidance = max(1.0, float(folder.setting("loop", "guidance")))  # V-Express has none below 1
    for name, scale in (("loop", guidance), ("loop_no_cfg", 1.0)):
        if name == "loop" or folder.below(f"{name}."):
            yield from _check_loop(folder, model, noise, conditions, name, scale)


def _check_loop(
    folder: ParityFolder, model: PortraitModel, noise: Tensor, conditions: ClipConditions, name: str, guidance: float
) -> Iterator[Measure]:
    window, overlap, steps = (int(folder.setting("loop", name)) for name in ("context", "overlap", "steps"))
    schedule, note = vexpress_schedule(model.config.scheduler, steps)
    options = ResolvedOptions(steps=steps, cfg=guidance, scheduler="ddim", window=window, overlap=overlap)
    latents: list[Tensor] = []
    if whole_windows(len(noise), window, overlap):

        def record(step: int, x: Frames) -> None:
            latents.append(as_tensor(x).clone())

        denoiser = WindowedDenoiser(model, conditions, options, schedule)
        sample_ddim(denoiser, noise.clone(), schedule, record)
    else:
        windows = vexpress_windows(len(noise), window, overlap)
        latents = replayed_latents(model, noise, conditions, schedule, windows, options)
        ragged = f"with V-Express' windows, {len(noise)} frames are no whole ones of {window} with {overlap} in common"
        note = f"{ragged}; {note}" if note else ragged
    wanted = {tensor: int(found[2]) for tensor in folder.below(f"{name}.") if (found := AFTER_STEP.fullmatch(tensor))}
    wanted[f"{name}.final_latents"] = len(latents) - 1
    for tensor, step in wanted.items():
        if step < len(latents):
            yield compared(folder, tensor, latents[step].transpose(0, 1)[None], LOOP, note)
        else:
            folder.used.add(tensor)
            yield Measure(tensor, LOOP, math.inf, f"the loop has {len(latents)} steps")


def vexpress_windows(frames: int, window: int, overlap: int) -> list[list[int]]:
    """The windows of V-Express' loop where they do not end with the clip: the last one runs backwards from its end."""
    starts = range(0, frames - overlap, window - overlap)
    return [[e if e < frames else frames - 2 - e % frames for e in range(start, start + window)] for start in starts]


@torch.no_grad()
def replayed_latents(
    model: PortraitModel,
    noise: Tensor,
    conditions: ClipConditions,
    schedule: SamplingSchedule,
    windows: list[list[int]],
    options: ResolvedOptions,
) -> list[Tensor]:
    """V-Express' loop as it is, noise f c h w -> latents after every step, for windows that repeat frames.

    A frame is stepped as soon as all windows that hold it are done; one that its window holds twice is stepped twice, the
    second time with a part of its prediction, and that counts. Our own sampler has no such windows.
    """
    denoiser = model.networks.denoiser
    weights = condition_weights(options, model.config)
    holding = torch.zeros(len(noise))
    for window in windows:
        holding[window] += 1
    latents, after = noise.clone(), []
    for timestep, a, next_a in zip(schedule.timesteps, schedule.alphas, schedule.next_alphas, strict=True):
        done = torch.zeros(len(noise))
        pending: dict[int, Tensor] = {}
        for window in windows:
            given = conditions.window(window, noise)
            part = guided_prediction(denoiser, latents[window][None], timestep[None], given, weights, options.cfg)
            done[window] += 1
            stepped, predictions = [], []
            for frame, prediction in zip(window, part[0] / holding[window, None, None, None], strict=True):
                pending[frame] = pending.get(frame, torch.zeros(())) + prediction
                if done[frame] == holding[frame]:
                    stepped.append(frame)
                    predictions.append(pending.pop(frame))
            x = latents[stepped]
            x0 = pred_x0(torch.stack(predictions), x, timestep, model.config.scheduler)
            moved = ddim_step(x, x0, a, next_a)
            for frame, latent in zip(stepped, moved, strict=True):
                latents[frame] = latent
        after.append(latents.clone())
    return after


def vexpress_schedule(config: SchedulerConfig, steps: int) -> tuple[SamplingSchedule, str]:
    """The noise levels of V-Express' DDIM, and a remark. It goes the same number of timesteps down at every step: where that
    leads past the next timestep of the schedule, so does this one."""
    stride = config.train_steps // steps
    timesteps = inference_timesteps(config, steps)
    if bool((timesteps.diff() == -stride).all()) and timesteps[-1] < stride:
        return sampling_schedule(config, steps), ""
    levels = alphas_cumprod(config).double()
    reached = timesteps - stride
    following = torch.where(reached >= 0, levels[reached.clamp(min=0)], levels.new_ones(()))
    note = f"with V-Express' steps of {stride} timesteps; ours go to the next of the {steps}"
    return SamplingSchedule(timesteps, levels[timesteps], following), note
