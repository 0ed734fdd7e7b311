"""The sampler does not encode the same portrait, voice and motion again for another style, seed or weight."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.nodes.head_motion import SVPHeadKpsManual
from svp_portrait.nodes.sampler import SVPSampler
from svp_portrait.nodes.style import SVPStyleSample
from svp_portrait.svp_models.types import StylePrior

SAMPLER = {
    "seed": 0, "steps": 1, "cfg": 1.0, "scheduler": "euler", "reference_weight": 1.0, "audio_weight": 1.0, "style_weight": 1.0,
    "fps": 25.0, "window": 0, "overlap": -1, "width": 0, "height": 0, "length": "audio",
}  # fmt: skip


@pytest.fixture
def sample(loaded, clip):
    """What a model gives for changed inputs."""
    motion = SVPHeadKpsManual.execute(
        clip["portrait"], "\n".join(f"0.{each + 1}, 0.{each + 1}" for each in range(8))
    ).args[0]

    def run(model, **changes):
        inputs = {**SAMPLER, "portrait": clip["portrait"], "audio": clip["audio"], "head_motion": motion, **changes}
        return SVPSampler.execute(model, loaded[1], **inputs).args[0]["samples"]

    return run


@pytest.fixture
def count(loaded, monkeypatch):
    """Calls of what encodes."""
    calls = {"vae": 0, "reference": 0, "audio": 0}
    networks = loaded[0].portrait.networks
    for name, owner, method in (
        ("vae", loaded[1], "encode"),
        ("reference", networks.reference, "forward"),
        ("audio", networks.audio_projection, "forward"),
    ):
        original = getattr(owner, method)

        def counted(*inputs, name=name, original=original):
            calls[name] += 1
            return original(*inputs)

        monkeypatch.setattr(owner, method, counted)
    return calls


def test_another_style_seed_or_weight_is_sampled_from_what_is_kept(loaded, sample, count):
    space, size = loaded[0].portrait.style_space, loaded[0].portrait.config.style.style_size
    prior = StylePrior(torch.zeros(size), torch.ones(size), space)
    styles = [SVPStyleSample.execute(prior, seed, 1.0).args[0] for seed in (1, 2)]
    changes = [{"style": styles[0]}, {"style": styles[1]}, {}, {"seed": 1}, {"audio_weight": 0.5}, {"steps": 2}]
    expected = [sample(replace(loaded[0]), **each) for each in changes]  # a copy keeps nothing of another
    each_time = {name: calls // len(changes) for name, calls in count.items()}
    assert min(each_time.values()) > 0
    model = replace(loaded[0])
    before = dict(count)
    for change, result in zip(changes, expected, strict=True):
        assert torch.equal(sample(model, **change), result)
    assert {name: count[name] - before[name] for name in count} == each_time


def test_another_portrait_voice_or_size_is_encoded(loaded, clip, sample, count):
    model = replace(loaded[0])
    sound = clip["audio"]
    louder = {**sound, "waveform": sound["waveform"] * 2}
    sample(model)
    for change in ({"portrait": 1 - clip["portrait"]}, {"audio": louder}, {"width": 40, "height": 40}, {"fps": 20.0}):
        before = dict(count)
        assert torch.equal(sample(model, **change), sample(replace(loaded[0]), **change))
        assert all(count[name] - before[name] > 1 for name in count), change
