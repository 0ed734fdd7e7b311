from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.motion_blocks import local_attention, local_mask
from svp_portrait.svp_models.networks.motion_generator import (
    MotionConditions,
    MotionGeneratorConfig,
    MotionGeneratorNetwork,
    phrase_means,
    phrase_waves,
)
from svp_portrait.svp_models.networks.motion_generators.kdtalker import RotaryEmbedding

TINY = MotionGeneratorConfig(
    audio_size=6, style_size=4, width=16, heads=2, condition_width=8, reach=4, words_width=4, vocabulary=("nods", "left"),
    expression_size=5, portrait_size=5, voice_layers=1, joint_layers=2,
)  # fmt: skip


def random_network(config):
    torch.manual_seed(0)
    network = MotionGeneratorNetwork(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # zero-initialised layers would hide everything
            if parameter.requires_grad:
                parameter.normal_(0, 0.25)
    return network


@pytest.fixture(scope="module")
def network():
    return random_network(TINY)


@pytest.fixture(scope="module")
def worded():
    """A network with layers for the pose of words."""
    return random_network(replace(TINY, pose_layers=1, pose_width=16))


def conditions(frames=20, batch=1):
    torch.manual_seed(1)
    phrase = torch.zeros(batch, frames, dtype=torch.long)
    phrase[:, 5:9] = 1
    return MotionConditions(
        frames,
        voice=torch.randn(batch, frames, 6),
        style=torch.randn(batch, 4),
        portrait=torch.randn(batch, 5),
        habits=torch.tensor([[0.3, float("nan"), 2.0, 1.0]]).expand(batch, -1),
        words=torch.tensor([[[1, 2]]]).expand(batch, -1, -1),
        phrase=phrase,
        phrase_times=torch.rand(batch, frames, 2),
    )


@torch.no_grad()
def predict(network, given, noisy, causal=False, level=0.4):
    known = torch.zeros(*noisy.shape[:2], len(TINY.groups))
    return network(noisy, torch.full((len(noisy), 1), level), network.encode(given, causal), known, causal)


def dense_attention(q, k, v, reach, causal):
    near = (torch.arange(q.shape[2])[:, None] - torch.arange(q.shape[2])).abs() <= reach
    near = near & torch.ones_like(near).tril() if causal else near
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=near)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("frames", [1, 4, 11, 32])
def test_attention_in_blocks_is_banded_attention(frames, causal):
    q, k, v = torch.randn(3, 2, 3, frames, 8, generator=torch.Generator().manual_seed(0))
    found = local_attention(q, k, v, 4, causal)
    torch.testing.assert_close(found, dense_attention(q, k, v, 4, causal), rtol=1e-4, atol=1e-5)


def test_masks_reach_exactly_as_far_as_they_say():
    full, causal = local_mask(8, 4, False), local_mask(8, 4, True)
    assert full[0, 0].nonzero().flatten().tolist() == [4, 5, 6, 7, 8]  # frame 0 sees itself and four after it
    assert full[1, 3].nonzero().flatten().tolist() == [3, 4, 5, 6, 7]  # frame 7 sees 3 .. 7
    assert causal[1, 0].nonzero().flatten().tolist() == [0, 1, 2, 3, 4]  # frame 4 sees 0 .. 4


def test_rotary_scores_depend_on_the_distance_alone():
    rotary = RotaryEmbedding(4)
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    turned_q, turned_k = rotary(q.expand(40, -1)), rotary(k.expand(40, -1))
    scores = turned_q @ turned_k.T
    torch.testing.assert_close(scores[3:10, 0], scores[30:37, 27], rtol=1e-3, atol=1e-4)
    assert float((scores[0] - scores[0, 0]).abs().max()) > 0.1


def test_later_frames_do_not_change_a_causal_prediction(network):
    noisy, given = torch.randn(1, 20, TINY.channels), conditions()
    changed = noisy.clone()
    changed[:, 12:] += 1
    voice = given.voice.clone()
    voice[:, 12:] += 1
    other = replace(given, voice=voice)
    first, second = (predict(network, g, x, causal=True) for g, x in ((given, noisy), (other, changed)))
    torch.testing.assert_close(first[:, :12], second[:, :12])
    assert float((first[:, 12:] - second[:, 12:]).abs().max()) > 1e-3
    first, second = (predict(network, g, x) for g, x in ((given, noisy), (other, changed)))
    assert float((first[:, :12] - second[:, :12]).abs().max()) > 1e-3


def test_a_clip_moved_in_time_gives_the_same_prediction(network):
    """No position is absolute: far from the ends a part of a clip is predicted as in the whole."""
    given, noisy = conditions(120), torch.randn(1, 120, TINY.channels)
    given = given.without("words")
    part = replace(given, frames=80, voice=given.voice[:, 20:100])
    whole = predict(network, given, noisy)
    cut = predict(network, part, noisy[:, 20:100])
    reach = TINY.reach * (TINY.voice_layers + TINY.motion_layers + TINY.joint_layers)
    torch.testing.assert_close(cut[:, reach : 80 - reach], whole[:, 20 + reach : 100 - reach], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["voice", "style", "portrait", "words"])
def test_every_condition_counts_and_its_absence_is_one_state(network, name):
    noisy = torch.randn(2, 20, TINY.channels)
    given = conditions(batch=2)
    without = predict(network, given.without(name), noisy)
    assert float((predict(network, given, noisy) - without).abs().max()) > 1e-3
    if name == "words":
        silent = replace(given, phrase=torch.zeros_like(given.phrase))
    else:
        silent = replace(given, **{f"{name}_given": torch.tensor([False, False])})
    torch.testing.assert_close(predict(network, silent, noisy), without)


def test_one_level_for_all_frames_is_the_same_as_one_for_each(network):
    noisy, encoded = torch.randn(1, 20, TINY.channels), network.encode(conditions())
    known = torch.zeros(1, 20, len(TINY.groups))
    with torch.no_grad():
        one, many = (network(noisy, torch.full((1, n), 0.3), encoded, known) for n in (1, 20))
        other = network(noisy, torch.linspace(0, 1, 20)[None], encoded, known)
    torch.testing.assert_close(one, many)
    assert float((one - other).abs().max()) > 1e-3


def test_a_fresh_network_predicts_nothing():
    network = MotionGeneratorNetwork(TINY)
    assert float(predict(network, conditions(), torch.randn(1, 20, TINY.channels)).abs().max()) == 0


def test_words_with_layers_of_their_own_make_the_pose_of_their_frames_and_nothing_else(worded):
    bare = MotionGeneratorNetwork(TINY).eval()
    bare.load_state_dict({k: v for k, v in worded.state_dict().items() if not k.startswith("phrase_pose.")})
    noisy, given, pose = torch.randn(1, 20, TINY.channels), conditions(), TINY.pose
    found, expected = predict(worded, given, noisy), predict(bare, given, noisy)
    assert float((found - expected)[:, 5:9, pose].abs().amin(dim=1).max()) > 1e-3
    expected[:, 5:9, pose] = found[:, 5:9, pose]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    silent = given.without("words")
    torch.testing.assert_close(predict(worded, silent, noisy), predict(bare, silent, noisy), rtol=0, atol=0)


def test_layers_of_words_know_their_kind_and_time_and_no_later_frames_where_they_must_not(worded):
    noisy, given = torch.randn(1, 20, TINY.channels), conditions()
    plain = predict(worded, given, noisy)
    for other in (
        replace(given, words=torch.tensor([[[1, 0]]])),
        replace(given, phrase_times=given.phrase_times + 0.3),
    ):
        assert float((predict(worded, other, noisy) - plain)[:, 5:9, TINY.pose].abs().max()) > 1e-3
    changed = noisy.clone()
    changed[:, 7:] += 1
    first, second = (predict(worded, given, x, causal=True) for x in (noisy, changed))
    torch.testing.assert_close(first[:, :7], second[:, :7])
    assert float((predict(worded, given, changed) - plain)[:, 5:7, TINY.pose].abs().max()) > 1e-3


def test_phrase_means_are_those_of_the_frames_of_a_phrase():
    pose = torch.tensor([[[1.0], [2.0], [4.0], [6.0], [5.0]]])
    said = torch.tensor([[[0.0, 0.0], [1, 0], [1, 0], [0, 1], [1, 0]]])
    third = (2 + 4 + 5) / 3
    assert phrase_means(pose, said, False).flatten().tolist() == pytest.approx([0, third, third, 6, third])
    assert phrase_means(pose, said, True).flatten().tolist() == pytest.approx([0, 2, 3, 6, third])


def test_noise_of_words_has_a_memory_and_the_variance_of_other_noise(network, worded):
    white = torch.randn(400, 60, TINY.channels, generator=torch.Generator().manual_seed(0))
    phrase = torch.zeros(400, 60, dtype=torch.long)
    phrase[:, 10:50] = 1
    assert network.noise_of(white, phrase) is white and worded.noise_of(white, None) is white
    noise = worded.noise_of(white, phrase)
    pose = noise[:, 10:50, TINY.pose]
    assert float(pose.square().mean()) == pytest.approx(1, abs=0.03)
    for lag in (1, 5, 12):
        assert float((pose[:, lag:] * pose[:, :-lag]).mean()) == pytest.approx(0.9**lag, abs=0.03)
    torch.testing.assert_close(worded.noise_of(white, phrase, 0.5)[:, 10:50, TINY.pose], 0.5 * pose)
    noise[:, 10:50, TINY.pose] = white[:, 10:50, TINY.pose]
    torch.testing.assert_close(noise, white, rtol=0, atol=0)


def test_groups_follow_one_another():
    assert {name: (part.start, part.stop) for name, part in MotionGeneratorConfig().groups.items()} == {
        "expression": (0, 64), "lids": (64, 66), "gaze": (66, 68), "rotation": (68, 71), "shift": (71, 73), "scale": (73, 74),
    }  # fmt: skip
    lively = MotionGeneratorConfig(space="liveportrait", expression_size=63, eyes=False)
    assert lively.channels == 69 and list(lively.groups) == ["expression", "rotation", "shift", "scale"]


def test_phrase_waves_are_sines_of_the_time_since_the_beginning():
    waves = phrase_waves(torch.tensor([[[0.25, 8.0]]]))[0, 0]
    assert waves[:2].tolist() == [0.125, 2.0]
    assert float(waves[2 + 3]) == pytest.approx(1.0, abs=1e-6)  # 1 Hz after a quarter of a second


def test_heads_have_to_fit():
    with pytest.raises(PortraitError, match="heads is 5"):
        MotionGeneratorConfig(width=168)
