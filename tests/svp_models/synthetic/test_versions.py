"""Two versions of the pictures: old seeds give the drawings that they always gave, version 2 gives other pixels of the same faces."""

from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.synthetic.clips import make_clip, neutral_portrait
from svp_portrait.svp_models.synthetic.natural import NaturalRenderer
from svp_portrait.svp_models.synthetic.renderer import FaceRenderer, renderer_for
from svp_portrait.svp_models.synthetic.speakers import speaker

# Sums of the pixels of the four quarters of a portrait of 64 pixels, RGB, as version 1 has drawn them since 0.1.0.
QUARTERS = {
    (0, "train"): [187650, 151750, 177211, 185721, 148929, 174966, 184528, 133627, 160234, 181877, 131245, 157925],
    (3, "test"): [170634, 183604, 164922, 160052, 162975, 143026, 180248, 189440, 153733, 173708, 177687, 142959],
}


@pytest.mark.parametrize(("number", "split"), QUARTERS)
def test_version_1_draws_what_it_always_drew(number: int, split: str) -> None:
    image = neutral_portrait(speaker(number, split), 64).images[0].astype(np.int64)
    assert image.reshape(2, 32, 2, 32, 3).sum(axis=(1, 3)).ravel().tolist() == QUARTERS[number, split]


def test_version_1_is_the_default() -> None:
    person = speaker(1, "train")
    assert isinstance(renderer_for(person.identity), FaceRenderer)
    assert isinstance(renderer_for(person.identity, 2), NaturalRenderer)
    np.testing.assert_array_equal(neutral_portrait(person, 64).images, neutral_portrait(person, 64, version=1).images)
    with pytest.raises(ValueError, match="version is 3"):
        renderer_for(person.identity, 3)


def test_the_version_changes_pictures_and_neither_words_nor_movements() -> None:
    first = make_clip(speaker(2, "test"), "surprised", 2, seed=4, seconds=0.2, size=64)
    second = make_clip(speaker(2, "test"), "surprised", 2, seed=4, seconds=0.2, size=64, version=2)
    assert first.text == second.text
    np.testing.assert_array_equal(first.audio, second.audio)
    np.testing.assert_array_equal(first.states.expression, second.states.expression)
    assert np.abs(first.images.astype(int) - second.images).mean() > 10


def test_version_2_is_given_by_its_seeds() -> None:
    clips = [make_clip(speaker(5, "train"), "happy", 3, seed=9, seconds=0.12, size=96, version=2) for _ in range(2)]
    np.testing.assert_array_equal(clips[0].images, clips[1].images)
    np.testing.assert_array_equal(clips[0].landmarks, clips[1].landmarks)
    portrait = neutral_portrait(speaker(5, "train"), 96, version=2)
    corner = clips[0].images[:, :10, :10].astype(int) - portrait.images[0, :10, :10]
    assert np.abs(corner).max() <= 3  # the same background in every clip of a person, up to JPEG
