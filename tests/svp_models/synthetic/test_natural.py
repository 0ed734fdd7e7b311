"""Version 2's pictures agree with their labels: lids, mouth, teeth, gaze, outline."""

from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.motion.coefficients import expression_vector
from svp_portrait.svp_models.synthetic.natural import NaturalRenderer
from svp_portrait.svp_models.synthetic.rendered import RenderedFace
from svp_portrait.svp_models.synthetic.speakers import speaker

REST = np.array([0, 0, 0, 0, 0, 1], np.float32)
STILL = np.zeros(2, np.float32)
PEOPLE = (3, 5, 7, 9)
SIZE = 256


@pytest.fixture(scope="module")
def renderers() -> dict[int, NaturalRenderer]:
    return {number: NaturalRenderer(speaker(number, "train").identity) for number in PEOPLE}


def draw(
    renderer: NaturalRenderer,
    expression: np.ndarray | None = None,
    pose: np.ndarray = REST,
    blink: np.ndarray = STILL,
    gaze: np.ndarray = STILL,
    size: int = SIZE,
) -> RenderedFace:
    neutral = expression_vector() if expression is None else expression
    return renderer.render(neutral, pose, blink, gaze, size)


def around(face: RenderedFace, point: np.ndarray, reach: int = 2) -> np.ndarray:
    """Mean colour of the pixels around a position."""
    x, y = int(point[0]), int(point[1])
    return face.image[y - reach : y + reach + 1, x - reach : x + reach + 1].reshape(-1, 3).mean(axis=0)


def test_shapes_and_types(renderers) -> None:
    for size in (64, 96, 160):
        drawn = draw(renderers[3], size=size)
        assert drawn.image.shape == (size, size, 3) and drawn.image.dtype == np.uint8
        assert drawn.landmarks.shape == (68, 2) and drawn.head_keypoints.shape == (8, 2)
        assert drawn.mask.shape == (size, size) and set(np.unique(drawn.mask)) == {0, 255}


@pytest.mark.parametrize("number", PEOPLE)
def test_closed_lids_cover_the_iris(renderers, number: int) -> None:
    """Where the pupil was dark, a closed eye shows skin."""
    opened, closed = draw(renderers[number]), draw(renderers[number], blink=np.ones(2, np.float32))
    for pupil, corners in ((4, (36, 39)), (5, (42, 45))):
        where = opened.head_keypoints[pupil]
        below = closed.landmarks[list(corners)].mean(axis=0) + [0, 14]
        skin = around(closed, below).sum()
        assert around(opened, where, 1).sum() < 0.75 * skin
        lid = around(closed, where - [0, 3], 1).sum()  # above the lashes; make-up may darken it
        assert lid > 1.5 * around(opened, where, 1).sum() and lid > 0.5 * skin


def inside_mouth(face: RenderedFace) -> np.ndarray:
    """Pixels between the inner lips, n x 3, one column of them at the middle."""
    top, bottom = face.landmarks[62], face.landmarks[66]
    rows = np.arange(int(top[1]) + 1, int(np.ceil(bottom[1])))
    return face.image[rows, int(top[0])].astype(float)


@pytest.mark.parametrize("number", PEOPLE)
def test_teeth_show_only_when_the_mouth_is_open(renderers, number: int) -> None:
    """Teeth are pale: little colour, and brighter than the cavity behind them."""

    def pale(face: RenderedFace) -> int:
        box = face.landmarks[48:60]
        left, right = int(box[:, 0].min()) + 8, int(box[:, 0].max()) - 8
        top, bottom = int(face.landmarks[[50, 52], 1].min()) + 2, int(face.landmarks[57, 1]) - 1
        pixels = face.image[top:bottom, left:right].reshape(-1, 3).astype(float)
        return int(((pixels.min(axis=1) > 0.74 * pixels.max(axis=1)) & (pixels.max(axis=1) > 70)).sum())

    smile = draw(renderers[number], expression_vector(jaw_open=0.35, upper_teeth_show=1.0, corner_out=0.4))
    shut = draw(renderers[number], expression_vector(lips_press=0.3))
    assert pale(smile) > pale(shut) + 25


def test_the_mouth_opens_in_the_picture_as_in_the_labels(renderers) -> None:
    """Dark and tooth pixels between the lips grow with the labelled gap."""
    labelled, seen = [], []
    for amount in np.linspace(0, 1.2, 7):
        face = draw(renderers[3], expression_vector(jaw_open=float(amount), upper_teeth_show=-1.0))
        middle = face.landmarks[[62, 66], 0].mean()
        column = face.image[:, int(middle)].astype(float).sum(axis=1)
        rows = slice(int(face.landmarks[51, 1]) - 2, int(face.landmarks[57, 1]) + 2)
        lip = around(face, face.landmarks[57] * 0.6 + face.landmarks[66] * 0.4, 1).sum()
        seen.append((column[rows] < 0.55 * lip).sum())
        labelled.append(face.landmarks[66, 1] - face.landmarks[62, 1])
    assert np.all(np.diff(labelled) > 0)
    assert np.corrcoef(labelled, seen)[0, 1] > 0.9


@pytest.mark.parametrize("number", PEOPLE)
def test_the_pupil_moves_with_the_gaze_and_lies_at_its_keypoint(renderers, number: int) -> None:
    left, right = (draw(renderers[number], gaze=np.float32([side, 0])) for side in (-0.8, 0.8))
    for pupil in (4, 5):
        assert right.head_keypoints[pupil, 0] - left.head_keypoints[pupil, 0] > 6
        for shown, other in ((left, right), (right, left)):
            here, there = shown.head_keypoints[pupil], other.head_keypoints[pupil]
            assert around(shown, here, 1).sum() < around(shown, there, 1).sum()


def test_the_background_stands_still_while_the_head_moves(renderers) -> None:
    moved = np.array([12, -4, 3, 0.02, 0, 1], np.float32)
    for renderer in renderers.values():
        first, second = draw(renderer).image, draw(renderer, expression_vector(jaw_open=1), moved).image
        assert np.abs(first[:12, :12].astype(int) - second[:12, :12]).max() <= 3


def test_extreme_states_do_not_fail(renderers) -> None:
    rng = np.random.default_rng(5)
    for renderer in renderers.values():
        pose = np.array([rng.uniform(-35, 35), rng.uniform(-25, 25), rng.uniform(-25, 25), 0.6, 0, 2], np.float32)
        expression = rng.uniform(-1, 1.5, 64).astype(np.float32)
        renderer.render(expression, pose, np.ones(2), np.array([1.0, -1.0]), 64)
        renderer.render(expression, pose * [1, 1, 1, -3, 3, 1], np.zeros(2), np.array([1.0, -1.0]), 96)


def test_people_look_different_and_light_comes_from_any_side() -> None:
    """Skin from dark to fair, cheeks lit from the left or from the right, sharp and soft pictures."""
    skin, sides, sharpness = [], [], []
    for number in range(24):
        face = draw(NaturalRenderer(speaker(number, "test").identity), size=128)
        left, right = (face.landmarks[[side, wing]].mean(axis=0) for side, wing in ((2, 31), (14, 35)))
        cheeks = np.array([around(face, left).sum(), around(face, right).sum()]) / 3
        skin.append(cheeks.mean())
        sides.append(np.log(cheeks[0] / cheeks[1]))
        grey = face.image[..., 1].astype(float)
        sharpness.append(np.abs(np.diff(grey, axis=1)).mean())
    assert min(skin) < 100 and max(skin) > 170
    assert min(sides) < -0.15 and max(sides) > 0.15
    assert max(sharpness) > 2 * min(sharpness)
