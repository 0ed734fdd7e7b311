"""What the widgets of several nodes have in common."""

from __future__ import annotations

from typing import Any

from .host import io

# For `extra_dict`: a widget that few need. Front ends that know the word fold it away, web/js/advanced.js tells the others.
ADVANCED = {"advanced": True}
LARGEST_SEED = 2**53 - 1  # the largest whole number that a web page keeps exactly
SIDE_STEP = 8  # pixels to a latent cell

# What people type who want a picture to speak.
TALK = ("animate photo", "talking photo", "talking head", "talking portrait", "lip sync", "avatar")


def seed_input(tooltip: str, changes: bool = True, advanced: bool = False) -> Any:
    """The seed. changes: the front end may choose another after each run, and offers how; else it stays as typed.

    Left out, `control_after_generate` would be on for every input of this name: the front end takes it from the name.
    """
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=LARGEST_SEED,
        step=1,
        control_after_generate=changes,
        extra_dict=ADVANCED if advanced else None,
        tooltip=tooltip,
    )


def weight_input(name: str, what: str, advanced: bool = True) -> Any:
    """A widget for the strength of a condition."""
    return io.Float.Input(
        f"{name}_weight",
        default=1.0,
        min=0.0,
        max=5.0,
        step=0.05,
        extra_dict=ADVANCED if advanced else None,
        tooltip=f"Strength of {what}, as a factor: 1 as trained, 0 off.",
    )


def found_by(*words: str) -> dict[str, list[str]]:
    """For a schema: other words that the host's search finds the node by, where the host knows such; else its name alone does."""
    return {"search_aliases": list(words)} if "search_aliases" in io.Schema.__dataclass_fields__ else {}


def check_sides(largest: int, **sides: int | None) -> bool | str:
    """For `validate_inputs`: True, or which side is wrong and the nearest that is right. 0: the model's own; None: linked."""
    for name, side in sides.items():
        if side is not None and (side % SIDE_STEP or not 0 <= side <= largest):
            nearest = min(max(SIDE_STEP * ((side + SIDE_STEP // 2) // SIDE_STEP), SIDE_STEP), largest)
            return (
                f"{name} is {side} pixels: use a multiple of {SIDE_STEP} up to {largest}, the nearest is {nearest}, or 0 "
                "for the model's own size"
            )
    return True
