"""The style library: style priors in files."""

from __future__ import annotations

import os

from ..svp_models.checkpoints.style_file import load_style, save_style
from ..svp_models.errors import PortraitError
from ..svp_models.values import StylePrior
from . import host
from .host import io
from .sockets import StylePriorSocket

FOLDER = "svp_styles"
FROM_INPUT = "(from the file input)"


def style_path(style: str, file: str | None) -> str:
    """The path of the file that Load Style is asked for."""
    if file is None and style == FROM_INPUT:
        raise PortraitError("no style is chosen: choose a file in the list, or connect 'file' of Save Style")
    return host.find_file(FOLDER, style) if file is None else host.saved_file(file)


class SVPStyleSave(io.ComfyNode):
    """SVP_STYLE_PRIOR -> file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPStyleSave",
            display_name="Save Style (SVP)",
            category="SVP Portrait/style",
            description="Keeps a style prior as a small file in the output folder, for Load Style.",
            is_output_node=True,
            inputs=[
                StylePriorSocket.Input("style_prior", tooltip="The style prior to keep."),
                io.String.Input(
                    "filename_prefix",
                    default=f"{FOLDER}/style",
                    tooltip=f"Name in the output folder; a number is added. Load Style lists what lies in {FOLDER}/.",
                ),
            ],
            outputs=[io.String.Output("file", tooltip="The file, for Load Style.")],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str) -> bool | str:
        return host.check_prefix(filename_prefix)

    @classmethod
    def execute(cls, style_prior, filename_prefix: str) -> io.NodeOutput:
        with host.output_file(filename_prefix, "safetensors") as (path, saved):
            save_style(path, style_prior)
        return io.NodeOutput(os.path.join(saved["subfolder"], saved["filename"]), ui={"svp_styles": [saved]})


class SVPStyleLoad(io.ComfyNode):
    """File -> SVP_STYLE_PRIOR."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPStyleLoad",
            display_name="Load Style (SVP)",
            category="SVP Portrait/style",
            description="Loads a style prior from models/svp_styles or output/svp_styles.",
            inputs=[
                io.Combo.Input(
                    "style",
                    options=[FROM_INPUT, *host.list_files(FOLDER)],
                    default=FROM_INPUT,
                    tooltip="A file of models/svp_styles or output/svp_styles.",
                ),
                io.String.Input(
                    "file",
                    optional=True,
                    force_input=True,
                    tooltip="A file from Save Style, used instead of the list.",
                ),
            ],
            outputs=[StylePriorSocket.Output("style_prior", tooltip="Mean and spread of the style.")],
        )

    @classmethod
    def execute(cls, style: str, file: str | None = None) -> io.NodeOutput:
        prior = load_style(style_path(style, file))
        if not isinstance(prior, StylePrior):
            raise PortraitError(
                f"{file or style} holds a single style: choose a file that Save Style wrote from a prior"
            )
        return io.NodeOutput(prior)

    @classmethod
    def fingerprint_inputs(cls, style: str, file: str | None = None) -> float:
        return 0.0 if style == FROM_INPUT or file else os.path.getmtime(style_path(style, None))
