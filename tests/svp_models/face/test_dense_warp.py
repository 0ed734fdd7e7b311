"""The correction of the spline: what a network says comes true in the picture, and nothing else changes."""

from __future__ import annotations

import math

import pytest
import torch

from svp_portrait.svp_models.checkpoints.expression_basis import load_expression_basis
from svp_portrait.svp_models.config import FaceCropConfig
from svp_portrait.svp_models.diffusion.face_inputs import HeadPoints
from svp_portrait.svp_models.face.dense_warp import LARGEST, DenseWarp
from svp_portrait.svp_models.face.expression_warp import face_points, warp_expression
from svp_portrait.svp_models.face.portrait_face import PortraitFace
from svp_portrait.svp_models.networks.dense_motion import FOLD, DenseMotion
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker

CONFIG = FaceCropConfig(112, 120, expression_warp=True, dense_width=8, dense_size=32)
NOTHING, ALL = -math.inf, math.inf  # logits of the share that stays


def dense(logit, x=0.0, y=0.0):
    """A network that says the same everywhere: corrections as shares of the largest."""
    network = DenseMotion(8).eval().requires_grad_(False)
    values = torch.tensor([math.atanh(x), math.atanh(y), logit])
    network.conv_out.bias.copy_(values.repeat_interleave(FOLD**2))
    return DenseWarp(network, CONFIG)


@pytest.fixture(scope="module")
def clip():
    return make_clip(speaker(1, "test"), "happy", 3, 5, 0.4, 25.0, 256)


@pytest.fixture(scope="module")
def given(clip):
    """Portrait, head keypoints and points of a clip's first frame, moved to its last one."""
    images = torch.from_numpy(clip.images).movedim(3, 1).float() / 127.5 - 1
    keypoints, landmarks = torch.from_numpy(clip.head_keypoints).float(), torch.from_numpy(clip.landmarks).float()
    points = face_points(landmarks, keypoints)
    ends = [[0], [-1]]
    return images[ends[0]], *(value[end] for value in (keypoints, points) for end in ends)


def moved_there(given, **options):
    portrait, sources, targets, points, moved = given
    return warp_expression(portrait, sources, targets + 3, points, moved + 3, **options)


def test_a_network_that_changes_nothing_leaves_the_spline_as_it_is(given):
    assert torch.equal(moved_there(given, correct=dense(NOTHING)), moved_there(given))
    window = {"corners": torch.tensor([[70, 60]]), "size": (112, 120)}
    torch.testing.assert_close(
        moved_there(given, correct=dense(NOTHING), **window), moved_there(given, **window), atol=1e-4, rtol=0
    )


def test_an_untrained_network_is_near_the_spline(given):
    found = moved_there(given, correct=DenseWarp(DenseMotion(8).requires_grad_(False), CONFIG))
    assert (found - moved_there(given)).abs().mean() < 0.01


def test_where_all_stays_the_portrait_is_its_own_picture(given):
    found = moved_there(given, correct=dense(ALL))
    torch.testing.assert_close(found, given[0], atol=1e-3, rtol=0)
    assert (moved_there(given) - given[0]).abs().mean() > 0.01


@pytest.mark.parametrize("factor", [1, 2])
def test_a_constant_correction_shifts_by_a_share_of_the_window(given, factor):
    """Whatever the resolution: x = 4 and y = -2 pixels where a frame has 256."""
    portrait, sources, _, points, _ = given
    large = portrait.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    sources, points = sources * factor, points * factor
    one = dense(NOTHING)
    side = float(one.windows(large, sources)[0, 1, 0]) * 256  # pixels of such a frame: twice the half of 2
    right, down = 4 / (LARGEST * side), -2 / (LARGEST * side)
    found = warp_expression(large, sources, sources, points, points, correct=dense(NOTHING, right, down))
    inner = slice(100 * factor, 150 * factor)
    rows, columns = (slice(inner.start + shift * factor, inner.stop + shift * factor) for shift in (-2, 4))
    torch.testing.assert_close(found[..., inner, inner], large[..., rows, columns], atol=0.03, rtol=0)


def test_windows_go_with_the_head(given):
    portrait, sources, *_ = given
    one = dense(NOTHING)
    own, moved = one.windows(portrait, sources), one.windows(portrait, sources + torch.tensor([12.8, -6.4]))
    torch.testing.assert_close(moved[:, 0] - own[:, 0], torch.tensor([[0.1, -0.05]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(moved[:, 1], own[:, 1])
    broken = sources.clone()
    broken[0, 0, 0] = math.nan
    assert one.windows(portrait, broken)[0].tolist() == [[0, 0], [1, 1]]
    assert one.windows(portrait, torch.full_like(sources, 5.0))[0].tolist() == [[0, 0], [1, 1]]


def test_a_coordinate_that_is_no_number_changes_nothing(given):
    portrait, sources, targets, points, moved = given
    broken = moved.clone()
    broken[0, 30, 1] = math.nan
    found = warp_expression(portrait, sources, targets, points, broken, correct=dense(NOTHING, 0.9))
    torch.testing.assert_close(found, portrait, atol=1e-4, rtol=0)


def test_what_frames_are_warped_with_asks_it_too(clip, given):
    portrait, sources, targets, *_ = given
    face = PortraitFace(sources[0], torch.from_numpy(clip.landmarks[0]).float(), torch.zeros(68))
    basis = load_expression_basis()
    points = HeadPoints(sources[0], targets + 3, 256, 256, face, None, basis, dense=dense(ALL))
    torch.testing.assert_close(points.warp(portrait[0], [0]), portrait, atol=1e-3, rtol=0)
    assert points.scaled(512, 512).dense is points.dense


def test_one_portrait_for_many_frames_is_seen_as_each_is(given):
    """Frames of one portrait, which is reduced once, and the same frames of copies of it."""
    portrait, sources, targets, points, moved = given
    torch.manual_seed(0)
    network = DenseMotion(8).eval().requires_grad_(False)
    torch.nn.init.normal_(network.conv_out.weight, std=0.1)
    both = [value.expand(2, *value.shape[1:]) for value in (sources, targets, points, moved)]
    shared, copied = (
        warp_expression(images, *both, correct=DenseWarp(network, CONFIG))
        for images in (portrait.expand(2, -1, -1, -1), portrait.repeat(2, 1, 1, 1))
    )
    torch.testing.assert_close(shared, copied, atol=1e-4, rtol=0)
