"""A portrait warped to an expression: lips, lids and brows arrive where synthetic speakers have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.expression_basis import load_expression_basis
from svp_portrait.svp_models.face.expression_warp import face_points, fit_expression, moved_points, warp_expression
from svp_portrait.svp_models.face.warp import warp_batch
from svp_portrait.svp_models.motion.coefficients import expression_vector
from svp_portrait.svp_models.synthetic.identity import FaceStates
from svp_portrait.svp_models.synthetic.renderer import render_clip
from svp_portrait.svp_models.synthetic.speakers import speaker

SIZE = 256
MOVES = [
    {},
    {"jaw_open": 0.9},
    {"lips_round": 1.0},
    {"corner_up": 0.9, "brow_inner_up": 0.8},
    {"lids": (1.0, 1.0)},
    {"gaze": (0.8, 0.0), "brow_lower": 0.9},
]
MOUTH, LIDS, BROWS = slice(48, 68), slice(36, 48), slice(17, 27)


def track_of(moves):
    lids, gaze = moves.get("lids", (0.0, 0.0)), moves.get("gaze", (0.0, 0.0))
    expression = expression_vector(**{name: value for name, value in moves.items() if name not in ("lids", "gaze")})
    return np.concatenate([expression, lids, gaze]).astype(np.float32)


@pytest.fixture(scope="module", params=[0, 3])
def faces(request):
    """A speaker's relaxed face, and with every movement at another pose: images, landmarks, keypoints, tracks."""
    tracks = np.stack([track_of(moves) for moves in MOVES])
    pose = np.tile(np.array([8.0, -4.0, 3.0, 0.01, 0.02, 1.03], np.float32), (len(tracks), 1))
    pose[0] = (0, 0, 0, 0, 0, 1)
    states = FaceStates(tracks[:, :64], pose, tracks[:, 64:66], tracks[:, 66:])
    clip = render_clip(speaker(request.param, "test").identity, states, SIZE, 2)
    images = torch.from_numpy(clip.images).movedim(3, 1).float() / 255
    return images, torch.from_numpy(clip.landmarks), torch.from_numpy(clip.head_keypoints), torch.from_numpy(tracks)


def warp_all(faces, **options):
    images, landmarks, keypoints, tracks = faces
    count = len(images) - 1
    portrait = images[:1].expand(count, -1, -1, -1)
    sources = keypoints[:1].expand(count, -1, -1)
    points = face_points(landmarks[:1], keypoints[:1]).expand(count, -1, -1)
    moved = moved_points(
        load_expression_basis(), points, sources, keypoints[1:], tracks[:1].expand(count, -1), tracks[1:]
    )
    return warp_expression(portrait, sources, keypoints[1:], points, moved, **options), moved


def test_landmarks_arrive_where_the_speaker_has_them(faces):
    _, landmarks, keypoints, _ = faces
    _, moved = warp_all(faces)
    error = (moved - face_points(landmarks[1:], keypoints[1:])).norm(dim=2)
    assert error[:, MOUTH].mean() < 2.0 and error[:, LIDS].mean() < 0.8 and error[:, BROWS].mean() < 1.0
    still = moved_points(
        load_expression_basis(),
        face_points(landmarks[:1], keypoints[:1]),
        keypoints[:1],
        keypoints[1:2],
        torch.zeros(1, 68),
        torch.zeros(1, 68),
    )
    unmoved = (still - face_points(landmarks[1:2], keypoints[1:2])).norm(dim=2)[0, MOUTH].mean()
    assert error[0, MOUTH].mean() < 0.35 * unmoved  # the opened jaw


def test_mouth_and_eyes_are_nearer_to_the_truth_than_a_rigid_head(faces):
    images, landmarks, keypoints, _ = faces
    warped, _ = warp_all(faces)
    count = len(warped)
    rigid = warp_batch(images[:1].expand(count, -1, -1, -1), keypoints[:1].expand(count, -1, -1), keypoints[1:])

    def error(found, row, part):
        left, top = (landmarks[row + 1, part].amin(0) - 3).int().tolist()
        right, bottom = (landmarks[row + 1, part].amax(0) + 3).int().tolist()
        return float((found[row] - images[row + 1])[:, top:bottom, left:right].square().mean())

    # Where the jaw opens nobody knows the inside of the mouth, and yet the lips count.
    for row, part in ((0, MOUTH), (1, MOUTH), (2, MOUTH), (3, LIDS)):
        assert error(warped, row, part) < 0.8 * error(rigid, row, part)


def test_a_window_is_a_part_of_the_whole(faces):
    whole, _ = warp_all(faces)
    count = len(whole)
    corners = torch.tensor([[70.0, 90.0]]).expand(count, -1)
    part, _ = warp_all(faces, corners=corners, size=(112, 120))
    torch.testing.assert_close(part, whole[:, :, 90:210, 70:182], atol=1e-3, rtol=0)


def test_nothing_moves_where_nothing_changes(faces):
    images, landmarks, keypoints, _ = faces
    points = face_points(landmarks[:1], keypoints[:1])
    moved = moved_points(
        load_expression_basis(), points, keypoints[:1], keypoints[:1], torch.zeros(1, 68), torch.zeros(1, 68)
    )
    torch.testing.assert_close(moved, points, atol=1e-3, rtol=0)
    found = warp_expression(images[:1], keypoints[:1], keypoints[:1], points, moved)
    torch.testing.assert_close(found, images[:1], atol=1e-3, rtol=0)


def test_the_border_stays_and_points_that_are_no_numbers_are_harmless(faces):
    images, landmarks, keypoints, tracks = faces
    warped, moved = warp_all(faces)
    for edge in ((slice(None), 0), (slice(None), -1)):
        torch.testing.assert_close(warped[0, :, edge[1]], images[0, :, edge[1]], atol=0.03, rtol=0)
    points = face_points(landmarks[:1], keypoints[:1])
    broken = moved[:1].clone()
    broken[0, 50] = float("nan")
    found = warp_expression(images[:1], keypoints[:1], keypoints[1:2], points, broken)
    torch.testing.assert_close(found, images[:1], atol=1e-3, rtol=0)


def test_a_blink_leaves_the_brows_alone(faces):
    """The skin between lid and brow stretches evenly: brows of a face that only blinks stay where and how they are."""
    images, landmarks, keypoints, tracks = faces
    points, still = face_points(landmarks[:1], keypoints[:1]), tracks[:1]
    shut = still.clone()
    shut[:, 64:66] = 1
    moved = moved_points(load_expression_basis(), points, keypoints[:1], keypoints[:1], still, shut)
    warped = warp_expression(images[:1], keypoints[:1], keypoints[:1], points, moved)
    changed = []
    for part in (BROWS, LIDS):
        left, top = landmarks[0, part].amin(0).int().tolist()
        right, bottom = landmarks[0, part].amax(0).int().tolist()
        changed.append(float((warped - images[:1])[0, :, top : bottom + 1, left : right + 1].abs().mean()))
    assert changed[0] < 0.4 * changed[1] and changed[1] > 0.04


def test_an_eye_that_is_shut_is_not_torn_open(faces):
    _, landmarks, keypoints, tracks = faces
    points, shut = face_points(landmarks[4:5], keypoints[4:5]), tracks[4:5]  # with both lids at 1
    moved = moved_points(load_expression_basis(), points, keypoints[4:5], keypoints[4:5], shut, tracks[:1])
    assert (moved[:, LIDS] - points[:, LIDS]).norm(dim=2).max() < 1.5


def test_an_expression_is_found_from_where_the_points_are():
    """Its track brings the points of the relaxed face to those of the moved one, whatever the numbers in it are."""
    who, basis = speaker(3, "test"), load_expression_basis()
    tracks = np.stack([track_of(moves) for moves in MOVES])
    pose = np.tile(np.array([8.0, -4.0, 3.0, 0.01, 0.02, 1.03], np.float32), (len(tracks), 1))
    pose[0] = (0, 0, 0, 0, 0, 1)
    states = FaceStates(tracks[:, :64], pose, tracks[:, 64:66], tracks[:, 66:])
    clip = render_clip(who.identity, states, SIZE)
    landmarks, keypoints = torch.from_numpy(clip.landmarks), torch.from_numpy(clip.head_keypoints)
    seen = face_points(landmarks, keypoints)
    count = len(tracks)
    points, sources = (value[:1].expand(count, -1, -1) for value in (seen, keypoints))
    track = fit_expression(basis, points, seen, sources, keypoints)
    still = torch.zeros(count, 68)
    moved, rigid = (moved_points(basis, points, sources, keypoints, still, rows) for rows in (track, still))
    errors, before = ((value - seen)[:, MOUTH].norm(dim=-1).mean(1) for value in (moved, rigid))
    for row in (1, 2, 3):
        assert errors[row] < 0.5 * before[row] and errors[row] < 2
    assert (track[4, 64:66] > 0.8).all() and (track[1, 64:66] < 0.3).all()  # the lids
    assert track[5, 66] > 0.4 and abs(track[1, 66]) < 0.2  # the gaze
    assert track[0].abs().max() < 0.02
