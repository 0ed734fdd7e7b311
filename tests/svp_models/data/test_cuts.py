from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from svp_portrait.svp_models.data.segments import mark_cuts
from svp_portrait.svp_models.media.video import iter_frames

CLIPS = Path(__file__).parents[4] / "shared/clips"


def cuts(frames) -> list[int]:
    marked = list(mark_cuts(frames))
    assert all(np.array_equal(frame, given) for (frame, _), given in zip(marked, frames, strict=True))
    return [index for index, (_, cut) in enumerate(marked) if cut]


@pytest.mark.parametrize("at", [1, 2, 17, 40, 55])
def test_the_cut_between_two_people_is_found_to_the_frame(people, at):
    spliced = np.concatenate([people[0].images[:at], people[1].images[: 56 - at]])
    assert cuts(spliced) == [at]


def test_several_cuts_in_a_row(people):
    parts = [people[index % 2].images[start : start + 9] for index, start in enumerate((0, 0, 20, 20, 40))]
    assert cuts(np.concatenate(parts)) == [9, 18, 27, 36]


def test_frames_shown_twice_are_no_cuts(people):
    slow = people[0].images[::4].repeat(4, axis=0)  # a film of 6.25 fps
    assert cuts(slow) == []
    assert cuts(np.concatenate([slow, people[1].images])) == [len(slow)]


def test_talking_and_standing_still_are_no_cuts(people):
    assert [cuts(each.images) for each in people] == [[], []]
    assert cuts(people[0].images[:1].repeat(30, axis=0)) == []
    assert cuts(people[0].images[:1]) == []


@pytest.mark.parametrize("name", ["vasa_10", "vasa_15", "vasa_l2"])
def test_real_films_of_one_shot_have_no_cuts_and_a_splice_of_two_has_one(name):
    if not CLIPS.is_dir():
        pytest.skip("the real clips are not at hand")
    frames = list(iter_frames(CLIPS / name / "video.mp4", 25, 200))
    assert cuts(frames) == []
    other = list(iter_frames(CLIPS / "vasa_7" / "video.mp4", 25, 20))
    assert cuts(frames[100:160] + other) == [60]
