"""The painted inside of a mouth: where a warp opens the lips, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.face.mouth_interior import MouthPaint, paint_mouths

CORNERS, WIDTH = (40.0, 88.0), 48.0


def lips(opening: float, tilt: float = 0.0) -> torch.Tensor:
    """68 points with inner lips `opening` pixels apart in the middle, between corners at 40 and 88, 64; tilted by degrees."""
    points = np.zeros((68, 2))
    across = np.array([40, 52, 64, 76, 88.0])
    bow = opening * np.array([0, 0.8, 1, 0.8, 0])
    points[60:65] = np.stack([across, 64 - 0.3 * bow], 1)
    points[[60, 67, 66, 65, 64]] = np.stack([across, 64 + 0.7 * bow], 1)
    points[60], points[64] = (40, 64), (88, 64)
    points[48:60] = [64, 64]
    points[48], points[54], points[51], points[57] = (
        (36, 64),
        (92, 64),
        (64, 56 - 0.3 * opening),
        (64, 74 + 0.7 * opening),
    )
    points[[61, 62, 63], 1] -= 0.5  # of a closed mouth, a line
    turn = np.radians(tilt)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return torch.from_numpy((points - 64) @ matrix.T + 64)


@pytest.fixture
def skin() -> torch.Tensor:
    return torch.full((1, 3, 128, 128), 0.4)


def test_an_opened_mouth_has_teeth_above_darkness(skin):
    found = paint_mouths(skin, lips(0)[None], lips(20)[None])[0].mean(0)
    teeth, dark, tongue = found[61, 64], found[69, 64], found[76, 64]
    assert teeth > dark + 0.5 and tongue > dark + 0.1 and dark < 0.4 - 0.5
    assert torch.equal(found[:, :36], skin[0].mean(0)[:, :36]) and torch.equal(found[90:], skin[0].mean(0)[90:])
    painted = (found != skin[0].mean(0)).float().mean() * 128**2
    assert float(painted) == pytest.approx(0.68 * 20 * WIDTH, rel=0.2)  # the area between the lips


def test_a_mouth_that_opens_no_further_keeps_its_own_inside(skin):
    assert torch.equal(paint_mouths(skin, lips(12)[None], lips(12)[None]), skin)
    assert torch.equal(paint_mouths(skin, lips(0)[None], lips(0.5)[None]), skin)
    assert torch.equal(paint_mouths(skin, lips(20)[None], lips(4)[None]), skin)


def test_paint_turns_with_the_mouth(skin):
    upright = paint_mouths(skin, lips(0)[None], lips(20)[None])[0]
    sideways = paint_mouths(skin, lips(0, 90)[None], lips(20, 90)[None])[0]
    torch.testing.assert_close(sideways.rot90(1, (1, 2)), upright, atol=0.05, rtol=0)


def test_half_an_opening_is_painted_half(skin):
    paint = MouthPaint(least=0.0, full=20 / WIDTH)
    half, full = (paint_mouths(skin, lips(0)[None], lips(value)[None], paint)[0, :, 66, 64] for value in (10, 22))
    assert (half - 0.4).abs().sum() < 0.75 * (full - 0.4).abs().sum()


def test_mouths_beyond_the_picture_are_harmless(skin):
    away = lips(20)[None] + 300
    assert torch.equal(paint_mouths(skin, lips(0)[None], away), skin)
    assert torch.isfinite(paint_mouths(skin, lips(0)[None], lips(20)[None] + 50)).all()
