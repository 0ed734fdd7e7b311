"""Style files: round trips and refusals."""

from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.checkpoints.safetensors_io import read_metadata, write_tensor_file
from svp_portrait.svp_models.checkpoints.style_layers import load_style, save_style
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.types import Style, StylePrior

SPACE = "0123456789abcdef"


def test_prior_round_trip(tmp_path):
    prior = StylePrior(torch.randn(8), torch.rand(8), SPACE, "happy — Füße")
    save_style(tmp_path / "prior.safetensors", prior)
    again = load_style(tmp_path / "prior.safetensors")
    assert isinstance(again, StylePrior) and (again.style_space, again.label) == (SPACE, prior.label)
    assert torch.equal(again.mu, prior.mu) and torch.equal(again.sigma, prior.sigma)
    assert read_metadata(tmp_path / "prior.safetensors")["kind"] == "style_prior"


def test_style_round_trip(tmp_path):
    style = Style(torch.randn(3, 8), SPACE)
    save_style(tmp_path / "style.safetensors", style)
    again = load_style(tmp_path / "style.safetensors")
    assert isinstance(again, Style) and torch.equal(again.codes, style.codes) and again.label == ""


@pytest.mark.parametrize(
    ("kind", "tensors", "space", "message"),
    [
        ("model", {"mu": torch.zeros(2)}, SPACE, "holds a model, a style_prior or style is needed"),
        ("style", {"mu": torch.zeros(2)}, SPACE, "codes is missing"),
        ("style", {"codes": torch.zeros(2)}, SPACE, r"codes has shape \[2\], 2 filled dimensions"),
        ("style", {"codes": torch.zeros(0, 8)}, SPACE, r"codes has shape \[0, 8\]"),
        (
            "style",
            {"codes": torch.full((1, 2), torch.nan)},
            SPACE,
            "codes has 2 of 2 values that are no finite numbers",
        ),
        ("style", {"codes": torch.zeros(1, 2).to(torch.float8_e5m2)}, SPACE, "codes is stored as float8_e5m2"),
        ("style", {"codes": torch.zeros(1, 2, dtype=torch.int64)}, SPACE, "codes is stored as int64"),
        ("style_prior", {"mu": torch.zeros(2), "sigma": torch.zeros(3)}, SPACE, "mu has 2 values and sigma 3"),
        ("style_prior", {"mu": torch.zeros(2), "sigma": -torch.ones(2)}, SPACE, "sigma goes down to -1"),
        ("style", {"codes": torch.zeros(1, 2)}, "", "names no style space"),
    ],
)
def test_files_that_do_not_fit(tmp_path, kind, tensors, space, message):
    write_tensor_file(tmp_path / "file", kind, tensors, {"style_space": space})
    with pytest.raises(PortraitError, match=message):
        load_style(tmp_path / "file")
