from __future__ import annotations

import logging
import math
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.media.audio import (
    CLEAR_LEVELS,
    USUAL_LEVEL,
    check_audio,
    downmix,
    fit_audio,
    frame_count,
    is_silent,
    load_audio,
    normalize_level,
    speech_level,
    to_mono,
    warn_if_silent,
)
from svp_portrait.svp_models.types import Audio

CLIPS = Path(__file__).resolve().parents[3].parent / "shared" / "clips"
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason="no ../shared/clips beside the repository")


def write_sound(path: Path, samples: np.ndarray, rate: int, codec: str, layout: str = "mono", pts: int = 0) -> None:
    """samples: channels x n, float32."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, pts, Fraction(1, rate)
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def lag(heard: np.ndarray, sent: np.ndarray) -> int:
    """By how many samples `heard` comes after `sent`."""
    size = 1 << (len(heard) + len(sent)).bit_length()
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(sent, size)))
    best = int(product.argmax())
    return best if best < size // 2 else best - size


@pytest.mark.parametrize(
    "fps, seconds, frames", [(25, 4, 100), (25, 0.58, 15), (25, 0.01, 1), (25, 0, 1), (30, 0.05, 2)]
)
def test_frame_count_rounds_halves_up(fps, seconds, frames):
    assert frame_count(seconds, fps) == frames


def test_frame_count_at_ntsc_rate():
    assert frame_count(600, 30000 / 1001) == 17982


def test_fit_audio_cuts_and_pads():
    audio = Audio(torch.arange(1.0, 9.0).reshape(2, 4), 4)
    assert fit_audio(audio, 0.5).waveform.tolist() == [[1, 2], [5, 6]]
    assert fit_audio(audio, 1.5).waveform.tolist() == [[1, 2, 3, 4, 0, 0], [5, 6, 7, 8, 0, 0]]


def test_to_mono_keeps_times():
    seconds = np.arange(44100) / 44100
    tone = torch.from_numpy(np.sin(2 * np.pi * 200 * seconds).astype(np.float32))
    mono = to_mono(Audio(torch.stack([tone, 0 * tone]), 44100), 16000)
    expected = 0.5 * np.sin(2 * np.pi * 200 * np.arange(16000) / 16000)
    assert mono.shape == (16000,) and mono.dtype == torch.float32
    assert np.abs(mono.numpy() - expected)[200:-200].max() < 1e-3


def test_to_mono_of_ten_milliseconds():
    assert len(to_mono(Audio(torch.zeros(1, 441), 44100), 16000)) == 160


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_check_audio_names_samples_that_are_no_numbers(bad):
    waveform = torch.zeros(1, 100)
    waveform[0, 7] = bad
    with pytest.raises(PortraitError, match="voice: 1 of 100 samples are not finite"):
        check_audio(Audio(waveform, 16000), "voice")


def test_check_audio_refuses_0_samples_and_takes_silence():
    with pytest.raises(PortraitError, match="0 samples"):
        check_audio(Audio(torch.zeros(1, 0), 16000))
    with pytest.raises(PortraitError, match="shape"):
        check_audio(Audio(torch.zeros(5), 16000))
    check_audio(Audio(torch.zeros(2, 160), 16000))


def test_wav_values_and_channels(tmp_path):
    path = tmp_path / "a.wav"
    values = np.array([[0, 16384], [-32768, 8192], [0, 0]], np.int16)  # samples x channels
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(22050)
        file.writeframes(values.tobytes())
    audio = load_audio(path)
    assert audio.sample_rate == 22050
    assert audio.waveform.tolist() == [[0, -1, 0], [0.5, 0.25, 0]]


def test_float_wav_keeps_values_beyond_one_and_refuses_nan(tmp_path):
    samples = np.zeros((1, 1000), np.float32)
    samples[0, 3] = 1.75
    write_sound(tmp_path / "loud.wav", samples, 16000, "pcm_f32le")
    assert float(load_audio(tmp_path / "loud.wav").waveform.max()) == 1.75
    samples[0, 4] = np.nan
    write_sound(tmp_path / "nan.wav", samples, 16000, "pcm_f32le")
    with pytest.raises(PortraitError, match="nan.wav: 1 of 1000 samples"):
        load_audio(tmp_path / "nan.wav")


def test_surround_becomes_stereo(tmp_path):
    """The centre goes to both sides, 3 dB quieter."""
    samples = np.zeros((6, 400))
    samples[0], samples[2] = 0.1, 0.2  # front left, centre
    write_sound(tmp_path / "a.wav", samples, 48000, "pcm_f32le", "5.1")
    left, right = load_audio(tmp_path / "a.wav").waveform
    assert len(left) == len(right) == 400
    assert left[200].item() == pytest.approx(0.1 + 0.2 * 0.5**0.5, abs=1e-4)
    assert right[200].item() == pytest.approx(0.2 * 0.5**0.5, abs=1e-4)


@pytest.mark.parametrize(
    "name, codec", [("a.mp3", "libmp3lame"), ("a.m4a", "aac"), ("a.flac", "flac"), ("a.mka", "aac")]
)
def test_sample_0_is_time_0_in_compressed_files(tmp_path, name, codec):
    sent = np.random.default_rng(0).standard_normal(48000).astype(np.float32) * 0.1
    samples = (sent * 32767).astype(np.int16).astype(np.float32) / 32767
    if codec == "flac":
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream(codec, rate=48000, layout="mono")
            frame = av.AudioFrame.from_ndarray((sent[None] * 32767).astype(np.int16), format="s16", layout="mono")
            frame.sample_rate = 48000
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    else:
        write_sound(tmp_path / name, samples[None], 48000, codec)
    heard = load_audio(tmp_path / name)
    assert lag(heard.waveform[0].numpy(), sent) == 0
    assert 48000 <= heard.waveform.shape[1] <= 48000 + 1152


def test_files_without_sound_or_sense(tmp_path):
    with pytest.raises(PortraitError, match="missing.wav: cannot be opened"):
        load_audio(tmp_path / "missing.wav")
    (tmp_path / "noise.mp3").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(PortraitError, match="noise.mp3: "):
        load_audio(tmp_path / "noise.mp3")
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(PortraitError, match="empty.wav: cannot be decoded"):
        load_audio(tmp_path / "empty.wav")
    with wave.open(str(tmp_path / "nothing.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
    with pytest.raises(PortraitError, match="nothing.wav: there are 0 samples"):
        load_audio(tmp_path / "nothing.wav")


@pytest.mark.parametrize("where", [0, 3000, None])
def test_a_little_rubbish_in_an_mp3_costs_only_its_place(tmp_path, where):
    sent = np.random.default_rng(0).standard_normal(160_000).astype(np.float32) * 0.1
    write_sound(tmp_path / "a.mp3", sent[None], 16000, "libmp3lame")
    data = (tmp_path / "a.mp3").read_bytes()
    where = len(data) if where is None else where
    (tmp_path / "a.mp3").write_bytes(data[:where] + b"\x55" * 300 + data[where:])
    heard = load_audio(tmp_path / "a.mp3").waveform[0].numpy()
    if where:
        assert abs(lag(heard, sent)) <= 2
    assert abs(len(heard) - 160_000) <= 2 * 1152


def test_a_mostly_damaged_mp3_is_refused(tmp_path):
    sent = np.random.default_rng(0).standard_normal(80_000).astype(np.float32) * 0.1
    write_sound(tmp_path / "a.mp3", sent[None], 16000, "libmp3lame")
    data = bytearray((tmp_path / "a.mp3").read_bytes())
    starts = [index for index in range(1000, len(data) - 1) if data[index : index + 2] == b"\xff\xf3"][::4]
    for start in starts:
        data[start + 4 : start + 100] = b"\xff" * 96  # the frame's header stays
    (tmp_path / "a.mp3").write_bytes(data)
    with pytest.raises(PortraitError, match="audio packets are damaged"):
        load_audio(tmp_path / "a.mp3")


@needs_clips
def test_speech_of_the_clips_begins_with_the_video():
    speech = load_audio(CLIPS / "vasa_17" / "speech.mp3")
    inside = load_audio(CLIPS / "vasa_17" / "video.mp4")
    assert speech.sample_rate == inside.sample_rate == 16000
    assert speech.waveform.shape == (1, 152576)
    assert speech.waveform.abs().max() > 1.2  # not clipped
    assert lag(speech.waveform[0].numpy(), inside.waveform[0].numpy()) == 0


@needs_clips
def test_long_speech_has_its_full_length():
    assert frame_count(load_audio(CLIPS / "speech_31s.mp3").seconds, 25) == 778


RATE = 16000


def tone(level: float, seconds: float = 1.0, frequency: float = 250.0) -> torch.Tensor:
    """A sine with this root mean square."""
    time = torch.arange(round(seconds * RATE)) / RATE
    return level * math.sqrt(2) * (2 * math.pi * frequency * time).sin()


def test_pauses_do_not_count():
    spoken = np.concatenate([tone(0.1).numpy(), np.zeros(5 * RATE, np.float32), tone(0.004).numpy()])
    assert speech_level(spoken) == pytest.approx(0.1, rel=1e-3)
    assert speech_level(np.zeros(0, np.float32)) == 0


@pytest.mark.parametrize(
    "level, after",
    [(0.001, 0.001), (0.0012, USUAL_LEVEL), (0.05, USUAL_LEVEL), (0.076, 0.076), (0.15, 0.15), (0.3, USUAL_LEVEL)],
)
def test_levels(level, after):
    samples = tone(level * 0.999).numpy()
    assert speech_level(normalize_level(samples, CLEAR_LEVELS)) == pytest.approx(after, rel=2e-3)
    assert is_silent(samples) == (level == 0.001)


def test_one_channel_is_as_loud_as_the_louder_one():
    one, other = tone(0.1), tone(0.1, frequency=400.0)
    assert torch.equal(downmix(one[None]), one) and torch.equal(downmix(torch.stack([one, one])), one)
    torch.testing.assert_close(downmix(torch.stack([one, -one])), one)
    torch.testing.assert_close(downmix(torch.stack([one, torch.zeros_like(one)])), one)
    torch.testing.assert_close(downmix(torch.stack([0.01 * one, one])), one, atol=2e-3, rtol=0)
    both = downmix(torch.stack([one, other]))  # two people: both are there, as loud as one
    torch.testing.assert_close(both, (one + other) / math.sqrt(2), atol=1e-3, rtol=0)
    turns = torch.stack([torch.cat([one, 0 * one]), torch.cat([0 * one, other])])  # one after the other
    assert speech_level(downmix(turns).numpy()) == pytest.approx(0.1 / math.sqrt(2), rel=1e-2)
    assert not downmix(torch.zeros(2, 9)).any()


@pytest.mark.parametrize("waveform, named", [(torch.zeros(2, RATE), "peak 0;"), (tone(0.0007)[None], "peak -60 dB;")])
def test_silence_is_warned_of_with_its_level(caplog, waveform, named):
    with caplog.at_level(logging.WARNING):
        warn_if_silent(Audio(waveform, RATE))
    assert "the voice is silent" in caplog.text and named in caplog.text.replace(" a usual one", "").replace(
        "; has", ";"
    )


def test_a_quiet_voice_is_not_silence(caplog):
    warn_if_silent(Audio(torch.stack([tone(0.002), -tone(0.002)]), RATE))
    assert caplog.text == ""
