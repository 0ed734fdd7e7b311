"""Loading a model."""

from __future__ import annotations

import os

from ..svp_models.checkpoints.native import BUILTIN_MODEL, load_model
from . import host
from .host import io
from .sockets import LoadedModel, SvpModel

BUILTIN = "built-in demo"


def model_path(name: str) -> str:
    """The file behind a choice of the node."""
    return str(BUILTIN_MODEL) if name == BUILTIN else host.find_file("svp", name)


class SVPLoadModel(io.ComfyNode):
    """Model file -> SVP_MODEL and VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPLoadModel",
            display_name="Load Portrait Model (SVP)",
            category="SVP Portrait",
            description="Loads a talking-portrait model: the small one that comes with the pack, or a file of models/svp.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[BUILTIN, *host.list_files("svp")],
                    default=BUILTIN,
                    tooltip="The built-in demo model (128 x 128 pixels), or a .safetensors file in models/svp.",
                )
            ],
            outputs=[
                SvpModel.Output("model", tooltip="Networks for the other SVP nodes."),
                io.Vae.Output("vae", tooltip="Works with the VAE Decode and VAE Encode nodes too."),
            ],
        )

    @classmethod
    def execute(cls, model: str) -> io.NodeOutput:
        portrait = load_model(model_path(model))
        return io.NodeOutput(LoadedModel.of(portrait), host.Vae(portrait.vae, portrait.config.vae))

    @classmethod
    def fingerprint_inputs(cls, model: str) -> float:
        return os.path.getmtime(model_path(model))
