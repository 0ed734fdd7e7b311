from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.dataset.framing import Square, cut_square, outside_share, square_around, to_square


def test_the_square_lies_around_all_places_of_the_face():
    boxes = np.array([[500.0, 300, 600, 420], [540, 310, 640, 420]])  # union 140 x 120
    square = square_around(boxes, 1920, 1080, margin=2.0)
    assert square == Square(570 - 140, round(360 - 12 - 140), 280)  # a tenth of 120 higher than the middle


def test_it_is_no_larger_than_the_picture_and_moved_into_it():
    square = square_around(np.array([[150.0, 60, 350, 260]]), 512, 320, margin=2.0)
    assert square == Square(250 - 160, 0, 320)
    beside = square_around(np.array([[20.0, 100, 120, 200]]), 512, 512, margin=2.0)
    assert beside == Square(0, 150 - 10 - 100, 200)


def test_it_leaves_the_picture_only_where_the_face_demands_it():
    corner = square_around(np.array([[0.0, 0, 100, 100]]), 512, 512, margin=2.0)
    assert corner == Square(0, 0, 200) and outside_share(corner, 512, 512) == 0
    beyond = square_around(np.array([[-40.0, 100, 60, 200]]), 512, 512, margin=2.0)
    assert beyond == Square(-40, 40, 200) and outside_share(beyond, 512, 512) == pytest.approx(0.2)
    narrow = square_around(np.array([[0.0, 100, 300, 400]]), 300, 1000, margin=1.7)
    assert narrow == Square(-15, 70, 330) and outside_share(narrow, 300, 1000) == pytest.approx(30 / 330)


def test_what_is_outside_repeats_the_edge():
    frame = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    cut = cut_square(frame, Square(-2, 3, 4), 4)
    assert np.array_equal(cut[:, 2:], np.concatenate([frame[3:6, :2], frame[5:6, :2]]))
    assert np.array_equal(cut[:, 0], cut[:, 2]) and np.array_equal(cut[:, 1], cut[:, 2])
    assert np.array_equal(cut_square(frame, Square(1, 2, 4), 4), frame[2:6, 1:5])


@pytest.mark.parametrize("side, size", [(40, 80), (80, 32), (48, 48)])
def test_points_go_where_the_pixels_go(side, size):
    frame = np.zeros((100, 120, 3), np.uint8)
    frame[30:40, 50:60] = 255  # its middle is (55, 35)
    square = Square(35, 15, side)
    cut = cut_square(frame, square, size)
    rows, columns = np.indices(cut.shape[:2]) + 0.5
    weight = cut[..., 0].astype(float)
    middle = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
    assert np.allclose(middle, to_square(np.array([55.0, 35.0]), square, size), atol=0.02)
    assert to_square(np.array([[35.0, 15], [35 + side, 15 + side]]), square, size).tolist() == [[0, 0], [size, size]]
