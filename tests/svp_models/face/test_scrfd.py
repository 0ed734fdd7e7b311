from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.face.detectors.insightface import (
    anchor_centres,
    decode_faces,
    decode_level,
    detector_input,
    suppress,
)


def test_anchors_stand_two_and_two_row_by_row():
    centres = anchor_centres(64, 16)
    assert centres.shape == (2 * 4 * 4, 2)
    assert centres[:6].tolist() == [[0, 0], [0, 0], [16, 0], [16, 0], [32, 0], [32, 0]]
    assert centres[8].tolist() == [0, 16] and centres[-1].tolist() == [48, 48]


def test_distances_are_measured_from_the_anchor_in_strides():
    scores = np.zeros((32, 1), np.float32)
    boxes, points = np.zeros((32, 4), np.float32), np.zeros((32, 10), np.float32)
    row = 2 * (1 * 4 + 2) + 1  # second anchor of the cell in row 1, column 2
    scores[row], boxes[row] = 0.9, (1, 0.5, 2, 3)
    points[row] = np.arange(10) / 10
    score, box, five = decode_level(scores, boxes, points, 64, 16)
    assert score.tolist() == [np.float32(0.9)] and box.tolist() == [[32 - 16, 16 - 8, 32 + 32, 16 + 48]]
    assert np.allclose(five[0], np.arange(10).reshape(5, 2) / 10 * 16 + (32, 16))


def test_scores_below_a_half_are_nothing():
    empty = decode_level(np.full((32, 1), 0.49), np.ones((32, 4)), np.ones((32, 10)), 64, 16)
    assert [len(each) for each in empty] == [0, 0, 0]


def test_suppression_keeps_the_best_of_each_heap():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 5], [40, 0, 50, 10]], float)
    # overlaps with the first: 0.82, 0.5, 0
    assert suppress(np.array([0.6, 0.9, 0.7, 0.8]), boxes).tolist() == [1, 3]
    assert suppress(np.array([0.9, 0.6, 0.7, 0.8]), boxes, max_iou=0.6).tolist() == [0, 3, 2]
    assert suppress(np.zeros(0), np.zeros((0, 4))).tolist() == []


def test_three_levels_join_in_pixels_of_the_frame():
    side, scale = 64, 0.5
    answers = []
    for width in (1, 4, 10):
        answers += [np.zeros((2 * (side // stride) ** 2, width), np.float32) for stride in (8, 16, 32)]
    answers[0][0], answers[3][0] = 0.8, (0, 0, 1, 1)  # stride 8: a box of 8 pixels at the corner
    answers[2][3], answers[5][3] = 0.9, (0, 0, 1, 1)  # stride 32: a box of 32 pixels at (32, 0)
    scores, boxes, points = decode_faces(answers, side, scale)
    assert np.allclose(scores, [0.9, 0.8])
    assert boxes.tolist() == [[64, 0, 128, 64], [0, 0, 16, 16]]
    assert points[0].tolist() == [[64, 0]] * 5


def test_the_picture_fills_the_square_from_the_top_left():
    frame = np.full((100, 200, 3), (255, 127, 0), np.uint8)
    image, scale = detector_input(frame, 64)
    assert image.shape == (1, 3, 64, 64) and image.dtype == np.float32 and scale == 64 / 200
    assert np.allclose(image[0, :, 10, 10], [(255 - 127.5) / 128, (127 - 127.5) / 128, -127.5 / 128])
    assert np.allclose(image[0, :, 32:], -127.5 / 128)  # black below


@pytest.mark.parametrize("width", [303, 638, 1077, 1232, 1920])
def test_the_longer_side_fills_the_square_to_the_last_column(width):
    """640 / width * width is a little under 640 for some of these."""
    image, _ = detector_input(np.full((200, width, 3), 255, np.uint8), 640)
    assert (image[0, :, 0] > 0.9).all()
