"""JoyVASA's sampling loop, and what its numbers mean (Cao et al. 2024): voice -> motion, window after window.

A motion is n 70 numbers on JoyVASA's own scale, 25 frames a second, until `joyvasa_motion` gives them their meaning. A window
sees the last ten frames of the one before it, and their audio.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import PortraitError
from ..io.progress import Progress
from ..networks.motion_generators.joyvasa import JoyVasaNetwork
from ..networks.motion_generators.motion_scale import JOYVASA_ORDER, MotionScale, scaled_parts
from ..types import Motion
from .generators import FPS, SAMPLES_PER_FRAME, GenerateOptions, fade_in
from .keypoints import KeypointMotion, motion_of_keypoints

GUIDANCE = 2.0
SILENCE_BEFORE, SILENCE_AFTER = 1280, 640  # samples that JoyVASA was trained to have around a voice
POSE_WEIGHT = 0.01  # of a new frame in the pose's moving average


class JoyVASA:
    """JoyVASA as a MotionGenerator. smoothing: its pipeline's moving average of pose, shift and scale."""

    name = "JoyVASA"
    fps = FPS
    needs_face = False

    def __init__(self, network: JoyVasaNetwork, scale: MotionScale) -> None:
        self.networks, self.scale = network, scale

    def generate(
        self,
        voice: Tensor,
        frames: int,
        options: GenerateOptions,
        face: KeypointMotion | None = None,
        progress: Progress | None = None,
    ) -> Motion:
        numbers = generate_joyvasa(
            self.networks,
            voice,
            frames,
            torch.Generator().manual_seed(options.seed),
            GUIDANCE if options.guidance < 0 else options.guidance,
            options.steps or None,
            max(options.overlap, 0),  # its windows join without a seam as they are
            progress,
        )
        motion = joyvasa_motion(numbers, self.scale)
        return motion_of_keypoints(smooth_pose(motion) if options.smoothing else motion, self.fps)


def joyvasa_motion(numbers: Tensor, scale: MotionScale) -> KeypointMotion:
    """What JoyVASA's numbers mean: n 70 -> n frames."""
    return KeypointMotion(**scaled_parts(numbers, scale, JOYVASA_ORDER))


def smooth_pose(motion: KeypointMotion) -> KeypointMotion:
    """Pose, shift and scale as a moving average of all frames so far, as JoyVASA's pipeline does it; the expression stays."""
    smooth = {name: _moving_average(getattr(motion, name)) for name in ("pitch", "yaw", "roll", "t", "scale")}
    return replace(motion, **smooth)


def _moving_average(values: Tensor) -> Tensor:
    averages = values.double().clone()
    for index in range(1, len(averages)):
        averages[index] = torch.lerp(averages[index - 1], averages[index], POSE_WEIGHT)
    return averages.to(values)


@torch.no_grad()
def sample_joyvasa(
    network: JoyVasaNetwork,
    audio: Tensor,
    noise: Tensor,
    step_noise: Callable[[int], Tensor],
    guidance: float = GUIDANCE,
    previous: tuple[Tensor, Tensor] | None = None,
    steps: int | None = None,
) -> Tensor:
    """One window by ancestral sampling (Ho et al. 2020, algorithm 2, in terms of x_0): b f d, b f 70 -> b f 70.

    step_noise: n -> the noise that the n-th step adds, b f 70; the last step adds none. previous: motion and audio of the
    frames before, b p 70 and b p d; None for the beginning. steps: how many of the schedule's levels are visited, None for all.
    """
    batch, schedule = len(noise), network.diffusion_sched
    motion, sound = previous or (network.start_motion_feat, network.start_audio_feat)
    motion, sound = motion.expand(batch, -1, -1), sound.expand(batch, -1, -1)
    both = torch.cat([network.null_audio_feat.expand_as(audio), audio])
    alphas, alpha_bars = schedule.alphas.double(), schedule.alpha_bars.double().tolist()
    x = noise
    levels = visited_levels(len(alpha_bars) - 1, steps)
    for index, (level, following) in enumerate(zip(levels, [*levels[1:], 0], strict=True)):
        prediction = network.denoising_net(
            torch.cat([x, x]),
            both,
            torch.cat([motion, motion]),
            torch.cat([sound, sound]),
            torch.full((2 * batch,), level, device=x.device),
        )[:, -audio.shape[1] :]
        without, with_audio = prediction.chunk(2)
        pred_x0 = without + guidance * (with_audio - without)
        a, next_a = alpha_bars[level], alpha_bars[following]
        alpha = float(alphas[following + 1 : level + 1].prod())  # of the whole step
        x = (1 - next_a) * math.sqrt(alpha) / (1 - a) * x + (1 - alpha) * math.sqrt(next_a) / (1 - a) * pred_x0
        if following:
            x = x + math.sqrt((1 - next_a) / (1 - a) * (1 - alpha)) * step_noise(index)
    return x


def generate_joyvasa(
    network: JoyVasaNetwork,
    samples: Tensor,
    frames: int,
    generator: torch.Generator,
    guidance: float = GUIDANCE,
    steps: int | None = None,
    overlap: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """A motion of that many frames from mono audio at 16 kHz: samples -> frames 70, float32 on the CPU.

    Beyond its end the audio is silent. All windows start from the same noise, as JoyVASA has it. overlap: frames that
    neighbouring windows share and fade over, 0 as published. progress: (windows done, windows in all).
    """
    config, like = network.config, next(network.parameters())
    window, before = config.n_motions, config.n_prev_motions
    if not 0 <= overlap <= window - before:
        raise PortraitError(
            f"overlap is {overlap} frames: choose 0 to {window - before} for JoyVASA's windows of {window}"
        )
    stride = window - overlap
    windows = 1 + max(0, math.ceil((frames - window) / stride))
    length = (window + (windows - 1) * stride) * SAMPLES_PER_FRAME
    voice = functional.pad(samples, (SILENCE_BEFORE, SILENCE_AFTER))
    voice = functional.pad(voice, (0, max(0, length - len(voice))))[:length]
    shape = (1, window, config.motion_feat_dim)
    noise = torch.randn(shape, generator=generator).to(like)
    previous = None
    motion = torch.zeros(window + (windows - 1) * stride, config.motion_feat_dim)

    def step_noise(step: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(like)

    for index in range(windows):
        start = index * stride
        part = voice[start * SAMPLES_PER_FRAME : (start + window) * SAMPLES_PER_FRAME]
        with torch.no_grad():
            audio = network.audio_features(part[None].to(like))
        made = sample_joyvasa(network, audio, noise, step_noise, guidance, previous, steps)
        seen = slice(stride - before, stride)  # the frames before the next window
        previous = made[:, seen], audio[:, seen]
        rows, shared = made[0].float().cpu(), overlap if index else 0
        motion[start : start + shared] = torch.lerp(motion[start : start + shared], rows[:shared], fade_in(shared))
        motion[start + shared : start + window] = rows[shared:]
        if progress is not None:
            progress(index + 1, windows)
    return motion[:frames]


def visited_levels(total: int, steps: int | None) -> list[int]:
    """Levels of the noise schedule from `total` down, evenly spaced."""
    steps = total if steps is None else steps
    if not 1 <= steps <= total:
        raise PortraitError(f"steps is {steps}: choose 1 to {total}, the levels this model was trained with")
    return [round(total * (steps - index) / steps) for index in range(steps)]
