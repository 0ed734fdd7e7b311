"""The basis of the expression warp: how landmarks of synthetic speakers move, and that the file holds it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.expression_basis import (
    BUILT_IN_BASIS,
    KIND,
    load_expression_basis,
    save_expression_basis,
)
from svp_portrait.svp_models.checkpoints.safetensors_io import read_metadata, write_safetensors
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.coefficients import EXPRESSION_INDEX
from svp_portrait.svp_models.synthetic.clips import act
from svp_portrait.svp_models.synthetic.expression_basis import fit_expression_basis
from svp_portrait.svp_models.synthetic.geometry import FaceGeometry
from svp_portrait.svp_models.synthetic.identity import appearance
from svp_portrait.svp_models.synthetic.speakers import speaker


def test_the_shipped_basis_is_that_of_the_speakers():
    """A few speakers give about the same movements; the file says how many it was made of."""
    shipped, few = load_expression_basis(), fit_expression_basis(12, 2, seed=1)
    _, _, states = act(speaker(2, "test"), "happy", 3, 5, 40, 25.0)
    track = torch.from_numpy(np.concatenate([states.expression, states.blink, states.gaze], axis=1))
    first, second = (torch.einsum("ne,ekd->nkd", track, basis.movement) for basis in (shipped, few))
    assert (first - second).norm() < 0.25 * first.norm()
    torch.testing.assert_close(shipped.depth, few.depth, atol=0.03, rtol=0)
    assert int(read_metadata(BUILT_IN_BASIS)["people"]) >= 100


def test_an_opened_jaw_of_an_unknown_speaker():
    geometry = FaceGeometry(appearance(speaker(4, "test").identity).shape, 2)
    still, opened = torch.zeros(64), torch.zeros(64)
    opened[EXPRESSION_INDEX["jaw_open"]] = 0.5
    (before, _), (after, _) = (geometry.deform(value.numpy(), *torch.zeros(2, 2).numpy()) for value in (still, opened))
    true = torch.from_numpy(after[:68] - before[:68])
    found = 0.5 * load_expression_basis().movement[EXPRESSION_INDEX["jaw_open"], :68]
    assert (found - true)[55:60].norm() < 0.25 * true[55:60].norm()  # the lower lip
    assert (found - true)[6:11].norm() < 0.25 * true[6:11].norm()  # the chin


def test_files_round_trip_and_foreign_ones_are_refused(tmp_path):
    basis = load_expression_basis()
    save_expression_basis(tmp_path / "own.safetensors", basis, {"people": "3"})
    again = load_expression_basis(tmp_path / "own.safetensors")
    assert torch.equal(again.movement, basis.movement) and torch.equal(again.depth, basis.depth)
    write_safetensors(tmp_path / "short.safetensors", KIND, {"movement": torch.zeros(64, 70, 3)}, {})
    with pytest.raises(PortraitError, match=r"movement has shape \[64, 70, 3\], \[68, 70, 3\] is needed"):
        load_expression_basis(tmp_path / "short.safetensors")
