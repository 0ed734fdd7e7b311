from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.diffusion import conditioning_cache as module
from svp_portrait.svp_models.diffusion.conditioning import encode_conditions
from svp_portrait.svp_models.diffusion.conditioning_cache import ConditioningCache, equal, size_of
from svp_portrait.svp_models.diffusion.pipeline import PortraitPipeline, SamplerOptions
from svp_portrait.svp_models.types import Audio, Style

QUICK = SamplerOptions(steps=2)
PORTRAIT = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def passes(model, monkeypatch):
    """How often the ReferenceNet, the audio projection and the VAE's encoder have run."""
    count = {"reference": 0, "audio_projection": 0, "vae": 0}

    def counted(name, function):
        def call(*inputs):
            count[name] += 1
            return function(*inputs)

        return call

    for name in ("reference", "audio_projection"):
        network = getattr(model.networks, name)
        monkeypatch.setattr(network, "forward", counted(name, network.forward))
    monkeypatch.setattr(model.vae, "encode", counted("vae", model.vae.encode))
    return count


def prepared(pipeline, clip, style=None, **changes):
    given = {"audio": clip.audio, "motion": clip.motion(6), "frames": 6, "fps": 25.0, "size": clip.size, **changes}
    return pipeline.prepare(PORTRAIT, style=style, **given)


def assert_same(model, ours, plain):
    like = next(model.networks.denoiser.parameters())
    windows = (vars(conditions.window([0, 3], like)).values() for conditions in (ours, plain))
    assert all(equal(one, other) for one, other in zip(*windows, strict=True))


def test_another_style_or_seed_samples_the_same_without_encoding_again(model, clip, passes):
    other = Style(-clip.style.codes, clip.style.style_space)
    cases = [(clip.style, 1), (other, 1), (None, 2), (clip.style, 1)]
    motion = clip.motion(6)

    def sampled(pipeline):
        for style, seed in cases:
            inputs = prepared(pipeline, clip, style, motion=motion)
            yield pipeline.denoise(inputs, pipeline.encode_conditions(inputs), seed, QUICK)

    plain = list(sampled(PortraitPipeline(model)))
    assert passes == {"reference": 4, "audio_projection": 4, "vae": 4}
    pipeline = PortraitPipeline(model, cache=ConditioningCache())
    cached = list(sampled(pipeline))
    assert passes == {"reference": 5, "audio_projection": 5, "vae": 5}
    for ours, expected in zip(cached, plain, strict=True):
        assert torch.equal(ours, expected)


def test_only_what_changed_is_encoded_anew(model, clip, passes):
    """Another voice leaves what is seen as it is, another length or rate leaves the portrait; the conditions are the same."""
    pipeline = PortraitPipeline(model, cache=ConditioningCache())
    louder = Audio(clip.audio.waveform * 2, clip.audio.sample_rate)
    motion = clip.motion(6)
    expected = {"reference": 1, "audio_projection": 0, "vae": 0}
    for changes, voices, pictures in (
        ({}, 1, 1), ({"audio": louder}, 1, 0), ({"audio": louder}, 0, 0), ({"fps": 30.0}, 1, 1), ({"frames": 5}, 1, 1),
        ({}, 1, 1),
    ):  # fmt: skip
        inputs = prepared(pipeline, clip, clip.style, motion=motion, **changes)
        conditions = pipeline.encode_conditions(inputs)
        expected["audio_projection"] += voices
        expected["vae"] += pictures
        assert passes == expected
        assert_same(model, conditions, encode_conditions(model, inputs))
        passes |= expected
    pipeline.encode_conditions(replace(inputs, fps=30.0))  # of another clip: encoded and not stored
    pipeline.encode_conditions(inputs)
    assert passes["reference"] == 2


def test_another_portrait_or_size_is_encoded_anew(model, clip, passes):
    pipeline = PortraitPipeline(model, cache=ConditioningCache())
    for portrait, size in ((PORTRAIT, clip.size), (-PORTRAIT, clip.size), (PORTRAIT, (2 * clip.size[0], clip.size[1]))):
        given = {"audio": clip.audio, "motion": clip.motion(6), "frames": 6, "fps": 25.0, "size": size, "style": None}
        pipeline.encode_conditions(pipeline.prepare(portrait, **given))
    assert passes["reference"] == passes["vae"] == 3


def test_nothing_is_left_of_what_failed(model, clip, monkeypatch):
    cache = ConditioningCache()
    pipeline = PortraitPipeline(model, cache=cache)
    inputs = prepared(pipeline, clip, clip.style)
    assert prepared(pipeline, clip).portrait_latent is inputs.portrait_latent

    def fail(frames):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(PortraitPipeline(model, fail, cache=cache), clip)
    assert prepared(pipeline, clip).portrait_latent is not inputs.portrait_latent


def test_a_clip_made_of_too_much_is_not_stored(model, clip, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_KEY", size_of((PORTRAIT, clip.audio, clip.motion(6))) - 1)
    pipeline = PortraitPipeline(model, cache=ConditioningCache())
    assert prepared(pipeline, clip).portrait_latent is not prepared(pipeline, clip).portrait_latent


def test_conditions_are_those_of_the_clip(model, clip):
    pipeline = PortraitPipeline(model, cache=ConditioningCache())
    inputs = prepared(pipeline, clip, clip.style)
    assert_same(model, pipeline.encode_conditions(inputs), encode_conditions(model, inputs))


def test_equal_and_size():
    audio = Audio(torch.ones(1, 3), 16000)
    assert equal((audio, 1, None), (Audio(torch.ones(1, 3), 16000), 1, None))
    assert not equal(audio, Audio(torch.ones(1, 3), 8000))
    assert not equal(audio, Audio(torch.ones(1, 4), 16000))
    assert (
        not equal(torch.ones(2), torch.ones(2, dtype=torch.float64)) and not equal((1,), (1, 2)) and not equal(1, 1.0)
    )
    assert size_of((audio, torch.zeros(2, dtype=torch.uint8), "x")) == 14
