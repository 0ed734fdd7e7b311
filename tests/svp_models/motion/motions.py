"""Random motions for the tests, in both spaces."""

from __future__ import annotations

import torch

from svp_portrait.svp_models.types import Motion

PARTS = ("angles", "shift", "scale", "expression", "lids", "gaze", "face")


def random_motion(frames: int = 5, space: str = "svp", seed: int = 0, fps: float = 29.97) -> Motion:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    own = space == "svp"
    return Motion(
        angles=20 * normal(frames, 3), shift=0.1 * normal(frames, 2), scale=1 + 0.1 * normal(frames),
        expression=normal(frames, 64 if own else 63), fps=fps, space=space,
        lids=normal(frames, 2).sigmoid() if own else None, gaze=normal(frames, 2).tanh() if own else None,
        face=None if own else normal(21, 3),
    )  # fmt: skip


def still_motion(frames: int, space: str = "svp", fps: float = 25.0) -> Motion:
    """A face at rest with open eyes."""
    own = space == "svp"
    return Motion(
        torch.zeros(frames, 3), torch.zeros(frames, 2), torch.ones(frames), torch.zeros(frames, 64 if own else 63), fps,
        space, torch.zeros(frames, 2) if own else None, torch.zeros(frames, 2) if own else None,
    )  # fmt: skip


def differing(a: Motion, b: Motion) -> set[str]:
    """The parts in which two motions of equal length are not equal to the bit."""
    found = set()
    for name in PARTS:
        one, other = getattr(a, name), getattr(b, name)
        if (one is None) != (other is None) or (one is not None and not torch.equal(one, other)):
            found.add(name)
    return found
