from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.keypoints import (
    POINT_COLORS,
    draw_head_batch,
    draw_head_frames,
    draw_head_keypoints,
    draw_motion,
    find_head_keypoints,
)
from svp_portrait.svp_models.types import HeadMotion

FACE = np.array([[20, 50], [22, 80], [100, 50], [98, 80], [44, 52], [76, 52], [60, 40], [60, 70]], np.float32) + 0.5


def test_every_point_has_its_color_and_the_rest_is_black():
    image = draw_head_keypoints(FACE[None], 128, 128, 128, 128)
    assert image.shape == (1, 128, 128, 3) and image.dtype == np.uint8
    for (x, y), color in zip(FACE, POINT_COLORS, strict=True):
        assert np.abs(image[0, int(y), int(x)].astype(int) - color).max() <= 2
    assert not image[0, 100:].any() and not image[0, :30].any()
    assert image[0, 46, 60].any() and image[0, 65, 21].any()  # bridge and left edge lines


@pytest.mark.parametrize("size", [(32, 32), (128, 128), (256, 512), (512, 512), (768, 640)])
def test_points_are_drawn_where_they_are(size):
    width, height = size
    for x, y in ((0.31, 0.42), (0.62, 0.57)):
        points = np.full((1, 8, 2), (x * 40, y * 80), np.float32)
        image = draw_head_keypoints(points, 40, 80, width, height)[0].astype(float).max(axis=2)
        rows, columns = np.mgrid[:height, :width] + 0.5
        assert (image * columns).sum() / image.sum() == pytest.approx(x * width, abs=0.15)
        assert (image * rows).sum() / image.sum() == pytest.approx(y * height, abs=0.15)


def test_movement_of_a_tenth_of_a_pixel_shows():
    before = draw_head_keypoints(FACE[None], 128, 128, 128, 128)
    after = draw_head_keypoints(FACE[None] + 0.1, 128, 128, 128, 128)
    assert (before != after).any() and np.abs(before.astype(int) - after).max() < 128


def test_thickness_follows_the_size():
    light = [draw_head_keypoints(FACE[None], 128, 128, side, side).mean() for side in (64, 256, 512, 1024)]
    assert max(light) / min(light) < 1.2


def test_points_far_outside_are_no_trouble():
    points = np.stack([FACE - 50, FACE + 1e9, FACE * -1e4, FACE * 0])
    images = draw_head_keypoints(points, 128, 128, 64, 64)
    assert images.shape == (4, 64, 64, 3) and images[0].any()


def test_wrong_points_are_named():
    with pytest.raises(PortraitError, match="frames x 8 x 2"):
        draw_head_keypoints(FACE, 128, 128, 64, 64)
    points = np.stack([FACE, FACE])
    points[1, 2] = np.nan
    with pytest.raises(PortraitError, match="frame 1 are not finite"):
        draw_head_keypoints(points, 128, 128, 64, 64)


def test_images_of_a_clip_mirror_a_short_motion():
    motion = HeadMotion(torch.from_numpy(np.stack([FACE, FACE + 3, FACE + 6])), 128, 128, 25.0)
    images = draw_motion(motion, 48, 32, 5).movedim(-1, 1)
    assert images.shape == (5, 3, 32, 48) and images.dtype == torch.float32
    assert 0 <= float(images.min()) and 0.9 < float(images.max()) <= 1
    assert torch.equal(images[3], images[1]) and torch.equal(images[4], images[0])
    assert torch.equal(draw_head_frames(motion, [2, 0], 48, 32), images[[2, 0]])


def test_drawing_is_the_same_every_time():
    first, second = (draw_head_keypoints(FACE[None], 128, 128, 256, 256) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("size", [64, 128, 512])
def test_points_are_found_again_in_their_picture(size):
    points = torch.from_numpy(FACE)[None] * size / 128
    images = draw_head_frames(HeadMotion(points, size, size, 25.0), [0], size, size)
    torch.testing.assert_close(find_head_keypoints(images), points, atol=max(0.3, size / 400), rtol=0)


def test_a_picture_that_lacks_a_point_has_none():
    assert torch.isnan(find_head_keypoints(torch.zeros(1, 3, 64, 64))).all()


def test_a_batch_is_drawn_as_one_by_one():
    """But for the antialiasing of edges: 0.003 on average, and the points are found at the same places."""
    points = torch.tensor([[32, 59], [36, 84], [96, 59], [92, 84], [50, 58], [78, 58], [64, 55], [64, 74]]).float()
    points = torch.stack([points, 1.2 * points + torch.tensor([-10.3, 4.6])])
    expected = draw_head_frames(HeadMotion(points, 144, 160, 25.0), [0, 1], 144, 160)
    drawn = draw_head_batch(points, 144, 160)
    assert (drawn - expected).abs().mean() < 0.003
    torch.testing.assert_close(find_head_keypoints(drawn), find_head_keypoints(expected), atol=0.15, rtol=0)
