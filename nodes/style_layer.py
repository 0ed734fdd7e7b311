"""Style layers in files of their own: taken from one model, put into another of the same widths."""

from __future__ import annotations

import os
from dataclasses import replace

from ..svp_models.checkpoints.style_layer import apply_style_layer, save_style_layer
from ..svp_models.errors import PortraitError
from . import host
from .host import io
from .sockets import LoadedModel, SvpModel

FOLDER = "svp_style_layers"


def check_layer(name: str | None) -> bool | str:
    """For `validate_inputs`: True, or what to do about a file that is not there. None: linked, not known yet."""
    if name == host.NOTHING:
        return f"there are no style layers yet: put a file into models/{FOLDER} or run Save Style Layers, then press R"
    try:
        if name is not None:
            host.find_file(FOLDER, name)
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
            description="Keeps what a model has learnt about styles, without the rest of it, for other models of its widths: "
            "about 50 MB at the size of Stable Diffusion 1.5.",
            is_output_node=True,
            inputs=[
                SvpModel.Input("model", tooltip="A model with trained style layers."),
                io.String.Input(
                    "filename_prefix",
                    default=f"{FOLDER}/style_layer",
                    tooltip=f"Name in the output folder; a number is added. Load Style Layers lists what lies in {FOLDER}/.",
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
        return io.NodeOutput(os.path.join(saved["subfolder"], saved["filename"]), ui={FOLDER: [saved]})


class SVPLoadStyleLayer(io.ComfyNode):
    """SVP_MODEL and file -> SVP_MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        found = host.list_files(FOLDER) or [host.NOTHING]
        return io.Schema(
            node_id="SVPLoadStyleLayer",
            display_name="Load Style Layers (SVP)",
            category="SVP Portrait/style",
            description="Puts style layers from a file into a model of the same widths, in place of those it has. Extract styles "
            "with the model that comes out: the style space is that of the layers.",
            inputs=[
                SvpModel.Input("model", tooltip="The base; it stays as it is and can be used beside the result."),
                io.Combo.Input(
                    "style_layer",
                    options=found,
                    default=found[0],
                    tooltip=f"A file of models/{FOLDER} or output/{FOLDER}.",
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
        path = host.find_file(FOLDER, style_layer)
        loaded = LoadedModel.of(apply_style_layer(model.portrait, path, strength))
        return io.NodeOutput(replace(loaded, encoder_handle=model.encoder_handle))

    @classmethod
    def fingerprint_inputs(cls, model=None, style_layer: str = "", strength: float = 1.0) -> float:
        return os.path.getmtime(host.find_file(FOLDER, style_layer))
