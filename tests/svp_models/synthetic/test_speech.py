from __future__ import annotations

import subprocess
import sys
import zlib

import numpy as np
import pytest

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.synthetic.speech import (
    SAMPLE_RATE,
    Speech,
    Voice,
    energy_envelope,
    espeak_utterance,
    fit_speech,
    join_speech,
    synthesize,
)

TEXT = "Please bring my blue umbrella."
VOICES = (Voice("en-us+m3"), Voice("en+f2", tract=1.05, tilt=0.2), Voice("en-gb-scotland+klatt"))


def test_speech_is_mono_float32_at_16_khz_with_phonemes_in_order_of_time():
    speech = synthesize(TEXT, VOICES[0])
    assert speech.waveform.dtype == np.float32 and speech.waveform.ndim == 1
    assert 1.0 < speech.seconds < 3.0
    assert np.abs(speech.waveform).max() <= 1
    starts = [start for start, _ in speech.phonemes]
    assert starts == sorted(starts) and 0 <= starts[0] and starts[-1] <= speech.seconds
    symbols = [symbol.lstrip("',") for _, symbol in speech.phonemes]
    assert symbols[:4] == ["p", "l", "i:", "z"]


@pytest.mark.parametrize("voice", VOICES)
def test_what_was_spoken_before_changes_nothing(voice):
    first = synthesize(TEXT, voice)
    synthesize("Something else.", Voice("en+m7", rate=200))
    again = synthesize(TEXT, voice)
    np.testing.assert_array_equal(first.waveform, again.waveform)
    assert first.phonemes == again.phonemes


def test_another_process_speaks_the_same_samples():
    program = (
        "import zlib; from svp_portrait.svp_models.synthetic.speech import Voice, espeak_utterance\n"
        f"print(zlib.crc32(espeak_utterance({TEXT!r}, Voice('en-us+f4'))[0].tobytes()))"
    )
    there = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert zlib.crc32(espeak_utterance(TEXT, Voice("en-us+f4"))[0].tobytes()) == int(there)


def test_parameters_of_a_voice_are_heard():
    plain = synthesize(TEXT, Voice("en-us+m3", volume=60))
    assert synthesize(TEXT, Voice("en-us+m3", rate=230)).seconds < 0.85 * plain.seconds
    loud = synthesize(TEXT, Voice("en-us+m3", volume=90))
    assert np.std(loud.waveform) / np.std(plain.waveform) == pytest.approx(1.5, rel=0.05)
    high = synthesize(TEXT, Voice("en-us+m3", tract=1.1))
    assert high.seconds == pytest.approx(plain.seconds, rel=0.1)  # formants move, the tempo stays

    def brightness(speech: Speech) -> float:
        power = np.abs(np.fft.rfft(speech.waveform)) ** 2
        return float(power @ np.arange(len(power)) / power.sum() / len(power))

    assert brightness(synthesize(TEXT, Voice("en-us+m3", tilt=0.4))) > 1.2 * brightness(plain)


def test_unknown_voice_and_empty_text_name_the_cure():
    with pytest.raises(PortraitError, match="no voice 'xx-none': take one like"):
        synthesize(TEXT, Voice("xx-none"))
    with pytest.raises(PortraitError, match="give it words"):
        synthesize("", Voice())


def test_join_and_fit_keep_sound_and_phonemes_together():
    part = Speech(np.ones(1600, np.float32), ((0.02, "a"),))
    joined = join_speech([part, part], 0.1, [0.05, 0.2])
    assert joined.seconds == pytest.approx(0.1 + 0.1 + 0.05 + 0.1 + 0.2)
    assert [round(start, 3) for start, symbol in joined.phonemes if symbol == "a"] == [0.12, 0.27]
    short = fit_speech(joined, 0.2)
    assert len(short.waveform) == 0.2 * SAMPLE_RATE and short.phonemes[-1][0] < 0.2
    longer = fit_speech(joined, 1.0)
    assert len(longer.waveform) == SAMPLE_RATE and not longer.waveform[-100:].any()


def test_energy_envelope_follows_loudness():
    waveform = np.zeros(SAMPLE_RATE, np.float32)
    waveform[8000:] = 0.3
    envelope = energy_envelope(waveform, 25, 25.0)
    assert envelope.shape == (25,)
    assert envelope[:11].max() == 0 and envelope[14:24] == pytest.approx(1.0, abs=0.05)
    assert not energy_envelope(np.zeros(16000, np.float32), 25, 25.0).any()
