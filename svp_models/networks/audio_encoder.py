"""Audio features: log-mel rows, and the hidden states of Whisper and wav2vec2, for audio of any length.

Log-mel features need no network: 1920 values per video frame. Both encoders give a position every 20 ms. They read audio
longer than one segment (30 s) in overlapping segments: near the ends of a segment the networks lack context, so those
positions come from the neighbouring segment, with a cross-fade between the two. Statistics of the whole audio (loudness,
norms) are computed over all of it, never over a segment.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import AudioConfig
from ..errors import PortraitError
from ..media.audio import CLEAR_LEVELS, KNOWN_LEVELS, downmix, frame_count, normalize_level, to_mono
from ..types import Audio

SAMPLE_RATE = 16000  # Hz
POSITION = 320  # samples of one position of an encoder, 20 ms
LOG_MEL_RANGE = 2.0  # Whisper raises values more than 8 decades below the maximum; its log-mel scale is decades / 4
STATISTICS_CHUNK = 16000  # outputs of wav2vec2's first convolution per chunk of the statistics
HOP = 160  # samples, 10 ms
MEL_WINDOW = 400  # samples, 25 ms
MEL_BANDS = 80
MEL_ROWS = 24  # 240 ms around a frame
MEL_FLOOR = 1e-5
SPECTROGRAM_CHUNK = 4096  # rows of a spectrogram per chunk, 40 s


def mono_samples(audio: Audio, unchanged: tuple[float, float] = CLEAR_LEVELS) -> np.ndarray:
    """The voice as the networks expect it: mono, 16 kHz, float32. unchanged: levels that stay, see `media.audio.levelled`."""
    mono = Audio(downmix(audio.waveform)[None], audio.sample_rate)
    return normalize_level(to_mono(mono, SAMPLE_RATE).numpy(), unchanged)


def mel_features(audio: Audio, frames: int, fps: float) -> Tensor:
    """frames x 1920 float32: 24 log-mel rows x 80 bands, 10 ms apart, around each frame's centre (i + 0.5) / fps.

    The scale is fixed, about [-0.25, 1.4], so that rows do not depend on the rest of the clip. Row j of the spectrogram is
    centred on (j + 0.5) x 10 ms; before and after the audio there is silence. Soft and loud speech keep their levels,
    because styles are extracted from these features.
    """
    return mel_rows(mono_samples(audio, KNOWN_LEVELS), 0, frames, fps)


def mel_spectrogram(samples: np.ndarray) -> np.ndarray:
    """Power of mono audio at 16 kHz in the mel bands, rows bands float32: rows HOP apart, the first from sample 0 on.

    Equals librosa's `feature.melspectrogram(center=False)`, which the models were trained on.
    """
    windows = np.lib.stride_tricks.sliding_window_view(samples, MEL_WINDOW)[::HOP]  # rows 400, not in memory
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(MEL_WINDOW) / MEL_WINDOW)
    filters = mel_filters(MEL_BANDS, MEL_WINDOW, 0, SAMPLE_RATE / 2).T
    rows = [
        np.abs(np.fft.rfft(windows[start : start + SPECTROGRAM_CHUNK] * hann)) ** 2 @ filters
        for start in range(0, len(windows), SPECTROGRAM_CHUNK)
    ]
    return np.concatenate(rows).astype(np.float32)


@lru_cache(maxsize=4)
def mel_filters(bands: int, window: int, lowest: float, highest: float) -> np.ndarray:
    """Triangles over the frequencies of a window of samples at 16 kHz, each of area 1: bands window/2+1.

    lowest, highest: ends of the first and the last, in Hz. Slaney's mel scale: 15 mel up to 1 kHz, evenly; from there 27 mel
    for a factor of 6.4.
    """
    first, last = (15 * f / 1000 if f < 1000 else 15 + 27 * np.log(f / 1000) / np.log(6.4) for f in (lowest, highest))
    mel = np.linspace(first, last, bands + 2)
    corners = np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))[:, None]  # Hz
    frequencies = np.linspace(0, SAMPLE_RATE / 2, window // 2 + 1)
    rising = (frequencies - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - frequencies) / (corners[2:] - corners[1:-1])
    return (np.maximum(0, np.minimum(rising, falling)) * 2 / (corners[2:] - corners[:-2])).astype(np.float32)


def mel_rows(samples: np.ndarray, start: int, stop: int, fps: float) -> Tensor:
    """`mel_features` of frames `start` to `stop` - 1, (stop - start) x 1920. samples: mono at 16 kHz."""
    centres = (np.arange(start, stop) + 0.5) / fps * SAMPLE_RATE / HOP
    first = np.rint(centres).astype(int) - MEL_ROWS // 2  # first row of each frame's window
    rows = int(first[-1] - first[0]) + MEL_ROWS
    # First sample of the first row's analysis window, which is centred on its hop; negative before the audio.
    offset = int(first[0]) * HOP - (MEL_WINDOW - HOP) // 2
    padded = np.zeros(rows * HOP + MEL_WINDOW, dtype=np.float32)
    inside = samples[max(offset, 0) : max(offset + len(padded), 0)]
    padded[max(-offset, 0) : max(-offset, 0) + len(inside)] = inside
    scaled = (np.log10(np.maximum(mel_spectrogram(padded), MEL_FLOOR)) + 4) / 4  # rows bands
    index = (first - first[0])[:, None] + np.arange(MEL_ROWS)  # frames 24
    return torch.from_numpy(scaled[index].reshape(stop - start, -1).astype(np.float32))


def mel_windows(samples: np.ndarray, config: AudioConfig, frames: int, fps: float, start: int, stop: int) -> Tensor:
    """`feature_windows` of mel features for frames `start` to `stop` - 1 of a clip of `frames` frames."""
    step, before = config.rows_per_frame, (config.window - config.rows_per_frame) // 2
    first, last = start * step - before, (stop - 1) * step - before + config.window
    rows = mel_rows(samples, max(first, 0), min(last, frames * step), fps * step)
    padded = functional.pad(rows, (0, 0, max(-first, 0), max(last - frames * step, 0)))
    return padded.unfold(0, config.window, step).transpose(1, 2)  # n window F


def feature_windows(features: Tensor, config: AudioConfig, frames: int) -> Tensor:
    """(frames * rows_per_frame) x F -> frames x window x F centred on each frame; rows outside the clip are zero."""
    step, window = config.rows_per_frame, config.window
    if len(features) != frames * step:
        raise PortraitError(
            f"{len(features)} rows of audio features for {frames} frames at {step} rows a frame, "
            f"{frames * step} are needed: extract the features for the same clip length"
        )
    before = (window - step) // 2
    padded = functional.pad(features, (0, 0, before, window - step - before))
    return padded.unfold(0, window, step).transpose(1, 2)  # frames window F


@dataclass(frozen=True)
class Segments:
    """Segments of long audio, in positions: length, minimum overlap, and the cross-fade in the middle of the overlap."""

    size: int = 1500
    overlap: int = 300
    fade: int = 100

    @classmethod
    def of_size(cls, size: int) -> Segments:
        """Segments of another length in the proportions of 30 s ones."""
        return cls(size, size // 5, max(1, size // 15))

    def starts(self, positions: int) -> list[int]:
        """First positions of the segments: one if the audio fits, otherwise evenly spaced, all of full length."""
        if positions <= self.size:
            return [0]
        joins = math.ceil((positions - self.size) / (self.size - self.overlap))
        return [round(index * (positions - self.size) / joins) for index in range(joins + 1)]

    def weights(self, positions: int) -> list[tuple[int, Tensor]]:
        """Start and weights (one per position of the segment, 0 to 1) of each segment; weights at one position sum to 1."""
        starts = self.starts(positions)
        length = min(self.size, positions)
        centre = torch.arange(positions) + 0.5
        rises = [
            ((centre - (before + length + after) / 2) / self.fade + 0.5).clamp(0, 1)
            for before, after in pairwise(starts)
        ]
        rises = [torch.ones(positions), *rises, torch.zeros(positions)]
        return [
            (start, (rises[index] * (1 - rises[index + 1]))[start : start + length])
            for index, start in enumerate(starts)
        ]


class AudioEncoder(nn.Module, ABC):
    """A frozen network that turns audio into feature rows.

    kind: `whisper` or `wav2vec2`, a value of AudioConfig.features; feature_size: values per row.
    """

    kind: str

    def __init__(self, model: nn.Module, feature_size: int, segments: Segments) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.feature_size = feature_size
        self.segments = segments
        self.eval()

    @torch.no_grad()
    def features(
        self,
        audio: Audio,
        frames: int,
        fps: float,
        rows_per_frame: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Features (frames x rows_per_frame) x feature_size, float32 on the CPU, interpolated between positions.

        Audio of another duration than `frames` frames (rounded) is cut, or padded with silence, to frames / fps seconds.
        progress(segments done, total segments) may raise to stop the work.
        """
        samples = _fitted_samples(self._mono(audio), audio.seconds, frames, fps)
        rows = frames * rows_per_frame
        positions, position = self._row_positions(len(samples), rows, fps * rows_per_frame)
        position = position.clamp(0, positions - 1)
        low = position.floor().long()
        high = (low + 1).clamp(max=positions - 1)
        upper = (position - low).float()[:, None]  # rows 1
        weights = self.segments.weights(positions)
        features = torch.zeros(rows, self.feature_size)
        with closing(self._hidden(samples, [start for start, _ in weights])) as hidden:  # also when progress raises
            for done, ((start, weight), states) in enumerate(zip(weights, hidden, strict=True), start=1):
                states = states.float().cpu() * weight[:, None]  # length feature_size
                for index, fraction in ((low, 1 - upper), (high, upper)):
                    inside = (index >= start) & (index < start + len(states))
                    features[inside] += fraction[inside] * states[index[inside] - start]
                if progress is not None:
                    progress(done, len(weights))
        return features

    def _mono(self, audio: Audio) -> np.ndarray:
        """Mono samples at 16 kHz, at the level of speech."""
        return mono_samples(audio, KNOWN_LEVELS)

    @abstractmethod
    def _row_positions(self, samples: int, rows: int, rate: float) -> tuple[int, Tensor]:
        """Number of positions of the audio, and the (fractional) position of each row at `rate` Hz."""

    @abstractmethod
    def _hidden(self, samples: np.ndarray, starts: list[int]) -> Generator[Tensor, None, None]:
        """Hidden states of each segment in turn: length x feature_size."""


class WhisperAudioEncoder(AudioEncoder):
    """All hidden states of Whisper's encoder, concatenated: 5 x 384 for whisper-tiny.

    model: a transformers Whisper encoder. Every state contains its position within the segment; the cross-fade between
    segments makes this signal change gradually and not jump.
    """

    kind = "whisper"

    def __init__(self, model: nn.Module) -> None:
        from transformers import WhisperFeatureExtractor  # lazy: the import takes seconds

        config: Any = model.config
        size = config.max_source_positions
        super().__init__(model, config.d_model * (config.encoder_layers + 1), Segments.of_size(size))
        self.spectrogram = WhisperFeatureExtractor(
            feature_size=config.num_mel_bins, chunk_length=size * POSITION // SAMPLE_RATE
        )

    def _row_positions(self, samples: int, rows: int, rate: float) -> tuple[int, Tensor]:
        # In time: the centre of row i is at (i + 0.5) / rate, that of position j at (j + 0.5) x 20 ms.
        position = (torch.arange(rows, dtype=torch.float64) + 0.5) / rate * (SAMPLE_RATE / POSITION) - 0.5
        return max(math.ceil(samples / POSITION), self.segments.size), position  # a segment ends in silence

    def _hidden(self, samples: np.ndarray, starts: list[int]) -> Generator[Tensor, None, None]:
        # Spectrograms are cheap next to the encoder: computing them twice saves the memory of the whole audio's.
        floor = max(float(self._log_mel(samples, start).max()) for start in starts) - LOG_MEL_RANGE
        weight = next(self.model.parameters())
        for start in starts:
            mel = self._log_mel(samples, start).clamp(min=floor).to(weight)
            states = self.model(mel, output_hidden_states=True).hidden_states
            yield torch.cat(states, dim=-1)[0]  # size (layers + 1)*d

    def _log_mel(self, samples: np.ndarray, start: int) -> Tensor:
        """Log-mel of the segment that starts at a position: 1 bands 2*size, silence after the end."""
        segment = samples[start * POSITION : (start + self.segments.size) * POSITION]
        return self.spectrogram(segment, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features


class Wav2Vec2AudioEncoder(AudioEncoder):
    """The last hidden state of wav2vec2, 768 values for the base model, stretched over the rows as in V-Express.

    model: a transformers Wav2Vec2Model; normalize: whether its inputs get zero mean and unit variance.
    """

    kind = "wav2vec2"

    def __init__(self, model: nn.Module, normalize: bool = True) -> None:
        config: Any = model.config
        super().__init__(model, config.hidden_size, Segments())
        self.normalize = normalize
        kernels, strides = config.conv_kernel, config.conv_stride
        # samples that one position depends on
        self.receptive_field = 1 + sum((kernel - 1) * math.prod(strides[:i]) for i, kernel in enumerate(kernels))

    def _mono(self, audio: Audio) -> np.ndarray:
        if not self.normalize:
            return super()._mono(audio)
        mono = Audio(downmix(audio.waveform)[None], audio.sample_rate)
        return to_mono(mono, SAMPLE_RATE).numpy()  # `_hidden` normalises the level

    def _row_positions(self, samples: int, rows: int, rate: float) -> tuple[int, Tensor]:
        positions = max(samples - self.receptive_field, 0) // POSITION + 1
        # Linear interpolation with align_corners = False, in float32 as torch computes it.
        return positions, torch.tensor(positions / rows) * (torch.arange(rows) + 0.5) - 0.5

    def _hidden(self, samples: np.ndarray, starts: list[int]) -> Generator[Tensor, None, None]:
        if self.normalize:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        samples = np.pad(samples, (0, max(0, self.receptive_field - len(samples))))
        values = torch.from_numpy(samples)[None].to(next(self.model.parameters()))  # 1 samples
        if len(starts) == 1:
            yield self.model(values).last_hidden_state[0]
            return
        samples_needed = (self.segments.size - 1) * POSITION + self.receptive_field
        with self._global_norm(values):
            for start in starts:
                yield self.model(values[:, start * POSITION :][:, :samples_needed]).last_hidden_state[0]  # size 768

    @contextmanager
    def _global_norm(self, values: Tensor) -> Iterator[None]:
        """Within it, the first convolution's norm, which runs over time, uses the statistics of all samples (1 x samples)."""
        extractor: Any = self.model.feature_extractor
        first = extractor.conv_layers[0]
        norm = getattr(first, "layer_norm", None)
        if not isinstance(norm, nn.GroupNorm):  # the large models normalise each position by itself
            yield
            return
        mean, variance = _convolved_moments(first.conv, values)

        def normalize(layer: nn.GroupNorm, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            return functional.batch_norm(inputs[0], mean, variance, layer.weight, layer.bias, eps=layer.eps)

        hook = norm.register_forward_hook(normalize)
        try:
            yield
        finally:
            hook.remove()


def _convolved_moments(convolution: nn.Conv1d, values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over time of a convolution's channels, computed in chunks of the samples (1 x samples)."""
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    outputs = (values.shape[-1] - kernel) // stride + 1
    total = square = torch.zeros((), dtype=torch.float64, device=values.device)
    for start in range(0, outputs, STATISTICS_CHUNK):
        end = min(start + STATISTICS_CHUNK, outputs)
        chunk = convolution(values[:, None, start * stride : (end - 1) * stride + kernel])[0].double()  # channels n
        total, square = total + chunk.sum(-1), square + chunk.square().sum(-1)
    mean = total / outputs
    return mean.to(values), (square / outputs - mean.square()).clamp(min=0).to(values)


def _fitted_samples(samples: np.ndarray, seconds: float, frames: int, fps: float) -> np.ndarray:
    if frame_count(seconds, fps) == frames:
        return samples
    count = max(1, round(frames / fps * SAMPLE_RATE))
    return np.pad(samples[:count], (0, max(0, count - len(samples))))
