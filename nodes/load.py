"""Loading a model."""

from __future__ import annotations

import os

from ..svp_models.checkpoints.catalog import missing_file_error
from ..svp_models.checkpoints.native import BUILTIN_MODEL, PortraitModel, load_model
from ..svp_models.checkpoints.sd_vae import find_sd_vae, places_of_vae
from ..svp_models.checkpoints.vexpress import holds_vexpress, load_vexpress, missing_files
from ..svp_models.errors import PortraitError
from . import host
from .host import folder_paths, io
from .sockets import LoadedModel, SvpModel

BUILTIN = "built-in demo"
FOLDER, VAE_FOLDER = "svp", "vae"


def model_names() -> list[str]:
    """What can be loaded: the built-in model, folders of V-Express weights (ending in a slash), model files outside of them."""
    found = host.list_folders(FOLDER).items()
    folders = [each for each, files in found if each != "/" and holds_vexpress(map(os.path.basename, files))]
    files = [each for each in host.list_files(FOLDER) if not each.replace(os.sep, "/").startswith(tuple(folders))]
    return [BUILTIN, *folders, *files]


def model_path(name: str) -> str:
    """The file or folder behind a choice of the node; PortraitError says what is missing and how to get it."""
    if name == BUILTIN:
        return str(BUILTIN_MODEL)
    if not name.endswith("/"):
        return host.find_file(FOLDER, name)
    missing = missing_files(map(os.path.basename, host.list_folders(FOLDER).get(name, [])))
    if missing:
        looked = [os.path.join(each, name) for each in folder_paths.get_folder_paths(FOLDER)]
        raise missing_file_error("vexpress", looked, missing, folder_paths.models_dir)
    return host.find_folder(FOLDER, name)


def vae_path(folder: str) -> str:
    """The VAE of a folder of V-Express weights: in it, beside it, or in one of the host's folders for VAEs."""
    folder_paths.add_model_folder_path(VAE_FOLDER, os.path.join(folder_paths.models_dir, VAE_FOLDER))
    places = [*map(str, places_of_vae(folder)), *folder_paths.get_folder_paths(VAE_FOLDER)]
    return str(find_sd_vae(list(dict.fromkeys(places)), folder_paths.models_dir))


def check_model(name: str | None) -> bool | str:
    """For `validate_inputs`: True, or which file is missing and how to get it. None: linked, not known yet."""
    try:
        path = model_path(str(name)) if name is not None else ""
        if os.path.isdir(path):
            vae_path(path)
    except PortraitError as error:
        return str(error)
    return True


def read_model(path: str) -> PortraitModel:
    """A model file as it is stored, mapped into memory, or a folder of V-Express weights in the precision of the host."""
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
                    default=BUILTIN,
                    tooltip="The built-in demo model (128 x 128 pixels), a .safetensors file in models/svp, or a folder there "
                    "with V-Express' five files, whose VAE may lie in models/vae.",
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
        files = [each.path for each in os.scandir(path)] if os.path.isdir(path) else [path]
        return max(map(os.path.getmtime, files))
