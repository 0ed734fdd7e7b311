from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.synthetic.speakers import SPLITS, sentence, split_of
from svp_portrait.svp_models.synthetic.speech import Voice, synthesize
from svp_portrait.svp_models.synthetic.visemes import PHONEME_VISEMES, VISEMES, base_symbol


def test_same_generator_same_sentence():
    assert sentence(np.random.default_rng(3), "train") == sentence(np.random.default_rng(3), "train")


def test_splits_are_large_and_share_no_sentence():
    rng = np.random.default_rng(0)
    texts = {split: {sentence(rng, split) for _ in range(3000)} for split in SPLITS}
    assert not texts["train"] & texts["test"]
    for split in SPLITS:
        assert len(texts[split]) > 2500
        assert all(split_of(text) == split for text in texts[split])


def test_sentences_read_as_sentences():
    rng = np.random.default_rng(1)
    for _ in range(200):
        text = sentence(rng, "train")
        assert text[0].isupper() and text[-1] == "." and "{" not in text
        assert 4 <= len(text.split()) <= 20


def test_a_few_sentences_use_every_viseme():
    rng = np.random.default_rng(2)
    text = " ".join(sentence(rng, "train") for _ in range(25))
    symbols = {base_symbol(symbol) for _, symbol in synthesize(text, Voice("en-us")).phonemes}
    assert not symbols - set(PHONEME_VISEMES) - {"_"}
    seen = {name for symbol in symbols - {"_"} for name in PHONEME_VISEMES[symbol]}
    assert not set(VISEMES) - seen - {"rest"}


def test_unknown_split_is_an_error():
    with pytest.raises(ValueError, match="'valid'"):
        sentence(np.random.default_rng(0), "valid")
