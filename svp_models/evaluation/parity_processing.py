"""Parity with V-Express of what surrounds the networks: keypoint images, retargeting, windows, audio windows, median filter, noise schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, zip_longest
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints.vexpress_config import scheduler_config
from ..config import AudioConfig, ModelConfig
from ..diffusion.context_windows import frame_windows
from ..diffusion.noise_schedule import alphas_cumprod, inference_timesteps
from ..errors import PortraitError
from ..face.keypoints import draw_vexpress_keypoints
from ..face.retarget import head_turn, resize_keypoints, retarget_vexpress
from ..media.images import median_filter
from ..networks.audio_encoder import SAMPLE_RATE, Wav2Vec2AudioEncoder, feature_windows
from ..types import Audio
from .parity import IDENTICAL, PROCESSING, Measure, ParityFolder, check_inputs, compared, measured

PICTURES = {"draw_kps_images": "draw_kps.keypoints", "loop_kps_images": "loop.keypoints"}
INPUTS = {
    "draw_kps.keypoints": "n 3 2",
    "loop.keypoints": "f 3 2",
    "retarget.reference_keypoints": "3 2",
    "retarget.target_keypoints": "n 3 2",
    "audio_windows.encoder_states": "1 rows features",
    "median_filter.input": "3 f h w",
}
WINDOW = ("context_frames", "context_overlap")
POSITION = 320  # samples per row of wav2vec2
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)  # of wav2vec2's convolutions
HEARD = 400  # samples that one row of wav2vec2 sees


def check_processing(folder: ParityFolder, config: ModelConfig) -> Iterator[Measure]:
    """Everything but networks and loops."""
    check_inputs(folder, INPUTS, {"features": config.audio.feature_size})
    yield from _check_pictures(folder)
    yield from _check_retargeting(folder)
    states, windows = folder["audio_windows.encoder_states"], "audio_windows.windows"
    ours = stored_audio_windows(states, config.audio, *folder[windows].shape[:2])
    yield compared(folder, windows, ours, PROCESSING)
    filtered = median_filter(folder["median_filter.input"].transpose(0, 1)).transpose(0, 1)  # c f h w
    yield compared(folder, "median_filter.output", filtered, PROCESSING)
    yield from _check_windows(folder)
    yield from _check_schedule(folder)


def whole_windows(frames: int, window: int, overlap: int) -> bool:
    """Whether windows of this stride end exactly with the clip; only such lengths occur in V-Express."""
    return frames <= window or (frames - window) % (window - overlap) == 0


def scanned_frame(driving: Tensor, reference: Tensor) -> int:
    """The frame that sets the scale of V-Express' retargeting: it takes every frame whose turn is nearer to the
    reference's than the turn (not the distance) of the frame taken before is large. n 3 2, 3 2 -> index."""
    chosen, bound = 0, 10_000.0
    for index, angle in enumerate(head_turn(driving.double()).tolist()):
        if abs(angle - float(head_turn(reference.double()))) < bound:
            chosen, bound = index, angle
    return chosen


def stored_audio_windows(states: Tensor, audio: AudioConfig, frames: int, window: int) -> Tensor:
    """The windows of our audio features where wav2vec2's last hidden state is `states` (1 x rows x F): f window F.

    window: rows of a frame; V-Express' audio projection takes any number up to that of its positions, `audio.window`.
    """
    if not audio.rows_per_frame <= window <= audio.window:
        raise PortraitError(
            f"audio windows of {window} rows, the audio projection takes {audio.rows_per_frame} to {audio.window}: files and "
            "configuration differ"
        )
    samples = HEARD + (states.shape[1] - 1) * POSITION
    encoder = Wav2Vec2AudioEncoder(_Stored(states), normalize=False)
    silence = Audio(torch.zeros(1, samples), SAMPLE_RATE)
    features = encoder.features(silence, frames, frames / silence.seconds, audio.rows_per_frame)
    return feature_windows(features, replace(audio, window=window), frames)


class _Stored(nn.Module):
    """Takes the place of a wav2vec2 model whose output is known."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = nn.Parameter(states, requires_grad=False)
        self.config = SimpleNamespace(hidden_size=states.shape[-1], conv_kernel=KERNELS, conv_stride=STRIDES)

    def forward(self, values: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.states)


def _check_pictures(folder: ParityFolder) -> Iterator[Measure]:
    stored = folder.images("kps_images.npz")
    if stored.keys() != PICTURES.keys():
        raise PortraitError(f"{folder.path / 'kps_images.npz'}: holds {sorted(stored)}, {sorted(PICTURES)} are needed")
    for name, theirs in stored.items():
        if theirs.ndim != 4:
            raise PortraitError(f"{name} has the shape {list(theirs.shape)}, [images, height, width, 3] is needed")
        ours = draw_vexpress_keypoints(folder[PICTURES[name]], theirs.shape[2], theirs.shape[1])  # n H W 3
        if ours.shape != theirs.shape:
            note = f"ours has the shape {list(ours.shape)}, the reference {list(theirs.shape)}"
            yield Measure(name, IDENTICAL, math.inf, note)
            continue
        differing = int((ours != theirs).any(axis=-1).sum())
        yield Measure(name, IDENTICAL, differing, f"of {int(np.prod(theirs.shape[:3]))} pixels differ")


def _check_retargeting(folder: ParityFolder) -> Iterator[Measure]:
    reference, driving = folder["retarget.reference_keypoints"], folder["retarget.target_keypoints"]
    still = retarget_vexpress(reference, driving, "fix_face")
    yield measured("retarget.fix_face", PROCESSING, still, reference.expand_as(driving))
    anchor = scanned_frame(driving, reference)
    for mode in ("offset", "naive"):
        ours = retarget_vexpress(reference, driving, mode, anchor)
        yield compared(folder, f"retarget.{mode}", ours, PROCESSING, f"with V-Express' frame {anchor}")
    resized = resize_keypoints(driving, len(folder["kps_interpolate.output"]))
    yield compared(folder, "kps_interpolate.output", resized, PROCESSING)


def _check_windows(folder: ParityFolder) -> Iterator[Measure]:
    file = "context_windows.json"
    for entry in folder.entries(file, "windows", "num_frames", *WINDOW, "windows"):
        frames, window, overlap = entry["num_frames"], *(entry[name] for name in WINDOW)
        name, ours = f"context_windows.{frames}.{window}.{overlap}", frame_windows(frames, window, overlap)
        if whole_windows(frames, window, overlap):
            yield Measure(name, IDENTICAL, _differing(ours, entry["windows"]), "windows differ")
        else:
            yield Measure(name, IDENTICAL, _faults(ours, frames, window, overlap), "faults; every frame is covered")
    for entry in folder.entries(
        file, "video_length", "init_video_length", "video_length", *WINDOW, "indices_inclusive"
    ):
        frames, window, overlap = entry["video_length"], *(entry[name] for name in WINDOW)
        name = f"video_length.{entry['init_video_length']}.{window}.{overlap}"
        if not frames or frames < 1:
            yield Measure(name, IDENTICAL, None, "too short for V-Express")
            continue
        ends = [[part[0], part[-1]] for part in frame_windows(frames, window, overlap)]
        yield Measure(
            name, IDENTICAL, _differing(ends, entry["indices_inclusive"]), f"windows of its {frames} frames differ"
        )


def _differing(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> int:
    return sum(None in (one, other) or list(one) != list(other) for one, other in zip_longest(ours, theirs))


def _faults(windows: Sequence[Sequence[int]], frames: int, window: int, overlap: int) -> int:
    """Frames left out, invented or out of order, windows of another length, and joins that share too few frames."""
    seen = {frame for part in windows for frame in part}
    odd = sum(list(part) != list(range(part[0], part[0] + window)) for part in windows)
    loose = sum(one[-1] + 1 - other[0] < overlap for one, other in pairwise(windows))
    return len(seen ^ set(range(frames))) + odd + loose


def _check_schedule(folder: ParityFolder) -> Iterator[Measure]:
    stored = folder.values("ddim.json", "config", "num_train_timesteps", "timesteps", "alphas_cumprod")
    config = scheduler_config(
        {**stored["config"], "num_train_timesteps": stored["num_train_timesteps"]}, folder.path / "ddim.json"
    )
    for steps, theirs in stored["timesteps"].items():
        ours, note = inference_timesteps(config, int(steps)).tolist(), "schedules differ"
        if len(theirs) == int(steps) + 1 and theirs[-1] < 0:
            theirs, note = theirs[:-1], f"{note}; V-Express' goes on to timestep {theirs[-1]}, which is none"
        yield Measure(f"ddim.timesteps.{steps}", IDENTICAL, _differing([ours], [theirs]), note)
    theirs = torch.tensor(stored["alphas_cumprod"])
    yield measured("ddim.alphas_cumprod", PROCESSING, alphas_cumprod(config), theirs)
    for name in ("init_noise_sigma", "final_alpha_cumprod"):  # ours are 1
        if name in stored:
            yield Measure(f"ddim.{name}", IDENTICAL, abs(stored[name] - 1), "off 1")
    last = float(alphas_cumprod(config)[-1] - theirs[-1])
    yield Measure("ddim.alphas_cumprod.last", IDENTICAL, abs(last), "off V-Express' last value")
