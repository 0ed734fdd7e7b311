"""Faces in upright crops: where the crops lie, and that putting them back is exact where it has to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.config import FaceCropConfig
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.compose import (
    FacePlacement,
    border_mask,
    compose,
    crop_faces_upright,
    place_face_crops,
    put_back,
    snapped_scale,
)
from svp_portrait.svp_models.face.head_pose import RIGID, RIGID_3D
from svp_portrait.svp_models.face.warp import warp_to_keypoints
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker

CONFIG = FaceCropConfig(144, 160)


def keypoints_of(size: float = 60.0, tilt: float = 0.0, centre: tuple[float, float] = (128.0, 118.0), yaw: float = 0.0):
    """The mean head from the front, `size` pixels to its half width, turned: 1 8 2."""
    cos, sin = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    head = np.array(RIGID_3D) @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    turn = np.array(
        [[np.cos(np.radians(tilt)), -np.sin(np.radians(tilt))], [np.sin(np.radians(tilt)), np.cos(np.radians(tilt))]]
    )
    points = np.zeros((8, 2))
    points[list(RIGID)] = size * head[:, :2] @ turn.T + centre
    return points[None]


def in_crop(point: tuple[float, float], placement: FacePlacement) -> np.ndarray:
    return placement.points(np.array([[point]]))[0, 0]


def test_the_middle_of_the_crop_is_the_chosen_point_of_the_head():
    placement = place_face_crops(keypoints_of(), CONFIG)
    assert np.abs(in_crop((128, 118 + 0.44 * 60), placement) - (72, 80)).max() <= 0.5


def test_crops_move_in_whole_pixels_where_the_scale_allows_it():
    for size, scale in ((60, 1.0), (66, 1.0), (120, 0.5), (186, 1 / 3)):
        matrix = place_face_crops(keypoints_of(size, 7.0), CONFIG).matrices[0]
        assert np.allclose(matrix[:, :2], scale * np.eye(2)) and np.allclose(matrix[:, 2], np.rint(matrix[:, 2]))


def test_other_scales_and_tilts_are_taken_back():
    placement = place_face_crops(keypoints_of(40, 30.0), CONFIG)
    points = placement.points(keypoints_of(40, 30.0))[0]
    assert np.linalg.norm(points[2] - points[0]) == pytest.approx(2 * 60, rel=0.06)  # both edges of the face, level
    assert points[2, 1] == pytest.approx(points[0, 1], abs=0.5)


def test_a_turned_head_keeps_its_scale():
    sizes = [
        np.linalg.svd(place_face_crops(keypoints_of(42, yaw=yaw), CONFIG).matrices[0, :, :2])[1][0] for yaw in (0, 35)
    ]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.08)


def test_the_centre_is_smooth_in_time():
    jumps = np.concatenate([keypoints_of(centre=(128 + 3 * (frame % 2), 118)) for frame in range(20)])
    shifts = place_face_crops(jumps, CONFIG).matrices[:, 0, 2]
    assert np.abs(np.diff(shifts[3:-3])).max() <= 1


def test_scales_near_a_whole_number_of_pixels_snap_to_it():
    assert [snapped_scale(value, 0.16) for value in (0.9, 1.1, 0.52, 0.74, 1.6)] == [1, 1, 0.5, 0.74, 1.6]


@pytest.mark.parametrize("size", [256, 512])
def test_a_crop_put_back_is_the_frame_itself(size):
    """At one pixel to a pixel bit by bit, also beyond the frame's edge; at two to one what is smooth."""
    frames = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    if size == 512:
        line = torch.linspace(0, 1, size)
        frames = (line[:, None] + 0.3 * line).expand(2, 3, size, size).clone() / 2
    points = np.concatenate([keypoints_of(60 * size / 256, centre=(x, 0.46 * size)) for x in (0.2 * size, 0.5 * size)])
    placement = place_face_crops(points, FaceCropConfig(144, 160, smoothing=0))
    crops = crop_faces_upright(frames, placement)
    assert crops.shape == (2, 3, 160, 144)
    nothing = torch.full_like(frames, -1.0)
    joined, mask = compose(nothing, crops, border_mask(144, 160, 0.2).round(), placement)
    inside = (mask == 1).expand_as(frames)
    assert inside.float().mean() > 0.15
    if size == 256:
        assert torch.equal(joined[inside], frames[inside])
    else:
        torch.testing.assert_close(joined[inside], frames[inside], atol=2e-3, rtol=0)
    assert torch.equal(joined[(mask == 0).expand_as(frames)], nothing[(mask == 0).expand_as(frames)])


def test_a_tilted_crop_comes_back_to_its_place():
    frames = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    frames = torch.nn.functional.interpolate(frames, (256, 256), mode="bicubic").clamp(0, 1)
    placement = place_face_crops(keypoints_of(46, 25.0), CONFIG)
    mask = border_mask(144, 160, 0.1)
    joined, weight = compose(torch.zeros_like(frames), crop_faces_upright(frames, placement), mask, placement)
    full = (weight > 0.999).expand_as(frames)
    assert full.float().mean() > 0.05
    torch.testing.assert_close(joined[full], frames[full], atol=0.03, rtol=0)


def test_one_mask_and_one_placement_serve_all_frames():
    placement = place_face_crops(keypoints_of(), CONFIG)
    faces = torch.rand(3, 3, 160, 144)
    placed = put_back(faces, placement, 256, 256)
    assert torch.equal(crop_faces_upright(placed, placement), faces)


def test_truth_in_the_crop_brings_a_warped_portrait_to_the_truth():
    """The most that a model can reach: 7 dB over the warped portrait and more."""
    clip = make_clip(speaker(2, "test"), "surprised", 3, 5, 0.2, 25.0, 256)
    other = make_clip(speaker(2, "test"), "sad", 2, 9, 0.04, 25.0, 256)
    frames = torch.from_numpy(clip.images).movedim(3, 1).float() / 255
    portrait = torch.from_numpy(other.images[0]).movedim(2, 0).float() / 255
    keypoints = torch.from_numpy(clip.head_keypoints)
    warped = warp_to_keypoints(portrait, torch.from_numpy(other.head_keypoints[0]), keypoints)
    placement = place_face_crops(clip.head_keypoints, CONFIG)
    joined, _ = compose(warped, crop_faces_upright(frames, placement), border_mask(144, 160, 0.06), placement)
    before, after = (10 * torch.log10(1 / (images - frames).square().mean()) for images in (warped, joined))
    assert after > before + 7
    landmarks = placement.points(clip.landmarks)[:, 17:]  # all but the jaw, with a margin
    assert landmarks.min() > 8 and (landmarks < (144 - 8, 160 - 8)).all()


def test_keypoints_that_are_no_numbers_are_named():
    with pytest.raises(PortraitError, match="extract the head motion again"):
        place_face_crops(np.full((1, 8, 2), np.nan), CONFIG)
    with pytest.raises(PortraitError, match="one spot"):
        place_face_crops(np.zeros((1, 8, 2)), CONFIG)
