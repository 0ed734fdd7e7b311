"""Wav2Lip's audio encoder, which KDTalker hears with: windows of a mel spectrogram -> 512 features (Prajwal et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..audio_encoder import SAMPLE_RATE, mel_filters

WINDOW, HOP = 800, 200  # samples, 50 and 12.5 ms
ROWS_PER_SECOND = SAMPLE_RATE // HOP
BANDS, LOWEST, HIGHEST = 80, 55.0, 7600.0  # Hz
PREEMPHASIS = 0.97
REFERENCE_DB, FLOOR_DB = 20.0, -100.0
LIMIT = 4.0  # the scale is -4 to 4
WINDOW_ROWS = 16  # 200 ms around a frame
ROWS_BEFORE = 2  # frames by which a window begins before its frame
CHUNK = 2048  # rows of a spectrogram computed at once
WINDOWS_AT_ONCE = 128  # 60 MB of features between the layers

# Channels out, kernel, stride, padding of the convolutions; those with as many channels in and stride 1 add their input.
LAYERS: tuple[tuple[int, int, int | tuple[int, int], int], ...] = (
    (32, 3, 1, 1), (32, 3, 1, 1), (32, 3, 1, 1),
    (64, 3, (3, 1), 1), (64, 3, 1, 1), (64, 3, 1, 1),
    (128, 3, 3, 1), (128, 3, 1, 1), (128, 3, 1, 1),
    (256, 3, (3, 2), 1), (256, 3, 1, 1),
    (512, 3, 1, 0), (512, 1, 1, 0),
)  # fmt: skip
RESIDUAL = (1, 2, 4, 5, 7, 8, 10)


class _ConvBlock(nn.Module):
    def __init__(
        self, channels_in: int, channels: int, kernel: int, stride: int | tuple[int, int], padding: int, residual: bool
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(channels_in, channels, kernel, stride, padding), nn.BatchNorm2d(channels)
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv_block(x)
        return (hidden + x if self.residual else hidden).relu()


WIDTHS = tuple(layer[0] for layer in LAYERS)


class Wav2LipAudioEncoder(nn.Sequential):
    """mel windows: n 80 16 -> n 512. widths: channels of the convolutions, if not the published ones."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        channels = (1, *widths)
        super().__init__(
            *(
                _ConvBlock(channels[index], width, *layer[1:], residual=index in RESIDUAL)
                for index, (width, layer) in enumerate(zip(widths, LAYERS, strict=True))
            )
        )

    def forward(self, windows: Tensor) -> Tensor:
        return super().forward(windows[:, None]).flatten(1)


def mel_spectrogram(samples: np.ndarray) -> Tensor:
    """Mono audio at 16 kHz -> rows 80, float32 in [-4, 4]; row i is centred on sample 200 i, silence lies around the audio."""
    emphasised = samples.astype(np.float64)
    emphasised[1:] -= PREEMPHASIS * samples[:-1].astype(np.float64)
    padded = np.pad(emphasised, WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]  # rows 800, not in memory
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    filters = mel_filters(BANDS, WINDOW, LOWEST, HIGHEST).T
    rows = []
    for start in range(0, len(windows), CHUNK):
        mel = np.abs(np.fft.rfft(windows[start : start + CHUNK] * hann)) @ filters
        decibels = 20 * np.log10(np.maximum(10 ** (FLOOR_DB / 20), mel)) - REFERENCE_DB
        rows.append(np.clip(2 * LIMIT * (decibels - FLOOR_DB) / -FLOOR_DB - LIMIT, -LIMIT, LIMIT))
    return torch.from_numpy(np.concatenate(rows).astype(np.float32))


def mel_windows(mel: Tensor, first: int, last: int, fps: float = 25.0) -> Tensor:
    """Rows around the frames `first` to `last` - 1: rows 80 -> n 80 16; beyond its ends the spectrogram's end rows repeat."""
    starts = torch.tensor([int(ROWS_PER_SECOND * (frame - ROWS_BEFORE) / fps) for frame in range(first, last)])
    index = (starts[:, None] + torch.arange(WINDOW_ROWS)).clamp(0, len(mel) - 1)
    return mel[index].transpose(1, 2)


@torch.no_grad()
def audio_features(encoder: Wav2LipAudioEncoder, samples: np.ndarray, frames: int, fps: float = 25.0) -> Tensor:
    """Mono audio at 16 kHz -> frames 512, float32 on the CPU."""
    mel = mel_spectrogram(samples)
    return torch.cat(list(_chunks(encoder, mel, frames, fps)))


def _chunks(encoder: Wav2LipAudioEncoder, mel: Tensor, frames: int, fps: float) -> Iterator[Tensor]:
    like = next(encoder.parameters())
    for first in range(0, frames, WINDOWS_AT_ONCE):
        windows = mel_windows(mel, first, min(first + WINDOWS_AT_ONCE, frames), fps)
        yield encoder(windows.to(like)).float().cpu()
