"""Parity of the complete sampling loop: our sampler on V-Express' starting noise, with and without guidance."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from ..checkpoints.native import PortraitModel
from ..config import ModelConfig, SchedulerConfig
from ..face.vexpress_keypoints import draw_three_points
from ..networks.portrait_model import PortraitNetworks
from ..sampling.conditions import ClipConditions, KpsFeatures
from ..sampling.pipeline import SamplerOptions, denoise, weighted
from ..sampling.schedule import make_scheduler
from ..sampling.windows import frame_windows
from .parity import LOOP, NETWORK, PROCESSING, Measure, ParityFolder, compared
from .parity_processing import stored_audio_windows, whole_windows

CELL = 8  # pixels
AFTER_STEP = re.compile(r"(.+)\.latents_after_step(\d+)")


class Recorder:
    """A scheduler that keeps the latents after every step."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.latents: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scheduler, name)

    def step(self, *given: Any) -> Any:
        result = self.scheduler.step(*given)
        self.latents.append(result.prev_sample)
        return result


def check_loops(folder: ParityFolder, config: ModelConfig, networks: PortraitNetworks) -> Iterator[Measure]:
    """The conditions of the clip, then its latents after the steps that the folder holds and at the end."""
    noise = folder["loop.init_latents"][0].transpose(0, 1)  # f c h w
    height, width = (side * CELL for side in noise.shape[-2:])
    pictures = torch.from_numpy(draw_three_points(folder["loop.keypoints"], width, height))  # f H W 3
    kps = KpsFeatures(networks.guider, pictures.permute(0, 3, 1, 2).float() / 255, width, height)
    features = kps.frames(list(range(len(noise))))  # f c0 h w
    yield compared(folder, "loop.kps_features", features.transpose(0, 1)[None], NETWORK)
    windows = stored_audio_windows(folder["loop.encoder_states"], config.audio, len(noise))
    yield compared(folder, "loop.audio_windows", windows, PROCESSING)
    with torch.no_grad():
        tokens = networks.audio_projection(windows)  # f tokens d
        bank = networks.reference(folder["loop.reference_latents"])
    yield compared(folder, "loop.audio_embeddings", tokens, NETWORK)
    conditions = ClipConditions(tuple(bank), None, tokens, None, kps)
    model = PortraitModel(config, networks, nn.Identity(), None, "")
    for name, guidance in (("loop", float(folder.setting("loop", "guidance"))), ("loop_no_cfg", 1.0)):
        yield from _check_loop(folder, model, noise, conditions, name, guidance)


def _check_loop(
    folder: ParityFolder, model: PortraitModel, noise: Tensor, conditions: ClipConditions, name: str, guidance: float
) -> Iterator[Measure]:
    window, overlap, steps = (int(folder.setting("loop", each)) for each in ("context", "overlap", "steps"))
    wanted = {each: int(found[2]) for each in folder.below(f"{name}.") if (found := AFTER_STEP.fullmatch(each))}
    wanted[f"{name}.final_latents"] = steps - 1
    if not whole_windows(len(noise), window, overlap):
        note = f"not compared: {len(noise)} frames are no whole windows of {window} with {overlap} in common"
        for each in wanted:
            folder.used.add(each)
            yield Measure(each, LOOP, None, note)
        return
    scheduler, note = vexpress_scheduler(model.config.scheduler, steps)
    recorder = Recorder(scheduler)
    options = weighted(SamplerOptions(steps=steps, cfg=guidance, window=window, overlap=overlap), model.config)
    denoise(model, noise, conditions, recorder, frame_windows(len(noise), window, overlap), options)
    for each, step in wanted.items():
        yield compared(folder, each, recorder.latents[step].transpose(0, 1)[None], LOOP, note)


def vexpress_scheduler(config: SchedulerConfig, steps: int) -> tuple[Any, str]:
    """Our DDIM, and what is to be said of it. Where the steps do not divide the timesteps V-Express' leads past the next timestep: then it is replayed."""
    if config.train_steps % steps == 0:
        return make_scheduler("ddim", config, steps), ""
    scheduler = DDIMScheduler(
        num_train_timesteps=config.train_steps,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=config.beta_schedule,
        prediction_type=config.prediction,
        rescale_betas_zero_snr=config.zero_terminal_snr,
        timestep_spacing=config.timestep_spacing,
        steps_offset=config.steps_offset,
        clip_sample=False,
    )
    scheduler.set_timesteps(steps)
    stride = config.train_steps // steps
    return (
        scheduler,
        f"with diffusers' DDIM, whose steps go {stride} timesteps down; ours go to the next of the {steps}",
    )
