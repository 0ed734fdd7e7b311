from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.blinks import (
    BLINK,
    add_blinks,
    blink_curve,
    edit_blinks,
    find_blinks,
    weaken_blinks,
)
from svp_portrait.svp_models.motion.sliders import lid_closure, move_face
from svp_portrait.svp_models.synthetic.clips import act, states_to_motion
from svp_portrait.svp_models.synthetic.speakers import speaker

from .motions import differing, random_motion, still_motion

SPACES = pytest.mark.parametrize("space", ["svp", "liveportrait"])


def blinking(space: str, moments=(0.5, 1.5, 3.0), frames: int = 100, fps: float = 25.0):
    times = np.arange(frames) / fps
    closure = np.max([blink_curve(times - moment) for moment in moments], axis=0)
    return move_face(still_motion(frames, space, fps), {"blink": torch.from_numpy(closure).float()})


def test_the_curve_of_a_blink():
    """Open, shut for 0.03 s after 0.06 s, open again after 0.2 s; half way in between where it is steepest."""
    at = np.array([-0.1, 0.0, 0.03, 0.06, 0.09, 0.145, 0.2, 1.0])
    np.testing.assert_allclose(blink_curve(at), [0, 0, 0.5, 1, 1, 0.5, 0, 0], atol=1e-12)


@SPACES
@pytest.mark.parametrize("fps", [24.0, 25.0, 60.0])
def test_blinks_are_found_where_they_are(space, fps):
    moments = (0.5, 1.53, 3.02)
    found = find_blinks(blinking(space, moments, int(4 * fps), fps))
    assert len(found) == 3
    for moment, (first, end) in zip(moments, found, strict=True):
        assert moment - 1 / fps < first / fps <= moment + 0.06 and end / fps == pytest.approx(moment + 0.2, abs=2 / fps)


def test_blinks_are_found_on_lids_that_are_never_still():
    """Lids that droop and rise slowly by 0.15, with noise of 0.02, as they are read from films."""
    moments = (0.5, 1.5, 3.0)
    rng = np.random.default_rng(0)
    times = np.arange(100) / 25
    unrest = 0.15 * np.sin(2 * np.pi * 0.7 * times) + 0.15 + rng.normal(0, 0.02, 100)
    motion = move_face(blinking("liveportrait", moments), {"blink": torch.from_numpy(unrest).float()})
    found = find_blinks(motion)
    assert len(found) == 3
    for moment, (first, end) in zip(moments, found, strict=True):
        assert first / 25 == pytest.approx(moment + 0.03, abs=0.07) and end / 25 == pytest.approx(moment + 0.2, abs=0.2)
    assert float(lid_closure(weaken_blinks(motion, 0.0)).amax()) < 0.45


def test_winks_closed_eyes_and_drooping_lids_are_no_blinks():
    lids = torch.zeros(100, 2)
    lids[10:14, 0] = 1  # one eye
    lids[30:60] = 1  # 1.2 s
    lids[80:84] = 0.4
    assert find_blinks(replace(still_motion(100), lids=lids)) == []


def test_the_blinks_of_a_performance_are_found():
    """Those of the synthetic speakers, counted by their own lids: runs of closed frames."""
    motion = states_to_motion(act(speaker(1, "train"), "neutral", 2, 4, 500, 25.0)[2], 25.0)
    shut = (motion.lids.amin(dim=1) > BLINK.closes).int()
    assert len(find_blinks(motion)) == int((shut.diff() == 1).sum()) >= 3


@SPACES
def test_blinks_are_taken_out_and_the_rest_stays(space):
    motion = blinking(space)
    opened = weaken_blinks(motion, 0.0)
    assert float(lid_closure(opened).abs().max()) < 0.1 + 1e-6  # what is below `ends` is no blink
    outside = torch.ones(len(motion), dtype=torch.bool)
    for first, end in find_blinks(motion):
        outside[first:end] = False
    for name in ("expression", "lids"):
        given, now = getattr(motion, name), getattr(opened, name)
        assert given is None or torch.equal(given[outside], now[outside])
    half = lid_closure(weaken_blinks(motion, 0.5))
    torch.testing.assert_close(half.amax(dim=0), torch.full((2,), 0.5), rtol=0, atol=0.06)


@SPACES
def test_a_new_rate_is_met_on_average(space):
    motion = blinking(space, frames=6000, fps=30.0)
    for rate in (0.2, 0.6, 1.2):
        moved = edit_blinks(motion, rate, 1.0, seed=3)
        found = find_blinks(moved)
        assert len(found) / 200 == pytest.approx(rate, rel=0.2)
        starts = np.array([first for first, _ in found]) / 30.0
        assert np.diff(starts).min() > BLINK.apart - 2 / 30
        assert float(lid_closure(moved).max()) <= 1 + 1e-5
        assert differing(motion, moved) == {"expression" if space == "liveportrait" else "lids"}


def test_no_rate_keeps_the_own_blinks_and_zero_takes_them_out():
    motion = blinking("svp")
    assert differing(motion, edit_blinks(motion, None, 1.0, 0)) == set()
    assert find_blinks(edit_blinks(motion, 0.0, 1.0, 0)) == []
    assert torch.equal(edit_blinks(motion, None, 0.5, 0).lids, weaken_blinks(motion, 0.5).lids)


def test_seeds_and_depth_of_new_blinks():
    motion = still_motion(500)
    first, again, other = (add_blinks(motion, 0.5, 0.7, seed).lids for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.max()) == pytest.approx(0.7, abs=0.02)


def test_new_blinks_leave_the_other_rows_of_liveportrait_alone():
    motion = random_motion(200, "liveportrait")
    moved = add_blinks(motion, 1.0, 1.0, 0)
    lids = [3 * row + 1 for row in (11, 13, 15, 16)]
    others = [column for column in range(63) if column not in lids]
    assert torch.equal(moved.expression[:, others], motion.expression[:, others])
    assert not torch.equal(moved.expression[:, lids], motion.expression[:, lids])


def test_what_cannot_be_done_is_said():
    with pytest.raises(PortraitError, match="3 blinks a second: choose 0 to 2, not included"):
        add_blinks(still_motion(9), 3.0, 1.0, 0)
    with pytest.raises(PortraitError, match="the motion has no lids"):
        edit_blinks(replace(still_motion(9), lids=None), 0.0, 1.0, 0)
