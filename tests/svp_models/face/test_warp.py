"""Warping an image to keypoints: exact where it must be, still where nothing moves, harmless where it cannot be done."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.face.keypoints import draw_head_frames, find_head_keypoints
from svp_portrait.svp_models.face.warp import warp_batch, warp_to_keypoints
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import HeadMotion

POINTS = torch.tensor([[32, 59], [36, 84], [96, 59], [92, 84], [50, 58], [78, 58], [64, 55], [64, 74]]).float()


@pytest.fixture
def face() -> torch.Tensor:
    """A image whose eight coloured dots are its keypoints: 3 128 160."""
    return draw_head_frames(HeadMotion(POINTS[None], 160, 128, 25.0), [0], 160, 128)[0]


def test_keypoints_of_the_picture_arrive_where_they_are_wanted(face):
    targets = torch.stack([POINTS + 5, (POINTS - 64) * 1.08 + torch.tensor([70.0, 60.0])])
    found = find_head_keypoints(warp_to_keypoints(face, POINTS, targets))
    torch.testing.assert_close(found, targets, atol=0.35, rtol=0)


def test_hair_turns_with_the_keypoints():
    clip = make_clip(speaker(5, "test"), "neutral", 2, 5, 2.0, 25.0, 128)
    frames = torch.from_numpy(clip.images).movedim(3, 1).float()
    keypoints = torch.from_numpy(clip.head_keypoints).float()
    warped = warp_to_keypoints(frames[0], keypoints[0], keypoints)
    still, moved = ((each - frames)[:, :, :36].square().mean() for each in (frames[0], warped))  # above the brows
    assert moved < 0.2 * still


def test_a_glance_moves_nothing_else(face):
    glance = POINTS.clone()
    glance[4:6, 0] += 4
    assert torch.equal(warp_to_keypoints(face, POINTS, glance[None]), warp_to_keypoints(face, POINTS, POINTS[None]))


def test_a_head_at_the_border_is_held_inside(face):
    targets = POINTS[None] + torch.tensor([[[0.0, -30.0]], [[-24.0, 0.0]]])
    found = find_head_keypoints(warp_to_keypoints(face, POINTS, targets))
    torch.testing.assert_close(found[:, [1, 3, 6, 7]], targets[:, [1, 3, 6, 7]], atol=1.5, rtol=0)


def test_a_head_that_stays_changes_nothing(face):
    torch.testing.assert_close(warp_to_keypoints(face, POINTS, POINTS[None])[0], face, atol=1e-4, rtol=0)


def test_the_border_stays(face):
    slope = torch.linspace(0, 1, 160).expand(3, 128, 160)
    warped = warp_to_keypoints(slope, POINTS, POINTS[None] + 6)[0]
    for edge in (warped[:, 0] - slope[:, 0], warped[:, -1] - slope[:, -1], warped[:, :, 0] - slope[:, :, 0]):
        assert edge.abs().max() < 0.01
    assert (warped - slope)[:, 60, 64].abs().min() > 0.02


@pytest.mark.parametrize("bad", [torch.zeros(8, 2), torch.full((8, 2), torch.nan)])
def test_keypoints_that_mean_nothing_leave_their_frame_as_it_is(face, bad):
    warped = warp_to_keypoints(face, POINTS, torch.stack([bad, POINTS + 3]))
    assert torch.equal(warped[0], face) and not torch.equal(warped[1], face)
    assert torch.equal(warp_to_keypoints(face, bad, POINTS[None])[0], face)


def test_a_batch_is_warped_as_one_by_one():
    """Up to rounding: 1e-4 of a range of 1, and less than 1e-6 on average; portraits of their own, a head near the border, a
    window that leaves the image, and a frame without keypoints."""
    clips = [make_clip(speaker(index, "test"), "happy", 3, 5, 0.12, 25.0, 128) for index in (3, 4)]
    images = torch.cat([torch.from_numpy(clip.images[:1]).movedim(3, 1) for clip in clips]).float() / 255
    images = images[[0, 1, 1, 0]]
    sources = torch.from_numpy(np.stack([clips[index].head_keypoints[0] for index in (0, 1, 1, 0)]))
    targets = torch.from_numpy(np.stack([clips[index].head_keypoints[-1] for index in (0, 1, 1, 0)])).clone()
    targets[1] += torch.tensor([-24.0, 6.0])
    targets[2] = (targets[2] - 64) * 1.3 + 60
    targets[3, 0] = torch.nan
    expected = torch.cat(
        [warp_to_keypoints(*each[:2], each[2][None]) for each in zip(images, sources, targets, strict=True)]
    )
    found = warp_batch(images, sources, targets)
    assert torch.equal(found[3], images[3])
    assert (found - expected).abs().max() < 1e-4 and (found - expected).abs().mean() < 1e-6
    corners = torch.tensor([[20, 30], [0, 0], [64, 64], [-8, 100]])
    windows = warp_batch(images, sources, targets, corners, (64, 48))
    torch.testing.assert_close(windows[0], found[0, :, 30:78, 20:84], atol=1e-5, rtol=0)
    torch.testing.assert_close(windows[2], found[2, :, 64:112, 64:128], atol=1e-5, rtol=0)
    torch.testing.assert_close(windows[3][:, :, :8], windows[3][:, :, 8:9].expand(-1, -1, 8), atol=1e-5, rtol=0)
