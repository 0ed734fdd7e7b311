from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.keypoints import draw_vexpress_frames, draw_vexpress_keypoints, vexpress_keypoints
from svp_portrait.svp_models.face.retarget import head_turn, nearest_head_turn, resize_keypoints, retarget_vexpress
from svp_portrait.svp_models.types import HeadMotion

from ...reference.weights import VEXPRESS

FACE = torch.tensor([[40.0, 40.0], [80.0, 40.0], [60.0, 64.0]])


@pytest.fixture(scope="module")
def golden():
    return load_file(VEXPRESS / "io.safetensors"), dict(np.load(VEXPRESS / "kps_images.npz"))


def test_pictures_are_those_of_v_express(golden):
    tensors, images = golden
    for keypoints, name in (("draw_kps.keypoints", "draw_kps_images"), ("loop.keypoints", "loop_kps_images")):
        height, width = images[name].shape[1:3]
        assert np.array_equal(draw_vexpress_keypoints(tensors[keypoints], width, height), images[name])


@pytest.mark.parametrize(("mode", "anchor"), [("offset", 6), ("naive", 6)])
def test_retargeting_is_that_of_v_express_at_its_frame(golden, mode, anchor):
    tensors, _ = golden
    reference, driving = tensors["retarget.reference_keypoints"], tensors["retarget.target_keypoints"]
    ours = retarget_vexpress(reference, driving, mode, anchor)
    torch.testing.assert_close(ours, tensors[f"retarget.{mode}"], rtol=1e-6, atol=1e-4)
    assert nearest_head_turn(driving, reference) == 1
    nearest = retarget_vexpress(reference, driving, mode)
    assert torch.equal(nearest, retarget_vexpress(reference, driving, mode, 1))
    assert not torch.allclose(nearest, ours, atol=0.01)


def test_resizing_is_that_of_v_express(golden):
    tensors, _ = golden
    ours = resize_keypoints(tensors["retarget.target_keypoints"], 13)
    torch.testing.assert_close(ours, tensors["kps_interpolate.output"])


def test_resizing_keeps_a_steady_motion_steady():
    motion = torch.arange(4.0)[:, None, None].expand(4, 3, 2)
    assert torch.equal(resize_keypoints(motion, 4), motion)
    double = resize_keypoints(motion, 8)[:, 0, 0]  # centres of frames: a quarter before and behind each stored one
    assert double.tolist() == pytest.approx([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    assert torch.equal(resize_keypoints(motion[:1], 3), motion[:1].expand(3, -1, -1))
    with pytest.raises(PortraitError, match="4 frames of keypoints to be made 0"):
        resize_keypoints(motion, 0)


def test_a_picture_has_points_and_limbs_in_their_colours():
    image = draw_vexpress_keypoints(FACE[None], 120, 96)[0]
    assert image.shape == (96, 120, 3)
    for (x, y), color in zip(FACE.int().tolist(), ([255, 0, 0], [0, 255, 0], [0, 0, 255]), strict=True):
        assert image[y, x].tolist() == color and image[y, x - 4].tolist() == color
    assert image[52, 50].tolist() == [153, 0, 0] and image[52, 70].tolist() == [0, 153, 0]
    assert image[90, 10].tolist() == [0, 0, 0]


def test_points_far_outside_are_drawn_too():
    draw_vexpress_keypoints(torch.tensor([[[1e12, 0.0], [-1e12, 5.0], [3.0, 1e9]]]), 32, 32)
    with pytest.raises(PortraitError, match="frame 1 are not finite"):
        draw_vexpress_keypoints(torch.stack([FACE, FACE * math.nan]), 32, 32)
    with pytest.raises(PortraitError, match=r"\(2, 8, 2\): it must be frames x 3 x 2"):
        draw_vexpress_keypoints(torch.zeros(2, 8, 2), 32, 32)


def test_a_head_motion_is_drawn_at_the_size_of_the_frames():
    head = torch.zeros(2, 8, 2)
    head[:, [4, 5, 7]] = FACE
    motion = HeadMotion(head, 120, 96, 25.0)
    assert torch.equal(vexpress_keypoints(head)[0], FACE)
    images = draw_vexpress_frames(motion, [1], 240, 192)
    assert images.shape == (1, 3, 192, 240)
    expected = draw_vexpress_keypoints(2 * FACE[None], 240, 192)
    assert torch.equal(images.permute(0, 2, 3, 1) * 255, torch.from_numpy(expected).float())
    stretched = draw_vexpress_keypoints(
        FACE[None] * torch.tensor([2.0, 1.5]), 240, 144
    )  # across and down by themselves
    found = draw_vexpress_frames(motion, [1], 240, 144).permute(0, 2, 3, 1) * 255
    assert torch.equal(found, torch.from_numpy(stretched).float())


def test_fix_face_keeps_still():
    driving = torch.rand(5, 3, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(retarget_vexpress(FACE, driving, "fix_face"), FACE.expand(5, -1, -1))


def test_naive_scales_across_and_down_by_themselves_and_meets_the_first_nose():
    stretch = torch.tensor([2.0, 0.5])
    motion = torch.stack([FACE * stretch + torch.tensor([3.0 * index, -index]) for index in range(4)])
    result = retarget_vexpress(FACE, motion, "naive")
    steps = torch.tensor([1.5, -2.0])  # 3 / 2 across and -1 / 0.5 down for every frame
    expected = torch.stack([FACE + steps * index for index in range(4)])
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


def test_offset_moves_half_of_the_way_against_the_nose():
    motion = torch.stack([2 * FACE + torch.tensor([8.0 * index, 0.0]) for index in range(3)])
    result = retarget_vexpress(FACE, motion, "offset")
    expected = torch.stack([FACE - torch.tensor([2.0 * index, 0.0]) for index in range(3)])
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


def test_the_nearest_turn_does_not_depend_on_place_and_size():
    turned = FACE.clone()
    turned[2, 0] = 52
    driving = torch.stack([FACE, 3 * turned + 20, FACE + 5])
    assert nearest_head_turn(driving, turned) == 1
    assert float(head_turn(FACE)) == pytest.approx(1, abs=1e-6)


def test_wrong_input_is_named():
    with pytest.raises(PortraitError, match="'rescale': it must be one of fix_face, offset, naive"):
        retarget_vexpress(FACE, FACE[None], "rescale")
    with pytest.raises(PortraitError, match=r"\(3, 2\) and \(0, 3, 2\)"):
        retarget_vexpress(FACE, FACE[None][:0], "naive")
    flat = torch.tensor([[0.0, 0.0], [4.0, 0.0], [2.0, 0.0]])
    with pytest.raises(PortraitError, match="lie on one line"):
        retarget_vexpress(FACE, flat[None], "naive")
