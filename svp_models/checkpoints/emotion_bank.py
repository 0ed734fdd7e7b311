"""Files of emotion banks, and which of them belongs to a model: the one of its style space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from ..errors import PortraitError
from ..io.strict_config import config_to_json
from ..networks.emotion_bank import EmotionBank, EmotionBankConfig
from ..networks.layers import shapes_only
from .model_file import cast_weight
from .safetensors_io import load_strict, read_config, read_metadata, read_safetensors, write_safetensors

KIND = "emotion_bank"
FOLDER = "svp_emotions"  # below a models folder
BUILT_IN_BANK = Path(__file__).parent / "weights" / "emotion_bank.safetensors"  # of the built-in model


def save_emotion_bank(path: Path | str, bank: EmotionBank, style_space: str, metadata: Mapping[str, str]) -> None:
    """Writes a bank in half precision. style_space: of the styles that it gives; metadata: further entries (seed, step,
    data_version, ...) of the header."""
    tensors = {name: cast_weight(path, name, tensor, torch.float16) for name, tensor in bank.state_dict().items()}
    header = {**metadata, "config": config_to_json(bank.config), "style_space": style_space}
    write_safetensors(path, KIND, tensors, header)


def load_emotion_bank(path: Path | str) -> tuple[EmotionBank, str]:
    """A bank in float32, and the style space of its styles."""
    tensors, metadata = read_safetensors(path, KIND)
    config = read_config(path, metadata, EmotionBankConfig)
    if not metadata.get("style_space"):
        raise PortraitError(f"{path}: it names no style space, so no model can use it: train it again")
    with shapes_only():
        bank = EmotionBank(config)
    load_strict(bank, {name: tensor.float() for name, tensor in tensors.items()}, path)
    if float(bank.unit) <= 0:
        raise PortraitError(f"{path}: its unit is {float(bank.unit):g}, above 0 is needed: train it again")
    return bank.eval(), metadata["style_space"]


def find_emotion_bank(style_space: str, paths: Iterable[Path | str] = ()) -> EmotionBank | None:
    """The bank of a style space: the first among these files, else the pack's own; None where there is none. Files that are no
    banks are passed over."""
    for path in (*paths, BUILT_IN_BANK):
        if _space(path) == style_space:
            return load_emotion_bank(path)[0]
    return None


def _space(path: Path | str) -> str | None:
    try:
        metadata = read_metadata(path)
    except PortraitError:
        return None
    return metadata.get("style_space") if metadata.get("kind") == KIND else None
