"""A scheduler's step over a clip, taken a block of frames at a time."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

from torch import Tensor

from ..io.memory_map import Storage


class BlockSteps:
    """diffusers' schedulers count their steps and, if they need it, keep the last prediction of the whole sample. Here each
    block of a clip is stepped as if it were alone with the scheduler: by a copy with the same count and that block's last
    prediction, except for the last block, which the scheduler itself steps."""

    def __init__(self, scheduler: Any, shape: Sequence[int], storage: Storage) -> None:
        """shape: f c h w of the clip; storage: where the last predictions are kept."""
        self.scheduler, self.frames = scheduler, shape[0]
        self.last = storage.rows(shape) if getattr(scheduler, "model_outputs", None) else None  # f c h w
        self.stepped = False

    def take(self, prediction: Tensor, timestep: Tensor, latents: Tensor, part: slice) -> Tensor:
        """The latents after a step, n c h w. part: which frames; every step takes all blocks in order, up to the last frame."""
        ends = part.stop == self.frames
        scheduler = self.scheduler if ends else copy(self.scheduler)
        if self.last is not None:
            earlier = [None] * (len(scheduler.model_outputs) - 1)
            scheduler.model_outputs = [*earlier, self.last[part] if self.stepped else None]
        result = scheduler.step(prediction, timestep, latents).prev_sample
        if self.last is not None:
            self.last[part] = scheduler.model_outputs[-1]
        self.stepped = self.stepped or ends
        return result
