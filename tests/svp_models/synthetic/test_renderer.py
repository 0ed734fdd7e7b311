from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from svp_portrait.svp_models.motion.coefficients import EXPRESSION_NAMES, expression_vector
from svp_portrait.svp_models.synthetic.identity import IDENTITY_NAMES, FaceStates, sample_identity
from svp_portrait.svp_models.synthetic.renderer import FaceRenderer, RenderedFace, render_clip

REST = np.array([0, 0, 0, 0, 0, 1], dtype=np.float32)
STILL = np.zeros(2, dtype=np.float32)
PLAIN = np.zeros(80, dtype=np.float32)
for _name, _value in (("hair_style", -0.95), ("skin_depth", -0.7), ("clothes_style", -0.95), ("light_side", -0.9)):
    PLAIN[IDENTITY_NAMES.index(_name)] = _value


def pose(**values: float) -> np.ndarray:
    result = REST.copy()
    for name, value in values.items():
        result[("yaw", "pitch", "roll", "shift_x", "shift_y", "scale").index(name)] = value
    return result


def draw(
    expression: np.ndarray | None = None, where: np.ndarray = REST, identity: np.ndarray = PLAIN, size: int = 128
) -> RenderedFace:
    neutral = expression_vector() if expression is None else expression
    return FaceRenderer(identity).render(neutral, where, STILL, STILL, size)


def at(image: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The pixel that contains a position; (0, 0) is the picture's corner."""
    return image[int(point[1]), int(point[0])].astype(int)


@pytest.mark.parametrize("size", [64, 128, 200, 256])
def test_shapes_and_types(size: int) -> None:
    drawn = draw(size=size)
    assert drawn.image.shape == (size, size, 3) and drawn.image.dtype == np.uint8
    assert drawn.landmarks.shape == (68, 2) and drawn.landmarks.dtype == np.float32
    assert drawn.head_keypoints.shape == (8, 2) and drawn.head_keypoints.dtype == np.float32
    assert drawn.mask.shape == (size, size) and set(np.unique(drawn.mask)) == {0, 255}


def test_same_input_same_bytes() -> None:
    identity = sample_identity(np.random.default_rng(7))
    smile = expression_vector(corner_up=0.8, jaw_open=0.4)
    first, second = draw(smile, pose(yaw=10), identity), draw(smile, pose(yaw=10), identity)
    assert first.image.tobytes() == second.image.tobytes()
    assert first.landmarks.tobytes() == second.landmarks.tobytes()


@pytest.mark.parametrize("where", [REST, pose(yaw=20, roll=8), pose(yaw=-20, pitch=10, shift_x=0.05, scale=1.1)])
def test_pupils_are_dark_and_beside_white_at_their_keypoints(where: np.ndarray) -> None:
    drawn = draw(where=where, size=256)
    for pupil in drawn.head_keypoints[4:6]:
        assert at(drawn.image, pupil).sum() < 150
    left, right = drawn.landmarks[[36, 39]]
    row = drawn.image[int(drawn.head_keypoints[4, 1]), int(left[0]) : int(right[0])].astype(int)
    assert row.sum(axis=1).max() > 600


def test_open_mouth_is_dark_between_the_inner_lips() -> None:
    drawn = draw(expression_vector(jaw_open=1, upper_teeth_show=-1), size=256)
    inner = drawn.landmarks[[62, 66]]
    middle = at(drawn.image, inner[0] * 0.55 + inner[1] * 0.45)
    cheek = at(drawn.image, drawn.landmarks[31] + [-20, 5])
    assert middle.sum() < 0.5 * cheek.sum()


def test_brows_and_lips_are_drawn_at_their_landmarks() -> None:
    drawn = draw(expression_vector(brow_inner_up=0.5, lips_full=0.5), pose(yaw=-15, roll=5), size=256)
    skin = at(drawn.image, drawn.landmarks[27] + [0, -40]).sum()
    for index in (19, 24):
        assert at(drawn.image, drawn.landmarks[index]).sum() < 0.75 * skin
    lower_lip = at(drawn.image, drawn.landmarks[57] * 0.6 + drawn.landmarks[66] * 0.4)
    assert lower_lip[0] - lower_lip[1] > at(drawn.image, drawn.landmarks[33] + [0, 25])[0] * 0.15


def test_mask_ends_at_the_jaw_landmarks() -> None:
    drawn = draw(where=pose(yaw=12, roll=-6), size=256)
    contour, _ = cv2.findContours(drawn.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for point in drawn.landmarks[:17]:
        distance = cv2.pointPolygonTest(contour[0], (float(point[0] - 0.5), float(point[1] - 0.5)), True)
        assert abs(distance) < 1.2


def test_symmetric_face_draws_symmetrically() -> None:
    drawn = draw(size=256)
    mirrored = drawn.landmarks[[16, 15, 14, 13, 12, 11, 10, 9, 8]] * [-1, 1] + [256, 0]
    np.testing.assert_allclose(mirrored, drawn.landmarks[:9], atol=1e-2)
    np.testing.assert_allclose(drawn.head_keypoints[0] * [-1, 1] + [256, 0], drawn.head_keypoints[2], atol=1e-2)
    assert (drawn.mask != drawn.mask[:, ::-1]).mean() < 0.003


@pytest.mark.parametrize("name", EXPRESSION_NAMES)
def test_every_coefficient_changes_the_picture(name: str) -> None:
    coefficients = expression_vector()
    coefficients[EXPRESSION_NAMES.index(name)] = 1
    change = np.abs(draw(coefficients, size=96).image.astype(int) - draw(size=96).image.astype(int)).max(axis=2)
    assert (change > 8).sum() >= 3, f"{name} changes too little"


def test_background_stands_still() -> None:
    renderer = FaceRenderer(sample_identity(np.random.default_rng(2)))
    first = renderer.render(expression_vector(), REST, STILL, STILL, 128).image
    second = renderer.render(expression_vector(jaw_open=1), pose(yaw=15, shift_x=0.03), STILL, STILL, 128).image
    np.testing.assert_array_equal(first[:12, :12], second[:12, :12])


def test_edges_are_antialiased() -> None:
    drawn = draw(size=128)
    chin = drawn.landmarks[8]
    strip = drawn.image[int(chin[1]) - 6 : int(chin[1]) + 8, int(chin[0]), 0].astype(int)
    eye = drawn.image[int(drawn.head_keypoints[4, 1]), int(drawn.landmarks[36, 0]) : int(drawn.landmarks[39, 0])]
    assert len(np.unique(strip)) > 5
    assert len(np.unique(eye.astype(int).sum(axis=1))) > 5


def test_clip_stacks_frames() -> None:
    frames = 3
    states = FaceStates(
        expression=np.stack([expression_vector(jaw_open=value) for value in (0.0, 0.5, 1.0)]),
        pose=np.tile(REST, (frames, 1)),
        blink=np.zeros((frames, 2), np.float32),
        gaze=np.zeros((frames, 2), np.float32),
    )
    clip = render_clip(PLAIN, states, 64)
    assert clip.images.shape == (3, 64, 64, 3) and clip.masks.shape == (3, 64, 64)
    assert clip.landmarks.shape == (3, 68, 2) and clip.head_keypoints.shape == (3, 8, 2)
    np.testing.assert_array_equal(clip.images[2], draw(expression_vector(jaw_open=1), size=64).image)
    opening = clip.landmarks[:, 66, 1] - clip.landmarks[:, 62, 1]
    assert (np.diff(opening) > 1).all()


def test_extreme_states_do_not_fail() -> None:
    rng = np.random.default_rng(5)
    for seed in range(6):
        renderer = FaceRenderer(sample_identity(np.random.default_rng(seed)))
        where = pose(
            yaw=rng.uniform(-35, 35), pitch=rng.uniform(-25, 25), roll=rng.uniform(-25, 25), shift_x=0.6, scale=2
        )
        renderer.render(rng.uniform(-1, 1.5, 64).astype(np.float32), where, np.ones(2), np.array([1.0, -1.0]), 64)


def test_a_frame_takes_less_than_thirty_milliseconds_of_one_core() -> None:
    renderer = FaceRenderer(sample_identity(np.random.default_rng(11)))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    renderer.render(expression_vector(), REST, STILL, STILL, 128)
    start = time.process_time()
    for step in range(20):
        renderer.render(expression_vector(jaw_open=step / 20), REST, STILL, STILL, 128)
    seconds = (time.process_time() - start) / 20
    cv2.setNumThreads(threads)
    assert seconds < 0.030
