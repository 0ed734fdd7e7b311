"""Audio encoders for the models that hear through Whisper or wav2vec2."""

from __future__ import annotations

import os
from dataclasses import replace

from ..svp_models.checkpoints.audio_encoder import FOLDER, join_audio_encoder, load_audio_encoder
from ..svp_models.checkpoints.catalog import TABLE, missing_file_error
from ..svp_models.checkpoints.foreign import SUFFIXES
from ..svp_models.errors import PortraitError
from .host import NOTHING, folder_paths, io
from .sockets import AudioEncoderSocket, LoadedAudioEncoder, SvpModel

PUBLISHED = [entry.name for entry in TABLE if entry.folder == f"{FOLDER}/{entry.name}"]
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")  # weights in a folder as Hugging Face has it


def encoders() -> dict[str, str]:
    """What is offered, and the weight file behind it: a Hugging Face folder by its name, any other file by its own."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
    offered: dict[str, str] = {}
    for each in folder_paths.get_filename_list(FOLDER):
        folder, name = os.path.split(each)
        if folder and name in FOLDER_FILES:
            offered.setdefault(folder, each)
        elif name.endswith(SUFFIXES):
            offered[each] = each
    return offered


def encoder_path(name: str) -> str:
    """The path of the weight file behind one of these names; PortraitError says how to get it."""
    offered = encoders()
    if name in offered:
        return folder_paths.get_full_path_or_raise(FOLDER, offered[name])
    folders = folder_paths.get_folder_paths(FOLDER)
    if name in PUBLISHED:
        raise missing_file_error(name, [os.path.join(each, name) for each in folders], models=folder_paths.models_dir)
    raise PortraitError(
        f"there is no encoder '{name}' in {', '.join(folders)}: choose {' or '.join(PUBLISHED)}, which `svp download` brings, "
        "or put a folder as Hugging Face has it there, with config.json and model.safetensors"
    )


def check_encoder(name: str | None) -> bool | str:
    """For `validate_inputs`: True, or what is missing and how to get it. None: linked, not known yet."""
    try:
        if name is not None:
            encoder_path(str(name))
    except PortraitError as error:
        return str(error)
    return True


class SVPLoadAudioEncoder(io.ComfyNode):
    """Folder or file -> SVP_AUDIO_ENCODER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        found = [*encoders()] or [NOTHING]
        return io.Schema(
            node_id="SVPLoadAudioEncoder",
            display_name="Load Audio Encoder (SVP)",
            category="SVP Portrait",
            description="Loads whisper-tiny or wav2vec2-base-960h for the models that hear through one of them.",
            inputs=[
                io.Combo.Input(
                    "audio_encoder",
                    options=found,
                    default=found[0],
                    tooltip=f"A folder as Hugging Face has it (config.json and model.safetensors) or a file, in models/{FOLDER}.",
                )
            ],
            outputs=[AudioEncoderSocket.Output("audio_encoder", tooltip="For Apply Audio Encoder.")],
        )

    @classmethod
    def validate_inputs(cls, audio_encoder: str | None) -> bool | str:
        return check_encoder(audio_encoder)

    @classmethod
    def execute(cls, audio_encoder: str) -> io.NodeOutput:
        encoder = load_audio_encoder(encoder_path(audio_encoder))
        return io.NodeOutput(LoadedAudioEncoder.of(encoder))

    @classmethod
    def fingerprint_inputs(cls, audio_encoder: str) -> float:
        return os.path.getmtime(encoder_path(audio_encoder))


class SVPApplyAudioEncoder(io.ComfyNode):
    """SVP_MODEL and SVP_AUDIO_ENCODER -> SVP_MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPApplyAudioEncoder",
            display_name="Apply Audio Encoder (SVP)",
            category="SVP Portrait",
            description="Gives a model the encoder it hears through. The built-in model needs none.",
            inputs=[
                SvpModel.Input("model", tooltip="A model that reads Whisper or wav2vec2 features, such as V-Express."),
                AudioEncoderSocket.Input("audio_encoder", tooltip="From Load Audio Encoder."),
            ],
            outputs=[SvpModel.Output("model", tooltip="The model, ready to hear.")],
        )

    @classmethod
    def execute(cls, model, audio_encoder) -> io.NodeOutput:
        joined = join_audio_encoder(model.portrait, audio_encoder.encoder)
        return io.NodeOutput(replace(model, portrait=joined, encoder_handle=audio_encoder.handle))
