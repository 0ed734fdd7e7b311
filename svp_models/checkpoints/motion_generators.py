"""The files of KDTalker and JoyVASA as published.

| file                        | holds                                                                        |
|-----------------------------|------------------------------------------------------------------------------|
| `KDTalker.pth`              | `model`: `point_model.model.*`; the weights are for non-commercial use       |
| `wav2lip.pth`               | `state_dict`: `module.audio_encoder.*`; Wav2Lip's other parts are not used   |
| JoyVASA's motion generator  | `model`: denoiser, HuBERT, noise schedule and tables; `args` are not used    |
| `norm.npz`                  | KDTalker's means and deviations of motions                                   |
| `motion_template.pkl`       | JoyVASA's ranges of motions, a pickled dict of arrays; no code of it is run  |

| `chinese-hubert-base/`      | HuBERT as on Hugging Face, for JoyVASA files that have no audio encoder      |

Sizes follow from the tensors' shapes. Numbers of heads do not: JoyVASA's are given where they are not the published ones.
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import PortraitError
from ..networks.attention import sinusoidal_encoding
from ..networks.layers import shapes_only
from ..networks.motion_generators.joyvasa import JoyVasaConfig, JoyVasaNetwork, alignment_mask
from ..networks.motion_generators.kdtalker import KDTalkerConfig, KDTalkerNetwork
from ..networks.motion_generators.motion_scale import JOYVASA_ORDER, KDTALKER_ORDER, MotionScale
from ..networks.motion_generators.wav2lip import LAYERS, Wav2LipAudioEncoder
from .audio_encoder import merge_weight_norm
from .liveportrait import Sizes
from .safetensors_io import check_file, load_strict
from .third_party import find_weights, read_content, read_json, read_pickled_arrays, read_weights, weights_in

KDTALKER_PREFIX, WAV2LIP_PREFIX = "point_model.model.", "module.audio_encoder."
UNUSED_BY_KDTALKER = "positional_encoding.freq_bands"  # no layer reads it
OTHER_PARTS_OF_WAV2LIP = ("module.face_encoder_blocks.", "module.face_decoder_blocks.", "module.output_block.")
HUBERT, MASKED = "audio_encoder.", "audio_encoder.masked_spec_embed"  # the latter stands for hidden audio in training
HUBERT_STRIDES = (5, 2, 2, 2, 2, 2, 2)  # of its convolutions: rows 20 ms apart
HUBERT_HEAD = 64  # channels of an attention head
HEADS_OF_HUBERT = ("lm_head.", "final_proj.", "label_embs_concat", "projector.", "classifier.")  # of other tasks
# Settings of a HuBERT that its tensors do not tell.
STORED_SETTINGS = (
    "num_attention_heads",
    "conv_stride",
    "conv_bias",
    "feat_extract_norm",
    "feat_extract_activation",
    "feat_proj_layer_norm",
    "hidden_act",
    "layer_norm_eps",
    "do_stable_layer_norm",
)
MASK, TABLES = "denoising_net.alignment_mask", ("denoising_net.TE.pe", "denoising_net.PE.pe")
TABLE_EXACT = 1e-5
PUBLISHED_HUBERT: dict[str, Any] = {"num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16}
POINTS = 63  # numbers of the 21 published points
KP = {"kp": POINTS}  # points at rest, which KDTalker's scale has besides the motion's parts


def load_kdtalker(path: Path | str) -> KDTalkerNetwork:
    """The denoiser, float32 on the CPU, in eval mode. Entries beside `model`, which training needs, are not used."""
    tensors, prefix = _weights(path, "model", KDTALKER_PREFIX, ())
    tensors.pop(UNUSED_BY_KDTALKER, None)
    config = kdtalker_config(Sizes(path, tensors, KDTalkerNetwork, prefix))
    return _load(path, tensors, lambda: KDTalkerNetwork(config), prefix)


def kdtalker_config(sizes: Sizes) -> KDTalkerConfig:
    dim, heads = (
        sizes.axis("input_projection.weight", 0),
        sizes.axis("time_rel_pos_bias.relative_attention_bias.weight", 1),
    )
    time = sizes.axis("time_mlp.3.weight", 0)
    return KDTalkerConfig(
        channels=sizes.axis("input_projection.weight", 1),
        dim=dim,
        layers=len(sizes.numbers("layers")),
        heads=heads,
        head_dim=sizes.axis("layers.0.2.fn.fn.proj.weight", 1) // heads,
        audio_dim=sizes.axis("layers.0.0.mlp.1.weight", 1) - time,
        time_dim=time,
        buckets=sizes.axis("time_rel_pos_bias.relative_attention_bias.weight", 0),
        rotary=sizes.axis("layers.0.2.fn.fn.rotary_emb.freqs", 0),
    )


def load_wav2lip(path: Path | str) -> Wav2LipAudioEncoder:
    """The audio encoder of Wav2Lip's file, or of a file with that part alone; float32 on the CPU, in eval mode."""
    tensors, prefix = _weights(path, "state_dict", WAV2LIP_PREFIX, OTHER_PARTS_OF_WAV2LIP)
    sizes = Sizes(path, tensors, Wav2LipAudioEncoder, prefix)
    widths = tuple(sizes.axis(f"{index}.conv_block.0.weight", 0) for index in range(len(LAYERS)))
    return _load(path, tensors, lambda: Wav2LipAudioEncoder(widths), prefix)


def load_joyvasa(
    path: Path | str,
    heads: int = JoyVasaConfig.heads,
    hubert: Mapping[str, Any] | None = None,
    hubert_folder: Path | str | None = None,
) -> JoyVasaNetwork:
    """Denoiser and audio encoder, float32 on the CPU, in eval mode.

    heads: of the denoiser. hubert: settings of transformers' HubertConfig that differ from the published ones and that the
    tensors' shapes do not tell. hubert_folder: a Hugging Face folder with the HuBERT of a file that has none of its own.
    """
    tensors, prefix = _weights(path, "model", "", ())
    if not any(name.startswith(HUBERT) for name in tensors):
        settings, weights = read_hubert(path, hubert_folder)
        tensors, hubert = tensors | weights, settings | dict(hubert or {})
    tensors = merge_weight_norm(tensors, HUBERT)
    sizes = Sizes(path, tensors, lambda: _joyvasa_network(JoyVasaConfig(), PUBLISHED_HUBERT))
    config = joyvasa_config(sizes, heads)
    settings = hubert_settings(sizes) | dict(hubert or {})
    for name in TABLES:
        _check_table(path, name, tensors.pop(name, None), config.feature_dim)
    _check_mask(path, tensors.pop(MASK, None), config)
    tensors.pop(MASKED, None)
    return _load(path, tensors, lambda: _joyvasa_network(config, settings), prefix)


def read_hubert(path: Path | str, folder: Path | str | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and tensors, named as in JoyVASA's files, of a Hugging Face folder. path: of the file that needs them."""
    if folder is None:
        raise PortraitError(
            f"{path}: it has no audio encoder ({HUBERT}*): run `svp download chinese-hubert-base`, which puts it beside it"
        )
    folder = Path(folder)
    file = weights_in(folder, "model") or find_weights(folder, "pytorch_model")
    stored = read_json(folder / "config.json") or {}
    tensors = {
        f"{HUBERT}{name.removeprefix('hubert.')}": tensor.float()
        for name, tensor in read_weights(file).items()
        if not name.startswith(HEADS_OF_HUBERT)
    }
    return {name: stored[name] for name in STORED_SETTINGS if name in stored}, tensors


def joyvasa_config(sizes: Sizes, heads: int) -> JoyVasaConfig:
    before, width = sizes.axis("start_motion_feat", 1), sizes.axis("audio_feature_map.weight", 0)
    mask = sizes.tensors.get(MASK)
    if mask is None or mask.dim() != 2 or len(mask) <= before:
        found = "is missing" if mask is None else f"has shape {list(mask.shape)}"
        raise PortraitError(
            f"{sizes.path}: {MASK} {found}, a square for more than {before} frames is needed: copy the file again"
        )
    if width % heads:
        raise PortraitError(
            f"{sizes.path}: {heads} heads do not divide its {width} channels: give another number of heads"
        )
    return JoyVasaConfig(
        motion_feat_dim=sizes.axis("start_motion_feat", 2),
        feature_dim=width,
        heads=heads,
        layers=len(sizes.numbers("denoising_net.transformer.layers")),
        n_motions=len(mask) - before,
        n_prev_motions=before,
        align_width=int((~mask[0].bool()).sum()),
        feed_forward=sizes.axis("denoising_net.transformer.layers.0.linear1.weight", 0),
        n_diff_steps=sizes.axis("diffusion_sched.betas", 0) - 1,
        audio_channels=sizes.axis("audio_feature_map.weight", 1),
    )


def hubert_settings(sizes: Sizes) -> dict[str, Any]:
    """Settings of transformers' HubertConfig that the tensors tell."""
    convolutions = [
        f"{HUBERT}feature_extractor.conv_layers.{index}.conv.weight" for index in range(len(HUBERT_STRIDES))
    ]
    hidden = sizes.axis(f"{HUBERT}feature_projection.projection.weight", 0)
    kernel = f"{HUBERT}encoder.pos_conv_embed.conv.weight"
    return {
        "hidden_size": hidden,
        "num_hidden_layers": len(sizes.numbers(f"{HUBERT}encoder.layers")),
        "num_attention_heads": max(1, hidden // HUBERT_HEAD),
        "intermediate_size": sizes.axis(f"{HUBERT}encoder.layers.0.feed_forward.intermediate_dense.weight", 0),
        "conv_dim": [sizes.axis(name, 0) for name in convolutions],
        "conv_kernel": [sizes.axis(name, 2) for name in convolutions],
        "conv_stride": list(HUBERT_STRIDES),
        "num_conv_pos_embeddings": sizes.axis(kernel, 2),
        "num_conv_pos_embedding_groups": hidden // sizes.axis(kernel, 1),
    }


def load_kdtalker_scale(path: Path | str) -> MotionScale:
    """KDTalker's `norm.npz`: means and deviations of the motion's parts and of the points at rest."""
    check_file(Path(path))
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PortraitError(f"{path}: not a readable numpy archive ({error}): copy or download it again") from error
    return kdtalker_scale(arrays, path)


def kdtalker_scale(values: Mapping[str, Any], path: Path | str) -> MotionScale:
    """From `scale_mean`, `scale_std`, ... by name. path: where they come from."""
    parts = _with_points(KDTALKER_ORDER | KP, values, "exp_mean")
    offset = {name: _numbers(values, f"{name}_mean", size, path) for name, size in parts.items()}
    return MotionScale(offset, {name: _numbers(values, f"{name}_std", size, path) for name, size in parts.items()})


def load_joyvasa_scale(path: Path | str) -> MotionScale:
    """JoyVASA's template: mean and deviation of `exp`, least and largest values of the other parts."""
    path = Path(path)
    values = read_pickled_arrays(path)
    offset, spread = {}, {}
    for name, size in _with_points(JOYVASA_ORDER, values, "mean_exp").items():
        if name == "exp":
            offset[name], spread[name] = (_numbers(values, f"{kind}_{name}", size, path) for kind in ("mean", "std"))
        else:
            offset[name] = _numbers(values, f"min_{name}", size, path)
            spread[name] = _numbers(values, f"max_{name}", size, path) - offset[name]
    return MotionScale(offset, spread)


def _with_points(order: dict[str, int], values: Mapping[str, Any], name: str) -> dict[str, int]:
    """Sizes of the parts for the number of points that the values have, if it is not the published one."""
    size = np.size(values[name]) if name in values else 0
    return {part: size if count == POINTS and size and size % 3 == 0 else count for part, count in order.items()}


def _numbers(values: Mapping[str, Any], name: str, size: int, path: Path | str) -> Tensor:
    if name not in values:
        raise PortraitError(f"{path}: {name} is missing, {size} numbers are needed: copy or download the file again")
    try:
        numbers = torch.as_tensor(np.asarray(values[name], dtype=np.float32)).flatten().clone()
    except (TypeError, ValueError) as error:
        raise PortraitError(f"{path}: {name} is a {type(values[name]).__name__}, {size} numbers are needed") from error
    if len(numbers) != size or not bool(numbers.isfinite().all()):
        raise PortraitError(
            f"{path}: {name} has {len(numbers)} numbers, {size} finite ones are needed: copy the file again"
        )
    return numbers


def _weights(path: Path | str, entry: str, prefix: str, others: tuple[str, ...]) -> tuple[dict[str, Tensor], str]:
    """Tensors of a file without the prefix, as float32, and that prefix; its weights may lie in an entry of that name.

    others: beginnings of names that are not used. Names with neither beginning raise PortraitError.
    """
    path = Path(path)
    content = _read_with_settings(path)
    if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
        content = content[entry]
    if not isinstance(content, Mapping):
        raise PortraitError(
            f"{path}: it holds a {type(content).__name__}, weights by name are needed: choose another file"
        )
    tensors = {}
    for name, value in content.items():
        if str(name).startswith(others) and others:
            continue
        if not str(name).startswith(prefix) or not isinstance(value, Tensor):
            raise PortraitError(
                f"{path}: {name} is unexpected, tensors named {prefix}... are needed: choose another file"
            )
        tensors[name.removeprefix(prefix)] = value.float() if value.is_floating_point() else value
    return tensors, prefix


def _read_with_settings(path: Path) -> Any:
    """Content of a file in which a trainer's settings may lie: argparse's, with paths. Both hold plain values alone."""
    allowed: list[Any] = [
        argparse.Namespace,
        *((PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
        *((PureWindowsPath, f"{module}.WindowsPath") for module in ("pathlib", "pathlib._local")),
    ]
    with torch.serialization.safe_globals(allowed):
        return read_content(path)


def _load(path: Path | str, tensors: dict[str, Tensor], build: Callable[[], Any], prefix: str) -> Any:
    with shapes_only():  # weights come from the file: no time is lost on drawing random ones
        network = build()
    load_strict(network, tensors, path, prefix)
    return network.eval()


def _joyvasa_network(config: JoyVasaConfig, hubert: dict[str, Any]) -> JoyVasaNetwork:
    from transformers import HubertConfig, HubertModel  # here: its import takes seconds, which most models need not pay

    # Without masks, which belong to training, the model has no `masked_spec_embed`.
    settings = HubertConfig(**hubert, mask_time_prob=0.0, mask_feature_prob=0.0)
    encoder = HubertModel(settings)
    kernel = settings.num_conv_pos_embeddings
    encoder.encoder.pos_conv_embed.conv = nn.Conv1d(
        settings.hidden_size,
        settings.hidden_size,
        kernel,
        padding=kernel // 2,
        groups=settings.num_conv_pos_embedding_groups,
    )
    return JoyVasaNetwork(encoder, config)


def _check_table(path: Path | str, name: str, table: Tensor | None, channels: int) -> None:
    """Files hold the sinusoids, which the network computes itself: only other values would make a difference."""
    if table is None:
        return
    if table.dim() != 3 or table.shape[2] != channels:
        raise PortraitError(
            f"{path}: {name} has shape {list(table.shape)}, [1, positions, {channels}] is needed: copy it again"
        )
    error = float((table[0] - sinusoidal_encoding(table.shape[1], channels, table)).abs().max())
    if not error <= TABLE_EXACT:
        raise PortraitError(f"{path}: {name} is off the sinusoids by {error:.1e}: learned positions are not supported")


def _check_mask(path: Path | str, mask: Tensor | None, config: JoyVasaConfig) -> None:
    wanted = alignment_mask(config.n_prev_motions + config.n_motions, config.align_width)
    if mask is None or mask.shape != wanted.shape or not torch.equal(mask.bool(), wanted):
        raise PortraitError(
            f"{path}: {MASK} does not have bands of {config.align_width} frames around its diagonal: copy the file again"
        )
