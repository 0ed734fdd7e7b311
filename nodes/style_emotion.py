"""A speaking style from the name of an emotion, without a style clip."""

from __future__ import annotations

from pathlib import Path

from ..svp_models.checkpoints.emotion_bank import FOLDER, find_emotion_bank
from ..svp_models.diffusion.style import MAX_STRENGTH, emotion_prior
from ..svp_models.errors import PortraitError
from ..svp_models.motion.emotions import EMOTION_NAMES
from . import host
from .host import io
from .types import StylePriorSocket, SvpModel, search_aliases


def emotion_banks() -> list[str]:
    """The files of models/svp_emotions and output/svp_emotions."""
    return [host.find_file(FOLDER, name) for name in host.list_files(FOLDER)]


class SVPEmotion(io.ComfyNode):
    """Name of an emotion -> SVP_STYLE_PRIOR."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPEmotion",
            display_name="Emotion Style (SVP)",
            **search_aliases("happy", "sad", "angry", "mood", "emotion bank"),
            category="SVP Portrait/style",
            description="A speaking style from the name of an emotion and its strength, or from a mixture of two, without a style clip.",
            inputs=[
                SvpModel.Input(
                    "model",
                    tooltip="The model that will use the style. The built-in one has an emotion bank; of other models it is looked for in "
                    "models/svp_emotions and output/svp_emotions.",
                ),
                io.Combo.Input("emotion", options=list(EMOTION_NAMES), default="happy", tooltip="The emotion."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=MAX_STRENGTH,
                    step=0.05,
                    tooltip="How strongly it shows, as a factor: 0 is neutral, 1 the full emotion; above 1 it is exaggerated a little.",
                ),
                io.Combo.Input(
                    "second_emotion",
                    options=list(EMOTION_NAMES),
                    default="neutral",
                    tooltip="The other emotion of a mixture; share says how much of it.",
                ),
                io.Float.Input(
                    "share",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of second_emotion in the mixture, from 0 to 1: 0 is emotion alone.",
                ),
            ],
            outputs=[StylePriorSocket.Output("style_prior", tooltip="Mean and spread of the style.")],
        )

    @classmethod
    def execute(cls, model, emotion: str, strength: float, second_emotion: str, share: float) -> io.NodeOutput:
        portrait = model.portrait
        bank = find_emotion_bank(portrait.style_space, emotion_banks())
        if bank is None:
            raise PortraitError(
                f"model {portrait.config.name!r} has no emotion bank: train one with svp train emotion-bank and put it into "
                f"models/{FOLDER}, or use a style clip"
            )
        shares = {emotion: 1.0 - share}
        shares[second_emotion] = shares.get(second_emotion, 0.0) + share
        mixed = {name: part for name, part in shares.items() if part > 0}
        return io.NodeOutput(emotion_prior(bank, portrait.style_space, mixed, strength))

    @classmethod
    def fingerprint_inputs(cls, model=None, **inputs) -> float:
        return max((Path(path).stat().st_mtime for path in emotion_banks()), default=0.0)
