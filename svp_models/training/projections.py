"""Warm start of the two projections: their tokens first learn to tell the expression that the denoiser is to draw.

Left to the denoising loss alone, small projections collapse early to tokens that say nothing, because a denoiser that cannot
draw yet gains nothing from them. Here the first numbers of the mean of a frame's audio tokens become the frame's expression
coefficients, and those of a clip's style tokens the clip's mean expression, both standardised: a read-out of its own could
blow up a whisper, tokens of unit size cannot be overheard.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..networks.audio_features import feature_windows
from ..networks.portrait_model import PortraitNetworks
from .corpus import Corpus
from .loop import Schedule, run_phase, torch_generator
from .takes import Takes

CLIPS = 64  # a batch; of each clip every FRAME_STEP-th frame is read
FRAME_STEP = 5


class _Projections(nn.Module):
    def __init__(self, networks: PortraitNetworks):
        super().__init__()
        self.audio_projection, self.style_projection = networks.audio_projection, networks.style_projection


def train_projections(
    networks: PortraitNetworks,
    corpus: Corpus,
    takes: Takes,
    mu: Tensor,
    sigma: Tensor,
    config: ModelConfig,
    schedule: Schedule,
    folder: Path,
    seed: int,
    report: Callable[[str], None],
) -> None:
    """Trains audio and style projection in place, the former also on the takes; files as run_phase.

    mu, sigma: 3 x clips x d_s, those of take 0 of corpus_priors.
    """
    module = _Projections(networks)
    truth = torch.from_numpy(np.array(corpus.expression))  # n f 64
    count = truth.shape[-1]
    middle, spread = truth.mean((0, 1)), truth.std((0, 1))
    clip_means = truth.mean(1)
    clip_means = (clip_means - clip_means.mean(0)) / clip_means.std(0)  # n 64

    def take(clip: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Mel f x 1920 and expression f x 64 of a take of a clip; 0 is the drawn one."""
        if number == 0:
            return corpus.mel[clip], corpus.expression[clip]
        return takes.mel[clip, number - 1], takes.expression[clip, number - 1]

    def loss_function(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        clips = rng.choice(corpus.config.clips, min(CLIPS, corpus.config.clips), replace=False)
        first = int(rng.integers(FRAME_STEP))
        numbers = rng.integers(takes.count + 1, size=len(clips))
        said = [take(int(clip), int(number)) for clip, number in zip(clips, numbers, strict=True)]
        windows = [
            feature_windows(torch.from_numpy(mel).float(), config.audio, corpus.config.frames) for mel, _ in said
        ]
        heard = torch.cat([each[first::FRAME_STEP] for each in windows])  # m w F
        spoken = module.audio_projection(heard).mean(1)[:, :count]  # m 64
        shown = torch.from_numpy(np.stack([expression[first::FRAME_STEP] for _, expression in said])).flatten(0, 1)
        audio = (spoken - (shown - middle) / spread).square().mean()
        kind = torch.from_numpy(rng.choice(3, len(clips), p=(0.7, 0.2, 0.1)))
        noise = torch.randn((len(clips), mu.shape[-1]), generator=torch_generator(rng))  # eq. 4
        codes = mu[kind, clips] + sigma[kind, clips] * noise
        felt = module.style_projection(codes).mean(1)[:, :count]  # n 64
        style = (felt - clip_means[clips]).square().mean()
        return audio + style, {"audio": audio.item(), "style": style.item()}

    run_phase("projections", module, module.parameters(), loss_function, schedule, folder, seed, report)
