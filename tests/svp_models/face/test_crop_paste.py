"""Faces back in their images: what changes, what stays to the bit, and how many images come out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.crop import FaceCrop, Square, crop_faces, feather_mask, feather_masks, paste_faces

INSIDE = (True, True, True, True)
WIDTH, HEIGHT = 50, 36


def images(count: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(seed))


def crop_of(*squares: tuple[int, int, int]) -> FaceCrop:
    return FaceCrop(tuple(Square(*each) for each in squares), WIDTH, HEIGHT)


def outside_of(crop: FaceCrop, frame: int = 0) -> torch.Tensor:
    square, mask = crop.at(frame), torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    mask[max(square.top, 0) : square.top + square.side, max(square.left, 0) : square.left + square.side] = False
    return mask


@pytest.mark.parametrize("feather", [0.0, 0.15, 0.5])
@pytest.mark.parametrize("square", [(10, 8, 20), (-6, 20, 24), (-2, -9, 54)])
def test_faces_that_were_not_changed_leave_the_picture_as_it_was(square, feather):
    whole, crop = images(2), crop_of(square)
    assert torch.equal(paste_faces(whole, crop_faces(whole, crop), crop, feather), whole)


@pytest.mark.parametrize("size", [12, 31, 64])
def test_faces_of_another_size_come_back_close(size):
    x = torch.linspace(0, 3, WIDTH)[None, :] + torch.linspace(0, 2, HEIGHT)[:, None]
    whole = (0.5 + 0.4 * torch.stack([x.sin(), x.cos(), (2 * x).sin()], dim=-1))[None]
    crop = crop_of((12, 6, 24))
    back = paste_faces(whole, crop_faces(whole, crop, size), crop, 0.1)
    assert torch.equal(back[0][outside_of(crop)], whole[0][outside_of(crop)])
    error = (back - whole).abs().max()
    assert error < (0.06 if size == 12 else 0.012), float(error)


def test_only_the_square_changes():
    whole, crop = images(), crop_of((-5, 10, 20))
    pasted = paste_faces(whole, torch.ones(1, 40, 40, 3), crop, 0.0)
    assert torch.equal(pasted[0][outside_of(crop)], whole[0][outside_of(crop)])
    assert (pasted[0, 10:30, :15] == 1).all()
    untouched = images()
    assert torch.equal(whole, untouched)


def test_the_feather_falls_as_written():
    size, feather = 40, 0.25  # over 10 pixels
    weights = feather_mask(INSIDE, size, feather)
    t = np.minimum((np.arange(20) + 0.5) / 10, 1)
    ramp = t * t * (3 - 2 * t)
    assert np.allclose(weights[20, :20], ramp, atol=1e-6) and np.allclose(weights[3, :20], ramp[3] * ramp, atol=1e-6)
    assert np.allclose(weights, weights.T) and np.allclose(weights, weights[::-1, ::-1])
    assert weights[10:30, 10:30].min() == 1 and (feather_mask(INSIDE, size, 0.0) == 1).all()


def test_the_pictures_own_edges_have_no_feather():
    assert Square(0, 5, 20).inner_edges(50, 25) == (False, True, True, False)
    assert Square(-3, -3, 60).inner_edges(50, 36) == (False, False, False, False)
    weights = feather_mask((False, True, True, False), 20, 0.5)
    assert weights[19, 0] == 1 and weights[0, 0] < 0.01 and weights[19, 19] < 0.01
    assert (np.diff(weights[:, 0]) >= 0).all() and (np.diff(weights[19]) <= 0).all()


def test_a_face_is_blended_by_the_feather():
    whole, crop = torch.zeros(1, HEIGHT, WIDTH, 3), crop_of((10, 8, 20))
    pasted = paste_faces(whole, torch.ones(1, 20, 20, 3), crop, 0.3)
    assert np.allclose(pasted[0, 8:28, 10:30, 0].numpy(), feather_mask(INSIDE, 20, 0.3), atol=1e-6)


def test_a_mask_decides_what_goes_back():
    whole, crop = images(), crop_of((10, 8, 20))
    mask = torch.zeros(1, 20, 20)
    mask[:, 5:15, 5:15] = 1
    pasted = paste_faces(whole, torch.full((1, 20, 20, 3), 0.5), crop, 0.0, mask)
    assert (pasted[0, 13:23, 15:25] == 0.5).all()
    changed = (pasted != whole).any(dim=-1)[0]
    changed[13:23, 15:25] = False
    assert not changed.any()
    large = torch.nn.functional.interpolate(mask[None], scale_factor=4)[0]
    assert torch.equal(paste_faces(whole, torch.full((1, 20, 20, 3), 0.5), crop, 0.0, large), pasted)


def test_a_talking_face_makes_a_clip_of_a_picture():
    whole, crop = images(), crop_of((10, 8, 20))
    levels = torch.linspace(0, 1, 4)
    pasted = paste_faces(whole, levels[:, None, None, None].expand(4, 20, 20, 3), crop, 0.0)
    assert pasted.shape == (4, HEIGHT, WIDTH, 3)
    for frame, level in zip(pasted, levels, strict=True):
        assert (frame[8:28, 10:30] == level).all()
        assert torch.equal(frame[outside_of(crop)], whole[0][outside_of(crop)])


def test_one_face_goes_into_all_pictures_each_in_its_own_square():
    whole, crop = images(3), crop_of((0, 0, 10), (10, 5, 12), (30, 20, 30))
    pasted = paste_faces(whole, torch.ones(1, 8, 8, 3), crop, 0.0)
    for index, frame in enumerate(pasted):
        outside = outside_of(crop, index)
        assert (frame[~outside] > 1 - 1e-6).all() and torch.equal(frame[outside], whole[index][outside])


def test_pictures_that_were_enlarged_meanwhile():
    whole = torch.zeros(1, 2 * HEIGHT, 2 * WIDTH, 3)
    pasted = paste_faces(whole, torch.ones(1, 20, 20, 3), crop_of((10, 8, 20)), 0.0)
    assert (pasted[0, 16:56, 20:60] > 1 - 1e-6).all() and float(pasted.sum()) == pytest.approx(40 * 40 * 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pictures_keep_their_type(dtype):
    whole, crop = images().to(dtype), crop_of((10, 8, 20))
    pasted = paste_faces(whole, torch.ones(1, 20, 20, 3, dtype=dtype), crop, 0.2)
    assert pasted.dtype == dtype and torch.equal(pasted[0][outside_of(crop)], whole[0][outside_of(crop)])


def test_every_picture_is_told_and_may_be_the_last():
    told = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        paste_faces(images(), torch.ones(5, 8, 8, 3), crop_of((10, 8, 20)), 0.1, None, stop)
    assert told == [(1, 5), (2, 5)]


@pytest.mark.parametrize(
    "whole, faces, squares, masks, message",
    [
        (5, 7, 1, None, "there are 5 images, 7 faces, 1 squares of the crop, and each must be 1 or 7"),
        (5, 5, 4, None, "5 images, 5 faces, 4 squares"),
        (1, 1, 4, None, "1 images, 1 faces, 4 squares of the crop, and each must be 1 or 1"),
        (1, 5, 5, 2, "5 squares of the crop, 2 masks, and each must be 1 or 5"),
        (1, 0, 1, None, "0 faces"),
    ],
)
def test_counts_that_do_not_fit_are_told(whole, faces, squares, masks, message):
    with pytest.raises(PortraitError, match=message):
        paste_faces(
            images(whole),
            torch.ones(faces, 8, 8, 3),
            crop_of(*[(4, 4, 20)] * squares),
            0.1,
            None if masks is None else torch.ones(masks, 8, 8),
        )


def test_what_is_no_square_is_told():
    with pytest.raises(PortraitError, match="the faces have 12 x 8 pixels"):
        paste_faces(images(), torch.ones(1, 8, 12, 3), crop_of((4, 4, 20)), 0.1)
    with pytest.raises(PortraitError, match="the masks have 50 x 36 pixels"):
        paste_faces(images(), torch.ones(1, 8, 8, 3), crop_of((4, 4, 20)), 0.1, torch.ones(1, HEIGHT, WIDTH))


def test_masks_of_cut_faces():
    one = feather_masks(crop_of((10, 8, 20)), 1000, 16, 0.2)
    assert one.shape == (1000, 16, 16) and one.untyped_storage().nbytes() == 16 * 16 * 4
    assert np.allclose(one[7].numpy(), feather_mask(INSIDE, 16, 0.2))
    each = feather_masks(crop_of((10, 8, 20), (0, 8, 20)), 2, 16, 0.2)
    assert each[0, 8, 0] < 0.1 and each[1, 8, 0] == 1
