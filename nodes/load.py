"""Loading a model."""

from __future__ import annotations

import os

from ..svp_models.checkpoints.native import BUILTIN_MODEL, PortraitModel, load_model
from ..svp_models.checkpoints.vexpress import holds_vexpress, load_vexpress
from . import host
from .host import io
from .sockets import LoadedModel, SvpModel

BUILTIN = "built-in demo"
FOLDER = "svp"


def model_names() -> list[str]:
    """What can be loaded: the built-in model, folders of V-Express weights (ending in a slash), model files outside of them."""
    found = host.list_folders(FOLDER).items()
    folders = [each for each, files in found if each != "/" and holds_vexpress(map(os.path.basename, files))]
    files = [each for each in host.list_files(FOLDER) if not each.replace(os.sep, "/").startswith(tuple(folders))]
    return [BUILTIN, *folders, *files]


def model_path(name: str) -> str:
    """The file or folder behind a choice of the node."""
    if name == BUILTIN:
        return str(BUILTIN_MODEL)
    return host.find_folder(FOLDER, name) if name.endswith("/") else host.find_file(FOLDER, name)


def read_model(path: str) -> PortraitModel:
    """A model file, or a folder of V-Express weights in the precision that the host runs in."""
    return load_vexpress(path, host.weights_dtype()) if os.path.isdir(path) else load_model(path)


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
                    "with V-Express' five files and sd-vae-ft-mse.safetensors.",
                )
            ],
            outputs=[
                SvpModel.Output("model", tooltip="Networks for the other SVP nodes."),
                io.Vae.Output("vae", tooltip="Works with the VAE Decode and VAE Encode nodes too."),
            ],
        )

    @classmethod
    def execute(cls, model: str) -> io.NodeOutput:
        portrait = read_model(model_path(model))
        return io.NodeOutput(LoadedModel.of(portrait), host.Vae(portrait.vae, portrait.config.vae))

    @classmethod
    def fingerprint_inputs(cls, model: str) -> float:
        path = model_path(model)
        files = [each.path for each in os.scandir(path)] if os.path.isdir(path) else [path]
        return max(map(os.path.getmtime, files))
