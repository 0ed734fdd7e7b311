from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.plot import LEFT, RIGHT, THEMES, axis_ticks, motion_panels, plot_motion

from .motions import random_motion, still_motion


def painted(image: np.ndarray, colour) -> np.ndarray:
    """Where a picture has a colour, but for what averaging leaves of it: h w."""
    return np.abs(image.astype(int) - colour).max(axis=-1) < 40


def test_panels_show_what_the_motion_tells():
    titles = [panel.title for panel in motion_panels(random_motion(9))]
    assert titles[:3] == ["angles (degrees)", "shift (% of the side)", "scale"]
    assert titles[3:] == ["lids (1 = closed)", "mouth (1 = open)", "gaze (1 = aside)"]
    photograph = replace(random_motion(9), lids=None, gaze=None)
    assert len(motion_panels(photograph)) == 4
    (gaze,) = [panel for panel in motion_panels(random_motion(9, "liveportrait")) if panel.title.startswith("gaze")]
    assert [curve.name for curve in gaze.first] == ["right"]  # looking down moves what the lids move


def test_curves_have_the_numbers_of_the_motion_and_seconds():
    motion = random_motion(50, fps=25.0)
    angles, shift, scale = motion_panels(motion)[:3]
    np.testing.assert_allclose(angles.first[1].values, motion.angles[:, 1])
    np.testing.assert_allclose(shift.first[0].values, motion.shift[:, 0] * 100, rtol=1e-6)
    np.testing.assert_allclose(scale.first[0].seconds[[0, 25, 49]], [0, 1, 1.96])


def test_two_motions_share_panels_also_of_different_spaces():
    both = motion_panels(random_motion(9), random_motion(5, "liveportrait"))
    assert [len(panel.second) for panel in both] == [3, 2, 1, 2, 1, 1]
    assert len(both[0].second[0].values) == 5


@pytest.mark.parametrize("theme", THEMES)
def test_a_ramp_is_a_line_from_corner_to_corner(theme):
    """Yaw rises from the lower left of the first panel to its upper right; the colour of pitch stays in the middle."""
    motion = still_motion(101)
    motion.angles[:, 0] = torch.linspace(-20, 20, 101)
    image, colours = plot_motion(motion, width=800, height=900, theme=theme), THEMES[theme]
    assert image.shape == (900, 800, 3) and image.dtype == np.uint8 and tuple(image[0, 0]) == colours.ground
    panel = painted(image, colours.curves[0])[40:162, LEFT : 800 - RIGHT]
    rows, columns = np.nonzero(panel)
    assert np.corrcoef(rows, columns)[0, 1] < -0.98
    assert columns.min() <= 2 and columns.max() >= panel.shape[1] - 3
    early, late = rows[columns < 30].mean(), rows[columns > panel.shape[1] - 30].mean()
    assert early > late + 60


def test_the_second_motion_is_dashed():
    low = still_motion(60)
    high = replace(low, angles=low.angles + torch.tensor([10.0, 0, 0]))

    def covered(image):
        """Share of the width under the line of the yaw in the upper half of the first panel."""
        return painted(image, THEMES["light"].curves[0])[40:100, LEFT : 800 - RIGHT].any(axis=0).mean()

    assert covered(plot_motion(high, low, 800, 900)) > 0.98
    assert covered(plot_motion(low, high, 800, 900)) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (-0.3, 0.9, [-0.2, 0.0, 0.2, 0.4, 0.6, 0.8]),
        (997, 1003, [997, 998, 999, 1000, 1001, 1002, 1003]),
        (1.01, 1.02, [1.01, 1.012, 1.014, 1.016, 1.018, 1.02]),
    ],
)
def test_ticks_are_round_numbers(low, high, ticks):
    assert axis_ticks(low, high) == pytest.approx(ticks)


def test_one_frame_and_a_minute_are_drawn():
    for frames in (1, 1500):
        image = plot_motion(random_motion(frames), None, 640, 480)
        assert painted(image, THEMES["light"].curves[0])[:, LEFT : 640 - RIGHT].any()


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(PortraitError, match="the picture is 100 x 900: curves need 360 x 360 pixels or more"):
        plot_motion(still_motion(3), width=100, height=900)
    with pytest.raises(PortraitError, match="the theme is 'blue': choose one of light, dark"):
        plot_motion(still_motion(3), theme="blue")
