"""Metrics of the 68 landmarks (iBUG markup) of a face: landmark distances, openings of mouth and lids, blinks.

Points are in pixels, n x 68 x 2. The unit of a face's own size is the distance of the outer eye corners.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating]

# The inner lips' middle, and the outer eye corners that give the face's scale.
INNER_LIP_TOP, INNER_LIP_BOTTOM = 62, 66
EYE_LEFT, EYE_RIGHT = 36, 45
NOSE_BASE = 33
MOUTH = tuple(range(48, 68))
EYES, BROWS = tuple(range(36, 48)), tuple(range(17, 27))
# Of an eye: outer and inner corner, two points of the upper lid and those below them.
LIDS = ((36, 39, (37, 38), (41, 40)), (45, 42, (44, 43), (46, 47)))
PICTURE_SIDE = 256  # pixels, of the pictures that landmark distances are usually given for
SHUT = 0.5  # of the usual opening: lids nearer than that are shut
LONGEST_BLINK = 0.5  # seconds


def eye_distance(landmarks: Points) -> NDArray[np.floating]:
    """Distance of the outer eye corners per frame: n x 68 x 2 -> n."""
    return np.linalg.norm(landmarks[:, EYE_LEFT] - landmarks[:, EYE_RIGHT], axis=-1)


def mouth_opening(landmarks: Points) -> NDArray[np.floating]:
    """Distance of the inner lips over that of the outer eye corners, per frame: n x 68 x 2 -> n."""
    lips = np.linalg.norm(landmarks[:, INNER_LIP_TOP] - landmarks[:, INNER_LIP_BOTTOM], axis=-1)
    return lips / eye_distance(landmarks)


def lower_lip_drop(landmarks: Points) -> NDArray[np.floating]:
    """Distance of the lower inner lip from the base of the nose over that of the outer eye corners, per frame: n x 68 x 2 -> n.

    It follows the jaw, so it tells more of speech than the opening does where lips are pressed or parted at rest.
    """
    drop = np.linalg.norm(landmarks[:, INNER_LIP_BOTTOM] - landmarks[:, NOSE_BASE], axis=-1)
    return drop / eye_distance(landmarks)


def lid_opening(landmarks: Points) -> NDArray[np.floating]:
    """Eye aspect ratio (Soukupova and Cech 2016), mean of both eyes, per frame: n x 68 x 2 -> n; 0 is shut, about 0.3 open."""
    ratios = []
    for outer, inner, upper, lower in LIDS:
        gap = np.linalg.norm(landmarks[:, upper] - landmarks[:, lower], axis=-1).mean(1)
        ratios.append(gap / np.linalg.norm(landmarks[:, outer] - landmarks[:, inner], axis=-1))
    return np.mean(ratios, axis=0)


def blinks(opening: NDArray[np.floating], fps: float) -> list[int]:
    """The first frames of the blinks in a series of `lid_opening`: below half of its median, for half a second at most."""
    shut = (
        np.concatenate([[False], opening < SHUT * np.median(opening), [False]]) if len(opening) else np.zeros(1, bool)
    )
    starts, ends = (np.flatnonzero(np.diff(shut.astype(np.int8)) == way) for way in (1, -1))
    return [int(start) for start, end in zip(starts, ends, strict=True) if end - start <= LONGEST_BLINK * fps]


def blink_rate(opening: NDArray[np.floating], fps: float) -> float:
    """Blinks a minute, see `blinks`; 0 for no frames."""
    return 60 * fps * len(blinks(opening, fps)) / len(opening) if len(opening) else 0.0


def landmark_distances(generated: Points, true: Points, which: tuple[int, ...] | None = None) -> NDArray[np.floating]:
    """Mean distance of corresponding points per frame, in pixels: n x 68 x 2 twice -> n. which: of the points, None for all."""
    chosen = slice(None) if which is None else list(which)
    return np.linalg.norm(np.asarray(generated, np.float64)[:, chosen] - true[:, chosen], axis=-1).mean(1)


def landmark_distance(generated: Points, true: Points, which: tuple[int, ...] | None = None) -> float:
    """LMD (Chen et al. 2018) normalised by the face: mean distance over that of the true outer eye corners, over all frames.

    F-LMD takes all 68 points, M-LMD the 20 of `MOUTH`. The faces are not aligned first: a head in the wrong place counts.
    """
    return float((landmark_distances(generated, true, which) / eye_distance(true)).mean())


def landmark_distance_256(generated: Points, true: Points, width: int, which: tuple[int, ...] | None = None) -> float:
    """LMD in the pixels of a picture of 256 a side: mean distance x 256 / width, where `width` is that of the frames."""
    return float(landmark_distances(generated, true, which).mean()) * PICTURE_SIDE / width


def keypoint_error(measured: Points, true: Points, width: int) -> float:
    """Mean distance of points (n x k x 2, pixels) as a fraction of the image width."""
    return float(np.linalg.norm(measured - true, axis=-1).mean() / width)
