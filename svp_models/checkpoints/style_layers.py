"""Files around styles: style layers without their base model, and style files (a prior, or codes) of one style space.

Style layers are style projection, style attention and style extractor. They fit every model whose UNet has the same blocks and
widths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from ..config import BaseShape, ModelConfig, StyleConfig, StyleLayerConfig, config_to_json
from ..errors import PortraitError
from ..io.file_names import printable
from ..model import PortraitModel, PortraitNetworks, build_networks, parameter_group
from ..networks.layers import shapes_only
from ..networks.motion_module import set_encodings, stored_encodings
from ..networks.style_extractor import StyleExtractor
from ..types import Style, StylePrior
from .model_file import STYLE_EXTRACTOR, cast_weight, style_space_of
from .safetensors_io import check_numbers, check_tensors, load_strict, read_config, read_safetensors, write_safetensors

KIND = "style_layer"
STYLE_GROUPS = ("style", "style_projection", "style_extractor")
# Output layers of the style attention: strength scales them.
OUTPUTS = (".style_attn.to_out.0.weight", ".style_attn.to_out.0.bias", ".style_embedding.weight")


def is_style_tensor(name: str) -> bool:
    """Whether a tensor of PortraitNetworks belongs to the style layers."""
    return parameter_group(name) in STYLE_GROUPS


def style_tensors(networks: PortraitNetworks) -> dict[str, Tensor]:
    """The tensors of the style layers by name."""
    return {name: tensor for name, tensor in networks.state_dict().items() if is_style_tensor(name)}


def save_style_layer(
    path: Path | str, model: PortraitModel, metadata: Mapping[str, str], dtype: torch.dtype = torch.float16
) -> None:
    """Writes the model's style layers with floats as dtype. metadata: further entries (seed, step, ...) of the header."""
    if not model.config.unet.style_attention:
        count = len(model.networks.denoiser.transformer_blocks())
        raise PortraitError(
            f"model {model.config.name!r} has style layers in 0 of its {count} transformer blocks: save them from a model that "
            "was built with style_attention"
        )
    unet, weights = model.config.unet, style_tensors(model.networks)
    tensors = {name: cast_weight(path, name, tensor, dtype) for name, tensor in weights.items()}
    config = StyleLayerConfig(model.config.style, BaseShape.of(unet), model.config.audio.features, unet.style_width)
    header = {
        **metadata,
        "config": config_to_json(config),
        "style_space": model.style_space,
        "extractor": _extractor_of(path, tensors, model.config.style),
    }
    write_safetensors(path, KIND, tensors, header)


def read_style_layer(path: Path | str) -> tuple[dict[str, Tensor], StyleLayerConfig, dict[str, str]]:
    """Tensors as stored, config and metadata of a file with style layers."""
    tensors, metadata = read_safetensors(path, KIND)
    config = read_config(path, metadata, StyleLayerConfig)
    if not metadata.get("style_space"):
        raise PortraitError(f"{path}: it names no style space, so no style fits it: save the style layers again")
    return tensors, config, metadata


@torch.no_grad()
def apply_style_layer(model: PortraitModel, path: Path | str, strength: float = 1.0) -> PortraitModel:
    """A copy of the model with the style layers of a file; `model` itself, with or without style layers, does not change.

    A second file replaces the first. strength: 1 as trained; 0 gives exactly the results of the base without a style. All other
    tensors are shared with `model`, so that several strengths or styles of one base need little more memory than one.
    """
    if not (math.isfinite(strength) and strength >= 0):
        raise PortraitError(f"strength is {strength}: it must be 0 (no effect) or more; 1 is the trained strength")
    tensors, layer, metadata = read_style_layer(path)
    _check_base(path, layer, model.config)
    unet = replace(model.config.unet, style_attention=True, style_width=layer.width)
    config = replace(model.config, style=layer.style, unet=unet)
    with shapes_only():
        networks = build_networks(config)
    check_tensors({name: tensor.shape for name, tensor in style_tensors(networks).items()}, tensors, path)
    check_numbers(tensors, path)
    extractor = _extractor_of(path, tensors, layer.style)
    if extractor != metadata.get("extractor"):
        raise PortraitError(
            f"{path}: the style extractor is {extractor}, the file says {printable(metadata.get('extractor'))}: it was changed after "
            "saving, use the original file"
        )
    like = next(model.networks.denoiser.parameters())
    shared = {name: tensor for name, tensor in model.networks.state_dict().items() if not is_style_tensor(name)}
    style = {
        name: (tensor.float() * (strength if name.endswith(OUTPUTS) else 1)).to(like)
        for name, tensor in tensors.items()
    }
    load_strict(networks, {**shared, **style}, path, checked=shared)
    set_encodings(networks, stored_encodings(model.networks), path)
    applied = {
        "style_layer": Path(path).name,
        "style_strength": f"{strength:g}",
        "style_space": metadata["style_space"],
    }
    return replace(
        model,
        config=config,
        networks=networks.train(model.networks.training),
        style_space=metadata["style_space"],
        metadata={**model.metadata, **applied},
    )


def _check_base(path: Path | str, layer: StyleLayerConfig, config: ModelConfig) -> None:
    base = asdict(BaseShape.of(config.unet))
    trained = asdict(layer.base).items()
    differing = [f"{name} {base[name]}, not {expected}" for name, expected in trained if base[name] != expected]
    if differing:
        raise PortraitError(
            f"{path}: its style layers do not fit model {config.name!r}, which has {'; '.join(differing)}: apply them to a "
            "model of the widths they were trained at"
        )
    # With other feature sizes the extractor can still read frames, and `extract_style` refuses audio for it.
    if layer.features != config.audio.features and layer.style.audio_size == config.audio.feature_size:
        raise PortraitError(
            f"{path}: its style extractor reads {layer.features} features, model {config.name!r} reads "
            f"{config.audio.features} features; both have {layer.style.audio_size} values, but they mean different "
            "things: apply the layers to a model with the same features"
        )


def _extractor_of(path: Path | str, tensors: Mapping[str, Tensor], style: StyleConfig) -> str:
    """Hash of the style extractor among the tensors, see `style_space_of`."""
    stored = {
        name.removeprefix(STYLE_EXTRACTOR): tensor
        for name, tensor in tensors.items()
        if name.startswith(STYLE_EXTRACTOR)
    }
    with shapes_only():
        extractor = StyleExtractor(style)
    load_strict(extractor, stored, path, STYLE_EXTRACTOR)
    return style_space_of(extractor)


def save_style(path: Path | str, value: StylePrior | Style) -> None:
    """Writes mu and sigma (kind style_prior) or codes (kind style), float32."""
    metadata = {"style_space": value.style_space, "label": value.label}
    if isinstance(value, StylePrior):
        write_safetensors(path, "style_prior", {"mu": value.mu.float(), "sigma": value.sigma.float()}, metadata)
    else:
        write_safetensors(path, "style", {"codes": value.codes.float()}, metadata)


def load_style(path: Path | str) -> StylePrior | Style:
    """Reads a style file of either kind. The sampler checks that its style space is the model's."""
    tensors, metadata = read_safetensors(path, ("style_prior", "style"))
    space, label = metadata.get("style_space", ""), metadata.get("label", "")
    if not space:
        raise PortraitError(f"{path}: it names no style space, so no model can use it: save the style again")
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
