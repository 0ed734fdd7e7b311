"""Whisper-tiny and wav2vec2-base as transformers saves them, in a folder or as one file; only the encoder is kept.

| left out on purpose              | why                                        |
|----------------------------------|--------------------------------------------|
| Whisper: `decoder.*`, `proj_out` | they write the text                        |
| wav2vec2: `lm_head.*`            | it spells the letters                      |
| wav2vec2: `masked_spec_embed`    | it stands for hidden sound during training |
| wav2vec2: `quantizer.*`, `project_q.*`, `project_hid.*` | heads of its pre-training |

Every other tensor has to find its place. wav2vec2's positional convolution is stored as length `g` and direction `v` of its
weight, under old or new names; it is kept as the weight itself.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import PortraitError
from ..io.strict_config import json_value, shown
from ..model import PortraitModel
from ..networks.audio_encoder import POSITION, SAMPLE_RATE, AudioEncoder, Wav2Vec2AudioEncoder, WhisperAudioEncoder
from .safetensors_io import load_strict
from .third_party import find_weights, read_weights

FOLDER = "audio_encoders"  # below the host's models folder
PUBLISHED = {"whisper": "openai/whisper-tiny", "wav2vec2": "facebook/wav2vec2-base-960h"}

# The published sizes, for files without a config. What they leave out is as transformers has it by default.
STANDARD: dict[str, dict[str, Any]] = {
    "whisper": {
        "d_model": 384,
        "encoder_layers": 4,
        "encoder_attention_heads": 6,
        "encoder_ffn_dim": 1536,
        "decoder_layers": 4,
        "decoder_attention_heads": 6,
        "decoder_ffn_dim": 1536,
        "num_mel_bins": 80,
        "max_source_positions": 1500,
    },
    "wav2vec2": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "feat_extract_norm": "group",
        "conv_bias": False,
        "do_stable_layer_norm": False,
    },
}
# Their preprocessing; another one would change what the features mean.
PREPROCESSING = {
    "whisper": {"sampling_rate": SAMPLE_RATE, "hop_length": 160, "n_fft": 400},
    "wav2vec2": {"sampling_rate": SAMPLE_RATE, "feature_size": 1},
}
MOST_LAYERS, LARGEST = 64, 10**6
HEADS = ("lm_head.", "quantizer.", "project_q.", "project_hid.")
POSITIONS = "encoder.pos_conv_embed.conv."
LENGTH_NAMES = ("parametrizations.weight.original0", "weight_g")
DIRECTION_NAMES = ("parametrizations.weight.original1", "weight_v")


def load_audio_encoder(path: Path | str) -> AudioEncoder:
    """An encoder in float32 on the CPU, from a folder as transformers saves it or a single weight file.

    A folder holds config.json, model.safetensors or pytorch_model.bin, and preprocessor_config.json if it likes. A single
    file NAME.safetensors is read with the NAME.json beside it, else with the config.json (and preprocessor_config.json)
    beside it; without either it has to be of whisper-tiny's or wav2vec2-base's sizes.
    """
    path = Path(path)
    file = _weights_in(path) if path.is_dir() else path
    tensors = {name: tensor.float() for name, tensor in read_weights(file).items()}
    kind, tensors = _recognised(file, tensors)
    settings, prepared = file.with_suffix(".json"), {}
    values = _read_json(settings)
    if values is None:
        settings = file.parent / "config.json"
        values = _read_json(settings)
        prepared = {} if values is None else _preprocessing(file.parent / "preprocessor_config.json", kind)
    if values is None:
        values = _standard(file, kind, tensors)
    if values.get("model_type", kind) != kind:
        raise PortraitError(
            f"{file}: it holds a {kind} encoder, but the {settings.name} beside it is of model_type "
            f"{values['model_type']!r}: keep each model in a folder of its own, or its config in {file.stem}.json"
        )
    _check_sizes(settings, values)
    build = _whisper if kind == "whisper" else _wav2vec2
    try:
        return build(file, tensors, values, prepared)
    except PortraitError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # What transformers and torch say to settings that are of another kind or do not fit each other.
        raise PortraitError(
            f"{settings}: no {kind} encoder can be built from it ({type(error).__name__}: {error}): get {PUBLISHED[kind]}"
        ) from error


def join_audio_encoder(model: PortraitModel, encoder: AudioEncoder) -> PortraitModel:
    """The model with the encoder that it hears through; one that does not fit raises PortraitError."""
    check_audio_encoder(model.config, encoder)
    return replace(model, audio_encoder=encoder)


def check_audio_encoder(config: ModelConfig, encoder: AudioEncoder | None) -> None:
    """Raises PortraitError unless the encoder gives the features that the model reads."""
    wanted = config.audio
    needs = f"model {config.name!r} reads {wanted.features} features of {wanted.feature_size} numbers"
    if wanted.features not in PUBLISHED:
        if encoder is not None:
            raise PortraitError(f"{needs} and needs no audio encoder: leave the {encoder.kind} encoder out")
        return
    published = PUBLISHED[wanted.features]
    cure = (
        f"put the files of https://huggingface.co/{published} (config.json and model.safetensors) into "
        f"models/{FOLDER}/{published.split('/')[1]}, load them with Load Audio Encoder (SVP) and connect model and "
        "audio_encoder to Apply Audio Encoder (SVP)"
    )
    if encoder is None:
        raise PortraitError(f"{needs}, and no audio encoder is joined to it: {cure}")
    if (encoder.kind, encoder.feature_size) != (wanted.features, wanted.feature_size):
        raise PortraitError(
            f"{needs}, the audio encoder gives {encoder.kind} features of {encoder.feature_size} numbers: {cure}"
        )


def _weights_in(folder: Path) -> Path:
    try:
        return find_weights(folder, "model")
    except PortraitError:
        return find_weights(folder, "pytorch_model")


def _recognised(file: Path, tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The kind of encoder, and the tensors without the name of the model around them."""
    for kind, prefix, sign in (
        ("whisper", "model.", "encoder.embed_positions.weight"),
        ("wav2vec2", "wav2vec2.", "feature_extractor.conv_layers.0.conv.weight"),
    ):
        if sign in tensors or prefix + sign in tensors:
            return kind, {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    some = ", ".join(list(tensors)[:3])
    raise PortraitError(
        f"{file}: neither a Whisper nor a wav2vec2 model as transformers saves them (its tensors are {some}, ...): get "
        f"{' or '.join(PUBLISHED.values())} from huggingface.co"
    )


def _standard(file: Path, kind: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The published config if the sizes are its own."""
    name, prefix = PUBLISHED[kind], "encoder.layers."
    layers = {each.removeprefix(prefix).split(".")[0] for each in tensors if each.startswith(prefix)}
    width = tensors.get("encoder.layer_norm.weight", torch.empty(0)).numel()
    wanted = list(STANDARD[kind].values())[:2]
    if [width, len(layers)] != wanted:
        raise PortraitError(
            f"{file}: its encoder is {width} wide and has {len(layers)} layers, {name} is {wanted[0]} wide and has "
            f"{wanted[1]}: put the config.json that belongs to it beside it as {file.stem}.json, or both into a folder of their own"
        )
    return STANDARD[kind]


def _preprocessing(file: Path, kind: str) -> dict[str, Any]:
    values = _read_json(file) or {}
    for name, wanted in PREPROCESSING[kind].items():
        if values.get(name, wanted) != wanted:
            raise PortraitError(f"{file}: {name} is {values[name]}, only {wanted} is known: get {PUBLISHED[kind]}")
    return values


def _read_json(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    values = json_value(file.read_bytes(), str(file))
    if not isinstance(values, dict):
        raise PortraitError(f"{file}: holds a {type(values).__name__} and no settings: copy or download it again")
    return values


def _check_sizes(file: Path, values: dict[str, Any]) -> None:
    """Raises PortraitError for settings larger than any published model's, which would be built for hours."""
    for name, value in values.items():
        most = MOST_LAYERS if name.endswith("_layers") else LARGEST
        numbers = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, (int, float))]
        if any(not abs(each) <= most for each in numbers) or len(numbers) > MOST_LAYERS * MOST_LAYERS:
            raise PortraitError(f"{file}: {name} is {shown(value)}: {most} is the most that can be read")


def _whisper(file: Path, tensors: dict[str, Tensor], values: dict[str, Any], prepared: dict[str, Any]) -> AudioEncoder:
    from transformers import (
        WhisperConfig,
        WhisperModel,
    )  # here: its import takes seconds, which most models need not pay

    config = WhisperConfig.from_dict(values)
    bands = prepared.get("feature_size", config.num_mel_bins)
    if bands != config.num_mel_bins or config.max_source_positions % 50:
        raise PortraitError(
            f"{file}: {config.num_mel_bins} mel bands ({bands} in its preprocessing) and {config.max_source_positions} "
            "positions: the same number of bands and whole seconds of 50 positions are needed, get the original files"
        )
    with torch.device("meta"):
        whole = WhisperModel(config)
    encoder = whole.get_encoder()
    left_out = {f"decoder.{name}" for name in whole.get_decoder().state_dict()} | {"proj_out.weight"}
    load_strict(encoder, _kept(file, tensors, "encoder.", left_out), file, "encoder.")
    return WhisperAudioEncoder(encoder)


def _wav2vec2(file: Path, tensors: dict[str, Tensor], values: dict[str, Any], prepared: dict[str, Any]) -> AudioEncoder:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    # Without masks, which belong to training, the model has no `masked_spec_embed`.
    config = Wav2Vec2Config.from_dict({**values, "mask_time_prob": 0.0, "mask_feature_prob": 0.0})
    hop = math.prod(config.conv_stride)
    if hop != POSITION:
        raise PortraitError(
            f"{file}: its convolutions step by {hop} samples, rows every {POSITION} (20 ms) are needed: get "
            f"{PUBLISHED['wav2vec2']}"
        )
    if config.add_adapter:
        raise PortraitError(f"{file}: it has an adapter, which changes the rate of its rows: use one without")
    with torch.device("meta"):
        model = Wav2Vec2Model(config)
        model.encoder.pos_conv_embed.conv = nn.Conv1d(
            config.hidden_size,
            config.hidden_size,
            config.num_conv_pos_embeddings,
            padding=config.num_conv_pos_embeddings // 2,
            groups=config.num_conv_pos_embedding_groups,
        )
    left_out = {name for name in tensors if name == "masked_spec_embed" or name.startswith(HEADS)}
    load_strict(model, _plain_positions(_kept(file, tensors, "", left_out)), file)
    return Wav2Vec2AudioEncoder(model, bool(prepared.get("do_normalize", True)))


def _kept(file: Path, tensors: dict[str, Tensor], prefix: str, left_out: set[str]) -> dict[str, Tensor]:
    """The tensors of the encoder without the prefix; one that is neither the encoder's nor left out on purpose raises."""
    kept = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    for name, tensor in kept.items():
        if not name.startswith(prefix):
            raise PortraitError(
                f"{file}: {name} of shape {list(tensor.shape)} is unexpected, the model has no such tensor: file and "
                "config differ"
            )
    return {name.removeprefix(prefix): tensor for name, tensor in kept.items()}


def _plain_positions(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weight-normed positional convolution -> its weight, v times g over v's norm at each of the kernel's places."""
    for length_name, direction_name in zip(LENGTH_NAMES, DIRECTION_NAMES, strict=True):
        if POSITIONS + length_name in tensors and POSITIONS + direction_name in tensors:
            rest = dict(tensors)
            length = rest.pop(POSITIONS + length_name)  # 1 1 kernel
            direction = rest.pop(POSITIONS + direction_name)  # out in/groups kernel
            return {**rest, f"{POSITIONS}weight": direction * (length / direction.norm(dim=(0, 1), keepdim=True))}
    return tensors
