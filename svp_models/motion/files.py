"""Files of motions: the pack's own, and LivePortrait's motion templates, which are read without running code.

| file           | holds                                                                                              |
|----------------|----------------------------------------------------------------------------------------------------|
| `.safetensors` | angles, shift, scale, expression [, lids, gaze, face, reference.*]; header: format, version, space, fps           |
| `.pkl`         | `output_fps`, `n_frames`, `motion`: for every frame scale, R (or R_d), t, exp and where there is kp  |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.safetensors_io import check_numbers, read_safetensors, write_safetensors
from ..checkpoints.third_party import read_pickled_arrays
from ..errors import PortraitError
from ..io.file_names import printable
from ..types import LIVEPORTRAIT, Motion
from .keypoints import SIDE, angles_from_rotation

KIND = "motion"
REFERENCE = "reference."  # before the names of the frame that relative driving compares with
TEMPLATE_SUFFIX = ".pkl"
SUFFIXES = (".safetensors", TEMPLATE_SUFFIX)
NEEDED, POSSIBLE = ("angles", "shift", "scale", "expression"), ("lids", "gaze", "face")
TEMPLATE_FPS = 25.0  # of templates that name none
NO_ROTATION = 1e-3  # largest difference of R R^T from the unit matrix


def save_motion(path: Path | str, motion: Motion) -> None:
    """Writes a motion as safetensors, float32."""
    tensors = _tensors(motion)
    if motion.reference is not None:
        tensors |= {f"{REFERENCE}{name}": value for name, value in _tensors(motion.reference).items()}
    write_safetensors(path, KIND, tensors, {"space": motion.space, "fps": repr(float(motion.fps))})


def load_motion(path: Path | str) -> Motion:
    """Reads a motion of either format, by the ending of the file's name."""
    path = Path(path)
    return load_template(path) if path.suffix.lower() == TEMPLATE_SUFFIX else _load_own(path)


def load_template(path: Path | str) -> Motion:
    """LivePortrait's motion template as a motion in its space; the angles are those of its rotations.

    The ratios of eyes and lips that newer templates hold beside it are not read.
    """
    content = read_pickled_arrays(path)
    frames = content.get("motion")
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, Mapping) for frame in frames):
        raise PortraitError(f"{path}: it has no list 'motion' with frames: use a motion template of LivePortrait")
    if content.get("n_frames", len(frames)) != len(frames):
        raise PortraitError(
            f"{path}: it holds {len(frames)} frames and says {printable(content['n_frames'])}: copy the file again"
        )
    name = "R" if "R" in frames[0] else "R_d"  # of older templates
    exp = _stacked(path, frames, "exp", None)
    rotation = _stacked(path, frames, name, 9).unflatten(1, (3, 3))
    face = _stacked(path, frames[:1], "kp", exp.shape[1]).view(-1, 3).float() if "kp" in frames[0] else None
    return Motion(
        angles=angles_from_rotation(_rotations(path, rotation)).float(),
        shift=_stacked(path, frames, "t", 3)[:, :2].float() / SIDE,
        scale=_stacked(path, frames, "scale", 1)[:, 0].float(),
        expression=exp.float(),
        fps=_frame_rate(path, content.get("output_fps", TEMPLATE_FPS)),
        space=LIVEPORTRAIT,
        face=face,
    )


def _load_own(path: Path) -> Motion:
    tensors, metadata = read_safetensors(path, KIND)
    needed = [*NEEDED, *(REFERENCE + name for name in NEEDED if any(key.startswith(REFERENCE) for key in tensors))]
    if missing := [name for name in needed if name not in tensors]:
        raise PortraitError(f"{path}: {missing[0]} is missing: the file is damaged, save the motion again")
    if unknown := sorted({name.removeprefix(REFERENCE) for name in tensors} - {*NEEDED, *POSSIBLE}):
        raise PortraitError(f"{path}: {unknown[0]} is unexpected, no motion has it: save the motion again")
    check_numbers(tensors, path)
    values: dict[str, Any] = {name: tensor.float() for name, tensor in tensors.items()}
    compared = {name[len(REFERENCE) :]: values.pop(name) for name in sorted(values) if name.startswith(REFERENCE)}
    fps, space = _frame_rate(path, metadata.get("fps")), metadata.get("space", "")
    try:
        reference = Motion(**compared, fps=fps, space=space) if compared else None
        return Motion(**values, fps=fps, space=space, reference=reference)
    except PortraitError as error:
        raise PortraitError(f"{path}: {error}: save the motion again") from error


def _tensors(motion: Motion) -> dict[str, Tensor]:
    values = {name: getattr(motion, name) for name in (*NEEDED, *POSSIBLE)}
    return {name: value.float() for name, value in values.items() if value is not None}


def _frame_rate(path: Path | str, value: Any) -> float:
    try:
        fps = float(value)
    except (TypeError, ValueError):
        fps = math.nan
    if not (math.isfinite(fps) and fps > 0):
        raise PortraitError(
            f"{path}: its frame rate is {printable(value)}, a number above 0 is needed: save the motion again"
        )
    return fps


def _stacked(path: Path | str, frames: list[Mapping[str, Any]], name: str, size: int | None) -> Tensor:
    """The numbers of that name of all frames: n size, float64. size None: as many as the first frame has, three a point."""
    rows: list[np.ndarray] = []
    for index, frame in enumerate(frames):
        if name not in frame:
            raise PortraitError(f"{path}: frame {index} has no {name}: use a motion template of LivePortrait")
        try:
            row = np.asarray(frame[name], dtype=np.float64).ravel()
        except (TypeError, ValueError) as error:
            raise PortraitError(f"{path}: {name} of frame {index} holds no numbers: copy the file again") from error
        size = len(row) if size is None else size
        if len(row) != size or size == 0 or (name == "exp" and size % 3) or not np.isfinite(row).all():
            raise PortraitError(
                f"{path}: {name} of frame {index} has {len(row)} numbers, {size or 63} finite ones are needed, three a "
                "point: copy the file again"
            )
        rows.append(row)
    return torch.from_numpy(np.stack(rows))


def _rotations(path: Path | str, matrices: Tensor) -> Tensor:
    error = (matrices @ matrices.transpose(1, 2) - torch.eye(3, dtype=matrices.dtype)).abs().amax(dim=(1, 2))
    wrong = (error > NO_ROTATION) | (torch.linalg.det(matrices) < 0)
    if bool(wrong.any()):
        index = int(wrong.nonzero()[0])
        raise PortraitError(f"{path}: R of frame {index} is no rotation: copy the file again")
    return matrices
