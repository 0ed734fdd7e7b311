"""Parity with LivePortrait, KDTalker and JoyVASA: networks, key points and sampling loops of a folder that their code wrote.

Its files: the weights as published, `io.safetensors` (LivePortrait; names with `kd.` are KDTalker's), `joyvasa_io.safetensors`,
`config.json` (`kdtalker`: noise schedule and steps) and `joyvasa_config.json` (heads, guidance, HuBERT). Each of the three parts
is checked if the folder holds its weights or its tensors. Every check takes the folder's own inputs, so that errors do not add up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.liveportrait import FILES, load_liveportrait
from ..checkpoints.motion_generators import load_joyvasa, load_kdtalker, load_wav2lip
from ..checkpoints.third_party import SUFFIXES, find_weights
from ..errors import PortraitError
from ..motion import joyvasa, kdtalker
from ..motion.joyvasa import sample_joyvasa
from ..motion.kdtalker import sample_kdtalker
from ..motion.keypoints import KeypointMotion, drive_relative, keypoints, motion_from_network, retarget, stitch
from ..networks.motion_generators.joyvasa import SAMPLES_PER_FRAME, JoyVasaConfig
from ..networks.motion_generators.wav2lip import audio_features, mel_spectrogram, mel_windows
from .parity import (
    MOTION_LOOP,
    NETWORK,
    PROCESSING,
    TENSORS,
    Measure,
    ParityFolder,
    check_inputs,
    compared,
    relative_error,
    stored_tensors,
)

JOYVASA_TENSORS = "joyvasa_io.safetensors"
KDTALKER, WAV2LIP, JOYVASA = "KDTalker", "wav2lip", "motion_generator"
ANGLES = ("pitch", "yaw", "roll")
LEAST_ANGLE = (
    10.0  # degrees; the reference subtracts numbers near 100 in float32, so 2e-5 degrees of any angle are rounding
)
INPUTS = {
    "source": "1 3 H W",
    "driving": "n 3 H W",
    "source_keypoints": "1 points 3",
    "relative_keypoints": "n points 3",
    "stitched_keypoints": "n points 3",
    "feature_3d": "1 c D h w",
    "warped": "n c h w",
}
KDTALKER_INPUTS = {
    "kd.waveform_16k": "samples",
    "kd.audio": "b f audio",
    "kd.noise": "b f motion",
    "kd.canonical": "b motion",
    "kd.reference": "b motion",
    "kd.timesteps": "steps",
}
STEP = re.compile(r"kd\.noise_pred_(\d+)")
WINDOW = re.compile(r"window(\d+)\.motion")


def holds_motion_weights(path: Path | str) -> bool:
    """Whether any weights of LivePortrait, KDTalker or JoyVASA lie in a folder."""
    return any(_holds(Path(path), stem) for stem in (*FILES, KDTALKER, JOYVASA))


def open_liveportrait_folder(path: Path | str) -> ParityFolder:
    """Raises PortraitError if it holds no readable reference data."""
    path = Path(path)
    files = [path / name for name in (TENSORS, JOYVASA_TENSORS) if (path / name).is_file()]
    if not files:
        raise PortraitError(
            f"{path}: there is no {TENSORS}, LivePortrait's inputs and outputs: name a folder that has one"
        )
    return ParityFolder(path, {name: tensor for file in files for name, tensor in stored_tensors(file).items()}, {})


@torch.no_grad()
def check_liveportrait(folder: ParityFolder) -> Iterator[Measure]:
    """All of the folder's tensors that are no inputs, in the order in which they depend on each other."""
    if "source" in folder.tensors or any(_holds(folder.path, stem) for stem in FILES):
        yield from _check_renderer(folder)
    if folder.below("kd.") or _holds(folder.path, KDTALKER):
        yield from _check_kdtalker(folder)
    if folder.below("window") or _holds(folder.path, JOYVASA):
        yield from _check_joyvasa(folder)


def _check_renderer(folder: ParityFolder) -> Iterator[Measure]:
    networks = load_liveportrait(folder.path)
    points = networks.motion.config.num_kp
    check_inputs(folder, INPUTS, {"points": points})
    yield compared(folder, "feature_3d", networks.appearance(folder["source"]), NETWORK)
    raw = networks.motion(folder["source"])
    for name, tensor in raw.items():
        yield compared(folder, f"motion_raw.{name}", tensor, NETWORK)
    factor = _expression_factor(folder)
    motions = {}
    for who in ("source", "driving"):
        motions[who] = _stored_motion(folder, f"{who}_info")
        ours = motion_from_network(networks.motion(folder[who]))
        yield from _check_motion(folder, f"{who}_info", ours, factor)
    source, driving = motions["source"], motions["driving"]
    for who, motion in motions.items():
        yield compared(folder, f"{who}_rotation", motion.rotation, PROCESSING)
        yield compared(folder, f"{who}_keypoints", keypoints(motion), PROCESSING)
    yield compared(folder, "relative_keypoints", drive_relative(source, driving), PROCESSING)
    own, stitched = folder["source_keypoints"], folder["stitched_keypoints"]
    moved = stitch(networks.stitching, own, folder["relative_keypoints"])
    yield compared(folder, "stitched_keypoints", moved, NETWORK)
    yield compared(folder, "lip_delta", retarget(networks.mouth, own, folder["lip_ratio"]), NETWORK)
    yield compared(folder, "eye_delta", retarget(networks.eyes, own, folder["eye_ratio"]), NETWORK)
    warp = networks.warping(folder["feature_3d"], stitched, own)
    yield compared(folder, "deformation", warp.deformation, NETWORK)
    if warp.occlusion_map is not None:
        yield compared(folder, "occlusion_map", warp.occlusion_map, NETWORK)
    yield compared(folder, "warped", warp.warped, NETWORK)
    yield compared(folder, "frames", networks.generator(folder["warped"]), NETWORK)


def _expression_factor(folder: ParityFolder) -> float:
    """What the folder's `exp` is of the network's: the data was made with smaller ones, to stay in the picture."""
    theirs, raw = folder["source_info.exp"].flatten().double(), folder["motion_raw.exp"].flatten().double()
    return float(theirs @ raw / raw.square().sum()) if theirs.shape == raw.shape else 1.0


def _check_motion(folder: ParityFolder, group: str, ours: KeypointMotion, factor: float) -> Iterator[Measure]:
    for name in ("kp", "t", "scale", "exp", *ANGLES):
        theirs, value = folder[f"{group}.{name}"], getattr(ours, name)
        value = value[:, None] if value.dim() == 1 else value
        note = f"{factor:.6g} of the network's" if name == "exp" else ""
        value = value * factor if name == "exp" else value
        error = relative_error(value, theirs)
        if name in ANGLES and math.isfinite(error):
            error *= float(theirs.norm() / theirs.norm().clamp(min=LEAST_ANGLE * math.sqrt(theirs.numel())))
            note = f"relative to {LEAST_ANGLE:g} degrees at least"
        yield Measure(f"{group}.{name}", NETWORK, error, note)


def _stored_motion(folder: ParityFolder, group: str) -> KeypointMotion:
    values = {name: folder[f"{group}.{name}"] for name in (*ANGLES, "scale", "t", "exp", "kp")}
    return KeypointMotion(**{name: v.flatten() if name in (*ANGLES, "scale") else v for name, v in values.items()})


def _check_kdtalker(folder: ParityFolder) -> Iterator[Measure]:
    network = load_kdtalker(find_weights(folder.path, KDTALKER))
    encoder = load_wav2lip(find_weights(folder.path, WAV2LIP))
    sizes = {"motion": network.config.channels, "audio": network.config.audio_dim}
    check_inputs(folder, KDTALKER_INPUTS, sizes)
    samples = folder["kd.waveform_16k"].numpy()
    frames = len(folder["kd.mel_windows"])
    yield compared(folder, "kd.mel", mel_spectrogram(samples), PROCESSING)
    yield compared(folder, "kd.mel_windows", mel_windows(folder["kd.mel"], 0, frames), PROCESSING)
    yield compared(folder, "kd.audio_features", audio_features(encoder, samples, frames), NETWORK)
    settings = _settings(folder, "config.json").get("kdtalker", {})
    schedule = replace(
        kdtalker.SCHEDULE,
        beta_start=settings.get("beta_start", kdtalker.SCHEDULE.beta_start),
        beta_end=settings.get("beta_end", kdtalker.SCHEDULE.beta_end),
        beta_schedule=settings.get("schedule", kdtalker.SCHEDULE.beta_schedule),
    )
    conditions = folder["kd.audio"], folder["kd.canonical"], folder["kd.reference"]
    for name in folder.below("kd.noise_pred_"):
        if found := STEP.fullmatch(name):
            noisy, t = folder[f"kd.input_{found[1]}"], folder["kd.timesteps"][int(found[1])].long()
            yield compared(folder, name, network(noisy, t.expand(len(noisy)), *conditions), NETWORK)
    steps = int(settings.get("steps", kdtalker.STEPS))
    ours = sample_kdtalker(network, *conditions, folder["kd.noise"], steps, schedule)
    yield compared(folder, "kd.sample", ours, MOTION_LOOP, f"{steps} steps")


def _check_joyvasa(folder: ParityFolder) -> Iterator[Measure]:
    settings = _settings(folder, "joyvasa_config.json")
    if settings.get("target", "sample") != "sample":
        raise PortraitError(f"{folder.path}: JoyVASA's target is {settings['target']!r}: only 'sample' is published")
    network = load_joyvasa(
        find_weights(folder.path, JOYVASA), int(settings.get("heads", JoyVasaConfig.heads)), settings.get("hubert")
    )
    guidance, length = float(settings.get("cfg_scale", joyvasa.GUIDANCE)), network.config.n_motions * SAMPLES_PER_FRAME
    voice, before = folder["waveform_16k"], network.config.n_prev_motions
    previous: tuple[Tensor, Tensor] | None = None
    for index in sorted(int(found[1]) for name in folder.below("window") if (found := WINDOW.fullmatch(name))):
        window = f"window{index}"
        audio, step_noise = folder[f"{window}.audio_features"], folder[f"{window}.step_noise"]
        ours = network.audio_features(voice[None, index * length : (index + 1) * length])
        yield compared(folder, f"{window}.audio_features", ours, NETWORK)
        motion = sample_joyvasa(
            network, audio, folder[f"{window}.start_noise"], partial(_row, step_noise), guidance, previous
        )
        yield compared(folder, f"{window}.motion", motion, MOTION_LOOP, f"{len(step_noise) + 1} steps")
        previous = folder[f"{window}.motion"][:, -before:], audio[:, -before:]
    noisy, first = folder["denoiser.noisy"], folder["window0.audio_features"]
    start = [part.expand(len(noisy), -1, -1) for part in (first, network.start_motion_feat, network.start_audio_feat)]
    ours = network.denoising_net(noisy, *start, folder["denoiser.step"].long())
    yield compared(folder, "denoiser.target", ours, NETWORK)


def _settings(folder: ParityFolder, file: str) -> dict[str, Any]:
    """Content of a JSON file of the folder; nothing if there is none."""
    values = folder.values(file) if (folder.path / file).is_file() else {}
    if not isinstance(values, dict):
        raise PortraitError(f"{folder.path / file}: holds a {type(values).__name__}, an object with settings is needed")
    return values


def _holds(path: Path, stem: str) -> bool:
    return any((path / f"{stem}{suffix}").is_file() for suffix in SUFFIXES)


def _row(rows: Tensor, index: int) -> Tensor:
    """One row as a batch of 1."""
    return rows[index][None]
