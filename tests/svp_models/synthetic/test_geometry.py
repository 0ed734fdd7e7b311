from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.motion.coefficients import EXPRESSION_NAMES, expression_vector
from svp_portrait.svp_models.synthetic.expressions import displacement_fields, mirror_index
from svp_portrait.svp_models.synthetic.geometry import FaceGeometry, Pose, project
from svp_portrait.svp_models.synthetic.identity import IDENTITY_NAMES, appearance, sample_identity

STILL = np.zeros(2, dtype=np.float32)
REST = Pose(0, 0, 0, 0, 0, 1)


def average() -> FaceGeometry:
    return FaceGeometry(dict.fromkeys(IDENTITY_NAMES, 0.0))


def test_neutral_face_is_its_own_mirror_image() -> None:
    for seed in range(5):
        neutral = FaceGeometry(appearance(sample_identity(np.random.default_rng(seed))).shape).neutral
        np.testing.assert_allclose(neutral[mirror_index()] * [-1, 1, 1], neutral, atol=1e-5)


def test_mirror_index_undoes_itself() -> None:
    order = mirror_index()
    np.testing.assert_array_equal(order[order], np.arange(len(order)))


def test_left_and_right_coefficients_mirror_each_other() -> None:
    fields, order = displacement_fields(), mirror_index()
    for index, name in enumerate(EXPRESSION_NAMES):
        if name.endswith("_l"):
            other = fields[EXPRESSION_NAMES.index(name[:-2] + "_r")]
            np.testing.assert_allclose(fields[index][order] * [-1, 1, 1], other, atol=1e-6)


@pytest.mark.parametrize("name", EXPRESSION_NAMES)
def test_every_coefficient_moves_points(name: str) -> None:
    field = displacement_fields()[EXPRESSION_NAMES.index(name)]
    assert np.linalg.norm(field, axis=1).max() >= 0.02


def test_projection_at_rest_frames_the_face() -> None:
    points = project(average().neutral, REST, 1000)
    width = points[16, 0] - points[0, 0]
    assert 440 < width < 510
    assert 420 < points[36:48, 1].mean() < 460  # eyes at 42 .. 46 % of the height
    assert abs(points[30, 0] - 500) < 0.5


def test_signs_of_the_pose() -> None:
    neutral = average().neutral
    rest = project(neutral, REST, 100)
    assert project(neutral, Pose(20, 0, 0, 0, 0, 1), 100)[30, 0] > rest[30, 0] + 3
    assert project(neutral, Pose(0, 12, 0, 0, 0, 1), 100)[30, 1] > rest[30, 1] + 2
    tilted = project(neutral, Pose(0, 0, 10, 0, 0, 1), 100)
    assert tilted[27, 0] > rest[27, 0] and tilted[45, 1] > tilted[36, 1]
    np.testing.assert_allclose(
        project(neutral, Pose(0, 0, 0, 0.1, -0.05, 1), 100) - rest, [[10, -5]] * len(rest), atol=1e-3
    )
    larger = project(neutral, Pose(0, 0, 0, 0, 0, 1.2), 100)
    np.testing.assert_allclose(larger[16, 0] - larger[0, 0], 1.2 * (rest[16, 0] - rest[0, 0]), rtol=1e-4)


def test_far_cheek_shrinks_and_nose_leads() -> None:
    turned = project(average().neutral, Pose(25, 0, 0, 0, 0, 1), 100)
    far = turned[16, 0] - turned[45, 0]
    near = turned[36, 0] - turned[0, 0]
    assert 0 < far < 0.5 * near


def test_lips_and_lids_never_cross() -> None:
    rng = np.random.default_rng(0)
    geometry = average()
    for _ in range(200):
        points, _ = geometry.deform(rng.uniform(-0.3, 1.2, 64).astype(np.float32), rng.uniform(0, 1, 2), STILL)
        assert (points[[67, 66, 65], 1] >= points[[61, 62, 63], 1] - 1e-4).all()
        assert (points[[41, 40, 47, 46], 1] >= points[[37, 38, 43, 44], 1] - 1e-4).all()
        assert (points[[50, 51, 52], 1] < points[[61, 62, 63], 1]).all()


def test_jaw_opens_the_mouth_and_blink_closes_the_eyes() -> None:
    geometry = average()
    face_height = geometry.neutral[8, 1] - geometry.neutral[68 + 4, 1]
    points, _ = geometry.deform(expression_vector(jaw_open=1), STILL, STILL)
    assert 0.11 < (points[66, 1] - points[62, 1]) / face_height < 0.18
    raised, _ = geometry.deform(expression_vector(brow_inner_up=1, brow_outer_up=1), STILL, STILL)
    assert (geometry.neutral[19, 1] - raised[19, 1]) / face_height > 0.055
    closed, _ = geometry.deform(expression_vector(), np.array([1.0, 0.0]), STILL)
    assert closed[41, 1] - closed[37, 1] < 0.01
    assert closed[47, 1] - closed[43, 1] > 0.12


def test_gaze_moves_pupils_only() -> None:
    geometry = average()
    rest, pupils = geometry.deform(expression_vector(), STILL, STILL)
    points, moved = geometry.deform(expression_vector(), STILL, np.array([1.0, 0.5]))
    np.testing.assert_array_equal(rest, points)
    assert (moved[:, 0] > pupils[:, 0] + 0.08).all() and (moved[:, 1] > pupils[:, 1] + 0.02).all()
