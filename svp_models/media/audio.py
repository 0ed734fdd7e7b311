"""Audio: decoded from any file, checked, resampled, cut to length; and the voice for the networks, one channel of a known level.

The normalised voice is only for the networks: the audio of the output video stays as it is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..optional_deps import av, soxr
from ..types import Audio
from .container import MAX_JUMP_SECONDS, Source, audio_stream, open_media, video_stream

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

LOG = logging.getLogger(__name__)

MAX_DAMAGED = 0.1  # fraction of packets that may be unreadable
MIN_GAP_SECONDS = 0.1  # below this a gap between packets is rounding of the clock of the container

SAMPLE_RATE = 16000  # Hz of everything that is measured here
BLOCK = SAMPLE_RATE // 50  # samples that loudness is measured over
SPEECH_THRESHOLD = 0.1  # of the loudest block: quieter blocks are pauses and do not count
# Root mean square of the speech blocks in the training data of the built-in model (`synthetic.speech`): from the softest sad
# voice to the loudest angry one, and the usual one. Below CLEAR_LEVELS its lips move less than they should: by a seventh at
# 0.07, by almost a half at 0.045.
KNOWN_LEVELS, CLEAR_LEVELS, USUAL_LEVEL = (0.045, 0.16), (0.075, 0.16), 0.0875
SILENCE = 1e-3  # root mean square of the loudest block up to which there is no voice, -60 dB
CANCELLED = 0.1  # of the energy of the louder channel: below this the mean of the channels has cancelled


def load_audio(path: Source) -> Audio:
    """The best audio track of any file, at its own sample rate, one or two channels (more are mixed down to two).

    Sample 0 is time 0. In an audio file that is the first decoded sample, whatever its time stamp (in MP3 it is the delay of
    the encoder, which the decoder has removed already). In a video file it is the first video frame: audio that starts later
    is padded, audio that starts earlier is cut. Values beyond 1 stay.
    """
    with open_media(path) as container:
        video = video_stream(container)
        origin = None
        if video is not None:
            origin = (
                float(video.start_time * video.time_base) if video.start_time is not None and video.time_base else 0.0
            )
    audio = decode_audio(path, origin)
    if audio is None:
        raise PortraitError(f"{path}: there is no audio track: choose a file with audio")
    check_audio(audio, str(path))
    return audio


def decode_audio(path: Source, origin: float | None) -> Audio | None:
    """The best audio track, None without one. origin: the time stamp of sample 0 in seconds, None for that of the first sample.
    Gaps in time, stored or left by damaged packets, become silence."""
    rate = audio_rate(path)
    if rate is None:
        return None
    chunks = list(audio_chunks(path, origin))
    if not chunks:
        return Audio(torch.zeros(1, 0), rate)
    return Audio(torch.from_numpy(np.concatenate([samples for samples, _ in chunks], axis=1)), chunks[0][1])


def audio_rate(path: Source) -> int | None:
    """Sample rate of the best audio track in Hz (0 where the file does not say), None without a track."""
    with open_media(path) as container:
        stream = audio_stream(container)
        return None if stream is None else stream.sample_rate or 0


def audio_chunks(path: Source, origin: float | None) -> Iterator[tuple[np.ndarray, int]]:
    """The audio of `decode_audio` in chunks of some hundredths of a second: (channels x samples, float32; Hz)."""
    with open_media(path) as container:
        stream = audio_stream(container)
        if stream is None:
            return
        resampler = None
        position = 0  # samples since the origin that the chunks reach to
        lead = 0  # samples before the origin that have yet to be dropped

        def after_lead(chunk: np.ndarray) -> np.ndarray:
            nonlocal lead
            dropped = min(lead, chunk.shape[1])
            lead -= dropped
            return chunk[:, dropped:]

        for frame, after_damage in _decodable(container, stream, path):
            if resampler is None:
                rate, channels = frame.sample_rate, min(2, frame.layout.nb_channels)
                layout = frame.layout if frame.layout.nb_channels <= 2 else "stereo"
                resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
                origin = frame.time if origin is None else origin
                position = _samples_after(frame, origin, 0)
                lead = max(0, -position)
                yield np.zeros((channels, max(0, position)), np.float32), rate
            gap = _samples_after(frame, origin, position)
            if gap > (0 if after_damage else MIN_GAP_SECONDS * rate):
                yield after_lead(np.zeros((channels, gap), np.float32)), rate
                position += gap
            for converted in _convert(resampler, frame, path):
                yield after_lead(converted.to_ndarray()), rate
            position += frame.samples
        if resampler is not None:
            for converted in _convert(resampler, None, path):
                yield after_lead(converted.to_ndarray()), rate


def _decodable(container: InputContainer, stream: AudioStream, path: Source) -> Iterator[tuple[av.AudioFrame, bool]]:
    """Decoded frames, with a flag for damaged packets right before the frame.

    Audio files often contain a few damaged packets that players skip: they are skipped here as well.
    """
    packets, damaged, after_damage = 0, 0, False
    for packet in container.demux(stream):
        packets += 1
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            damaged, after_damage = damaged + 1, True
            continue
        for frame in frames:
            yield frame, after_damage
            after_damage = False
    if damaged > MAX_DAMAGED * packets:
        raise PortraitError(f"{path}: {damaged} of {packets} audio packets are damaged: copy or export the file again")


def _samples_after(frame: av.AudioFrame, origin: float | None, position: int) -> int:
    """By how many samples the frame starts after `position` (negative: before it); 0 where time stamps say nothing."""
    if origin is None or frame.time is None:
        return 0
    start = round((frame.time - origin) * frame.sample_rate)
    return start - position if abs(start - position) < MAX_JUMP_SECONDS * frame.sample_rate else 0


def _convert(resampler: av.AudioResampler, frame: av.AudioFrame | None, path: Source) -> list[av.AudioFrame]:
    try:
        return resampler.resample(frame)
    except ValueError as error:  # PyAV's refusal of a frame unlike the first
        raise PortraitError(
            f"{path}: the audio changes its sample rate or channels on the way: convert it to WAV"
        ) from error


def check_audio(audio: Audio, name: str = "audio") -> None:
    """Raise PortraitError unless the audio is channels x samples, not empty and finite. Silence is fine."""
    shape = tuple(audio.waveform.shape)
    if audio.sample_rate <= 0 and 0 not in shape:
        raise PortraitError(f"{name}: the sample rate is {audio.sample_rate} Hz: it must be above 0")
    if len(shape) != 2:
        raise PortraitError(f"{name}: the waveform has the shape {shape}: it must be channels x samples")
    if 0 in shape:
        raise PortraitError(f"{name}: there are 0 samples: choose a recording that is not empty")
    bad = int((~torch.isfinite(audio.waveform)).sum())
    if bad:
        raise PortraitError(
            f"{name}: {bad} of {audio.waveform.numel()} samples are not finite numbers (NaN or infinite): "
            "export the recording again as 16-bit WAV"
        )


def to_mono(audio: Audio, sample_rate: int) -> Tensor:
    """The mean of the channels at `sample_rate` Hz: ceil(samples x ratio) float32 values, sample 0 still at time 0."""
    mono = audio.waveform.float().mean(dim=0)
    if audio.sample_rate == sample_rate:
        return mono
    return torch.from_numpy(resample(mono.numpy(), audio.sample_rate, sample_rate))


def resample(samples: np.ndarray, rate: float, target_rate: float) -> np.ndarray:
    """One channel from one sample rate to another: ceil(samples x ratio) float32 values, sample 0 still at time 0."""
    resampled = soxr.resample(samples.astype(np.float32, copy=False), rate, target_rate, quality="HQ")
    count = math.ceil(len(samples) * target_rate / rate)
    return np.pad(resampled[:count], (0, max(0, count - len(resampled))))


def frame_count(seconds: float, fps: float) -> int:
    """The number of frames in `seconds` of audio: halves round up, at least 1."""
    return max(1, math.floor(float(seconds) * float(fps) + 0.5 + 1e-6))  # 0.58 s x 25 is 14.5, though floats say less


def fit_audio(audio: Audio, seconds: float) -> Audio:
    """The audio cut, or padded with silence at its end, to round(seconds x sample rate) samples."""
    samples = round(float(seconds) * audio.sample_rate)
    missing = samples - audio.waveform.shape[-1]
    waveform = torch.nn.functional.pad(audio.waveform, (0, missing)) if missing > 0 else audio.waveform[:, :samples]
    return Audio(waveform, audio.sample_rate)


def audio_segment(audio: Audio, start: float, seconds: float) -> Audio | None:
    """The audio from `start` seconds on, `seconds` of it (0: to its end); None where nothing is left."""
    first = round(start * audio.sample_rate)
    last = first + round(seconds * audio.sample_rate) if seconds else None
    part = audio.waveform[:, first:last]
    return Audio(part, audio.sample_rate) if part.shape[-1] else None


def downmix(waveform: Tensor) -> Tensor:
    """channels x samples -> samples, as loud as the loudest channel: the mean of all, or that channel where they cancel."""
    mean = waveform.float().mean(dim=0)
    if len(waveform) == 1:
        return mean
    energies = waveform.double().square().mean(dim=1)
    loudest, remaining = float(energies.max()), float(mean.double().square().mean())
    if remaining < CANCELLED * loudest:
        return waveform[int(energies.argmax())].float()
    return (
        mean
        if math.isclose(remaining, loudest, rel_tol=1e-3) or loudest == 0
        else mean * math.sqrt(loudest / remaining)
    )


def block_levels(samples: np.ndarray) -> np.ndarray:
    """Root mean square of every 20 ms of mono audio at 16 kHz; at least one number."""
    padded = np.pad(samples, (0, -len(samples) % BLOCK or (0 if len(samples) else BLOCK)))
    return np.sqrt(np.square(padded.reshape(-1, BLOCK)).mean(axis=1, dtype=np.float64))


def speech_level(samples: np.ndarray) -> float:
    """Root mean square of the speech in mono audio at 16 kHz: pauses do not count."""
    levels = block_levels(samples)
    return float(np.sqrt(np.square(levels[levels >= SPEECH_THRESHOLD * levels.max()]).mean()))


def normalize_level(samples: np.ndarray, unchanged: tuple[float, float]) -> np.ndarray:
    """Mono audio at 16 kHz; a voice whose level lies outside of `unchanged` (lowest, highest) is scaled to USUAL_LEVEL."""
    level = speech_level(samples)
    if is_silent(samples) or unchanged[0] <= level <= unchanged[1]:
        return samples
    return samples * np.float32(USUAL_LEVEL / level)


def is_silent(samples: np.ndarray) -> bool:
    """Whether there is no voice in mono audio at 16 kHz."""
    return float(block_levels(samples).max()) <= SILENCE


def warn_if_silent(audio: Audio) -> None:
    """Log a warning with the level if there is no voice."""
    loudest = float(audio.waveform.abs().max())
    if is_silent(to_mono(Audio(downmix(audio.waveform)[None], audio.sample_rate), SAMPLE_RATE).numpy()):
        LOG.warning(
            "the voice is silent (peak %s; a usual one has -10 dB): the lips will not move; choose another recording or raise "
            "its volume",
            f"{20 * math.log10(loudest):.0f} dB" if loudest else "0",
        )
