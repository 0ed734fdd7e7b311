"""KDTalker's sampling loop, and what its numbers mean (Yang et al. 2025): voice and portrait -> motion, window after window.

A motion is n 70 numbers on KDTalker's own scale, 25 frames a second, until `kdtalker_motion` gives them their meaning. A window
knows of the one before it its last frame alone: as published, speeds break at the joins. Windows that overlap, start from the
same noise there and fade into each other join without a seam.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import SchedulerConfig
from ..diffusion.noise_schedule import sampling_schedule
from ..errors import PortraitError
from ..io.progress import Progress
from ..networks.motion_generators.kdtalker import KDTalkerNetwork
from ..networks.motion_generators.motion_scale import KDTALKER_ORDER, MotionScale, scaled_parts
from ..networks.motion_generators.wav2lip import Wav2LipAudioEncoder, audio_features
from ..optional_deps import linalg
from ..types import Motion
from .generators import FPS, SAMPLES_PER_FRAME, GenerateOptions, fade_in
from .keypoints import KeypointMotion, motion_of_keypoints

WINDOW = 64  # frames
STEPS = 50
OVERLAP = 12  # frames, where windows shall join without a seam
SCHEDULE = SchedulerConfig(
    prediction="epsilon",
    beta_start=1e-5,
    beta_end=8e-3,
    beta_schedule="linear",
    zero_terminal_snr=False,
    timestep_spacing="leading",
    steps_offset=0,
)
TRANSITION_VARIANCE, OBSERVATION_VARIANCE = 0.05, 0.001  # of KDTalker's smoothing


class KDTalker:
    """KDTalker as a MotionGenerator. smoothing: its pipeline's Kalman smoother; guidance: it has none."""

    name = "KDTalker"
    fps = FPS
    needs_face = True

    def __init__(self, network: KDTalkerNetwork, encoder: Wav2LipAudioEncoder, scale: MotionScale) -> None:
        self.network, self.encoder, self.scale = network, encoder, scale
        self.networks = nn.ModuleList([network, encoder])

    def generate(
        self,
        voice: Tensor,
        frames: int,
        options: GenerateOptions,
        face: KeypointMotion | None = None,
        progress: Progress | None = None,
    ) -> Motion:
        if face is None:
            raise PortraitError(f"{self.name} moves the face of one portrait: connect liveportrait and portrait")
        length = frames * SAMPLES_PER_FRAME
        samples = functional.pad(voice, (0, max(0, length - len(voice))))[:length]
        audio = audio_features(self.encoder, samples.numpy(), frames, self.fps)
        numbers = generate_kdtalker(
            self.network,
            audio,
            *kdtalker_inputs(face, self.scale),
            torch.Generator().manual_seed(options.seed),
            options.steps or STEPS,
            overlap=OVERLAP if options.overlap < 0 else options.overlap,
            progress=progress,
        )
        motion = kdtalker_motion(numbers, self.scale)
        motion = smooth_motion(motion) if options.smoothing else motion
        return motion_of_keypoints(replace(motion, kp=face.kp), self.fps)


def kdtalker_inputs(face: KeypointMotion, scale: MotionScale) -> tuple[Tensor, Tensor]:
    """What KDTalker knows of a portrait, one frame: its points at rest behind seven zeros and its motion, 1 70 each."""
    if face.kp is None or len(face) != 1:
        raise PortraitError(f"the portrait has {len(face)} frames: give one with the points of its face")
    points, known = face.kp[0].numel(), len(scale.offset["kp"])
    if points != known:
        raise PortraitError(
            f"the portrait's face has {points} numbers, KDTalker's scale {known}: use LivePortrait's published networks"
        )
    canonical = scale.numbers("kp", face.kp.flatten(1).cpu())
    parts = [scale.numbers(name, getattr(face, name).reshape(1, -1).cpu()) for name in KDTALKER_ORDER]
    reference = torch.cat(parts, dim=1)
    return functional.pad(canonical, (reference.shape[1] - canonical.shape[1], 0)), reference


def kdtalker_motion(numbers: Tensor, scale: MotionScale) -> KeypointMotion:
    """What KDTalker's numbers mean: n 70 -> n frames."""
    return KeypointMotion(**scaled_parts(numbers, scale, KDTALKER_ORDER))


@torch.no_grad()
def sample_kdtalker(
    network: KDTalkerNetwork,
    audio: Tensor,
    canonical: Tensor,
    reference: Tensor,
    noise: Tensor,
    steps: int = STEPS,
    schedule: SchedulerConfig = SCHEDULE,
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
    steps: int = STEPS,
    window: int = WINDOW,
    overlap: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """A motion as long as its audio: n 512, 1 70, 1 70 -> n 70, float32 on the CPU.

    overlap: frames that neighbouring windows share, 0 as published. The last window is filled up with the audio's beginning, as
    KDTalker does it. progress: (windows done, windows in all).
    """
    if not 0 <= overlap < window:
        raise PortraitError(f"overlap is {overlap} frames: choose 0 to {window - 1}, less than KDTalker's window")
    like = next(network.parameters())
    frames, stride = len(audio), window - overlap
    windows = 1 + max(0, math.ceil((frames - window) / stride))
    filled = torch.cat([audio, audio[: window + (windows - 1) * stride - frames]])
    canonical, last = canonical.to(like), reference.to(like)
    motion = torch.zeros(len(filled), canonical.shape[1])
    noise = torch.zeros(1, 0, canonical.shape[1])
    for index in range(windows):
        start = index * stride
        part = filled[start : start + window].to(like)
        shared = overlap if index else 0
        # The same noise for the same frame: so both windows draw nearly the same movement where they overlap.
        fresh = torch.randn(1, len(part) - shared, canonical.shape[1], generator=generator)
        noise = torch.cat([noise[:, noise.shape[1] - shared :], fresh], dim=1)
        last = last if index == 0 else motion[start - 1][None].to(like)
        made = sample_kdtalker(network, part[None], canonical, last, noise.to(like), steps)[0].float().cpu()
        motion[start : start + shared] = torch.lerp(motion[start : start + shared], made[:shared], fade_in(shared))
        motion[start + shared : start + len(part)] = made[shared:]
        if progress is not None:
            progress(index + 1, windows)
    return motion[:frames]


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
    return torch.from_numpy(linalg.solveh_banded(bands, right)).to(values).view_as(values)
