"""Nodes that load models, style layers and audio encoders, and save style layers."""

from __future__ import annotations

import os
from dataclasses import replace

from ..svp_models.checkpoints.audio_encoder import FOLDER, apply_audio_encoder, load_audio_encoder
from ..svp_models.checkpoints.model_file import PORTRAIT_NAME, SHIPPED_MODELS, load_model
from ..svp_models.checkpoints.model_zoo import ZOO, missing_file_error
from ..svp_models.checkpoints.sd15 import find_sd_vae, vae_folders
from ..svp_models.checkpoints.style_layers import apply_style_layer, save_style_layer
from ..svp_models.checkpoints.third_party import SUFFIXES
from ..svp_models.checkpoints.vexpress import holds_vexpress, load_vexpress, missing_files
from ..svp_models.errors import PortraitError
from ..svp_models.model import PortraitModel
from . import host
from .host import NO_FILES, folder_paths, io
from .types import AudioEncoderSocket, LoadedAudioEncoder, LoadedModel, SvpModel

MODEL_FOLDER, VAE_FOLDER = "svp", "vae"
PUBLISHED = [entry.name for entry in ZOO if entry.folder == f"{FOLDER}/{entry.name}"]
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")  # weight files in a Hugging Face folder
STYLE_LAYER_FOLDER = "svp_style_layers"


def model_names() -> list[str]:
    """Loadable models: the built-in ones, folders of V-Express weights (with a slash at the end), and model files elsewhere."""
    found = host.list_folders(MODEL_FOLDER).items()
    folders = [folder for folder, files in found if folder != "/" and holds_vexpress(map(os.path.basename, files))]
    files = [file for file in host.list_files(MODEL_FOLDER) if not file.replace(os.sep, "/").startswith(tuple(folders))]
    return [*SHIPPED_MODELS, *folders, *files]


def model_path(name: str) -> str:
    """The file or folder of a choice. PortraitError says what is missing and how to get it."""
    if name in SHIPPED_MODELS:
        return str(SHIPPED_MODELS[name])
    if not name.endswith("/"):
        return host.find_file(MODEL_FOLDER, name)
    missing = missing_files(map(os.path.basename, host.list_folders(MODEL_FOLDER).get(name, [])))
    if missing:
        searched = [os.path.join(folder, name) for folder in folder_paths.get_folder_paths(MODEL_FOLDER)]
        raise missing_file_error("vexpress", searched, missing, folder_paths.models_dir)
    return host.find_folder(MODEL_FOLDER, name)


def vae_path(folder: str) -> str:
    """The VAE of a folder of V-Express weights: in it, next to it, or in one of the host's VAE folders."""
    folder_paths.add_model_folder_path(VAE_FOLDER, os.path.join(folder_paths.models_dir, VAE_FOLDER))
    folders = [*map(str, vae_folders(folder)), *folder_paths.get_folder_paths(VAE_FOLDER)]
    return str(find_sd_vae(list(dict.fromkeys(folders)), folder_paths.models_dir))


def check_model(name: str | None) -> bool | str:
    """For `validate_inputs`: True, or which file is missing and how to get it. None: an input that is not known yet."""
    try:
        path = model_path(str(name)) if name is not None else ""
        if os.path.isdir(path):
            vae_path(path)
    except PortraitError as error:
        return str(error)
    return True


def read_model(path: str) -> PortraitModel:
    """A model file as stored, memory-mapped, or a folder of V-Express weights in the precision of the host."""
    if os.path.isdir(path):
        return load_vexpress(path, host.weights_dtype(), vae_path=vae_path(path))
    return load_model(path, dtype=None)


class SVPLoadModel(io.ComfyNode):
    """Model file or V-Express folder -> SVP_MODEL and VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPLoadModel",
            display_name="Load Portrait Model (SVP)",
            category="SVP Portrait",
            description="Loads a talking-portrait model: the small one that comes with the pack, or one of models/svp.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=model_names(),
                    default=PORTRAIT_NAME,
                    tooltip="built-in: moves portraits of 256 x 256 pixels and more at their own resolution. built-in demo: draws whole "
                    "frames of 128 x 128 pixels. Or a .safetensors file in models/svp, or a folder there with V-Express' five files, "
                    "whose VAE may lie in models/vae.",
                )
            ],
            outputs=[
                SvpModel.Output("model", tooltip="Networks for the other SVP nodes."),
                io.Vae.Output("vae", tooltip="Works with the VAE Decode and VAE Encode nodes too."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None) -> bool | str:
        return check_model(model)

    @classmethod
    def execute(cls, model: str) -> io.NodeOutput:
        portrait = read_model(model_path(model))
        return io.NodeOutput(LoadedModel.of(portrait), host.Vae(portrait.vae, portrait.config.vae))

    @classmethod
    def fingerprint_inputs(cls, model: str) -> float:
        path = model_path(model)
        files = [entry.path for entry in os.scandir(path)] if os.path.isdir(path) else [path]
        return max(map(os.path.getmtime, files))


def check_layer(name: str | None) -> bool | str:
    """For `validate_inputs`: True, or what to do about a missing file. None: an input that is not known yet."""
    if name == host.NO_FILES:
        return f"there are no style layers yet: put a file into models/{STYLE_LAYER_FOLDER} or run Save Style Layers, then press R"
    try:
        if name is not None:
            host.find_file(STYLE_LAYER_FOLDER, name)
    except PortraitError as error:
        return str(error)
    return True


class SVPSaveStyleLayer(io.ComfyNode):
    """SVP_MODEL -> file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPSaveStyleLayer",
            display_name="Save Style Layers (SVP)",
            category="SVP Portrait/style",
            description=(
                "Saves what a model has learned about styles, without the rest of it, for other models of "
                "the same widths: about 50 MB at the size of Stable Diffusion 1.5."
            ),
            is_output_node=True,
            inputs=[
                SvpModel.Input("model", tooltip="A model with trained style layers."),
                io.String.Input(
                    "filename_prefix",
                    default=f"{STYLE_LAYER_FOLDER}/style_layer",
                    tooltip=f"Name in the output folder; a number is added. Load Style Layers lists what lies in {STYLE_LAYER_FOLDER}/.",
                ),
            ],
            outputs=[io.String.Output("file", tooltip="The file, below the output folder.")],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str) -> bool | str:
        return host.check_prefix(filename_prefix)

    @classmethod
    def execute(cls, model, filename_prefix: str) -> io.NodeOutput:
        with host.output_file(filename_prefix, "safetensors") as (path, saved):
            save_style_layer(path, model.portrait, model.portrait.metadata)
        return io.NodeOutput(os.path.join(saved["subfolder"], saved["filename"]), ui={STYLE_LAYER_FOLDER: [saved]})


class SVPLoadStyleLayer(io.ComfyNode):
    """SVP_MODEL and file -> SVP_MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        found = host.list_files(STYLE_LAYER_FOLDER) or [host.NO_FILES]
        return io.Schema(
            node_id="SVPLoadStyleLayer",
            display_name="Load Style Layers (SVP)",
            category="SVP Portrait/style",
            description="Puts style layers from a file into a model of the same widths, in place of those it has. Extract styles "
            "with the model that comes out: the style space is that of the layers.",
            inputs=[
                SvpModel.Input(
                    "model", tooltip="The base model; it does not change and can be used next to the result."
                ),
                io.Combo.Input(
                    "style_layer",
                    options=found,
                    default=found[0],
                    tooltip=f"A file of models/{STYLE_LAYER_FOLDER} or output/{STYLE_LAYER_FOLDER}.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Strength of the style attention, as a factor: 1 as trained, 0 the base without any style.",
                ),
            ],
            outputs=[SvpModel.Output("model", tooltip="The base with the style layers.")],
        )

    @classmethod
    def validate_inputs(cls, style_layer: str | None = None) -> bool | str:
        return check_layer(style_layer)

    @classmethod
    def execute(cls, model, style_layer: str, strength: float) -> io.NodeOutput:
        path = host.find_file(STYLE_LAYER_FOLDER, style_layer)
        loaded = LoadedModel.of(apply_style_layer(model.portrait, path, strength))
        return io.NodeOutput(replace(loaded, encoder_handle=model.encoder_handle))

    @classmethod
    def fingerprint_inputs(cls, model=None, style_layer: str = "", strength: float = 1.0) -> float:
        return os.path.getmtime(host.find_file(STYLE_LAYER_FOLDER, style_layer))


def encoders() -> dict[str, str]:
    """Available encoders and their weight files: Hugging Face folders by name, and other files."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
    available: dict[str, str] = {}
    for file in host.filenames(FOLDER):
        folder, name = os.path.split(file)
        if folder and name in FOLDER_FILES:
            available.setdefault(folder, file)
        elif name.endswith(SUFFIXES):
            available[file] = file
    return available


def encoder_path(name: str) -> str:
    """The path of an encoder's weight file. PortraitError says how to get it."""
    available = encoders()
    if name in available:
        return folder_paths.get_full_path_or_raise(FOLDER, available[name])
    folders = folder_paths.get_folder_paths(FOLDER)
    if name in PUBLISHED:
        raise missing_file_error(
            name, [os.path.join(folder, name) for folder in folders], models=folder_paths.models_dir
        )
    raise PortraitError(
        f"there is no encoder '{name}' in {', '.join(folders)}: choose {' or '.join(PUBLISHED)} (see `svp download`), "
        "or put a Hugging Face folder with config.json and model.safetensors there"
    )


def check_encoder(name: str | None) -> bool | str:
    """For `validate_inputs`: True, or what is missing and how to get it. None: an input that is not known yet."""
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
        found = [*encoders()] or [NO_FILES]
        return io.Schema(
            node_id="SVPLoadAudioEncoder",
            display_name="Load Audio Encoder (SVP)",
            category="SVP Portrait",
            description="Loads whisper-tiny or wav2vec2-base-960h for the models that use one of them.",
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
            description="Adds the audio encoder that a model needs. The built-in model needs none.",
            inputs=[
                SvpModel.Input("model", tooltip="A model that reads Whisper or wav2vec2 features, such as V-Express."),
                AudioEncoderSocket.Input("audio_encoder", tooltip="From Load Audio Encoder."),
            ],
            outputs=[SvpModel.Output("model", tooltip="The model with its audio encoder.")],
        )

    @classmethod
    def execute(cls, model, audio_encoder) -> io.NodeOutput:
        joined = apply_audio_encoder(model.portrait, audio_encoder.encoder)
        return io.NodeOutput(replace(model, portrait=joined, encoder_handle=audio_encoder.handle))
