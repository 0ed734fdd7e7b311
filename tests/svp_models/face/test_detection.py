from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detection import (
    FaceDetection,
    box_iou,
    boxes_from_keypoints,
    build_track,
    choose_faces,
    face_boxes,
)
from svp_portrait.svp_models.synthetic.clips import neutral_portrait
from svp_portrait.svp_models.synthetic.speakers import speaker


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
