from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.media.images import median_filter, median_filter_frames


def by_hand(frames: torch.Tensor) -> torch.Tensor:
    """The definition: each value's neighbours one by one, indices reflected at the ends."""

    def reflected(index: int, length: int) -> int:
        return 0 if length == 1 else -index if index < 0 else 2 * (length - 1) - index if index >= length else index

    length, channels, height, width = frames.shape
    result = torch.empty_like(frames)
    steps = (-1, 0, 1)
    for f in range(length):
        for y in range(height):
            for x in range(width):
                around = [
                    frames[reflected(f + i, length), :, reflected(y + j, height), reflected(x + k, width)]
                    for i in steps
                    for j in steps
                    for k in steps
                ]
                result[f, :, y, x] = torch.stack(around).sort(dim=0).values[13]
    return result


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 2, 3, 4), (2, 1, 4, 2), (3, 1, 1, 5), (6, 2, 4, 5)])
def test_every_value_is_the_median_of_its_27_neighbours(shape):
    frames = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(median_filter(frames), by_hand(frames))


def test_bytes_stay_bytes():
    frames = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert median_filter(frames).dtype == torch.uint8 and torch.equal(median_filter(frames), by_hand(frames))


def test_a_flash_disappears_and_an_edge_stays():
    frames = torch.zeros(5, 1, 6, 6)
    frames[..., 3:] = 1.0
    clean = frames.clone()
    frames[2, 0, 2, 1] = 1.0
    assert torch.equal(median_filter(frames), clean)


def test_frames_are_taken_one_ahead():
    taken = []

    def source():
        for index in range(5):
            taken.append(index)
            yield torch.full((1, 2, 2), float(index))

    filtered = median_filter_frames(source())
    next(filtered)
    assert taken == [0, 1, 2]
    assert len(list(filtered)) == 4
    assert list(median_filter_frames([])) == []


def test_the_same_tensor_twice_is_two_frames():
    frame = torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(2))
    assert len(list(median_filter_frames([frame, frame]))) == 2
