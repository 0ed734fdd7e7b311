"""How landmarks move with an expression track, learnt from synthetic speakers: the basis of the expression warp."""

from __future__ import annotations

import numpy as np
import torch

from ..face.expression_warp import POINTS, ExpressionBasis
from ..motion.coefficients import EXPRESSION_SIZE
from .clips import act
from .geometry import FaceGeometry
from .identity import appearance
from .performance import EMOTIONS
from .speakers import speaker

FRAMES, FPS = 40, 25.0  # of a clip
EVERY = 2  # frames of a clip that are used
RIDGE = 1e-4  # of the mean square of the numbers, so that those that hardly move are not made up


def fit_expression_basis(people: int, clips: int, version: int = 2, seed: int = 0) -> ExpressionBasis:
    """Ridge regression of the points of `people` training speakers, less those of the face at rest, on 64 coefficients, lids and
    gaze, in `clips` clips of a speaker with random emotions. Lids move nothing: `moved_points` closes them. version: of the faces,
    see `FaceGeometry`."""
    rng = np.random.default_rng(seed)
    numbers, moved, depths = [], [], []
    for index in range(people):
        performer = speaker(index, "train")
        geometry = FaceGeometry(appearance(performer.identity).shape, version)
        rest = _points(geometry, np.zeros(EXPRESSION_SIZE), np.zeros(2), np.zeros(2))
        depths.append(rest[:, 2])
        for _ in range(clips):
            emotion, intensity = EMOTIONS[rng.integers(len(EMOTIONS))], int(rng.integers(1, 4))
            _, _, states = act(performer, emotion, intensity, int(rng.integers(10**6)), FRAMES, FPS)
            for frame in range(0, FRAMES, EVERY):
                parts = states.expression[frame], np.zeros(2), states.gaze[frame]
                numbers.append(np.concatenate(parts))
                moved.append(_points(geometry, *parts) - rest)
    known, wanted = np.array(numbers, np.float64), np.array(moved, np.float64).reshape(len(moved), -1)
    normal = known.T @ known
    normal += np.eye(len(normal)) * RIDGE * np.trace(normal) / len(normal)
    movement = np.linalg.solve(normal, known.T @ wanted).reshape(-1, POINTS, 3)
    return ExpressionBasis(torch.from_numpy(movement).float(), torch.from_numpy(np.mean(depths, axis=0)).float())


def _points(geometry: FaceGeometry, expression: np.ndarray, blink: np.ndarray, gaze: np.ndarray) -> np.ndarray:
    solid, pupils = geometry.deform(expression, blink, gaze)
    return np.concatenate([solid[:68], pupils])
