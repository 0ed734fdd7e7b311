"""Writes a model as V-Express' five files, for programs that read those."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..config import PRESETS
from ..errors import PortraitError
from ..io.files import whole_file
from ..networks.positions import sinusoidal_positions
from .animatediff import TABLE
from .native import PortraitModel
from .style_layer import OUTPUTS, style_tensors
from .vexpress import AUDIO, DENOISER, FILES, GUIDER, MOTION, REFERENCE, audio_names, denoiser_names

QUERY = "to_q.weight"


def vexpress_tensors(model: PortraitModel) -> dict[str, dict[str, Tensor]]:
    """Name of each of the five files, without its ending -> its tensors by V-Express' names, in the model's precision."""
    networks, positions = model.networks, model.config.unet.motion_positions
    own = networks.denoiser.state_dict()
    files: dict[str, dict[str, Tensor]] = {stem: {} for stem in FILES}
    for theirs, name in denoiser_names(own).items():
        file = files[MOTION if ".motion_modules." in name else DENOISER]
        file[theirs] = own[name]
        if ".motion_modules." in name and theirs.endswith(QUERY):
            block, attention = name.removesuffix(f".{QUERY}").split(".attention_blocks.")
            kept = networks.denoiser.get_submodule(block).places
            computed = sinusoidal_positions(positions, own[name].shape[1], torch.empty(0))
            table = computed if kept is None else kept[int(attention)]
            file[theirs.removesuffix(QUERY) + TABLE] = table[None].to(own[name].dtype)
    files[REFERENCE] = dict(networks.reference.state_dict())
    files[GUIDER] = dict(networks.guider.state_dict())
    audio = networks.audio_projection.state_dict()
    files[AUDIO] = {theirs: torch.cat([audio[each] for each in ours]) for theirs, ours in audio_names(audio).items()}
    return files


def export_vexpress(folder: Path | str, model: PortraitModel) -> list[Path]:
    """Writes the five files, each all or nothing, and returns their paths. What has no place there is told by `dropped`.

    A model that V-Express has no room for (layers, keypoints or audio features of another kind) raises PortraitError.
    """
    folder, config, theirs = Path(folder), model.config, PRESETS["vexpress"]
    unet = config.unet
    wrong = [
        f"{name} is {have!r}, V-Express has {needed!r}"
        for name, have, needed in (
            ("keypoints", config.keypoints, theirs.keypoints),
            ("audio.features", config.audio.features, theirs.audio.features),
            ("vae.kind", config.vae.kind, theirs.vae.kind),
            ("residual", config.residual, False),
            ("unet.reference_concat", unet.reference_concat, False),
            ("unet.reference_warp", unet.reference_warp, False),
            ("unet.condition_embedding", unet.condition_embedding, False),
        )
        if have != needed
    ]
    if wrong:
        raise PortraitError(f"this model cannot be written as V-Express' files: {'; '.join(wrong)}")
    files = vexpress_tensors(model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / f"{stem}.bin", tensors) for stem, tensors in files.items()]
    except (OSError, RuntimeError) as error:  # the latter is what torch.save makes of a full disk
        raise PortraitError(f"{folder}: cannot be written ({error}): check its rights and free space") from error


def dropped(model: PortraitModel) -> list[str]:
    """A line about the style layers that V-Express' files have no place for; none if they do nothing, as fresh ones."""
    tensors = style_tensors(model.networks)
    if not any(bool(tensor.any()) for name, tensor in tensors.items() if name.endswith(OUTPUTS)):
        return []
    numbers = sum(tensor.numel() for tensor in tensors.values())
    return [
        f"dropped  style attention, style projection, style extractor  {len(tensors)} tensors  {numbers:,}  (V-Express has no "
        "place for them: keep them in a file of their own with Save Style Layers)"
    ]


def _write(path: Path, tensors: dict[str, Tensor]) -> Path:
    with whole_file(path) as temporary:
        # Clones: torch.save would write the whole of the memory that a tensor is a part of.
        torch.save({key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}, temporary)
    return path
