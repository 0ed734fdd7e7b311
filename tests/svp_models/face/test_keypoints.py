from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detection import FaceTrack, frame_ranges
from svp_portrait.svp_models.face.keypoints import (
    HEAD_KEYPOINT_NAMES,
    draw_head_keypoints,
    find_head_keypoints,
    five_points_from_68,
    head_keypoints_from_mesh,
    motion_from_track,
    parse_keypoints,
    resample_motion,
)
from svp_portrait.svp_models.types import HeadMotion

CLIPS = Path(__file__).resolve().parents[3].parent / "shared" / "clips"
PIXELS = [
    (20.0, 50.0),
    (22.0, 80.0),
    (100.0, 50.0),
    (98.0, 80.0),
    (44.0, 52.0),
    (76.0, 52.0),
    (60.0, 50.0),
    (60.0, 75.5),
]


def ramp_motion(frames: int, fps: float = 25.0, interpolated: tuple[int, ...] = ()) -> HeadMotion:
    """Every coordinate of frame i is i."""
    points = torch.arange(float(frames))[:, None, None].expand(-1, 8, 2)
    return HeadMotion(points, 128, 96, fps, interpolated)


def test_motion_from_track_lists_what_was_filled():
    points = np.arange(3 * 16, dtype=np.float32).reshape(3, 8, 2)
    present = np.array([True, False, True])
    empty = np.zeros((3, 0), np.float32)
    motion = motion_from_track(FaceTrack(empty, empty, points, empty, empty, present, 64, 48, empty), 30)
    assert motion.interpolated == (1,) and (motion.width, motion.height, motion.fps) == (64, 48, 30.0)
    assert torch.allclose(motion.keypoints, torch.from_numpy(points))  # the points move evenly


def test_frame_ranges():
    assert frame_ranges((9, 3, 4, 5)) == "3-5, 9" and frame_ranges(()) == ""


def test_motion_at_the_same_rate_is_the_same():
    motion = ramp_motion(5, 29.97, (2,))
    same = resample_motion(motion, 5, 29.97)
    assert torch.equal(same.keypoints, motion.keypoints) and same.interpolated == (2,)


def test_motion_at_another_rate_is_linear_in_time():
    twice = resample_motion(ramp_motion(4, 25, (2,)), 7, 50)
    assert twice.keypoints[:, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert twice.interpolated == (3, 4, 5) and twice.fps == 50
    assert resample_motion(ramp_motion(9, 50), 4, 25).keypoints[:, 7, 1].tolist() == [0, 2, 4, 6]


def test_short_motion_turns_back_and_forth():
    longer = resample_motion(ramp_motion(4), 12, 25).keypoints[:, 0, 0]
    assert longer.tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1]
    assert resample_motion(ramp_motion(2), 5, 25).keypoints[:, 0, 0].tolist() == [0, 1, 0, 1, 0]


def test_one_frame_is_held():
    assert resample_motion(ramp_motion(1, 1.0), 3, 25).keypoints.tolist() == [[[0.0, 0.0]] * 8] * 3


def test_motion_at_nothing_is_refused():
    with pytest.raises(PortraitError, match="0 frames"):
        resample_motion(ramp_motion(0), 3, 25)
    with pytest.raises(PortraitError, match="above 0"):
        resample_motion(ramp_motion(3), 0, 25)


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"{x}, {y}" for x, y in PIXELS),
        "\n".join(f"  {x} {y}  # note\n" for x, y in PIXELS),
        "\n".join(f"{name}: ({x}; {y})" for name, (x, y) in zip(HEAD_KEYPOINT_NAMES, PIXELS, strict=True)),
        str([list(point) for point in PIXELS]),
    ],
)
def test_typed_pixels(text):
    keypoints = parse_keypoints(text, 128, 96)
    assert keypoints.dtype == torch.float32 and keypoints.tolist() == [list(point) for point in PIXELS]


def test_typed_fractions_become_pixels():
    text = "\n".join(f"{x / 128},{y / 96}" for x, y in PIXELS)
    assert torch.allclose(parse_keypoints(text, 128, 96), torch.tensor(PIXELS), atol=1e-4)


def test_points_outside_the_picture_are_allowed():
    text = "\n".join(f"{x - 64},{y}" for x, y in PIXELS)
    assert parse_keypoints(text, 128, 96)[0].tolist() == [-44, 50]


@pytest.mark.parametrize(
    "text, message",
    [
        ("1, 2\n\n3; x\n", "line 3: '3; x'"),
        ("1, 2\n3, 4", "2 keypoints were typed: 8 are needed"),
        ("", "0 keypoints"),
        ("nan, 1\n" * 8, "line 1: 'nan, 1'"),
        ("[[1, 2],\n [3, 4", "line 2: not valid JSON"),
        ("[[1, 2], [3]]", r"point 2: \[3\]"),
        ("[[1, 2], [NaN, 1]]", "point 2"),
        ("[[1, 2], 7]", "point 2: 7"),
        ("5, 5\n" * 8, "one spot"),
    ],
)
def test_typing_errors_are_located(text, message):
    with pytest.raises(PortraitError, match=message):
        parse_keypoints(text, 128, 96)


def test_mesh_indices():
    mesh = np.arange(2 * 478 * 3, dtype=np.float64).reshape(2, 478, 3)
    points = head_keypoints_from_mesh(mesh)
    assert points.shape == (2, 8, 2) and points.dtype == np.float32
    assert points[0, 5].tolist() == [473 * 3, 473 * 3 + 1]
    with pytest.raises(PortraitError, match="478 x 3"):
        head_keypoints_from_mesh(mesh[:, :468])


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no ../shared/clips beside the repository")
def test_mesh_indices_agree_with_the_clips():
    data = np.load(CLIPS / "vasa_17" / "landmarks.npz")
    assert np.abs(head_keypoints_from_mesh(data["mesh"]) - data["head_kps"]).max() < 0.05


def test_five_points_of_68():
    landmarks = np.random.default_rng(0).uniform(0, 100, (3, 68, 2))
    five = five_points_from_68(landmarks)
    assert five.shape == (3, 5, 2)
    assert np.allclose(five[:, 0], landmarks[:, 36:42].mean(axis=1)) and np.allclose(five[:, 2], landmarks[:, 30])
    assert np.allclose(five[:, 3:], landmarks[:, [48, 54]])


def test_mesh_points_are_the_documented_ones():
    """127 and 132, 356 and 361: upper and lower edge of each side; 468 and 473 the irises; 168 and 4 the bridge."""
    mesh = np.arange(478 * 3, dtype=np.float64).reshape(478, 3)
    assert (head_keypoints_from_mesh(mesh)[:, 0] / 3).tolist() == [127, 132, 356, 361, 468, 473, 168, 4]


def test_a_resampled_motion_keeps_the_portrait_it_was_made_for():
    motion = HeadMotion(torch.zeros(3, 8, 2), 64, 48, 25.0, portrait=torch.ones(8, 2))
    again = resample_motion(motion, 4, 50.0)
    assert torch.equal(again.portrait, torch.ones(8, 2)) and (again.width, again.height, again.fps) == (64, 48, 50.0)


def test_a_picture_without_one_of_the_points_has_none():
    points = np.array([[[8, 8], [8, 40], [56, 8], [56, 40], [20, 16], [44, 16], [32, 16], [32, 30]]], np.float32)
    image = torch.from_numpy(draw_head_keypoints(points, 64, 48, 256, 192)).permute(0, 3, 1, 2).float() / 255
    assert np.allclose(find_head_keypoints(image), 4 * points, atol=0.5)
    image[:, :, 144:176, 16:48] = 0  # the left lower edge
    assert torch.isnan(find_head_keypoints(image)).all()
