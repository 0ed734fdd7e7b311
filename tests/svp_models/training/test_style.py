"""What the style extractor learns from: pairs of takes, and expressions as imprecise as an analyser's."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from svp_portrait.svp_models.training.corpus import ClipLabel, CorpusConfig
from svp_portrait.svp_models.training.style import StyleData, style_batch
from svp_portrait.svp_models.training.takes import ReadingError, as_read, build_takes

CONFIG = CorpusConfig(speakers=2, emotions=2, frames=10, seed=3)


@pytest.fixture(scope="module")
def takes(tmp_path_factory):
    return build_takes(tmp_path_factory.mktemp("takes") / "takes", CONFIG, 2, 1, lambda line: None)


def test_takes_of_a_clip_share_person_and_emotion_and_nothing_else(takes):
    assert takes.done.all() and takes.expression.shape == (4, 2, 10, 64)
    assert np.isfinite(takes.mel).all()
    for first, second in takes.expression:
        assert not np.allclose(first, second)
    means = takes.expression.mean(2)  # n 2 64
    within = np.linalg.norm(means[:, 0] - means[:, 1], axis=-1).mean()
    across = np.mean([np.linalg.norm(means[a, 0] - means[b, 1]) for a in range(4) for b in range(4) if a != b])
    assert within < across


def test_a_batch_holds_pairs_of_different_takes_and_other_emotions_of_their_speakers():
    labels = [ClipLabel(index // 4, index % 4, 3, index) for index in range(24)]
    clips, numbers, same = style_batch(SimpleNamespace(labels=labels), 2, np.random.default_rng(0))
    assert len(clips) == 6 * 4 * 2 and same.tolist() == clips.tolist()
    for pair in range(0, len(clips), 2):
        assert clips[pair] == clips[pair + 1] and numbers[pair] != numbers[pair + 1]
    assert set(numbers) == {0, 1, 2}
    speakers = [labels[clip].speaker for clip in clips[::2]]
    assert all(speakers.count(who) == 4 for who in set(speakers))


def test_the_reading_error_is_measured_and_given_back():
    rng = np.random.default_rng(0)
    true = rng.standard_normal((400, 30, 64))
    known = ReadingError(np.linspace(0.02, 0.2, 64), np.linspace(0.1, 0.05, 64))
    measured = ReadingError.between(as_read(true, known, rng), true)
    np.testing.assert_allclose(measured.noise, known.noise, rtol=0.1)
    # The mean of 30 frames' noise counts as bias too.
    np.testing.assert_allclose(measured.bias, np.hypot(known.bias, known.noise / np.sqrt(30)), rtol=0.15)


def test_take_0_is_the_drawn_clip_as_the_analyser_read_it(takes):
    corpus = SimpleNamespace(mel=np.ones((4, 10, 1920)), expression=np.zeros((4, 10, 64)))
    read = np.full((4, 10, 64), 0.5, np.float32)
    data = StyleData(corpus, read, takes)
    mel, expression = data.take(2, 0, np.random.default_rng(0))
    assert mel is not None and np.array_equal(expression, read[2]) and (mel == 1).all()
    mel, expression = data.take(2, 1, np.random.default_rng(0))
    assert np.array_equal(mel, takes.mel[2, 0])
    np.testing.assert_allclose(expression, takes.expression[2, 0], atol=1e-6)  # the analyser erred by a constant only
