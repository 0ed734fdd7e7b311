from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from svp_portrait.svp_models.diffusion import conditioning as module
from svp_portrait.svp_models.diffusion.conditioning import KeptClip, alike, clip_conditions, size_of
from svp_portrait.svp_models.diffusion.inputs import ClipRequest
from svp_portrait.svp_models.diffusion.pipeline import SamplerOptions, sample_portrait
from svp_portrait.svp_models.types import Audio, Style

QUICK = SamplerOptions(steps=2)


@pytest.fixture
def request_of(clip):
    return partial(ClipRequest, clip.latent, clip.audio, clip.motion(6), frames=6, fps=25.0, size=(32, 24))


@pytest.fixture
def passes(model, monkeypatch):
    """How often the ReferenceNet and the audio projection have run."""
    count = {"reference": 0, "audio_projection": 0}
    for name in count:
        network = getattr(model.networks, name)
        forward = network.forward

        def counted(*inputs, name=name, forward=forward):
            count[name] += 1
            return forward(*inputs)

        monkeypatch.setattr(network, "forward", counted)
    return count


def test_another_style_or_seed_samples_the_same_without_encoding_again(model, clip, request_of, passes):
    other = Style(-clip.style.codes, clip.style.style_space)
    cases = [(clip.style, 1), (other, 1), (None, 2), (clip.style, 1)]
    plain = [sample_portrait(model, request_of(style=style), seed, QUICK) for style, seed in cases]
    assert passes["reference"] == len(cases)
    clip_kept, made, results = KeptClip(), [], []
    for style, seed in cases:

        def make(style=style):
            made.append(style)
            return request_of(style=style)

        request = clip_kept.request((clip.audio, 25.0), style, make)
        results.append(sample_portrait(model, request, seed, QUICK, conditioned=clip_kept.conditions))
    assert len(made) == 1 and passes == {"reference": len(cases) + 1, "audio_projection": len(cases) + 1}
    for ours, expected in zip(results, plain, strict=True):
        assert torch.equal(ours, expected)


def test_anything_else_is_encoded_anew(model, clip, request_of, passes):
    clip_kept = KeptClip()
    louder = Audio(clip.audio.waveform * 2, clip.audio.sample_rate)
    for made_of in ((clip.audio, 1), (clip.audio, 2), (louder, 2), (clip.audio, 1)):
        request = clip_kept.request(made_of, None, lambda: request_of(style=None))
        clip_kept.conditions(model, request)
    assert passes["reference"] == 4
    clip_kept.conditions(model, replace(request, fps=30.0))  # of nobody: neither kept nor taken
    clip_kept.conditions(model, request)
    assert passes["reference"] == 5


def test_nothing_is_left_of_what_failed(clip, request_of):
    clip_kept = KeptClip()
    clip_kept.request((1,), None, lambda: request_of(style=None))

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clip_kept.request((2,), None, fail)
    again = clip_kept.request((1,), None, lambda: request_of(style=clip.style))
    assert again.style is None or again.style is clip.style
    made = []
    clip_kept.request((1,), None, lambda: made.append(1))
    assert not made


def test_what_is_too_large_is_not_held(monkeypatch, request_of):
    monkeypatch.setattr(module, "LARGEST", 15)
    clip_kept, made = KeptClip(), []
    for _ in range(2):
        clip_kept.request((torch.zeros(4),), None, lambda: made.append(1) or request_of(style=None))
    assert len(made) == 2


def test_conditions_are_those_of_the_clip(model, clip, request_of):
    clip_kept = KeptClip()
    request = clip_kept.request((1,), clip.style, lambda: request_of(style=clip.style))
    ours, plain = clip_kept.conditions(model, request), clip_conditions(model, request)
    like = next(model.networks.denoiser.parameters())
    for one, other in zip(
        vars(ours.window([0, 3], like)).values(), vars(plain.window([0, 3], like)).values(), strict=True
    ):
        assert one is other or alike(one, other)


def test_alike_and_size():
    sound = Audio(torch.ones(1, 3), 16000)
    assert alike((sound, 1, None), (Audio(torch.ones(1, 3), 16000), 1, None))
    assert not alike(sound, Audio(torch.ones(1, 3), 8000))
    assert not alike(sound, Audio(torch.ones(1, 4), 16000))
    assert (
        not alike(torch.ones(2), torch.ones(2, dtype=torch.float64)) and not alike((1,), (1, 2)) and not alike(1, 1.0)
    )
    assert size_of((sound, torch.zeros(2, dtype=torch.uint8), "x")) == 14
