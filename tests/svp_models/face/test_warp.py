"""Bending a image to keypoints: exact where it must be, still where nothing moves, harmless where it cannot be done."""

from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.face.keypoints import draw_head_frames, find_head_keypoints
from svp_portrait.svp_models.face.warp import warp_to_keypoints
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
    bent = warp_to_keypoints(frames[0], keypoints[0], keypoints)
    still, moved = ((each - frames)[:, :, :36].square().mean() for each in (frames[0], bent))  # above the brows
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
    bent = warp_to_keypoints(slope, POINTS, POINTS[None] + 6)[0]
    for edge in (bent[:, 0] - slope[:, 0], bent[:, -1] - slope[:, -1], bent[:, :, 0] - slope[:, :, 0]):
        assert edge.abs().max() < 0.01
    assert (bent - slope)[:, 60, 64].abs().min() > 0.02


@pytest.mark.parametrize("bad", [torch.zeros(8, 2), torch.full((8, 2), torch.nan)])
def test_keypoints_that_mean_nothing_leave_their_frame_as_it_is(face, bad):
    bent = warp_to_keypoints(face, POINTS, torch.stack([bad, POINTS + 3]))
    assert torch.equal(bent[0], face) and not torch.equal(bent[1], face)
    assert torch.equal(warp_to_keypoints(face, bad, POINTS[None])[0], face)
