"""Speech with phoneme times from espeak-ng, whose library and voices PyPI's espeakng-loader carries."""

from __future__ import annotations

import _ctypes
import ctypes
import shutil
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import PortraitError
from ..media.audio import resample

SAMPLE_RATE = 16000  # of every Speech, Hz

ESPEAK_RATE = 22050  # Hz, what espeak-ng's formant voices are synthesised at
RETRIEVAL_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: samples go to the callback before espeak_Synth returns
PHONEME_EVENTS = 0x0001
DONT_EXIT = 0x8000  # report a missing data folder instead of ending the process
EVENT_END_OF_LIST = 0
EVENT_PHONEME = 7
PARAMETER_RATE, PARAMETER_VOLUME, PARAMETER_PITCH, PARAMETER_RANGE = 1, 2, 3, 4
ESPEAK_VOLUME = 70  # low enough that no voice in use clips
UTF8 = 1
STATUS_OK = 0
FULL_VOLUME_RMS = 0.125  # of the sounding parts at volume 100


@dataclass(frozen=True)
class Voice:
    """A voice.

    variant: espeak voice, "en-us+f3"; rate: words a minute, 80 .. 400; pitch, pitch_range: 0 .. 99; volume: 0 .. 100,
    proportional to the amplitude and the same for all variants; tract: factor on all formants, 0.85 (long vocal tract)
    .. 1.15 (short); tilt: -0.5 (dull) .. 0.5 (bright).
    """

    variant: str = "en-us"
    rate: float = 165.0
    pitch: float = 50.0
    pitch_range: float = 50.0
    volume: float = 80.0
    tract: float = 1.0
    tilt: float = 0.0


@dataclass(frozen=True)
class Speech:
    """Audio and its phonemes. waveform: samples, float32 in [-1, 1], 16 kHz mono; phonemes: (start in seconds, symbol).

    Symbols are espeak's mnemonics, a leading ' or , marks stress; symbols that begin with _ are pauses.
    """

    waveform: np.ndarray
    phonemes: tuple[tuple[float, str], ...]

    @property
    def seconds(self) -> float:
        return len(self.waveform) / SAMPLE_RATE


class EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", EventId),
    ]


SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))

ESPEAK_LOCK = threading.Lock()  # the library computes in static memory: one utterance at a time


@lru_cache(maxsize=1)
def espeak_files() -> tuple[tempfile.TemporaryDirectory, Path, Path]:
    """(folder to keep alive, library, data folder): a private copy of the library, once a process.

    The copy keeps its static memory apart from any other package's that has loaded the same file.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise PortraitError(
            f"speech synthesis needs espeak-ng: pip install espeakng-loader (Python {sys.version_info.major}."
            f"{sys.version_info.minor} says: {error})"
        ) from error
    library, data = Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())
    if not library.is_file() or not data.is_dir():
        raise PortraitError(f"espeakng-loader has no {library.name} or {data.name}: reinstall espeakng-loader")
    folder = tempfile.TemporaryDirectory(prefix="svp_espeak_", ignore_cleanup_errors=True)
    return folder, Path(shutil.copy(library, folder.name)), data


def synthesize(text: str, voice: Voice) -> Speech:
    """Speaks a text. The same text and voice give the same samples, whatever was spoken before."""
    raw, events = espeak_utterance(text, voice)
    # Played faster by `tract`, every formant rises by it; the rate asked from espeak makes up for the tempo.
    played_rate = ESPEAK_RATE * voice.tract
    waveform = resample(raw, played_rate, SAMPLE_RATE)
    if voice.tilt:
        previous = np.concatenate([waveform[:1], waveform[:-1]])
        waveform = (waveform - voice.tilt * previous) / np.sqrt(1 + voice.tilt**2)
    waveform = waveform * (voice.volume / 100 * FULL_VOLUME_RMS / sounding_rms(waveform))
    phonemes = tuple((sample / played_rate, symbol) for sample, symbol in events)
    return Speech(np.clip(waveform, -1, 1).astype(np.float32), phonemes)


def sounding_rms(waveform: np.ndarray) -> float:
    """Root mean square of the 20 ms blocks that are louder than a tenth of the loudest."""
    block = SAMPLE_RATE // 50
    blocks = waveform[: len(waveform) // block * block].reshape(-1, block)
    rms = np.sqrt(np.mean(blocks.astype(np.float64) ** 2, axis=1))
    return max(float(np.sqrt(np.mean(rms[rms >= 0.1 * rms.max()] ** 2))), 1e-4)


def espeak_utterance(text: str, voice: Voice) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Samples at 22050 Hz in [-1, 1], and (sample, mnemonic) of each phoneme."""
    blocks: list[np.ndarray] = []
    events: list[tuple[int, str]] = []

    def collect(samples, count, event):
        if samples and count > 0:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float32) / 32768)
        index = 0
        while event[index].type != EVENT_END_OF_LIST:
            if event[index].type == EVENT_PHONEME:
                # `string` may fill its 8 bytes without a closing zero, which ctypes' own access handles.
                events.append((event[index].sample, event[index].id.string.decode("utf-8", "replace")))
            index += 1
        return 0

    callback = SynthCallback(collect)
    _, library_path, data_path = espeak_files()
    with ESPEAK_LOCK:
        try:
            library = ctypes.CDLL(str(library_path))
        except OSError as error:
            raise PortraitError(f"cannot load {library_path.name}: {error}: reinstall espeakng-loader") from error
        # Oscillator and flutter phases live in the library's static memory and outlast espeak_Terminate; unloading it
        # after each utterance is the only way to equal samples, and costs 4 ms.
        try:
            rate = library.espeak_Initialize(
                RETRIEVAL_SYNCHRONOUS, 0, str(data_path).encode(), PHONEME_EVENTS | DONT_EXIT
            )
            if rate != ESPEAK_RATE:
                raise PortraitError(
                    f"espeak-ng starts at {rate} Hz instead of {ESPEAK_RATE}: reinstall espeakng-loader"
                )
            library.espeak_SetSynthCallback(callback)
            library.espeak_ng_SetRandSeed(ctypes.c_long(1))
            if library.espeak_SetVoiceByName(voice.variant.encode()) != STATUS_OK:
                raise PortraitError(f"espeak-ng has no voice '{voice.variant}': take one like en-us or en+f3")
            for parameter, value in (
                (PARAMETER_RATE, np.clip(voice.rate / voice.tract, 80, 400)),
                (PARAMETER_VOLUME, ESPEAK_VOLUME),
                (PARAMETER_PITCH, np.clip(voice.pitch, 0, 99)),
                (PARAMETER_RANGE, np.clip(voice.pitch_range, 0, 99)),
            ):
                library.espeak_SetParameter(parameter, int(round(float(value))), 0)
            encoded = text.encode()
            library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 1, 0, UTF8, None, None)
            library.espeak_Terminate()
        finally:
            unload(library)
    if sum(map(len, blocks)) < ESPEAK_RATE // 20:
        raise PortraitError(f"espeak-ng made no sound of a text of {len(text)} characters: give it words")
    return np.concatenate(blocks), events


def unload(library: ctypes.CDLL) -> None:
    """Unloads a library from the process; ctypes has no public call for it."""
    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)


def join_speech(parts: Sequence[Speech], lead: float, pauses: Sequence[float]) -> Speech:
    """One Speech of several: `lead` seconds of silence, then the parts, pauses[i] seconds of silence behind part i."""
    waveforms = [np.zeros(round(lead * SAMPLE_RATE), np.float32)]
    phonemes: list[tuple[float, str]] = [(0.0, "_:")]
    position = len(waveforms[0])
    for part, pause in zip(parts, pauses, strict=True):
        phonemes += [(position / SAMPLE_RATE + start, symbol) for start, symbol in part.phonemes]
        waveforms += [part.waveform, np.zeros(round(pause * SAMPLE_RATE), np.float32)]
        position += len(waveforms[-2])
        phonemes.append((position / SAMPLE_RATE, "_:"))
        position += len(waveforms[-1])
    return Speech(np.concatenate(waveforms), tuple(phonemes))


def fit_speech(speech: Speech, seconds: float) -> Speech:
    """Cut or padded with silence to round(seconds x 16000) samples."""
    samples = round(seconds * SAMPLE_RATE)
    waveform = np.zeros(samples, np.float32)
    length = min(samples, len(speech.waveform))
    waveform[:length] = speech.waveform[:length]
    return Speech(waveform, tuple((start, symbol) for start, symbol in speech.phonemes if start < seconds))


def energy_envelope(waveform: np.ndarray, frames: int, fps: float) -> np.ndarray:
    """Loudness around the centre of each frame: n, 0 (silence) .. about 1 (this speech's loud vowels)."""
    half = round(0.75 * SAMPLE_RATE / fps)
    centres = np.round((np.arange(frames) + 0.5) * SAMPLE_RATE / fps).astype(int)
    power = np.concatenate([[0.0], np.cumsum(waveform.astype(np.float64) ** 2)])
    low = np.clip(centres - half, 0, len(waveform))
    high = np.clip(centres + half, 0, len(waveform))
    rms = np.sqrt((power[high] - power[low]) / (2 * half))
    return np.clip(rms / max(float(np.percentile(rms, 95)), 1e-4), 0, 1.2)
