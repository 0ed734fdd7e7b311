"""What a sampling run leaves out for a small loss: settings, presets, and which of them contradict one another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import UNetConfig
from ..errors import PortraitError
from .context_windows import frame_windows

REFERENCE_PARTS = ("none", "down", "up", "highest")
MOST_ORDER = 2  # of the Taylor series


@dataclass(frozen=True)
class Acceleration:
    """What a sampling run leaves out.

    cache_every: the whole denoiser runs in every so many steps, in those between its outermost layers alone, on the deep features
    of the last whole run (DeepCache, Ma et al. 2024); 1: in every step. cache_layers: how many layers of the highest resolution
    these are, down and up. taylor_order: deep features are continued by a polynomial of this order through those of the last whole
    runs (TaylorSeer, Liu et al. 2025); 0: they stay as they are. parallel_steps: the steps between two whole runs are computed in one
    batch, on latents that the sampler estimates from the first of them (LightningCP, arXiv:2509.00052). foreground_every:
    attention runs over the whole picture in every so many steps, in those between around the face alone (decoupled foreground
    attention, the same paper). drop_reference: where the denoiser does not look at the portrait's features, one of
    REFERENCE_PARTS: on the way down, on the way up, or in the layers of the highest resolution that have attention.
    guidance_start, guidance_end: the part of the steps with guidance, in shares of them (Castillo et al. 2023; Kynkäänniemi et
    al. 2024); the others have the conditional half alone. guidance_similarity: guidance ends as soon as the cosine between both
    halves is that large in all windows (adaptive guidance, Castillo et al. 2023); 1: never. even_windows: windows no longer than
    the clip needs. windows_together: how many of them the denoiser gets in one batch, with the same result; 0: as many as suit the
    network and the device.
    """

    cache_every: int = 1
    cache_layers: int = 1
    taylor_order: int = 0
    parallel_steps: bool = False
    foreground_every: int = 1
    drop_reference: str = "none"
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    guidance_similarity: float = 1.0
    even_windows: bool = False
    windows_together: int = 0

    def __post_init__(self) -> None:
        for name in ("cache_every", "cache_layers", "foreground_every"):
            if getattr(self, name) < 1:
                raise PortraitError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if not 0 <= self.taylor_order <= MOST_ORDER:
            raise PortraitError(f"taylor_order is {self.taylor_order}: choose 0 to {MOST_ORDER}")
        if self.drop_reference not in REFERENCE_PARTS:
            raise PortraitError(
                f"drop_reference is {self.drop_reference!r}: choose one of {', '.join(REFERENCE_PARTS)}"
            )
        if self.cache_every == 1:
            for name, off in (("cache_layers", 1), ("taylor_order", 0), ("parallel_steps", False)):
                if getattr(self, name) != off:
                    raise PortraitError(
                        f"{name} is {getattr(self, name)} and cache_every 1, which runs all layers in every step: set "
                        f"cache_every to 2 or more, or {name} to {off}"
                    )
        if not 0 <= self.guidance_start < self.guidance_end <= 1:
            raise PortraitError(
                f"guidance_start is {self.guidance_start:g} and guidance_end {self.guidance_end:g}: the start must come before the "
                "end, both between 0 and 1; to sample without guidance set cfg to 1"
            )
        if self.windows_together < 0:
            raise PortraitError(f"windows_together is {self.windows_together}: it must be 0 or more")
        if self.windows_together > 1:
            for name, off in (("parallel_steps", False), ("foreground_every", 1)):
                if getattr(self, name) != off:
                    raise PortraitError(
                        f"windows_together is {self.windows_together} and {name} {getattr(self, name)}, which takes windows one by one: "
                        f"set windows_together to 0, or {name} to {off}"
                    )
        if not 0 < self.guidance_similarity <= 1:
            raise PortraitError(
                f"guidance_similarity is {self.guidance_similarity:g}: choose more than 0, at most 1, which is never reached"
            )

    def whole(self, step: int) -> bool:
        """Whether all layers run in that step."""
        return step % self.cache_every == 0

    def everywhere(self, step: int) -> bool:
        """Whether attention runs over the whole picture in that step."""
        return step % self.foreground_every == 0

    def guides(self, step: int, steps: int) -> bool:
        """Whether that step, counted from 0, has guidance."""
        return self.guidance_start * steps <= step < self.guidance_end * steps

    def together(self, step: int, steps: int) -> list[int]:
        """The steps that are computed in one batch as soon as this whole one is done: those between it and the next whole one."""
        last = min(step + self.cache_every, steps)
        return list(range(step + 1, last)) if self.parallel_steps and self.whole(step) else []

    def at_once(self, suitable: int) -> int:
        """How many windows are one batch. suitable: to the network and the device.

        Steps in one batch are a batch already, and around the face every window has a region of its own.
        """
        alone = self.parallel_steps or self.foreground_every > 1
        return 1 if alone else self.windows_together or suitable

    def windows(self, frames: int, window: int, overlap: int) -> list[list[int]]:
        """The windows of a clip, see `frame_windows`."""
        windows = frame_windows(frames, window, overlap)
        if not self.even_windows or len(windows) == 1:
            return windows
        even = math.ceil((frames + (len(windows) - 1) * overlap) / len(windows))
        return frame_windows(frames, even, overlap)

    def without_reference(self, unet: UNetConfig) -> frozenset[int]:
        """Positions in the reference bank of the blocks that do not read it."""
        levels = [level for level, attends in enumerate(unet.attention_levels) if attends]
        down = [level for level in levels for _ in range(unet.layers_per_block)]
        up = [level for level in reversed(levels) for _ in range(unet.layers_per_block + 1)]
        order = [("down", level) for level in down] + [("middle", -1)] + [("up", level) for level in up]
        return frozenset(
            position
            for position, (part, level) in enumerate(order)
            if self.drop_reference == part or (self.drop_reference == "highest" and level == levels[0])
        )


EXACT = Acceleration()
PRESETS = {
    "exact": EXACT,
    "balanced": Acceleration(cache_every=3, taylor_order=1, foreground_every=3, even_windows=True),
    "fast": Acceleration(cache_every=5, foreground_every=5, even_windows=True),
}


def check_acceleration(acceleration: Acceleration, unet: UNetConfig) -> None:
    """Raises PortraitError where the denoiser has too few layers."""
    most = unet.layers_per_block + 1
    if acceleration.cache_layers > most:
        raise PortraitError(
            f"cache_layers is {acceleration.cache_layers}: the highest resolution of this model has {most} layers, choose 1 to {most}"
        )


def settings_from_text(text: str) -> dict[str, Any]:
    """NAME=VALUE,NAME=VALUE -> settings, of the types that they have in `Acceleration`."""
    settings: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in vars(EXACT):
            raise PortraitError(
                f"{part.strip()!r} is no acceleration: choose one of {', '.join(PRESETS)}, or settings such as cache_every=3,"
                f"guidance_end=0.8, of {', '.join(vars(EXACT))}"
            )
        settings[name] = _value(name, value)
    return settings


def _value(name: str, text: str) -> Any:
    default = getattr(EXACT, name)
    try:
        return {"true": True, "false": False}[text.lower()] if isinstance(default, bool) else type(default)(text)
    except (ValueError, KeyError) as error:
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[type(default)]
        raise PortraitError(f"{name}={text}: {kind} is needed") from error


def chosen_acceleration(preset: str, settings: Mapping[str, Any], unet: UNetConfig) -> Acceleration:
    """A preset by its name, or for `custom` the settings. Settings beside a preset have to be those of `exact`: anything else
    contradicts it and raises PortraitError."""
    if preset == "custom":
        acceleration = Acceleration(**settings)
    elif preset in PRESETS:
        acceleration = PRESETS[preset]
        for name, value in settings.items():
            if value != getattr(EXACT, name):
                raise PortraitError(
                    f"preset is {preset} and {name} {value}: choose the preset custom for settings of your own, or set {name} back to "
                    f"{getattr(EXACT, name)}"
                )
    else:
        raise PortraitError(f"unknown preset {preset!r}: choose one of {', '.join([*PRESETS, 'custom'])}")
    check_acceleration(acceleration, unet)
    return acceleration
