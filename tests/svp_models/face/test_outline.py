"""Boxes around faces, from landmarks, from what stands for them, and from the head keypoints alone."""

from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.face.detection import FaceDetection, boxes_from_keypoints, build_track, face_boxes
from svp_portrait.svp_models.synthetic.clips import neutral_portrait
from svp_portrait.svp_models.synthetic.speakers import speaker

UPRIGHT = np.array([[10, 30], [12, 50], [90, 30], [88, 50], [35, 30], [65, 30], [50, 28], [50, 45]], np.float64)


def test_a_box_of_landmarks_is_around_them():
    landmarks = np.random.default_rng(0).uniform(20, 60, (2, 68, 2)).astype(np.float32)
    faces = [FaceDetection(np.zeros(4), np.zeros((8, 2)), np.zeros((5, 2)), each) for each in landmarks]
    boxes = face_boxes(build_track(faces, 100, 100))
    assert np.allclose(boxes[:, :2], landmarks.min(axis=1)) and np.allclose(boxes[:, 2:], landmarks.max(axis=1))


def test_a_box_of_keypoints_reaches_to_brows_and_chin():
    width = 89 - 11  # between the middles of the edges
    assert np.allclose(boxes_from_keypoints(UPRIGHT[None]), [[10, 30 - 0.2 * width, 90, 30 + 0.8 * width]])
    moved = boxes_from_keypoints(np.stack([UPRIGHT + (7, -3), 2 * UPRIGHT]))
    assert np.allclose(
        moved, [boxes_from_keypoints(UPRIGHT[None])[0] + (7, -3) * 2, 2 * boxes_from_keypoints(UPRIGHT[None])[0]]
    )


def test_it_turns_with_the_head():
    quarter = np.stack([-UPRIGHT[:, 1], UPRIGHT[:, 0]], axis=1)  # clockwise in the image
    left, top, right, bottom = boxes_from_keypoints(UPRIGHT[None])[0]
    assert np.allclose(boxes_from_keypoints(quarter[None])[0], [-bottom, left, -top, right])


@pytest.mark.parametrize("number", [0, 2])
def test_it_is_near_the_box_of_a_drawn_face(number):
    drawn = neutral_portrait(speaker(number, "test"), 64)
    exact = np.concatenate([drawn.landmarks[0].min(axis=0), drawn.landmarks[0].max(axis=0)])
    apart = np.abs(boxes_from_keypoints(drawn.head_keypoints)[0] - exact)
    assert apart.max() < 0.2 * (exact[2:] - exact[:2]).max()
