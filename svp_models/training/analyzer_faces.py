"""Pictures for the training of the built-in face analyser: many people with few frames each, drawn and looking like photographs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.schema import FPS
from ..io.strict_config import Checked, limited
from ..synthetic.clips import act
from ..synthetic.performance import EMOTIONS, INTENSITIES
from ..synthetic.renderer import renderer_for
from ..synthetic.speakers import speaker
from .checkpoint import write_atomically
from .logger import Report

PEOPLE_IN_FILE = 50
LAYOUT = 2  # of the files: with the eyes
TEST_FIRST = 5_000_000  # number of the first test person: none of them is in a training or an evaluation
SECONDS = 2.0  # of each performance


@dataclass(frozen=True)
class AnalyzerFacesConfig(Checked):
    """first: number of the first person of the training split; people: how many; frames: of a person, from two performances; test_people:
    of each version; drawn: share of people of version 1, the others are of version 2; size: pixels per side."""

    first: int = limited(0, 0, 2**31 - 1)
    people: int = limited(3000, 1, 10**6)
    test_people: int = limited(40, 1, 10**5)
    frames: int = limited(6, 2, 1000)
    drawn: float = limited(0.3, 0, 1)
    size: int = limited(144, 128, 1024)


@dataclass(frozen=True)
class AnalyzerFaces:
    """n pictures: images n S S 3, uint8; landmarks n 68 2 and head_keypoints n 8 2 in pixels; expression n 64; pose n 3, degrees;
    eyes: n 4, both lids (0 open to 1 closed) and gaze right and down, as in an expression track; version: n, of the picture."""

    images: Tensor
    landmarks: Tensor
    head_keypoints: Tensor
    expression: Tensor
    pose: Tensor
    eyes: Tensor
    version: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, chosen: Tensor) -> AnalyzerFaces:
        return AnalyzerFaces(**{item.name: getattr(self, item.name)[chosen] for item in fields(self)})


@dataclass(frozen=True)
class _Task:
    """One file to render: people (number, version) of a split."""

    people: tuple[tuple[int, int], ...]
    split: str
    frames: int
    size: int
    path: Path


def prepared_faces(
    config: AnalyzerFacesConfig, folder: Path, jobs: int, report: Report
) -> tuple[AnalyzerFaces, AnalyzerFaces]:
    """The pictures of training and of test people. Those that are not in the folder yet are rendered into it by `jobs` processes."""
    content = repr((LAYOUT, sorted(asdict(config).items())))
    own = folder / f"analyzer-{sha256(content.encode()).hexdigest()[:12]}"
    own.mkdir(parents=True, exist_ok=True)
    numbers = range(config.first, config.first + config.people)
    train = [(number, 1 if _share(number) < config.drawn else 2) for number in numbers]
    test = [(TEST_FIRST + number, version) for number in range(config.test_people) for version in (1, 2)]
    tasks = {
        split: [
            _Task(tuple(people[start : start + PEOPLE_IN_FILE]), split, config.frames, config.size, path)
            for start in range(0, len(people), PEOPLE_IN_FILE)
            if (path := own / f"{split}-{start:06}.npz")
        ]
        for split, people in (("train", train), ("test", test))
    }
    missing = [task for some in tasks.values() for task in some if not task.path.exists()]
    for done, _ in enumerate(_rendered(missing, jobs), start=1):
        if done % 10 == 0 or done == len(missing):
            report(f"{done} of {len(missing)} files with {PEOPLE_IN_FILE} people rendered into {own}")
    return _load([task.path for task in tasks["train"]]), _load([task.path for task in tasks["test"]])


def _share(number: int) -> float:
    """0 .. 1, evenly over the people, so that every part of them has as many drawings."""
    return number * 0.6180339887498949 % 1


def _rendered(tasks: list[_Task], jobs: int) -> Iterator[None]:
    if jobs < 2 or len(tasks) < 2:
        yield from map(_render, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(min(jobs, len(tasks)), torch.set_num_threads, (1,)) as pool:
        yield from pool.imap_unordered(_render, tasks)


def _render(task: _Task) -> None:
    found: dict[str, list[np.ndarray]] = {item.name: [] for item in fields(AnalyzerFaces)}
    for number, version in task.people:
        who, rng = speaker(number, task.split), np.random.default_rng((number, task.frames))
        renderer = renderer_for(who.identity, version)
        for count in (task.frames // 2, task.frames - task.frames // 2):
            emotion = EMOTIONS[int(rng.integers(len(EMOTIONS)))]
            intensity = int(rng.choice(INTENSITIES))
            frames = round(SECONDS * FPS)
            _, _, states = act(who, emotion, intensity, int(rng.integers(2**31)), frames, float(FPS))
            for row in rng.choice(frames, size=count, replace=False):
                face = renderer.render(
                    states.expression[row], states.pose[row], states.blink[row], states.gaze[row], task.size
                )
                found["images"].append(face.image)
                found["landmarks"].append(face.landmarks)
                found["head_keypoints"].append(face.head_keypoints)
                found["expression"].append(states.expression[row])
                found["pose"].append(states.pose[row, :3])
                found["eyes"].append(np.concatenate([states.blink[row], states.gaze[row]]))
                found["version"].append(np.array(version))
    arrays = {name: np.stack(values) for name, values in found.items()}
    arrays |= {name: value.astype(np.float32) for name, value in arrays.items() if value.dtype == np.float64}
    write_atomically(task.path, lambda partial: _save(partial, arrays))


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # a file and not a name, to which numpy would add an ending
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stubs take the names for `allow_pickle`


def _load(paths: list[Path]) -> AnalyzerFaces:
    parts: dict[str, list[Tensor]] = {item.name: [] for item in fields(AnalyzerFaces)}
    for path in paths:
        with np.load(path, allow_pickle=False) as stored:
            for name, found in parts.items():
                found.append(torch.from_numpy(stored[name]))
    return AnalyzerFaces(**{name: torch.cat(values) for name, values in parts.items()})
