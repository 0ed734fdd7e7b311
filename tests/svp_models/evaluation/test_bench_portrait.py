"""Exact mode computes what V-Express' arithmetic does, with fewer products; every part and kind of layer has a row."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.evaluation.bench_portrait import BenchOptions, bench_portrait, denoiser_inputs, exact
from svp_portrait.svp_models.evaluation.plain_denoiser import SAVINGS, prediction, with_savings
from svp_portrait.svp_models.presets import PRESETS

DEMO, SD15 = PRESETS["demo"], PRESETS["sd15"]
SMALL = replace(
    SD15,
    unet=replace(SD15.unet, block_out_channels=(64, 96, 96), attention_levels=(True, True, False)),
    vae=replace(SD15.vae, encoder_widths=(32, 32, 64, 64), decoder_widths=(64, 64, 32, 32), layers=1),
)
META = torch.device("meta")


def rows(config, **options) -> dict[str, dict]:
    given = BenchOptions(**{"size": 64, "frames": 2, "steps": 3, "cfg": 3.5, "repeats": 1} | options)
    return {row["case"]: row for row in bench_portrait(config, given)}


def test_every_part_of_a_clip_has_a_row():
    found = rows(DEMO, size=64, frames=8, cfg=2.0)
    assert list(found)[0] == "matmul" and list(found)[-1] == "clip"
    assert {"audio", "reference", "VAE encoding", "VAE decoding", "denoiser", "denoiser: resnets", "writing"} <= set(
        found
    )
    kinds = sum(row["gflop"] for name, row in found.items() if name.startswith("denoiser: "))
    assert kinds == pytest.approx(found["denoiser"]["gflop"], rel=0.01)
    assert found["denoiser"]["relative_error"] < 1e-5 and found["VAE decoding"]["relative_error"] < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("style", [False, True])
def test_every_saving_computes_the_same(style):
    options = BenchOptions(size=128, frames=3, steps=1, cfg=3.5, style=style)
    denoiser, latents, conditions = denoiser_inputs(SMALL, options)
    expected = prediction(with_savings(denoiser), latents, conditions, 3.5)
    works = {name: (with_savings(denoiser, frozenset({name})), frozenset({name})) for name in SAVINGS}
    found = {name: prediction(work, latents, conditions, 3.5, alone) for name, (work, alone) in works.items()}
    found["all"] = exact(denoiser, latents, conditions, 3.5)
    for name, value in found.items():
        assert (value - expected).norm() < 1e-5 * expected.norm(), name


def test_products_are_counted_without_computing_them():
    found = rows(SMALL, size=256, frames=3, device=META, each_saving=True)
    assert found["denoiser"]["fewer_products"] > 1.08
    alone = [row["fewer_products"] for name, row in found.items() if name.endswith("alone")]
    assert len(alone) == len(SAVINGS) and min(alone) > 1
    assert "seconds" not in found["denoiser"] and "clip" not in found


def test_a_size_between_latent_cells_is_refused():
    with pytest.raises(PortraitError, match="size is 100: a multiple of 8"):
        rows(SD15, size=100, device=META)
