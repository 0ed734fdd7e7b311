from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.keypoints import vexpress_keypoints
from svp_portrait.svp_models.face.retarget import (
    keypoints_centre,
    keypoints_size,
    nearest_pose,
    retarget,
    retarget_vexpress,
)
from svp_portrait.svp_models.types import HeadMotion

CLIPS = Path(__file__).resolve().parents[3].parent / "shared" / "clips"
FACE = torch.tensor([[20, 50], [22, 80], [100, 50], [98, 80], [44, 52], [76, 52], [60, 50], [60, 75.5]])


def turned(degrees: float) -> torch.Tensor:
    angle = math.radians(degrees)
    matrix = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (FACE - keypoints_centre(FACE)) @ matrix + keypoints_centre(FACE)


def driving_motion() -> HeadMotion:
    """A head that rolls and drifts: frame 3 is upright, at another place."""
    frames = [turned(9 - 3 * index) + torch.tensor([index, -2.0 * index]) for index in range(6)]
    return HeadMotion(torch.stack(frames), 128, 96, 30.0, (4,))


def still(points: torch.Tensor, width: int = 128, height: int = 96) -> HeadMotion:
    return HeadMotion(points[None], width, height, 25.0)


def test_fix_keeps_the_head_still():
    result = retarget(driving_motion(), still(FACE * 2, 256, 192), "fix")
    assert torch.equal(result.keypoints, (FACE * 2).expand(6, -1, -1))
    assert (result.width, result.height, result.fps, result.interpolated) == (256, 192, 30.0, (4,))


def test_offset_of_the_same_face_is_identity():
    motion = driving_motion()
    assert torch.allclose(retarget(motion, still(motion.keypoints[0]), "offset").keypoints, motion.keypoints, atol=1e-4)


def test_rescale_of_the_same_face_is_identity_whatever_the_frame():
    motion = driving_motion()
    for frame in range(6):
        result = retarget(motion, still(motion.keypoints[frame]), "rescale")
        assert torch.allclose(result.keypoints, motion.keypoints, atol=1e-4)


@pytest.mark.parametrize("mode", ["offset", "rescale"])
def test_a_larger_driving_picture_changes_nothing(mode):
    motion, portrait = driving_motion(), still(FACE + 5)
    large = HeadMotion(motion.keypoints * 3 + 11, 400, 300, 30.0)
    first, second = retarget(motion, portrait, mode).keypoints, retarget(large, portrait, mode).keypoints
    assert torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("mode", ["fix", "offset", "rescale"])
def test_a_larger_portrait_enlarges_everything(mode):
    small = retarget(driving_motion(), still(FACE), mode).keypoints
    large = retarget(driving_motion(), still(FACE * 4, 512, 384), mode).keypoints
    assert torch.allclose(large, small * 4, atol=1e-3)


def test_offset_begins_with_the_portrait_and_moves_by_the_size_ratio():
    portrait = FACE * 2
    portrait[7, 1] += 30  # a longer nose
    motion = HeadMotion(torch.stack([FACE, FACE + torch.tensor([4.0, -1.0])]), 128, 96, 25.0)
    result = retarget(motion, still(portrait), "offset").keypoints
    ratio = float(keypoints_size(portrait) / keypoints_size(FACE))
    assert torch.equal(result[0], portrait)
    assert torch.allclose(result[1] - result[0], torch.tensor([4 * ratio, -ratio]).expand(8, 2), atol=1e-4)


def test_rescale_aligns_centre_and_size_in_the_frame_of_the_nearest_pose():
    motion = driving_motion()
    portrait = 1.5 * FACE + torch.tensor([40.0, 7.0])  # upright, as frame 3 is
    portrait[1, 1] += 1
    assert nearest_pose(motion.keypoints, portrait) == 3
    result = retarget(motion, still(portrait), "rescale").keypoints
    assert torch.allclose(keypoints_centre(result[3]), keypoints_centre(portrait), atol=1e-3)
    assert float(keypoints_size(result[3])) == pytest.approx(float(keypoints_size(portrait)), rel=1e-5)
    steps, expected = result[1:] - result[:-1], motion.keypoints[1:] - motion.keypoints[:-1]
    assert torch.allclose(steps, expected * keypoints_size(portrait) / keypoints_size(FACE), atol=1e-3)


@pytest.mark.parametrize(("mode", "theirs"), [("vexpress offset", "offset"), ("vexpress naive", "naive")])
def test_eyes_and_nose_come_out_as_v_express_has_them(mode, theirs):
    noise = torch.randn(30, 8, 2, generator=torch.Generator().manual_seed(0))
    driving = HeadMotion(
        torch.stack([turned(2 * index - 30) * 1.7 + index for index in range(30)]) + noise, 400, 300, 30.0
    )
    portrait = still(turned(4) * 2.2 + torch.tensor([31.0, -9.0]), 512, 512)
    result = retarget(driving, portrait, mode)
    expected = retarget_vexpress(
        vexpress_keypoints(portrait.keypoints[0]), vexpress_keypoints(driving.keypoints), theirs
    )
    torch.testing.assert_close(vexpress_keypoints(result.keypoints), expected, rtol=0, atol=1e-5)
    assert float((expected[1:] - expected[:1]).abs().max()) > 5  # pixels: the head moves
    assert (result.width, result.height, result.fps) == (512, 512, 30.0)


def test_v_express_ways_move_all_eight_points_by_the_same_transform():
    wide = FACE * torch.tensor([2.0, 0.5])
    motion = HeadMotion(torch.stack([wide + torch.tensor([6.0 * index, index]) for index in range(4)]), 300, 200, 25.0)
    steps = torch.arange(4.0)[:, None, None] * torch.tensor([3.0, 2.0])  # 6 / 2 across and 1 / 0.5 down for every frame
    naive, offset = (retarget(motion, still(FACE), f"vexpress {way}").keypoints for way in ("naive", "offset"))
    torch.testing.assert_close(naive, FACE + steps, rtol=0, atol=1e-4)
    torch.testing.assert_close(offset, FACE - steps / 2, rtol=0, atol=1e-4)


def test_wrong_input_is_named():
    motion, point = driving_motion(), torch.ones(8, 2)
    with pytest.raises(
        PortraitError, match="'naive': it must be one of fix, offset, rescale, vexpress offset, vexpress naive"
    ):
        retarget(motion, still(FACE), "naive")
    with pytest.raises(PortraitError, match="6 frames: they must be of one image"):
        retarget(motion, motion, "fix")
    with pytest.raises(PortraitError, match="0 frames"):
        retarget(HeadMotion(torch.zeros(0, 8, 2), 8, 8, 25.0), still(FACE), "offset")
    for mode in ("offset", "rescale"):
        with pytest.raises(PortraitError, match="one spot"):
            retarget(motion, still(point), mode)
    with pytest.raises(PortraitError, match="eyes and the nose of a face lie on one line"):
        retarget(motion, still(point), "vexpress naive")


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no ../shared/clips beside the repository")
@pytest.mark.parametrize("mode", ["offset", "rescale"])
def test_a_real_motion_stays_near_another_real_portrait(mode):
    driving = torch.from_numpy(np.load(CLIPS / "vasa_10" / "landmarks.npz")["head_kps"])
    portrait = torch.from_numpy(np.load(CLIPS / "vasa_7" / "landmarks.npz")["head_kps"][0])
    result = retarget(HeadMotion(driving, 512, 512, 25.0), still(portrait, 512, 512), mode).keypoints
    sizes = keypoints_size(result).flatten() / keypoints_size(portrait).flatten()
    assert 0.8 < float(sizes.min()) and float(sizes.max()) < 1.25
    assert float(result.min()) > 0 and float(result.max()) < 512
