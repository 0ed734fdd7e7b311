"""Style files: one style prior or one sequence of style codes, with the style space it belongs to."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..errors import PortraitError
from ..values import Style, StylePrior
from .tensor_file import check_numbers, read_tensor_file, write_tensor_file


def save_style(path: Path | str, value: StylePrior | Style) -> None:
    """Writes mu and sigma (kind style_prior) or codes (kind style), float32."""
    metadata = {"style_space": value.style_space, "label": value.label}
    if isinstance(value, StylePrior):
        write_tensor_file(path, "style_prior", {"mu": value.mu.float(), "sigma": value.sigma.float()}, metadata)
    else:
        write_tensor_file(path, "style", {"codes": value.codes.float()}, metadata)


def load_style(path: Path | str) -> StylePrior | Style:
    """Reads either kind; whether it fits a model is the sampler's question (style_space)."""
    tensors, metadata = read_tensor_file(path, ("style_prior", "style"))
    space, label = metadata.get("style_space", ""), metadata.get("label", "")
    if not space:
        raise PortraitError(f"{path}: names no style space, so no model could use it: save the style again")
    if metadata["kind"] == "style_prior":
        mu, sigma = _tensor(path, tensors, "mu", 1), _tensor(path, tensors, "sigma", 1)
        if mu.shape != sigma.shape:
            raise PortraitError(f"{path}: mu has {len(mu)} values and sigma {len(sigma)}: the file is damaged")
        if bool((sigma < 0).any()):
            raise PortraitError(
                f"{path}: sigma goes down to {float(sigma.min()):g}, it cannot be negative: save it again"
            )
        return StylePrior(mu, sigma, space, label)
    return Style(_tensor(path, tensors, "codes", 2), space, label)


def _tensor(path: Path | str, tensors: dict[str, Tensor], name: str, dimensions: int) -> Tensor:
    value = tensors.get(name)
    if value is None:
        raise PortraitError(f"{path}: {name} is missing: the file is damaged, save the style again")
    if value.ndim != dimensions or value.numel() == 0:
        raise PortraitError(f"{path}: {name} has shape {list(value.shape)}, {dimensions} filled dimensions are needed")
    check_numbers({name: value}, path)
    return value.float()
