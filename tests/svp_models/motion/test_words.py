from __future__ import annotations

import itertools

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.words import TimedPhrase, parse_prompt, word_tensors

VOCABULARY = ("head", "left", "looks", "nods", "shakes", "slowly", "still", "the")


def spans(text, seconds=10.0):
    return [
        (item.text, round(item.start, 2), round(item.end, 2))
        for item in parse_prompt(text, seconds, VOCABULARY).phrases
    ]


def test_clauses_follow_one_another_and_still_lasts():
    assert spans("nods slowly, looks left, then still") == [
        ("nods slowly", 0.4, 2.4),
        ("looks left", 3.0, 5.0),
        ("still", 5.6, 10.0),
    ]


def test_times_of_a_prompt_are_met():
    assert spans("at 2 s nods, shakes the head from 4.5 to 6 s; looks left for 1 s") == [
        ("nods", 2.0, 4.0),
        ("shakes the head", 4.5, 6.0),
        ("looks left", 6.6, 7.6),
    ]
    assert spans("still, nods @ 5") == [("still", 0.4, 5.0), ("nods", 5.0, 7.0)]
    assert spans("nods at 3 seconds for 2.5 s.") == [("nods", 3.0, 5.5)]


def test_a_short_clip_brings_clauses_closer():
    found = spans("nods, shakes, nods", 3.0)
    assert len(found) == 3 and found[-1][2] <= 3.0
    assert all(one[2] <= other[1] for one, other in itertools.pairwise(found))


def test_unknown_words_are_named_once_and_change_nothing():
    prompt = parse_prompt("nods elegantly, dances, nods elegantly", 10.0, VOCABULARY)
    assert [item.text for item in prompt.phrases] == ["nods", "nods"]
    assert prompt.unknown == ("elegantly", "dances")
    assert "'elegantly', 'dances'" in prompt.warning
    assert parse_prompt("she nods and then looks left", 10.0, VOCABULARY).warning == ""
    assert parse_prompt("", 10.0, VOCABULARY).phrases == ()


def test_impossible_times_are_errors():
    with pytest.raises(PortraitError, match="at 12 s, the clip ends at 10 s"):
        parse_prompt("nods at 12 s", 10.0, VOCABULARY)
    with pytest.raises(PortraitError, match="from 5 to 4 s"):
        parse_prompt("nods from 5 to 4 s", 10.0, VOCABULARY)


def test_frames_know_their_phrase_and_their_place_in_it():
    phrases = [TimedPhrase("nods", 0.11, 0.3), TimedPhrase("looks left", 0.2, 0.41)]
    words, phrase, times = word_tensors(phrases, VOCABULARY, 0, 12, 25.0)
    assert words[:, :3].tolist() == [[4, 0, 0], [3, 2, 0]]
    assert phrase.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 0, 0]  # frame centres at 0.02, 0.06, ...
    torch.testing.assert_close(times[3], torch.tensor([0.03, 0.16]))
    _, later, _ = word_tensors(phrases, VOCABULARY, 5, 7, 25.0)
    assert later.tolist() == phrase[5:].tolist()
