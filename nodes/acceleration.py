"""Less time for a clip: what a sampler may leave out of a model's work."""

from __future__ import annotations

from dataclasses import replace

from ..svp_models.diffusion.acceleration import MOST_ORDER, PRESETS, REFERENCE_PARTS, chosen_acceleration
from .host import io
from .types import ADVANCED, SvpModel, search_aliases


class SVPAccelerate(io.ComfyNode):
    """SVP_MODEL -> SVP_MODEL that samplers run with less work."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        share = {"min": 0.0, "max": 1.0, "step": 0.05, "extra_dict": ADVANCED}
        return io.Schema(
            node_id="SVPAccelerate",
            display_name="Accelerate (SVP)",
            **search_aliases("speed", "faster", "deepcache", "cache", "turbo"),
            category="SVP Portrait",
            description="Makes Portrait Sampler faster for a small loss: parts of earlier steps are used again, and guidance runs in "
            "some of the steps. It pays with many steps; a model of one step has nothing to leave out.",
            inputs=[
                SvpModel.Input("model", tooltip="From Load Portrait Model. It stays as it is."),
                io.Combo.Input(
                    "preset",
                    options=[*PRESETS, "custom"],
                    default="balanced",
                    tooltip="exact: nothing is left out. balanced: hardly visible. fast: for previews. custom: as the inputs below say.",
                ),
                io.Int.Input(
                    "cache_every",
                    default=1,
                    min=1,
                    max=20,
                    step=1,
                    extra_dict=ADVANCED,
                    tooltip="All layers run in every so many steps, in those between the outermost alone; 1 runs all in every step.",
                ),
                io.Int.Input(
                    "cache_layers",
                    default=1,
                    min=1,
                    max=8,
                    step=1,
                    extra_dict=ADVANCED,
                    tooltip="Number of outermost layers that run in every step: more is nearer to the exact result and slower.",
                ),
                io.Float.Input(
                    "guidance_start",
                    default=0.0,
                    tooltip="Guidance begins after this part of the steps, as a factor: 0 is the first step.",
                    **share,
                ),
                io.Float.Input(
                    "guidance_end",
                    default=1.0,
                    tooltip="Guidance ends after this part of the steps, as a factor: 1 is the last step, 0.5 half of them.",
                    **share,
                ),
                io.Boolean.Input(
                    "even_windows",
                    default=False,
                    extra_dict=ADVANCED,
                    tooltip="Windows as short as the clip allows, so that the last two do not share most of their frames.",
                ),
                io.Int.Input(
                    "taylor_order",
                    default=0,
                    min=0,
                    max=MOST_ORDER,
                    step=1,
                    extra_dict=ADVANCED,
                    tooltip="Between steps with all layers, inner features go on along a polynomial of this order; 0 leaves them as they were.",
                ),
                io.Boolean.Input(
                    "parallel_steps",
                    default=False,
                    extra_dict=ADVANCED,
                    tooltip="The steps between two with all layers are computed in one batch, on estimated latents. It pays on a GPU.",
                ),
                io.Int.Input(
                    "foreground_every",
                    default=1,
                    min=1,
                    max=20,
                    step=1,
                    extra_dict=ADVANCED,
                    tooltip="Attention sees the whole picture in every so many steps, in those between it runs around the face alone.",
                ),
                io.Combo.Input(
                    "drop_reference",
                    options=list(REFERENCE_PARTS),
                    default="none",
                    extra_dict=ADVANCED,
                    tooltip="Layers that do not look at the portrait's features. down: on the way down. up: on the way up. highest: of the highest "
                    "resolution with attention.",
                ),
                io.Float.Input(
                    "guidance_similarity",
                    default=1.0,
                    min=0.5,
                    max=1.0,
                    step=0.0001,
                    extra_dict=ADVANCED,
                    tooltip="Guidance ends at the step whose predictions with and without conditions are that similar (cosine); 1 is never.",
                ),
                io.Int.Input(
                    "windows_together",
                    default=0,
                    min=0,
                    max=64,
                    step=1,
                    extra_dict=ADVANCED,
                    tooltip="Windows of a long clip that are computed in one batch, with the same frames: 0 as many as suit model and device, 1 "
                    "one by one.",
                ),
            ],
            outputs=[SvpModel.Output("model", tooltip="The model with these settings, for Portrait Sampler.")],
        )

    @classmethod
    def execute(
        cls, model, preset: str, cache_every: int, cache_layers: int, guidance_start: float, guidance_end: float,
        even_windows: bool, taylor_order: int, parallel_steps: bool, foreground_every: int, drop_reference: str,
        guidance_similarity: float, windows_together: int,
    ) -> io.NodeOutput:  # fmt: skip
        settings = {
            "cache_every": cache_every,
            "cache_layers": cache_layers,
            "guidance_start": guidance_start,
            "guidance_end": guidance_end,
            "even_windows": even_windows,
            "taylor_order": taylor_order,
            "parallel_steps": parallel_steps,
            "foreground_every": foreground_every,
            "drop_reference": drop_reference,
            "guidance_similarity": guidance_similarity,
            "windows_together": windows_together,
        }
        acceleration = chosen_acceleration(preset, settings, model.portrait.config.unet)
        return io.NodeOutput(replace(model, acceleration=acceleration))
