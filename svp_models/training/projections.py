"""Warm start of the two projections: their tokens first learn to tell the expression that the denoiser is to draw.

Left to the denoising loss alone, small projections collapse early to tokens that say nothing, because a denoiser that cannot
draw yet gains nothing from them. Here the first numbers of the mean of a frame's audio tokens become the frame's expression
coefficients, and those of a clip's style tokens the clip's mean expression, both standardised: a read-out of its own could
blow up a whisper, tokens of unit size cannot be overheard.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..networks.audio_features import feature_windows
from ..networks.portrait_model import PortraitNetworks
from ..networks.style_extractor import sample_code
from .draw import Order, Sample, Spot
from .readings import Expressions
from .recipe import ProjectionsPhase
from .style import style_input


class ProjectionsTraining:
    """The phase of audio and style projection; the style extractor is taken as it is."""

    name = "projections"

    def __init__(
        self,
        networks: PortraitNetworks,
        expressions: Expressions,
        config: ProjectionsPhase,
        model: ModelConfig,
        seed: int,
    ):
        self.clips = clips = expressions.clips
        self.expressions, self.config, self.model = expressions, config, model
        shown = [clips.expression(number) for number in range(len(clips.info))]
        rows, means = np.concatenate(shown), np.stack([each.mean(0) for each in shown])
        self.module = _ReadOut(
            networks, *map(torch.from_numpy, (rows.mean(0), rows.std(0), means.mean(0), means.std(0)))
        )
        self.order = Order(clips.by_shard(range(len(clips.info))), seed, config.settings.batch)

    def draw(self, spot: Spot) -> Sample:
        """Every frame_step-th frame of a clip: audio windows f w F, expression f 64, the clip's mean expression 64, a style
        input (see style_input) and `seed`."""
        rng, step = spot.rng(), self.config.frame_step
        clip = self.order.sample(spot.step, spot.place)
        total = self.clips.info[clip].frames
        frames = np.arange(int(rng.integers(step)), total, step)[: total // step]
        features = self.clips.features(clip, self.model.audio.rows_per_frame)
        expression = torch.from_numpy(self.clips.expression(clip))
        return {
            "audio": feature_windows(features, self.model.audio, total)[frames],
            "expression": expression[frames],
            "mean": expression.mean(0),
            **style_input(self.expressions, clip, self.model.style.max_frames, rng),
            "seed": torch.tensor(int(rng.integers(2**62))),
        }

    def validate(self) -> dict[str, float]:
        """Nothing: what counts is what the stages make of the tokens."""
        return {}

    def show(self, folder: Path, step: int) -> None:
        """There is nothing to look at."""


class _ReadOut(nn.Module):
    def __init__(
        self, networks: PortraitNetworks, middle: Tensor, spread: Tensor, clip_middle: Tensor, clip_spread: Tensor
    ):
        super().__init__()
        self.audio_projection, self.style_projection = networks.audio_projection, networks.style_projection
        self._extractor = (networks.style_extractor.eval(),)  # a tuple: not trained and not kept
        for name, value in (("middle", middle), ("spread", spread)):
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("clip_middle", clip_middle, persistent=False)
        self.register_buffer("clip_spread", clip_spread, persistent=False)

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        count = len(self.middle)
        spoken = self.audio_projection(batch["audio"].flatten(0, 1)).mean(1)[:, :count]  # (n f) 64
        audio = (spoken - (batch["expression"].flatten(0, 1) - self.middle) / self.spread).square().mean()
        with torch.no_grad():
            moments = self._extractor[0](batch["style_audio"], batch["style_expression"], batch["style_mask"])
        generators = [torch.Generator().manual_seed(int(seed)) for seed in batch["seed"]]
        codes = torch.stack([sample_code(*each) for each in zip(*moments, generators, strict=True)])  # n d_s
        felt = self.style_projection(codes).mean(1)[:, :count]  # n 64
        style = (felt - (batch["mean"] - self.clip_middle) / self.clip_spread).square().mean()
        return audio + style, {"audio": audio, "style": style}
