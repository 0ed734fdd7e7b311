"""Control of a generated motion: every group of its numbers can be given, bounded or left free (Shen et al. 2025, FLAP)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..networks.motion_generator import MotionGeneratorNetwork
from ..types import Motion
from .blinks import BLINK, BlinkConfig, blink_curve
from .built_in import GivenMotion, numbers_of_motion
from .mix import resample

MOST_BLINKS = 1 / BLINK.apart  # a second
POSE = ("rotation", "shift", "scale")  # groups that mean the same in every space
EYES = ("lids", "gaze")
PARTS = {  # names for groups that belong together
    "head": POSE,
    "rotation": ("rotation",),
    "eyes": EYES,
    "gaze": ("gaze",),
    "expression": ("expression",),
    "face": ("expression", *EYES),
    "head and eyes": (*POSE, *EYES),
}


@dataclass(frozen=True)
class MotionControl:
    """What a motion has to follow.

    motion, groups: the groups (expression, lids, gaze, rotation, shift, scale) that are taken from another motion, frame by
    frame. blink_rate: blinks a second; None leaves lids to the generator, 0 keeps the eyes open. limits: lowest and highest
    values of groups, in their units: degrees, shares of the picture's side, factors.
    """

    motion: Motion | None = None
    groups: tuple[str, ...] = ()
    blink_rate: float | None = None
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def given_motion(
    network: MotionGeneratorNetwork, frames: int, control: MotionControl, generator: torch.Generator
) -> GivenMotion | None:
    """What `control` gives to a motion of n frames; None where it leaves everything free."""
    config = network.config
    columns = config.groups
    numbers, known = torch.zeros(1, frames, config.channels), torch.zeros(1, frames, len(columns))
    _check_groups("groups", control.groups, tuple(columns))
    _check_groups("limits", tuple(control.limits), tuple(columns))
    if control.blink_rate is not None and "lids" in control.groups:
        raise PortraitError("lids are taken from a motion, and a blink rate is given too: choose one of them")
    if control.groups:
        track = _track(network, frames, control)
        for name in control.groups:
            numbers[0, :, columns[name]] = track[:, columns[name]]
            known[0, :, list(columns).index(name)] = 1
    if control.blink_rate is not None:
        if "lids" not in columns:
            raise PortraitError(
                f"blink_rate is {control.blink_rate:g}: lids of a {config.space!r} motion are part of its expression"
            )
        numbers[0, :, columns["lids"]] = blink_track(control.blink_rate, frames, config.fps, generator)
        known[0, :, list(columns).index("lids")] = 1
    low, high = torch.full((config.channels,), -torch.inf), torch.full((config.channels,), torch.inf)
    for name, (least, most) in control.limits.items():
        if least > most:
            raise PortraitError(f"limits of {name} go from {least:g} to {most:g}: the first has to be the smaller one")
        low[columns[name]], high[columns[name]] = least, most
    if not known.any() and not control.limits:
        return None
    return GivenMotion(numbers, known, *((low, high) if control.limits else (None, None)))


def _check_groups(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise PortraitError(f"{what} name {name!r}: the generator's numbers are {', '.join(known)}")


def _track(network: MotionGeneratorNetwork, frames: int, control: MotionControl) -> Tensor:
    """Numbers n c of the motion that is followed; one frame stands for all."""
    if control.motion is None:
        raise PortraitError(f"{', '.join(control.groups)} should follow a motion, and none is given: connect one")
    if {"lids", "gaze"} & set(control.groups) and (control.motion.lids is None or control.motion.gaze is None):
        raise PortraitError(
            "the motion that is followed has no lids or gaze: leave them free, or track a video that shows them"
        )
    motion, config = control.motion, network.config
    if motion.space != config.space and set(control.groups) <= set(POSE):
        blank = torch.zeros(len(motion), config.expression_size)
        motion = replace(motion, expression=blank, space=config.space, face=None)
    if motion.fps != config.fps and len(motion) > 1:
        motion = resample(motion, round(len(motion) * config.fps / motion.fps), config.fps, "hold")
    track = numbers_of_motion(motion if len(motion) > 1 else replace(motion, fps=config.fps), network)
    if len(track) == 1:
        return track.expand(frames, -1)
    if len(track) < frames:
        raise PortraitError(
            f"the motion that is followed has {len(track)} frames, {frames} are made: make a shorter clip or give a longer motion"
        )
    return track[:frames]


def blink_track(
    rate: float, frames: int, fps: float, generator: torch.Generator, config: BlinkConfig = BLINK
) -> Tensor:
    """Lids n 2 that blink round(rate x seconds) times, at random times at least `config.apart` seconds from one another."""
    if not 0 <= rate <= MOST_BLINKS:
        raise PortraitError(f"blink_rate is {rate:g}: 0 to {MOST_BLINKS:g} blinks a second are possible")
    seconds = frames / fps
    length = config.closing + config.closed + config.opening
    room = seconds - length
    count = min(round(rate * seconds), int(room / config.apart) + 1 if room > 0 else 0)
    spare = max(0.0, room - (count - 1) * config.apart)
    moments = torch.rand(count, generator=generator).sort().values * spare + torch.arange(count) * config.apart
    times = (np.arange(frames) + 0.5) / fps
    closed = np.zeros(frames)
    for moment in moments.tolist():
        # A frame lies within the closed time, so that every blink shows.
        moment = (np.floor((moment + config.closing) * fps) + 0.5) / fps - config.closing
        closed = np.maximum(closed, blink_curve(times - moment, config))
    return torch.from_numpy(np.stack([closed, closed], axis=1)).float()
