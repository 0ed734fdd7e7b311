"""A clip of any length takes the memory of a short one, in a real host, from the nodes' inputs to the file.

A minute of speech is compared with ten seconds; with SVP_LONG=1 it is ten minutes, which takes a CPU an hour or more.
"""

from __future__ import annotations

import os
import wave
from collections.abc import Iterator

import av
import pytest

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL

from . import server as module
from .process import KNOWN, forget_peak, memory
from .server import ASSETS, Run, Server, running, talking

SHORT, LONG = 10, 600 if os.environ.get("SVP_LONG") else 60  # seconds of speech
FPS = 25
MORE = 1.3  # times the memory of the short clip
HOURS = 12 * 3600  # seconds; for slow machines


@pytest.fixture
def fresh(host, tmp_path, monkeypatch) -> Iterator[Server]:
    """A host of its own, so that the memory that is counted is of these clips alone."""
    if not KNOWN:
        pytest.skip("looks into Linux' /proc")
    if not BUILTIN_MODEL.is_file():
        pytest.skip(f"the built-in model {BUILTIN_MODEL} is not there")
    monkeypatch.setattr(module, "SECONDS_TO_RUN", HOURS)
    with running(host, tmp_path / "base") as server:
        yield server


def long_speech(server: Server, seconds: int) -> str:
    """The example's speech over and over for so long, as a file of the input folder."""
    name = f"speech_{seconds}s.wav"
    with wave.open(str(ASSETS / "speech.wav")) as once, wave.open(str(server.base / "input" / name), "wb") as whole:
        parameters = once.getparams()
        sound = once.readframes(parameters.nframes)
        size = seconds * parameters.framerate * parameters.nchannels * parameters.sampwidth
        whole.setparams(parameters)
        whole.writeframes((sound * (size // len(sound) + 1))[:size])
    return name


def peak_of(server: Server, seconds: int) -> tuple[int, Run]:
    """The most memory that the host had while it made a clip of so many seconds, in bytes, and the run."""
    forget_peak(server.process.pid)
    run = server.run(talking(server, speech={"audio": long_speech(server, seconds)}))
    return memory(server.process.pid, "VmHWM"), run


def test_a_long_clip_takes_the_memory_of_a_short_one(fresh, record_property):
    short, _ = peak_of(fresh, SHORT)
    long, run = peak_of(fresh, LONG)
    record_property("megabytes", [round(each / 1e6) for each in (short, long)])
    assert long < MORE * short, f"{SHORT} s: {short / 1e6:.0f} MB, {LONG} s: {long / 1e6:.0f} MB"
    (file,) = run.files(".mp4")
    with av.open(str(fresh.base / "output" / file)) as video:
        assert video.streams.video[0].frames == LONG * FPS
        assert float(video.streams.audio[0].duration * video.streams.audio[0].time_base) == pytest.approx(LONG, abs=0.1)
    assert not [each for each in (fresh.base / "temp").rglob("svp-*")]  # what was spilled has no name
