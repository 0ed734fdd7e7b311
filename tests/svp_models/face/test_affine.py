from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.affine import (
    fit_similarity,
    invert_affine,
    square_matrix,
    transform_points,
    warp_square,
)


def test_a_known_similarity_is_found_again_and_undone():
    angle, scale, shift = 0.4, 2.5, np.array([30.0, -7.0])
    known = np.column_stack(
        [scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]), shift]
    )
    points = np.random.default_rng(0).uniform(0, 100, (5, 2))
    found = fit_similarity(points, transform_points(points, known))
    assert np.allclose(found, known)
    assert np.allclose(transform_points(transform_points(points, found), invert_affine(found)), points)


def test_mirrored_points_are_not_mirrored_back():
    points = np.array([[0.0, 0], [2, 0], [0, 1]])
    found = fit_similarity(points, points * (-1, 1))
    assert np.linalg.det(found[:, :2]) >= 0


def test_points_on_one_spot_are_refused():
    with pytest.raises(PortraitError, match="one spot"):
        fit_similarity(np.ones((5, 2)), np.zeros((5, 2)))


def test_the_box_fills_its_share_of_the_square():
    matrix = square_matrix(np.array([100.0, 50, 200, 250]), 192, 1.5)
    assert np.allclose(transform_points(np.array([150.0, 150.0]), matrix), (96, 96))
    top, bottom = transform_points(np.array([[150.0, 50], [150, 250]]), matrix)[:, 1]
    assert np.isclose(bottom - top, 192 / 1.5)


def test_an_angle_is_turned_back():
    matrix = square_matrix(np.array([0.0, 0, 100, 100]), 100, 1.0, angle=np.radians(30))
    right = transform_points(np.array([50 + 10 * np.cos(np.radians(30)), 50 + 10 * np.sin(np.radians(30))]), matrix)
    assert np.allclose(right, (60, 50))  # what points 30 degrees down to the right lies level


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_a_crop_shows_each_point_where_the_map_puts_it(scale):
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[80:96, 120:136] = 255  # its middle: (128, 88)
    matrix = np.array([[scale, 0, 50 - 128 * scale], [0, scale, 60 - 88 * scale]])
    shown = warp_square(frame, matrix, 128)[..., 0].astype(float)
    rows, columns = np.indices(shown.shape) + 0.5
    centre = [(shown * each).sum() / shown.sum() for each in (columns, rows)]
    assert np.allclose(centre, (50, 60), atol=0.1)
    assert np.isclose(shown.sum() / 255, (16 * scale) ** 2, rtol=0.05)


def test_shrinking_averages():
    fine = np.zeros((256, 256, 3), np.uint8)
    fine[:, ::2] = 200  # stripes of one pixel
    shown = warp_square(fine, np.array([[0.25, 0, 0], [0, 0.25, 0]]), 64)
    assert abs(float(shown.mean()) - 100) < 2 and shown.std() < 2
