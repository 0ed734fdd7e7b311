"""The order of samples: every one once an epoch, no two places the same one, in shards for long."""

from __future__ import annotations

import numpy as np

from svp_portrait.svp_models.training.dataset import SampleIndex, ShardSampler, positions_of

SHARDS = [list(range(10)), list(range(10, 25)), list(range(25, 48))]


def test_an_epoch_shows_every_sample_once():
    order = ShardSampler(SHARDS, 0, 4)
    assert order.length == 12
    shown = [order.sample(turn, place) for place in range(4) for turn in range(12)]
    assert sorted(shown) == list(range(48))
    again = [order.sample(12 + turn, place) for place in range(4) for turn in range(12)]
    assert sorted(again) == list(range(48)) and again != shown


def test_a_place_stays_in_a_shard_for_long():
    order = ShardSampler(SHARDS, 0, 4)
    of = {number: index for index, shard in enumerate(SHARDS) for number in shard}
    changes = sum(
        of[order.sample(turn, place)] != of[order.sample(turn + 1, place)] for place in range(4) for turn in range(11)
    )
    assert changes <= 2  # as many as the three shards laid end to end and cut into four pieces can have


def test_it_is_a_function_of_turn_and_place():
    turns = [(turn, place) for turn in range(30) for place in range(4)]
    forward, backward = ShardSampler(SHARDS, 3, 4), ShardSampler(SHARDS, 3, 4)
    seen = {each: backward.sample(*each) for each in reversed(turns)}
    assert [forward.sample(*each) for each in turns] == [seen[each] for each in turns]
    assert [ShardSampler(SHARDS, 4, 4).sample(*each) for each in turns] != [seen[each] for each in turns]


def test_fewer_samples_than_places_are_shown_in_turn():
    order = ShardSampler([[7, 8, 9]], 0, 5)
    assert {order.sample(turn, place) for turn in range(4) for place in range(5)} == {7, 8, 9}


def test_processes_share_the_places():
    assert [list(positions_of(process, 2, 6)) for process in range(2)] == [[0, 1, 2], [3, 4, 5]]


def test_spots_draw_apart_but_share_what_is_shared():
    spots = [SampleIndex(0, "style", 3, place, 2) for place in range(2)]
    own = [index.rng().random() for index in spots]
    shared = [index.shared_rng().random() for index in spots]
    assert own[0] != own[1] and shared[0] == shared[1] and shared[0] not in own
    assert SampleIndex(0, "stage1", 3, 0, 2).rng().random() != own[0]
    assert np.array_equal(SampleIndex(0, "style", 3, 0, 2).rng().random(4), spots[0].rng().random(4))
