from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detection import FaceDetection, box_iou, build_track, choose_faces


def face(x: float, y: float, side: float, **more) -> FaceDetection:
    box = np.array([x, y, x + side, y + side], np.float32)
    return FaceDetection(box, np.full((8, 2), x, np.float32), np.full((5, 2), y, np.float32), **more)


def lefts(chosen) -> list[float | None]:
    return [None if each is None else float(each.box[0]) for each in chosen]


def test_overlap_by_hand():
    boxes, others = np.array([[0, 0, 10, 10]]), np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10]])
    assert np.allclose(box_iou(boxes, others), [[1, 50 / 150, 0]])


def test_largest_is_taken_in_every_frame():
    found = [[face(0, 0, 10), face(50, 0, 20)], [face(2, 0, 30), face(50, 0, 20)], []]
    assert lefts(choose_faces(found, "largest")) == [50, 2, None]


def test_faces_are_counted_from_the_left():
    found = [[face(50, 0, 20), face(0, 0, 10), face(90, 0, 9)], [face(4, 0, 30)]]
    assert lefts(choose_faces(found, "left to right", 0)) == [0, 4]
    assert lefts(choose_faces(found, "left to right", 2)) == [90, None]
    with pytest.raises(PortraitError, match="face number 3 from the left.*more than 3"):
        choose_faces(found, "left to right", 3)


def test_the_one_that_stays_is_followed_past_passers_by():
    found = []
    for frame in range(12):
        faces = [face(10 + 2 * frame, 0, 40)]  # drifts slowly to the right
        if 4 <= frame < 9:
            faces.insert(0, face(200 - 20 * frame, 0, 80))  # larger, walks through
        if frame in (6, 7):
            faces.pop()  # hidden for two frames
        found.append(faces)
    expected = [None if frame in (6, 7) else 10 + 2 * frame for frame in range(12)]
    assert lefts(choose_faces(found, "stays")) == expected


def test_of_two_that_stay_equally_long_the_larger_is_taken():
    assert lefts(choose_faces([[face(0, 0, 10), face(100, 0, 30)]] * 3, "stays")) == [100, 100, 100]


def test_no_faces_and_unknown_choices():
    assert choose_faces([[], []], "stays") == [None, None]
    assert choose_faces([[], []], "left to right", 5) == [None, None]
    with pytest.raises(PortraitError, match="largest, stays, left to right"):
        choose_faces([[]], "smallest")


def test_a_track_of_detections():
    pose = np.array([1.0, 2, 3])
    track = build_track([None, face(3, 4, 5, pose=pose)], 64, 48)
    assert track.present.tolist() == [False, True] and (track.width, track.height) == (64, 48)
    assert track.boxes[1].tolist() == [3, 4, 8, 9] and track.boxes.dtype == np.float32
    assert track.five_points.shape == (2, 5, 2) and np.allclose(track.pose[1], pose)
    assert track.landmarks is None and track.expression is None


def test_a_track_without_any_face():
    track = build_track([None, None, None], 64, 48)
    assert not track.present.any() and track.head_keypoints.shape == (3, 8, 2) and track.boxes.shape == (3, 4)
