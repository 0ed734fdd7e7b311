"""Squares around faces, and what is cut out of images with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.crop import (
    FaceCrop,
    Square,
    crop_around,
    crop_faces,
    crop_square,
    from_letterbox,
    from_square,
    letterbox,
    scale_crop,
    square_around,
    squares_along,
    to_square,
)


def test_the_square_lies_around_all_places_of_the_face():
    boxes = np.array([[500.0, 300, 600, 420], [540, 310, 640, 420]])  # union 140 x 120
    square = square_around(boxes, 1920, 1080, margin=2.0)
    assert square == Square(570 - 140, round(360 - 12 - 140), 280)  # a tenth of 120 higher than the middle


def test_it_is_no_larger_than_the_picture_and_moved_into_it():
    square = square_around(np.array([[150.0, 60, 350, 260]]), 512, 320, margin=2.0)
    assert square == Square(250 - 160, 0, 320)
    beside = square_around(np.array([[20.0, 100, 120, 200]]), 512, 512, margin=2.0)
    assert beside == Square(0, 150 - 10 - 100, 200)


def test_it_leaves_the_picture_only_where_the_face_demands_it():
    corner = square_around(np.array([[0.0, 0, 100, 100]]), 512, 512, margin=2.0)
    assert corner == Square(0, 0, 200)
    beyond = square_around(np.array([[-40.0, 100, 60, 200]]), 512, 512, margin=2.0)
    assert beyond == Square(-40, 40, 200)
    narrow = square_around(np.array([[0.0, 100, 300, 400]]), 300, 1000, margin=1.7)
    assert narrow == Square(-15, 70, 330)


def test_what_is_outside_repeats_the_edge():
    frame = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    cut = crop_square(frame, Square(-2, 3, 4), 4)
    assert np.array_equal(cut[:, 2:], np.concatenate([frame[3:6, :2], frame[5:6, :2]]))
    assert np.array_equal(cut[:, 0], cut[:, 2]) and np.array_equal(cut[:, 1], cut[:, 2])
    assert np.array_equal(crop_square(frame, Square(1, 2, 4), 4), frame[2:6, 1:5])


@pytest.mark.parametrize("side, size", [(40, 80), (80, 32), (48, 48)])
def test_points_go_where_the_pixels_go(side, size):
    frame = np.zeros((100, 120, 3), np.uint8)
    frame[30:40, 50:60] = 255  # its middle is (55, 35)
    square = Square(35, 15, side)
    cut = crop_square(frame, square, size)
    rows, columns = np.indices(cut.shape[:2]) + 0.5
    weight = cut[..., 0].astype(float)
    middle = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
    assert np.allclose(middle, to_square(np.array([55.0, 35.0]), square, size), atol=0.02)
    assert to_square(np.array([[35.0, 15], [35 + side, 15 + side]]), square, size).tolist() == [[0, 0], [size, size]]


def test_points_come_back_from_the_square():
    points = np.array([[35.0, 15.5], [70.25, 44]])
    assert np.allclose(
        from_square(to_square(points, Square(-3, 7, 40), 128), Square(-3, 7, 40), 128), points, atol=1e-4
    )


def boxes_at(middles: list[tuple[float, float]], size: float = 60) -> np.ndarray:
    return np.array([[x - size / 2, y - size / 2, x + size / 2, y + size / 2] for x, y in middles])


def test_a_square_that_follows_goes_with_the_face():
    boxes = boxes_at([(100 + 4 * frame, 150) for frame in range(40)])
    squares = squares_along(boxes, 400, 300, 2.0, 5)
    assert {each.side for each in squares} == {120} and {each.top for each in squares} == {150 - 6 - 60}
    assert [each.left for each in squares[8:32]] == [40 + 4 * frame for frame in range(8, 32)]  # as even as the face


def test_without_smoothing_every_frame_has_its_own_square():
    boxes = np.concatenate([boxes_at([(100, 150)], 40), boxes_at([(140, 120)], 80), boxes_at([(90, 160)], 50)])
    alone = [square_around(box[None], 400, 300, 2.0) for box in boxes]
    assert squares_along(boxes, 400, 300, 2.0, 0) == alone
    assert [each.side for each in alone] == [80, 160, 100]


def test_a_square_that_follows_does_not_tremble():
    random = np.random.default_rng(0)
    boxes = boxes_at([(200, 150)] * 60) + random.uniform(-4, 4, (60, 4))
    rough, smooth = (
        np.array([(each.left, each.side) for each in squares_along(boxes, 400, 300, 2.0, reach)]) for reach in (0, 12)
    )
    assert (smooth.std(axis=0) < 0.45 * rough.std(axis=0)).all()


def test_a_square_that_follows_never_loses_the_face():
    boxes = boxes_at([(60, 60)] * 10 + [(340, 240)] * 10)  # jumps farther than the margin reaches
    for box, square in zip(boxes, squares_along(boxes, 400, 300, 1.3, 12), strict=True):
        assert square.left <= box[0] + 1 and box[2] <= square.left + square.side + 1
        assert square.top <= box[1] + 1 and box[3] <= square.top + square.side + 1


def test_one_square_or_one_for_each_frame():
    boxes = boxes_at([(100, 150), (120, 150), (140, 150)])
    still, follow = (crop_around(boxes, 400, 300, 1.5, reach) for reach in (None, 0))
    assert still == FaceCrop((Square(70 - 25, 75 - 6, 150),), 400, 300) and len(follow) == 3
    assert still.at(2) == still.at(0) and follow.at(2).left == follow.at(0).left + 40


def test_a_face_of_a_few_pixels_is_refused():
    with pytest.raises(PortraitError, match="6 pixels of 400 x 300: choose a larger image"):
        crop_around(boxes_at([(100, 100)], 3), 400, 300, 2.0, None)


def test_a_crop_is_scaled_with_its_pictures():
    crop = FaceCrop((Square(10, -4, 31), Square(12, 0, 30)), 120, 90)
    assert scale_crop(crop, 240, 180) == FaceCrop((Square(20, -8, 62), Square(24, 0, 60)), 240, 180)
    assert scale_crop(crop, 120, 90) is crop and scale_crop(crop, 160, 120).squares[1] == Square(16, 0, 40)
    with pytest.raises(PortraitError, match="images of 120 x 90, these have 120 x 120"):
        scale_crop(crop, 120, 120)


def test_faces_are_cut_out_as_they_are():
    images = torch.rand(3, 20, 30, 3, generator=torch.Generator().manual_seed(0))
    crop = FaceCrop(tuple(Square(4 + frame, 2, 12) for frame in range(3)), 30, 20)
    seen = []
    faces = crop_faces(images, crop, 0, lambda done, total: seen.append((done, total)))
    assert all(torch.equal(face, images[i, 2:14, 4 + i : 16 + i]) for i, face in enumerate(faces))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_faces_of_other_sizes_have_the_same_light():
    images = torch.full((2, 20, 30, 3), 0.25)
    images[:, :, 15:] = 1.0
    crop = FaceCrop((Square(5, -5, 20),), 30, 20)
    for size in (10, 56):
        faces = crop_faces(images, crop, size)
        assert faces.shape == (2, size, size, 3) and faces.max() == 1 and 0 <= faces.min()  # bicubic overshoots
        assert torch.allclose(faces.mean(), torch.tensor(0.625), atol=5e-3)


def test_without_a_size_the_largest_square_gives_it():
    crop, images = FaceCrop((Square(0, 0, 12), Square(0, 0, 16)), 30, 20), torch.rand(2, 20, 30, 3)
    faces = crop_faces(images, crop)
    assert faces.shape == (2, 16, 16, 3) and torch.equal(faces, crop_faces(images, crop, 16))
    torch.testing.assert_close(faces[1], images[1, :16, :16], rtol=0, atol=1e-5)


def test_a_face_outside_the_picture_is_refused():
    with pytest.raises(PortraitError, match="lies outside the image of 100 x 80"):
        crop_around(np.array([[300.0, 300.0, 340.0, 340.0]]), 100, 80, 2.0, None)


def test_letterbox_repeats_the_edges():
    frame = np.zeros((64, 128, 3), np.uint8)
    frame[0], frame[-1] = 200, 100
    square = letterbox(frame, 128)
    assert square.shape == (128, 128, 3)
    assert (square[:33] == 200).all() and (square[95:] == 100).all() and (square[33:95] == 0).all()


def test_letterbox_mapping_is_exact():
    assert from_letterbox(np.array([[[0.0, 0.25], [1.0, 0.75]]]), 200, 100).tolist() == [[[0, 0], [200, 100]]]
    assert from_letterbox(np.array([[[0.5, 0.5]]]), 101, 200).tolist() == [[[51, 100]]]  # 49 columns on the left
