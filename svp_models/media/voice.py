"""The voice as the networks listen to it: one channel, and of a level that they know.

The sound that is written stays as it is.
"""

from __future__ import annotations

import logging
import math

import numpy as np
from torch import Tensor

from ..values import Audio
from .audio import to_mono

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
