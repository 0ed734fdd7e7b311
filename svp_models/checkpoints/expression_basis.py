"""The file of the expression warp's basis, which the pack ships; `svp train expression-basis` writes it."""

from __future__ import annotations

from pathlib import Path

import torch

from ..face.expression_warp import POINTS, ExpressionBasis
from .safetensors_io import check_numbers, check_tensors, read_safetensors, write_safetensors

KIND = "expression_basis"
BUILT_IN_BASIS = Path(__file__).parent / "weights" / "expression_basis.safetensors"
TRACK = 68  # numbers of an expression track


def save_expression_basis(path: Path | str, basis: ExpressionBasis, about: dict[str, str]) -> None:
    """Writes a basis in half precision. about: of its making, for the header."""
    tensors = {"movement": basis.movement.half(), "depth": basis.depth.half()}
    write_safetensors(path, KIND, tensors, about)


def load_expression_basis(path: Path | str = BUILT_IN_BASIS) -> ExpressionBasis:
    """A basis, by default the pack's own, in float32."""
    tensors, _ = read_safetensors(path, KIND)
    check_tensors({"movement": torch.Size((TRACK, POINTS, 3)), "depth": torch.Size((POINTS,))}, tensors, path)
    check_numbers(tensors, path)
    return ExpressionBasis(tensors["movement"].float(), tensors["depth"].float())
