"""Sampling loops of the public motion generators, and what their numbers mean.

Both work at 25 frames a second, window after window: each window starts from the end of the one before it. Motions are n 70
numbers on the generator's own scale, until `kdtalker_motion` and `joyvasa_motion` give them their meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.linalg import solveh_banded
from torch import Tensor
from torch.nn import functional

from ..config import SchedulerConfig
from ..diffusion.noise_schedule import sampling_schedule
from ..errors import PortraitError
from ..io.progress import Progress
from ..networks.motion_generators.joyvasa import SAMPLES_PER_FRAME, JoyVasaNetwork
from ..networks.motion_generators.kdtalker import KDTalkerNetwork
from ..networks.motion_generators.motion_scale import JOYVASA_ORDER, KDTALKER_ORDER, MotionScale
from .keypoints import KeypointMotion

FPS = 25
KDTALKER_WINDOW = 64  # frames
KDTALKER_STEPS = 50
KDTALKER_SCHEDULE = SchedulerConfig(
    prediction="epsilon",
    beta_start=1e-5,
    beta_end=8e-3,
    beta_schedule="linear",
    zero_terminal_snr=False,
    timestep_spacing="leading",
    steps_offset=0,
)
TRANSITION_VARIANCE, OBSERVATION_VARIANCE = 0.05, 0.001  # of KDTalker's smoothing
JOYVASA_GUIDANCE = 2.0
SILENCE_BEFORE, SILENCE_AFTER = 1280, 640  # samples that JoyVASA was trained to have around a voice


def kdtalker_inputs(face: KeypointMotion, scale: MotionScale) -> tuple[Tensor, Tensor]:
    """What KDTalker knows of a portrait, one frame: its points at rest behind seven zeros and its motion, 1 70 each."""
    if face.kp is None or len(face) != 1:
        raise PortraitError(f"the portrait has {len(face)} frames: give one with the points of its face")
    canonical = functional.pad(scale.numbers("kp", face.kp.flatten(1)), (7, 0))
    parts = [scale.numbers(name, getattr(face, name).reshape(1, -1)) for name in KDTALKER_ORDER]
    return canonical, torch.cat(parts, dim=1)


def kdtalker_motion(numbers: Tensor, scale: MotionScale) -> KeypointMotion:
    """What KDTalker's numbers mean: n 70 -> n frames."""
    return _motion(numbers, scale, KDTALKER_ORDER)


def joyvasa_motion(numbers: Tensor, scale: MotionScale) -> KeypointMotion:
    """What JoyVASA's numbers mean: n 70 -> n frames."""
    return _motion(numbers, scale, JOYVASA_ORDER)


def smooth_motion(motion: KeypointMotion) -> KeypointMotion:
    """Pose, shift and expression smoothed as KDTalker's pipeline does it; the scale stays."""
    smooth = {name: smooth_kalman(getattr(motion, name)) for name in ("pitch", "yaw", "roll", "t", "exp")}
    return replace(motion, **smooth)


def smooth_kalman(values: Tensor) -> Tensor:
    """The mean of a random walk that was observed with errors, n ... -> n ..., by its least squares (Rauch et al. 1965).

    The walk starts from the first value with the variance 1; steps have TRANSITION_VARIANCE, errors OBSERVATION_VARIANCE.
    """
    observed = values.flatten(1).double().numpy() if values.dim() > 1 else values[:, None].double().numpy()
    frames = len(observed)
    if frames == 1:
        return values
    bands = np.zeros((2, frames))  # of the normal equations: above the diagonal, and it
    bands[0, 1:] = -1 / TRANSITION_VARIANCE
    bands[1] = 1 / OBSERVATION_VARIANCE
    bands[1, :-1] += 1 / TRANSITION_VARIANCE
    bands[1, 1:] += 1 / TRANSITION_VARIANCE
    bands[1, 0] += 1
    right = observed / OBSERVATION_VARIANCE
    right[0] += observed[0]
    return torch.from_numpy(solveh_banded(bands, right)).to(values).view_as(values)


@torch.no_grad()
def sample_kdtalker(
    network: KDTalkerNetwork,
    audio: Tensor,
    canonical: Tensor,
    reference: Tensor,
    noise: Tensor,
    steps: int = KDTALKER_STEPS,
    schedule: SchedulerConfig = KDTALKER_SCHEDULE,
) -> Tensor:
    """One window by DDIM without added noise (Song et al. 2021, eq. 12): b f 512, b 70, b 70, b f 70 -> b f 70."""
    levels = sampling_schedule(schedule, steps)
    x = noise
    for t, a, next_a in zip(levels.timesteps, levels.alphas.tolist(), levels.next_alphas.tolist(), strict=True):
        noise_pred = network(x, t.expand(len(x)).to(x.device), audio, canonical, reference)
        pred_x0 = (x - math.sqrt(1 - a) * noise_pred) / math.sqrt(a)
        x = math.sqrt(next_a) * pred_x0 + math.sqrt(1 - next_a) * noise_pred
    return x


def generate_kdtalker(
    network: KDTalkerNetwork,
    audio: Tensor,
    canonical: Tensor,
    reference: Tensor,
    generator: torch.Generator,
    steps: int = KDTALKER_STEPS,
    window: int = KDTALKER_WINDOW,
    progress: Progress | None = None,
) -> Tensor:
    """A motion as long as its audio: n 512, 1 70, 1 70 -> n 70, float32 on the CPU.

    The last window is filled up with the audio's beginning, as KDTalker does it. progress: (windows done, windows in all).
    """
    like = next(network.parameters())
    frames, windows = len(audio), math.ceil(len(audio) / window)
    filled = torch.cat([audio, audio[: windows * window - frames]]).to(like)
    canonical, last = canonical.to(like), reference.to(like)
    motion = []
    for index, part in enumerate(filled.split(window)):
        noise = torch.randn(1, len(part), canonical.shape[1], generator=generator).to(like)
        motion.append(sample_kdtalker(network, part[None], canonical, last, noise, steps)[0])
        last = motion[-1][-1:]
        if progress is not None:
            progress(index + 1, windows)
    return torch.cat(motion)[:frames].float().cpu()


@torch.no_grad()
def sample_joyvasa(
    network: JoyVasaNetwork,
    audio: Tensor,
    noise: Tensor,
    step_noise: Callable[[int], Tensor],
    guidance: float = JOYVASA_GUIDANCE,
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
    levels = _visited(len(alpha_bars) - 1, steps)
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
    guidance: float = JOYVASA_GUIDANCE,
    steps: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """A motion of that many frames from mono audio at 16 kHz: samples -> frames 70, float32 on the CPU.

    Beyond its end the audio is silent. All windows start from the same noise, as JoyVASA has it. progress: (windows done,
    windows in all).
    """
    config, like = network.config, next(network.parameters())
    windows = math.ceil(frames / config.n_motions)
    length, before = windows * config.n_motions * SAMPLES_PER_FRAME, config.n_prev_motions
    voice = functional.pad(samples, (SILENCE_BEFORE, SILENCE_AFTER))
    voice = functional.pad(voice, (0, max(0, length - len(voice))))[:length]
    shape = (1, config.n_motions, config.motion_feat_dim)
    noise = torch.randn(shape, generator=generator).to(like)
    previous, motion = None, []

    def step_noise(step: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(like)

    for index, part in enumerate(voice.split(config.n_motions * SAMPLES_PER_FRAME)):
        with torch.no_grad():
            audio = network.audio_features(part[None].to(like))
        window = sample_joyvasa(network, audio, noise, step_noise, guidance, previous, steps)
        previous = window[:, -before:], audio[:, -before:]
        motion.append(window[0])
        if progress is not None:
            progress(index + 1, windows)
    return torch.cat(motion)[:frames].float().cpu()


def _visited(total: int, steps: int | None) -> list[int]:
    """Levels of the noise schedule from `total` down, evenly spaced."""
    steps = total if steps is None else steps
    if not 1 <= steps <= total:
        raise PortraitError(f"steps is {steps}: choose 1 to {total}, the levels this model was trained with")
    return [round(total * (steps - index) / steps) for index in range(steps)]


def _motion(numbers: Tensor, scale: MotionScale, order: dict[str, int]) -> KeypointMotion:
    parts = dict(zip(order, numbers.split(list(order.values()), dim=1), strict=True))
    values = {name: scale.values(name, part) for name, part in parts.items()}
    flat = {name: values[name].flatten() for name in ("pitch", "yaw", "roll", "scale")}
    return KeypointMotion(t=values["t"], exp=values["exp"].unflatten(1, (-1, 3)), **flat)
