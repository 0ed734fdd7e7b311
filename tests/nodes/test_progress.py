"""The sampler's one bar, from warping the portrait to the last step, as the host sees it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from svp_portrait.nodes.head_motion import SVPHeadKpsManual
from svp_portrait.nodes.host import ProgressBar
from svp_portrait.nodes.sampler import SVPSampler
from svp_portrait.nodes.style import SVPStyleExtract
from svp_portrait.nodes.types import LoadedModel
from svp_portrait.svp_models.model import build_networks

STEPS = 3


class Cancelled(BaseException):
    """As the host's own: no ordinary exception."""


@pytest.fixture
def warping(loaded):
    """The tiny model as one that starts from warped portraits."""
    portrait = loaded[0].portrait
    config = replace(portrait.config, unet=replace(portrait.config.unet, reference_warp=True))
    return LoadedModel.of(replace(portrait, config=config, networks=build_networks(config)))


def sample(model, vae, clip):
    points = "\n".join(f"{0.1 * index + 0.1}, {0.05 * index + 0.2}" for index in range(8))
    motion = SVPHeadKpsManual.execute(clip["portrait"], points).args[0]
    SVPSampler.execute(
        model, vae, clip["portrait"], clip["audio"], head_motion=motion, seed=0, steps=STEPS, cfg=1.0, scheduler="euler",
        reference_weight=1.0, audio_weight=1.0, style_weight=1.0, fps=25.0, window=0, overlap=-1, width=0, height=0,
        length="audio",
    )  # fmt: skip


@pytest.fixture
def shown(monkeypatch):
    """What the bar shows, as (done, total)."""
    seen = []
    monkeypatch.setattr(ProgressBar, "show", staticmethod(lambda *each: seen.append(each)))
    return seen


def test_one_bar_runs_once_from_start_to_end(warping, loaded, clip, shown):
    sample(warping, loaded[1], clip)
    done, totals = zip(*shown, strict=True)
    assert len(set(totals)) == 1 and done[-1] == totals[0]
    assert list(done) == sorted(set(done))
    # Warping, audio, and STEPS times three windows of four of the ten frames.
    ninths = [(2 + each / 3) / (STEPS + 2) for each in range(1, 3 * STEPS + 1)]
    assert [each / totals[0] for each in done] == pytest.approx([1 / (STEPS + 2), 2 / (STEPS + 2), *ninths], abs=1e-3)


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_every_call_is_a_chance_to_cancel(warping, loaded, clip, monkeypatch, calls):
    seen = []

    def stop(done, total):
        seen.append(done)
        if len(seen) == calls:
            raise Cancelled

    monkeypatch.setattr(ProgressBar, "show", staticmethod(stop))
    with pytest.raises(Cancelled):
        sample(warping, loaded[1], clip)
    assert len(seen) == calls


@pytest.mark.parametrize("given", [("frames",), ("audio",), ("frames", "audio")])
def test_extracting_a_style_has_one_bar_too(loaded, clip, shown, given):
    SVPStyleExtract.execute(loaded[0], **{name: clip[name] for name in given})
    done, totals = zip(*shown, strict=True)
    assert len(set(totals)) == 1 and done[-1] == totals[0] and list(done) == sorted(set(done))
