"""Sound from any file, checked, resampled and cut to length.

The voice as the networks listen to it: one channel, and of a level that they know.

The sound that is written stays as it is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..optional_deps import av, soxr
from ..types import Audio
from .container import MAX_JUMP_SECONDS, audio_stream, open_media, video_stream

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

MAX_DAMAGED = 0.1  # share of packets that may be unreadable
MIN_GAP_SECONDS = 0.1  # below this a hole between packets is rounding of the container's clock


def load_audio(path: str | Path) -> Audio:
    """The best audio track of any file, at its own sample rate, one or two channels (more are mixed down to two).

    Sample 0 is time 0. In a pure sound file that is the first decoded sample, whatever time stamp it bears (MP3 stamps
    it with the encoder's delay, which the decoder has removed already). In a video file it is the first video frame:
    sound that starts later is padded, sound that starts earlier is cut. Values beyond 1 are kept.
    """
    with open_media(path) as container:
        video = video_stream(container)
        origin = None
        if video is not None:
            origin = float(video.start_time * video.time_base) if video.start_time is not None else 0.0
    audio = decode_audio(path, origin)
    if audio is None:
        raise PortraitError(f"{path}: there is no audio track: choose a file with sound")
    check_audio(audio, str(path))
    return audio


def decode_audio(path: str | Path, origin: float | None) -> Audio | None:
    """The best audio track, None without one. origin: the time stamp in seconds that sample 0 belongs to, None for the
    first sample's own. Holes in time, stored or left by damaged packets, become silence."""
    rate = audio_rate(path)
    if rate is None:
        return None
    chunks = list(audio_chunks(path, origin))
    if not chunks:
        return Audio(torch.zeros(1, 0), rate)
    return Audio(torch.from_numpy(np.concatenate([each for each, _ in chunks], axis=1)), chunks[0][1])


def audio_rate(path: str | Path) -> int | None:
    """Hz that the best audio track is said to have (0 where the file does not say), None without a track."""
    with open_media(path) as container:
        stream = audio_stream(container)
        return None if stream is None else stream.sample_rate or 0


def audio_chunks(path: str | Path, origin: float | None) -> Iterator[tuple[np.ndarray, int]]:
    """What `decode_audio` gives, piece by piece: (channels x samples, float32; Hz), a few hundredths of a second each."""
    with open_media(path) as container:
        stream = audio_stream(container)
        if stream is None:
            return
        resampler = None
        position = 0  # samples since the origin that the chunks reach to
        lead = 0  # samples before the origin that are still to be left out

        def rest(chunk: np.ndarray) -> np.ndarray:
            nonlocal lead
            left_out = min(lead, chunk.shape[1])
            lead -= left_out
            return chunk[:, left_out:]

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
                yield rest(np.zeros((channels, gap), np.float32)), rate
                position += gap
            for each in _convert(resampler, frame, path):
                yield rest(each.to_ndarray()), rate
            position += frame.samples
        if resampler is not None:
            for each in _convert(resampler, None, path):
                yield rest(each.to_ndarray()), rate


def _decodable(
    container: InputContainer, stream: AudioStream, path: str | Path
) -> Iterator[tuple[av.AudioFrame, bool]]:
    """Decoded frames, each with whether damaged packets came right before it.

    Sound files often carry a few bytes of rubbish that players skip: a few damaged packets are skipped here as well.
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
    if origin is None or frame.pts is None:
        return 0
    start = round((frame.time - origin) * frame.sample_rate)
    return start - position if abs(start - position) < MAX_JUMP_SECONDS * frame.sample_rate else 0


def _convert(resampler: av.AudioResampler, frame: av.AudioFrame | None, path: str | Path) -> list[av.AudioFrame]:
    try:
        return resampler.resample(frame)
    except ValueError as error:  # PyAV's refusal of a frame unlike the first
        raise PortraitError(
            f"{path}: the audio changes its sample rate or channels along the way: convert it to WAV"
        ) from error


def check_audio(audio: Audio, name: str = "audio") -> None:
    """Raise PortraitError unless the sound is channels x samples, not empty and finite. Silence is fine."""
    shape = tuple(audio.waveform.shape)
    if audio.sample_rate <= 0 and 0 not in shape:
        raise PortraitError(f"{name}: the sample rate is {audio.sample_rate} Hz: it must be above 0")
    if len(shape) != 2:
        raise PortraitError(f"{name}: the waveform has the shape {shape}: it must be channels x samples")
    if 0 in shape:
        raise PortraitError(f"{name}: there are 0 samples of sound: choose a recording that is not empty")
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


def resample(samples: np.ndarray, rate: float, wanted: float) -> np.ndarray:
    """One channel from one sample rate to another: ceil(samples x ratio) float32 values, sample 0 still at time 0."""
    resampled = soxr.resample(samples.astype(np.float32, copy=False), rate, wanted, quality="HQ")
    count = math.ceil(len(samples) * wanted / rate)
    return np.pad(resampled[:count], (0, max(0, count - len(resampled))))


def frame_count(seconds: float, fps: float) -> int:
    """Frames that `seconds` of sound fill: halves round up, at least 1."""
    return max(1, math.floor(float(seconds) * float(fps) + 0.5 + 1e-6))  # 0.58 s x 25 is 14.5, though floats say less


def fit_audio(audio: Audio, seconds: float) -> Audio:
    """The sound cut, or padded with silence at its end, to round(seconds x sample rate) samples."""
    samples = round(float(seconds) * audio.sample_rate)
    missing = samples - audio.waveform.shape[-1]
    waveform = torch.nn.functional.pad(audio.waveform, (0, missing)) if missing > 0 else audio.waveform[:, :samples]
    return Audio(waveform, audio.sample_rate)


LOG = logging.getLogger(__name__)

SAMPLE_RATE = 16000  # Hz of everything that is measured here
BLOCK = SAMPLE_RATE // 50  # samples that loudness is measured over
SOUNDING = 0.1  # of the loudest block: what is quieter is a pause and does not count
# Root mean square of the sounding blocks of what the built-in model learned from (`synthetic.speech`): from the softest sad
# voice to the loudest angry one, and the usual one. Below `CLEAR` its lips move less than they should: by a seventh at 0.07,
# by almost a half at 0.045.
KNOWN, CLEAR, USUAL = (0.045, 0.16), (0.075, 0.16), 0.0875
SILENCE = 1e-3  # root mean square of the loudest block up to which there is no voice, -60 dB
CANCELLED = 0.1  # of the louder channel's energy: what the mean of the channels has less of when they cancel


def one_channel(waveform: Tensor) -> Tensor:
    """channels x samples -> samples, as loud as the loudest channel: the mean of all, or that channel where they cancel."""
    mean = waveform.float().mean(dim=0)
    if len(waveform) == 1:
        return mean
    energies = waveform.double().square().mean(dim=1)
    most, left = float(energies.max()), float(mean.double().square().mean())
    if left < CANCELLED * most:
        return waveform[int(energies.argmax())].float()
    return mean if math.isclose(left, most, rel_tol=1e-3) or most == 0 else mean * math.sqrt(most / left)


def block_levels(samples: np.ndarray) -> np.ndarray:
    """Root mean square of every 20 ms of mono sound at 16 kHz; at least one number."""
    padded = np.pad(samples, (0, -len(samples) % BLOCK or (0 if len(samples) else BLOCK)))
    return np.sqrt(np.square(padded.reshape(-1, BLOCK)).mean(axis=1, dtype=np.float64))


def speech_level(samples: np.ndarray) -> float:
    """Root mean square of mono sound at 16 kHz where there is any: pauses do not count."""
    levels = block_levels(samples)
    return float(np.sqrt(np.square(levels[levels >= SOUNDING * levels.max()]).mean()))


def levelled(samples: np.ndarray, unchanged: tuple[float, float]) -> np.ndarray:
    """Mono sound at 16 kHz; a voice of a level that is not between those of `unchanged` is brought to the usual one."""
    level = speech_level(samples)
    if is_silent(samples) or unchanged[0] <= level <= unchanged[1]:
        return samples
    return samples * np.float32(USUAL / level)


def is_silent(samples: np.ndarray) -> bool:
    """Whether there is no voice in mono sound at 16 kHz."""
    return float(block_levels(samples).max()) <= SILENCE


def warn_of_silence(audio: Audio) -> None:
    """A warning with the level if nothing is said."""
    loudest = float(audio.waveform.abs().max())
    if is_silent(to_mono(Audio(one_channel(audio.waveform)[None], audio.sample_rate), SAMPLE_RATE).numpy()):
        LOG.warning(
            "the voice is silent (peak %s; a usual one has -10 dB): the lips will not move; choose another recording or raise "
            "its volume",
            f"{20 * math.log10(loudest):.0f} dB" if loudest else "0",
        )
