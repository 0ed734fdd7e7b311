from __future__ import annotations

import cv2
import numpy as np
import pytest

from svp_portrait.svp_models.data.labels import coverage, face_outline, mouth_outline
from svp_portrait.svp_models.data.synthetic_clips import synthetic_labels
from svp_portrait.svp_models.face.detection import FaceDetection, build_track, face_boxes
from svp_portrait.svp_models.face.keypoints import five_points_from_68


def track(clip, landmarks: bool = True):
    faces = [
        FaceDetection(np.zeros(4), keypoints, five_points_from_68(points), points if landmarks else None)
        for points, keypoints in zip(clip.landmarks, clip.head_keypoints, strict=True)
    ]
    return build_track(faces, 128, 128)


@pytest.mark.parametrize("size", [64, 128, 512])
def test_cells_hold_the_covered_area(size):
    box = np.array([[8.0, 16], [28, 16], [28, 36], [8, 36]])  # cells 1 .. 3.5 across, 2 .. 4.5 down
    mask = coverage(box, size) / 255.0
    wanted = np.zeros((size // 8, size // 8))
    wanted[2:4, 1:3] = 1
    wanted[4, 1:3] = wanted[2:4, 3] = 0.5
    wanted[4, 3] = 0.25
    assert np.abs(mask - wanted).max() < 0.08 and abs(mask.sum() - 6.25) < 0.25


def test_the_hull_of_the_landmarks_is_near_the_drawn_face(people):
    for clip in people:
        found = track(clip)
        for row in range(0, len(found), 14):
            mask = coverage(face_outline(found, row), 128).astype(float)
            true = cv2.resize(clip.masks[row], (16, 16), interpolation=cv2.INTER_AREA).astype(float)
            assert np.minimum(mask, true).sum() / np.maximum(mask, true).sum() > 0.85


def test_without_landmarks_the_outlines_come_from_the_other_points(people):
    for clip in people:
        exact, rough = track(clip), track(clip, landmarks=False)
        for outline, least in ((face_outline, 0.6), (mouth_outline, 0.25)):
            first, second = (coverage(outline(each, 20), 128).astype(float) for each in (exact, rough))
            assert np.minimum(first, second).sum() / np.maximum(first, second).sum() > least
        apart = np.abs(face_boxes(exact) - face_boxes(rough)) / (face_boxes(exact)[:, 2:3] - face_boxes(exact)[:, :1])
        assert apart.max() < 0.3  # the drawn mouths lie high; real faces are in test_real_clips


def test_boxes_reach_from_brows_to_chin(people):
    boxes = face_boxes(track(people[0]))
    points = people[0].landmarks
    assert np.allclose(boxes[:, 3], points[:, :, 1].max(axis=1)) and np.allclose(
        boxes[:, 0], points[:, :, 0].min(axis=1)
    )


def test_drawn_labels_are_what_was_drawn(people):
    clip = people[0]
    labels = synthetic_labels(clip)
    assert np.array_equal(labels.landmarks, clip.landmarks) and np.array_equal(labels.pose, clip.states.pose[:, :3])
    area = labels.face_mask.sum(axis=(1, 2)) / 255 * 64  # pixels
    assert np.allclose(area, (clip.masks > 0).sum(axis=(1, 2)), rtol=0.01)
    lips = labels.mouth_mask[0].astype(float)
    rows, columns = (np.indices(lips.shape) + 0.5) * 8
    middle = np.array([(columns * lips).sum(), (rows * lips).sum()]) / lips.sum()
    assert np.linalg.norm(middle - clip.landmarks[0, 48:60].mean(axis=0)) < 1.5
