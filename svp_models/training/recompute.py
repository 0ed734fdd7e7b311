"""Gradient checkpointing: layers keep what they are given, and compute what is between again when gradients need it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from ..networks.attention import SpatialTransformer
from ..networks.layers import ResnetBlock
from ..networks.temporal import MotionModule

LAYERS = (ResnetBlock, SpatialTransformer, MotionModule)  # all that is large in Denoiser and ReferenceNet


@contextmanager
def recomputing(module: nn.Module) -> Iterator[None]:
    """Within, these layers of the module do so; their values and gradients stay the same."""
    layers = [each for each in module.modules() if isinstance(each, LAYERS)]
    for each in layers:
        each.forward = partial(checkpoint, each.forward, use_reentrant=False)
    try:
        yield
    finally:
        for each in layers:
            del each.forward  # the class's own comes back
