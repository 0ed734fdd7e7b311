"""JoyVASA's motion generator: a transformer that denoises motions beside audio features (Cao et al. 2024); names of its file.

A motion frame is 70 numbers: exp 63, scale, t 3, pitch, yaw, roll, on the template's scale (`motion.generators`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..attention import sinusoidal_encoding

SAMPLES_PER_FRAME = 640  # 16 kHz, 25 fps
EDGE = 20  # samples that are mirrored at either end, twice


@dataclass(frozen=True)
class JoyVasaConfig:
    """Sizes; the defaults are those of JoyVASA's code.

    feed_forward: hidden width of the layers' perceptrons; n_motions: frames of a window; n_prev_motions: frames of the window
    before, which it sees; align_width: how far audio around a frame is seen, 1 is the frame's own; n_diff_steps: of the noise
    schedule; audio_channels: of HuBERT.
    """

    motion_feat_dim: int = 70
    feature_dim: int = 512
    heads: int = 8
    layers: int = 8
    feed_forward: int = 2048
    n_motions: int = 100
    n_prev_motions: int = 10
    align_width: int = 1
    n_diff_steps: int = 500
    audio_channels: int = 768


class DenoisingNetwork(nn.Module):
    """The transformer decoder. noisy: b n m; audio: b n d; previous motion and audio: b p m, b p d; steps: b, from 1 on
    -> clean motion of the previous and the window's frames, b p+n m."""

    def __init__(self, config: JoyVasaConfig) -> None:
        super().__init__()
        width = config.feature_dim
        self.diff_step_map = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.feature_proj = nn.Linear(config.motion_feat_dim, width)
        layer = nn.TransformerDecoderLayer(
            width, config.heads, config.feed_forward, activation="gelu", batch_first=True
        )
        self.transformer = nn.TransformerDecoder(layer, config.layers)
        self.motion_dec = nn.Sequential(
            nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, config.motion_feat_dim)
        )
        self.align_width, self.n_diff_steps = config.align_width, config.n_diff_steps

    def forward(
        self, noisy: Tensor, audio: Tensor, previous_motion: Tensor, previous_audio: Tensor, steps: Tensor
    ) -> Tensor:
        width = audio.shape[-1]
        times = sinusoidal_encoding(self.n_diff_steps + 1, width, noisy)[steps]
        hidden = self.feature_proj(torch.cat([previous_motion, noisy], dim=1))  # b p+n d
        hidden = hidden + sinusoidal_encoding(hidden.shape[1], width, noisy) + self.diff_step_map(times)[:, None]
        memory = torch.cat([previous_audio, audio], dim=1)
        mask = alignment_mask(hidden.shape[1], self.align_width, noisy.device)
        return self.motion_dec(self.transformer(hidden, memory, memory_mask=mask))


class DiffusionSchedule(nn.Module):
    """The noise schedule as the file has it, from step 0 (no noise) to n."""

    alphas: Tensor
    alpha_bars: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        # Cosine schedule (Nichol and Dhariwal 2021, eq. 17), which the published weights were trained with.
        # On the CPU even where only shapes are asked for: numbers without memory go through torch's slow references.
        time = torch.linspace(0, steps, steps + 1, device="cpu") / steps
        levels = torch.cos((time + 0.008) / 1.008 * torch.pi / 2) ** 2
        betas = functional.pad((1 - levels[1:] / levels[:-1]).clamp(1e-4, 0.999), (1, 0))
        alpha_bars = (1 - betas).log().cumsum(dim=0).exp()
        before = functional.pad(alpha_bars[:-1], (1, 0), value=1.0)
        spread = ((1 - before[1:]) / (1 - alpha_bars[1:]) * betas[1:]).sqrt()
        self.register_buffer("betas", betas)
        self.register_buffer("alphas", 1 - betas)
        self.register_buffer("alpha_bars", alpha_bars)
        self.register_buffer("sigmas_flex", betas.sqrt())
        self.register_buffer("sigmas_inflex", functional.pad(spread, (1, 0)))


class JoyVasaNetwork(nn.Module):
    """The denoiser with what it starts from and its audio encoder, a HuBERT as transformers has it."""

    audio_encoder: Any

    def __init__(self, audio_encoder: nn.Module, config: JoyVasaConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or JoyVasaConfig()
        width, before = config.feature_dim, config.n_prev_motions
        self.start_audio_feat = nn.Parameter(torch.zeros(1, before, width))
        self.start_motion_feat = nn.Parameter(torch.zeros(1, before, config.motion_feat_dim))
        self.null_audio_feat = nn.Parameter(torch.zeros(1, 1, width))
        self.audio_encoder = audio_encoder
        self.audio_feature_map = nn.Linear(config.audio_channels, width)
        self.denoising_net = DenoisingNetwork(config)
        self.diffusion_sched = DiffusionSchedule(config.n_diff_steps)

    def audio_features(self, samples: Tensor) -> Tensor:
        """One window of mono audio at 16 kHz, b n*640 -> b n d."""
        frames = samples.shape[-1] // SAMPLES_PER_FRAME
        padded = functional.pad(functional.pad(samples, (EDGE, EDGE), mode="reflect"), (EDGE, EDGE), mode="reflect")
        rows = self.audio_encoder.feature_extractor(padded)  # b c 2n, 50 a second
        rows = functional.interpolate(rows, size=2 * frames, mode="linear")
        hidden = self.audio_encoder.feature_projection(rows.transpose(1, 2))
        hidden = self.audio_encoder.encoder(hidden).last_hidden_state  # b 2n 768
        hidden = functional.interpolate(hidden.transpose(1, 2), size=frames, mode="linear").transpose(1, 2)
        return self.audio_feature_map(hidden)


def alignment_mask(length: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """True where a frame (row) must not see the audio of another (column): more than width - 1 frames away."""
    positions = torch.arange(length, device=device)
    return (positions[:, None] - positions).abs() >= width
