"""Audio encoders: Whisper-tiny and wav2vec2-base as transformers saves them, in a folder or as one file.

| unused tensors                                          | purpose                            |
|---------------------------------------------------------|------------------------------------|
| Whisper: `decoder.*`, `proj_out`                        | text output                        |
| wav2vec2: `lm_head.*`                                   | letter output                      |
| wav2vec2: `masked_spec_embed`                           | masked audio during training       |
| wav2vec2: `quantizer.*`, `project_q.*`, `project_hid.*` | heads of its pre-training          |

Every other tensor has to belong to the encoder; `from_pretrained` would skip names and shapes that do not fit. wav2vec2's
positional convolution is stored as length `g` and direction `v` of its weight, under old or new names, and becomes the weight.
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
from ..io.strict_config import shown
from ..model import PortraitModel
from ..networks.audio_encoder import POSITION, SAMPLE_RATE, AudioEncoder, Wav2Vec2AudioEncoder, WhisperAudioEncoder
from .safetensors_io import load_strict
from .third_party import find_weights, read_json, read_weights

FOLDER = "audio_encoders"  # below the host's models folder
PUBLISHED = {"whisper": "openai/whisper-tiny", "wav2vec2": "facebook/wav2vec2-base-960h"}

# The published sizes, for files without a config; other values are the defaults of transformers.
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
# Their preprocessing; another one would change the features.
PREPROCESSING = {
    "whisper": {"sampling_rate": SAMPLE_RATE, "hop_length": 160, "n_fft": 400},
    "wav2vec2": {"sampling_rate": SAMPLE_RATE, "feature_size": 1},
}
MAX_LAYERS, MAX_SIZE = 64, 10**6
HEADS = ("lm_head.", "quantizer.", "project_q.", "project_hid.")
POSITION_CONV = "encoder.pos_conv_embed.conv."
LENGTH_NAMES = ("parametrizations.weight.original0", "weight_g")
DIRECTION_NAMES = ("parametrizations.weight.original1", "weight_v")


def load_audio_encoder(path: Path | str) -> AudioEncoder:
    """An audio encoder in float32 on the CPU, from a folder in the layout of transformers or a single weight file.

    A folder has config.json, model.safetensors or pytorch_model.bin, and optionally preprocessor_config.json. A single file
    NAME.safetensors is read with the NAME.json, or else the config.json (and preprocessor_config.json), in its folder;
    without them it must have the sizes of whisper-tiny or wav2vec2-base.
    """
    path = Path(path)
    file = _weights_in(path) if path.is_dir() else path
    tensors = {name: tensor.float() for name, tensor in read_weights(file).items()}
    kind, tensors = _recognise(file, tensors)
    settings, preprocessing = file.with_suffix(".json"), {}
    values = read_json(settings)
    if values is None:
        settings = file.parent / "config.json"
        values = read_json(settings)
        preprocessing = {} if values is None else _read_preprocessing(file.parent / "preprocessor_config.json", kind)
    if values is None:
        values = _standard_config(file, kind, tensors)
    if values.get("model_type", kind) != kind:
        raise PortraitError(
            f"{file}: it holds a {kind} encoder, but {settings.name} next to it is of model_type "
            f"{values['model_type']!r}: put each model into a folder of its own, or its config into {file.stem}.json"
        )
    _check_sizes(settings, values)
    build = _whisper if kind == "whisper" else _wav2vec2
    try:
        return build(file, tensors, values, preprocessing)
    except PortraitError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # Errors of transformers and torch about settings of another type or that do not fit each other.
        raise PortraitError(
            f"{settings}: no {kind} encoder can be built from it ({type(error).__name__}: {error}): use {PUBLISHED[kind]}"
        ) from error


def apply_audio_encoder(model: PortraitModel, encoder: AudioEncoder) -> PortraitModel:
    """The model with its audio encoder. An encoder of other features raises PortraitError."""
    check_audio_encoder(model.config, encoder)
    return replace(model, audio_encoder=encoder)


def check_audio_encoder(config: ModelConfig, encoder: AudioEncoder | None) -> None:
    """Raises PortraitError unless the encoder gives the model's audio features."""
    audio = config.audio
    reads = f"model {config.name!r} reads {audio.features} features of {audio.feature_size} values"
    if audio.features not in PUBLISHED:
        if encoder is not None:
            raise PortraitError(f"{reads} and uses no audio encoder: leave out the {encoder.kind} encoder")
        return
    published = PUBLISHED[audio.features]
    cure = (
        f"put the files of https://huggingface.co/{published} (config.json and model.safetensors) into "
        f"models/{FOLDER}/{published.split('/')[1]}, load them with Load Audio Encoder (SVP) and connect model and "
        "audio_encoder to Apply Audio Encoder (SVP)"
    )
    if encoder is None:
        raise PortraitError(f"{reads}, but it has no audio encoder: {cure}")
    if (encoder.kind, encoder.feature_size) != (audio.features, audio.feature_size):
        raise PortraitError(
            f"{reads}, the audio encoder gives {encoder.kind} features of {encoder.feature_size} values: {cure}"
        )


def _weights_in(folder: Path) -> Path:
    try:
        return find_weights(folder, "model")
    except PortraitError:
        return find_weights(folder, "pytorch_model")


def _recognise(file: Path, tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The kind of encoder, and the tensors without the prefix of the whole model."""
    for kind, prefix, key in (
        ("whisper", "model.", "encoder.embed_positions.weight"),
        ("wav2vec2", "wav2vec2.", "feature_extractor.conv_layers.0.conv.weight"),
    ):
        if key in tensors or prefix + key in tensors:
            return kind, {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    first = ", ".join(list(tensors)[:3])
    raise PortraitError(
        f"{file}: neither a Whisper nor a wav2vec2 model as transformers saves them (its tensors are {first}, ...): use "
        f"{' or '.join(PUBLISHED.values())} from huggingface.co"
    )


def _standard_config(file: Path, kind: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The published config, if the tensors have its sizes."""
    name, prefix = PUBLISHED[kind], "encoder.layers."
    layers = {key.removeprefix(prefix).split(".")[0] for key in tensors if key.startswith(prefix)}
    width = tensors.get("encoder.layer_norm.weight", torch.empty(0)).numel()
    expected = list(STANDARD[kind].values())[:2]
    if [width, len(layers)] != expected:
        raise PortraitError(
            f"{file}: its encoder has width {width} and {len(layers)} layers, {name} has width {expected[0]} and "
            f"{expected[1]} layers: put its config.json next to it as {file.stem}.json, or both into a folder of their own"
        )
    return STANDARD[kind]


def _read_preprocessing(file: Path, kind: str) -> dict[str, Any]:
    values = read_json(file) or {}
    for name, expected in PREPROCESSING[kind].items():
        if values.get(name, expected) != expected:
            raise PortraitError(
                f"{file}: {name} is {values[name]}, only {expected} is supported: use {PUBLISHED[kind]}"
            )
    return values


def _check_sizes(file: Path, values: dict[str, Any]) -> None:
    """Raises PortraitError for sizes beyond any published model's, which would take hours to build."""
    for name, value in values.items():
        maximum = MAX_LAYERS if name.endswith("_layers") else MAX_SIZE
        items = value if isinstance(value, list) else [value]
        numbers = [number for number in items if isinstance(number, (int, float))]
        if any(not abs(number) <= maximum for number in numbers) or len(numbers) > MAX_LAYERS * MAX_LAYERS:
            raise PortraitError(f"{file}: {name} is {shown(value)}: at most {maximum} can be read")


def _whisper(
    file: Path, tensors: dict[str, Tensor], values: dict[str, Any], preprocessing: dict[str, Any]
) -> AudioEncoder:
    from transformers import WhisperConfig, WhisperModel  # lazy: the import takes seconds, and most models need none

    config = WhisperConfig.from_dict(values)
    bands = preprocessing.get("feature_size", config.num_mel_bins)
    if bands != config.num_mel_bins or config.max_source_positions % 50:
        raise PortraitError(
            f"{file}: {config.num_mel_bins} mel bands ({bands} in its preprocessing) and {config.max_source_positions} "
            "positions: equal numbers of bands and whole seconds of 50 positions are needed, use the original files"
        )
    with torch.device("meta"):
        whole = WhisperModel(config)
    encoder = whole.get_encoder()
    unused = {f"decoder.{name}" for name in whole.get_decoder().state_dict()} | {"proj_out.weight"}
    load_strict(encoder, _select(file, tensors, "encoder.", unused), file, "encoder.")
    return WhisperAudioEncoder(encoder)


def _wav2vec2(
    file: Path, tensors: dict[str, Tensor], values: dict[str, Any], preprocessing: dict[str, Any]
) -> AudioEncoder:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    # Without the masks of training the model has no `masked_spec_embed`.
    config = Wav2Vec2Config.from_dict({**values, "mask_time_prob": 0.0, "mask_feature_prob": 0.0})
    hop = math.prod(config.conv_stride)
    if hop != POSITION:
        raise PortraitError(
            f"{file}: its convolutions step by {hop} samples, steps of {POSITION} (20 ms) are needed: use "
            f"{PUBLISHED['wav2vec2']}"
        )
    if config.add_adapter:
        raise PortraitError(
            f"{file}: it has an adapter, which changes the rate of its features: use a model without one"
        )
    with torch.device("meta"):
        model = Wav2Vec2Model(config)
        model.encoder.pos_conv_embed.conv = nn.Conv1d(
            config.hidden_size,
            config.hidden_size,
            config.num_conv_pos_embeddings,
            padding=config.num_conv_pos_embeddings // 2,
            groups=config.num_conv_pos_embedding_groups,
        )
    unused = {name for name in tensors if name == "masked_spec_embed" or name.startswith(HEADS)}
    load_strict(model, merge_weight_norm(_select(file, tensors, "", unused)), file)
    return Wav2Vec2AudioEncoder(model, bool(preprocessing.get("do_normalize", True)))


def _select(file: Path, tensors: dict[str, Tensor], prefix: str, unused: set[str]) -> dict[str, Tensor]:
    """The encoder's tensors without the prefix. A name that is neither the encoder's nor unused raises PortraitError."""
    selected = {name: tensor for name, tensor in tensors.items() if name not in unused}
    for name, tensor in selected.items():
        if not name.startswith(prefix):
            raise PortraitError(
                f"{file}: {name} of shape {list(tensor.shape)} is unexpected, the model has no such tensor: file and "
                "config differ"
            )
    return {name.removeprefix(prefix): tensor for name, tensor in selected.items()}


def merge_weight_norm(tensors: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Weight-normed positional convolution -> its weight, v g / |v| for each element of the kernel. prefix: before the encoder's
    names."""
    convolution = prefix + POSITION_CONV
    for length_name, direction_name in zip(LENGTH_NAMES, DIRECTION_NAMES, strict=True):
        if convolution + length_name in tensors and convolution + direction_name in tensors:
            others = dict(tensors)
            length = others.pop(convolution + length_name)  # 1 1 kernel
            direction = others.pop(convolution + direction_name)  # out in/groups kernel
            return {**others, f"{convolution}weight": direction * (length / direction.norm(dim=(0, 1), keepdim=True))}
    return tensors
