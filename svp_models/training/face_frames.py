"""Frames of synthetic people for the training on upright crops: rendered by all cores, then all in memory on one device."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import FaceCropConfig
from ..data.schema import FPS, SyntheticOptions
from ..data.synthetic_clips import SyntheticPerson, roles
from ..errors import PortraitError
from ..face.compose import crop_faces_upright, place_face_crops
from ..networks.audio_encoder import mel_features
from ..synthetic.clips import make_clip
from ..synthetic.performance import EMOTIONS
from ..synthetic.speakers import speaker
from ..types import Audio
from .checkpoint import write_atomically
from .face_config import FaceDataConfig

Report = Callable[[str], None]
CONTROLS = 68  # numbers of the expression track: 64 coefficients, both lids, gaze right and down


@dataclass(frozen=True)
class PersonTask:
    """One person to render. path: the file that it becomes."""

    split: str
    index: int
    data: FaceDataConfig
    crop: FaceCropConfig
    path: Path


@dataclass(frozen=True)
class FaceFrames:
    """All frames of a split, on one device: c clips, those of a person in a row, of f frames and with p portraits.

    crops: c f H W 3, uint8, with a margin around the crop; corners: c f 2, left and top of the stored crop in its frame, pixels;
    keypoints c f 8 2 and landmarks c f 68 2 in pixels of the frame; controls: c f 68, expression, lids and gaze; audio: c f F,
    half precision; emotion: c; person: c; portraits: c p S S 3, uint8 frames; portrait_keypoints: c p 8 2; portrait_frames: c p,
    their numbers in the clip.
    """

    crops: Tensor
    corners: Tensor
    keypoints: Tensor
    landmarks: Tensor
    controls: Tensor
    audio: Tensor
    emotion: Tensor
    person: Tensor
    portraits: Tensor
    portrait_keypoints: Tensor
    portrait_frames: Tensor

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def length(self) -> int:
        """Frames of a clip."""
        return self.crops.shape[1]

    def to(self, device: torch.device) -> FaceFrames:
        return FaceFrames(**{item.name: getattr(self, item.name).to(device) for item in fields(self)})

    def bytes(self) -> int:
        return sum(getattr(self, item.name).nbytes for item in fields(self))


def prepared_frames(
    data: FaceDataConfig, crop: FaceCropConfig, split: str, folder: Path, jobs: int, report: Report
) -> FaceFrames:
    """The frames of a split, on the CPU. People that are not in the folder yet are rendered into it by `jobs` processes."""
    count = data.people if split == "train" else data.test_people
    fixed = {**asdict(data), "people": 0, "test_people": 0, "crop": (crop.width, crop.height, crop.face, crop.centre)}
    digest = sha256(repr(sorted(fixed.items())).encode()).hexdigest()[:12]
    own = folder / f"version{data.version}-{data.size}-{digest}"
    own.mkdir(parents=True, exist_ok=True)
    tasks = [PersonTask(split, index, data, crop, own / f"{split}-{index:05}.npz") for index in range(count)]
    missing = [task for task in tasks if not task.path.exists()]
    if missing:
        report(f"rendering {len(missing)} people of the {split} split into {own}")
    for done, _ in enumerate(_rendered(missing, jobs), start=1):
        if done % 50 == 0:
            report(f"{done} of {len(missing)} people rendered")
    return load_people([task.path for task in tasks])


def _rendered(tasks: list[PersonTask], jobs: int) -> Iterator[None]:
    if jobs < 2 or len(tasks) < 2:
        yield from map(render_person, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(tasks)), initializer=_one_thread) as pool:
        yield from pool.imap_unordered(render_person, tasks)


def _one_thread() -> None:
    torch.set_num_threads(1)


def render_person(task: PersonTask) -> None:
    """Renders all clips of a person and writes them as one file."""
    data, performer = task.data, speaker(task.index, task.split)
    person = SyntheticPerson(f"{task.split}-{task.index}", task.index, task.split)
    options = SyntheticOptions(clips_per_speaker=data.clips)
    rng = np.random.default_rng((task.index, task.split == "train"))
    found: dict[str, list[np.ndarray]] = {item.name: [] for item in fields(FaceFrames)}
    wide = FaceCropConfig(
        **{
            **asdict(task.crop),
            "width": task.crop.width + 2 * data.margin,
            "height": task.crop.height + 2 * data.margin,
            "snap_scale": 1.0,
            "snap_angle": 180.0,
            "smoothing": 0,
        }
    )
    version: dict[str, Any] = {} if data.version == 1 else {"version": data.version}
    for role in roles(person, options):
        clip = make_clip(
            performer, role.emotion, role.intensity, role.seed, data.seconds, float(FPS), data.size, **version
        )
        count = len(clip.images)
        placement = place_face_crops(clip.head_keypoints, wide)
        if not np.allclose(placement.matrices[:, :, :2], np.eye(2)):
            raise PortraitError(
                f"faces in frames of {data.size} pixels do not fit crops in which they have {2 * task.crop.face:g}: choose another size"
            )
        images = torch.from_numpy(clip.images).movedim(3, 1)
        crops = crop_faces_upright(images, placement).movedim(1, 3).numpy()
        features = mel_features(Audio(torch.from_numpy(clip.audio)[None], 16000), count, float(FPS))
        controls = np.concatenate([clip.states.expression, clip.states.blink, clip.states.gaze], axis=1)
        chosen = rng.choice(count, size=min(data.portraits, count), replace=False)
        rows = {
            "crops": crops,
            "corners": -np.rint(placement.matrices[:, :, 2]).astype(np.int32),
            "keypoints": clip.head_keypoints.astype(np.float32),
            "landmarks": clip.landmarks.astype(np.float32),
            "controls": controls.astype(np.float32),
            "audio": features.half().numpy(),
            "emotion": np.array(EMOTIONS.index(role.emotion)),
            "person": np.array(task.index),
            "portraits": clip.images[chosen],
            "portrait_keypoints": clip.head_keypoints[chosen].astype(np.float32),
            "portrait_frames": chosen.astype(np.int64),
        }
        for name, values in rows.items():
            found[name].append(values)
    arrays = {name: np.stack(values) for name, values in found.items()}
    write_atomically(task.path, lambda partial: _save(partial, arrays))


def _save(path: Path, arrays: dict[str, Any]) -> None:
    with path.open("wb") as file:  # a file and not a name, to which numpy would add an ending
        np.savez(file, **arrays)


def load_people(paths: list[Path]) -> FaceFrames:
    """The files of people as one FaceFrames on the CPU."""
    people = []
    for path in paths:
        with np.load(path, allow_pickle=False) as stored:
            people.append({name: stored[name] for name in stored.files})
    if not people:
        raise PortraitError("there are 0 people to learn from: at least 1 is needed")
    names = [item.name for item in fields(FaceFrames)]
    return FaceFrames(
        **{name: torch.from_numpy(np.concatenate([person.pop(name) for person in people])) for name in names}
    )
