"""Encoders against transformers on what fits in a segment; long sounds against other cuts and against the whole."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from svp_portrait.svp_models.media.audio import KNOWN_LEVELS
from svp_portrait.svp_models.networks.audio_encoder import (
    Segments,
    Wav2Vec2AudioEncoder,
    WhisperAudioEncoder,
    mono_samples,
)
from svp_portrait.svp_models.types import Audio

RATE = 16000


def whisper_model() -> WhisperModel:
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=32, encoder_layers=4, encoder_attention_heads=2, encoder_ffn_dim=64, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=16, vocab_size=16, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        decoder_start_token_id=0,
    )  # fmt: skip
    return WhisperModel(config).eval()


def wav2vec2_model(**changes) -> Wav2Vec2Model:
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, conv_dim=(16,) * 7,
        num_conv_pos_embedding_groups=4, **changes,
    )  # fmt: skip
    return Wav2Vec2Model(config).eval()


def sound(seconds: float, rate: int = RATE) -> Audio:
    """Noise in syllables that grows from almost silence to full loudness within 40 s, so that segments differ."""
    time = torch.arange(round(seconds * rate)) / rate
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(1))
    return Audio((0.1 * noise * (2 * math.pi * 1.3 * time).sin() * (time / 40).clamp(0.02, 1))[None], rate)


def levelled(audio: Audio) -> Audio:
    return Audio(torch.from_numpy(mono_samples(audio, KNOWN_LEVELS))[None], RATE)


def whole(model: Wav2Vec2Model, audio: Audio, rows: int, normalize: bool = True) -> torch.Tensor:
    """What V-Express does: the whole sound at once, stretched over the rows. Below 25 ms there would be no position."""
    prepare = Wav2Vec2FeatureExtractor(do_normalize=normalize)
    values = prepare(audio.waveform[0].numpy(), sampling_rate=RATE, return_tensors="pt").input_values
    with torch.no_grad():
        states = model(functional.pad(values, (0, max(0, 400 - values.shape[1])))).last_hidden_state.transpose(1, 2)
    return functional.interpolate(states, size=rows, mode="linear", align_corners=False)[0].T


def heard_at_once(model: WhisperModel, audio: Audio) -> torch.Tensor:
    """All hidden states of one 30 s window: 1500 x 160."""
    mel = WhisperFeatureExtractor()(audio.waveform[0].numpy(), sampling_rate=RATE, return_tensors="pt").input_features
    with torch.no_grad():
        return torch.cat(model.encoder(mel, output_hidden_states=True).hidden_states, dim=-1)[0]


@pytest.mark.parametrize("seconds", [0.04, 3.0, 30.0])
def test_whisper_is_transformers_own_up_to_30_seconds(seconds):
    model, audio, frames = whisper_model(), sound(seconds), round(seconds * 25)
    encoder = WhisperAudioEncoder(model.get_encoder())
    voice = levelled(audio)
    expected = heard_at_once(model, voice)[: 2 * frames].view(frames, 2, -1).mean(1)  # a frame's two positions
    features = encoder.features(audio, frames, 25.0)
    assert encoder.kind == "whisper" and encoder.feature_size == 160 and features.shape == (frames, 160)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    twice = encoder.features(audio, frames, 25.0, rows_per_frame=2)
    torch.testing.assert_close(twice, heard_at_once(model, voice)[: 2 * frames], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("seconds", "frames"), [(0.02, 1), (3.0, 90), (30.0, 900)])
@pytest.mark.parametrize("normalize", [True, False])
def test_wav2vec2_is_transformers_own_up_to_30_seconds(seconds, frames, normalize):
    model, audio = wav2vec2_model(), sound(seconds)
    encoder = Wav2Vec2AudioEncoder(model, normalize)
    features = encoder.features(audio, frames, 30.0, rows_per_frame=2)
    assert encoder.kind == "wav2vec2" and encoder.feature_size == 32 and features.shape == (2 * frames, 32)
    voice = audio if normalize else levelled(audio)
    torch.testing.assert_close(features, whole(model, voice, 2 * frames, normalize), atol=1e-4, rtol=0)


def test_a_sound_of_the_clips_length_is_taken_whole_and_others_are_fitted():
    encoder = Wav2Vec2AudioEncoder(wav2vec2_model())
    audio = sound(2.0)
    cut = Audio(audio.waveform[:, :RATE], RATE)
    torch.testing.assert_close(encoder.features(audio, 25, 25.0), encoder.features(cut, 25, 25.0))
    padded = Audio(functional.pad(cut.waveform, (0, RATE)), RATE)
    torch.testing.assert_close(encoder.features(cut, 50, 25.0), encoder.features(padded, 50, 25.0))
    nearly = Audio(audio.waveform[:, : 2 * RATE - 300], RATE)  # 49.5 frames: 50
    torch.testing.assert_close(encoder.features(nearly, 50, 25.0), whole(encoder.model, nearly, 50), atol=1e-4, rtol=0)


def test_stereo_at_another_rate():
    encoder = WhisperAudioEncoder(whisper_model().get_encoder())
    time = torch.arange(2 * 48000) / 48000
    tone = (2 * math.pi * 440 * time).sin()
    stereo = encoder.features(Audio(torch.stack([tone, tone]), 48000), 50, 25.0)
    mono = encoder.features(Audio(tone[::3][None], RATE), 50, 25.0)
    torch.testing.assert_close(stereo[5:-5], mono[5:-5], atol=0.02, rtol=0)


def test_silence_of_any_length_has_the_features_of_silence():
    """Normalising silence divides by nothing: its features are those of the networks for zeros."""
    silent = Audio(torch.zeros(1, RATE), RATE)
    model = wav2vec2_model()
    features = Wav2Vec2AudioEncoder(model).features(silent, 25, 25.0)
    torch.testing.assert_close(features, whole(model, silent, 25), atol=1e-5, rtol=0)
    model = whisper_model()
    features = WhisperAudioEncoder(model.get_encoder()).features(silent, 25, 25.0)
    floor = torch.full((1, 80, 3000), -1.5)  # (log10(1e-10) + 4) / 4
    with torch.no_grad():
        states = torch.cat(model.get_encoder()(floor, output_hidden_states=True).hidden_states, dim=-1)[0]
    torch.testing.assert_close(features[0], (states[0] + states[1]) / 2, atol=1e-5, rtol=0)  # frame centre: 20 ms


@pytest.mark.parametrize("positions", [1, 1499, 1500, 1501, 2700, 2701, 3500, 30000])
def test_segment_weights_sum_to_one_and_leave_out_positions_without_context(positions):
    segments = Segments()
    weights = segments.weights(positions)
    total = torch.zeros(positions)
    for start, weight in weights:
        assert len(weight) == min(1500, positions)
        total[start : start + len(weight)] += weight
        assert start == 0 or float(weight[:100].max()) == 0  # 2 s without context
        assert start + len(weight) == positions or float(weight[-100:].max()) == 0
    torch.testing.assert_close(total, torch.ones(positions))
    assert weights[0][0] == 0 and weights[-1][0] + len(weights[-1][1]) == positions
    assert len(weights) == (1 if positions <= 1500 else math.ceil((positions - 300) / 1200))


def cuts(encoder, audio: Audio) -> list[torch.Tensor]:
    """The features of 70 s with three segments, and with four, whose joins lie 5 to 9 s elsewhere."""
    made = []
    for overlap in (300, 700):
        encoder.segments = Segments(1500, overlap, 100)
        made.append(encoder.features(audio, 1750, 25.0))
    return made


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_wav2vec2_hears_70_seconds_alike_however_they_are_cut(norm):
    model, audio = wav2vec2_model(feat_extract_norm=norm), sound(70.0)
    encoder = Wav2Vec2AudioEncoder(model)
    assert encoder.segments.starts(3499) == [0, 1000, 1999]
    three, four = cuts(encoder, audio)
    # Everything a segment decides by itself is its attention; all else is as in the whole sound (rows of deviation 0.85).
    torch.testing.assert_close(three, four, atol=0.02, rtol=0)
    torch.testing.assert_close(three, whole(model, audio, 1750), atol=0.02, rtol=0)
    assert not model.feature_extractor.conv_layers[0].layer_norm._forward_hooks


def placeless(model: WhisperModel) -> WhisperAudioEncoder:
    """Without Whisper's signal of the place in the segment, which differs from cut to cut by its nature."""
    place = model.encoder.embed_positions.weight
    with torch.no_grad():
        place.copy_(place[:1].expand_as(place).clone())
    return WhisperAudioEncoder(model.get_encoder())


def test_whisper_hears_70_seconds_alike_however_they_are_cut():
    three, four = cuts(placeless(whisper_model()), sound(70.0))
    torch.testing.assert_close(three, four, atol=3e-3, rtol=0)  # rows of deviation 0.66


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2"])
def test_near_a_join_a_sound_is_heard_as_by_a_segment_around_it(kind):
    """Rows of 10 s around the first join of 61 s beside those of the 30 s that have the join in their middle."""
    if kind == "whisper":
        encoder, reach = placeless(whisper_model()), 0
    else:  # normed position by position: the loudness of the 30 s is not that of the 61
        encoder, reach = Wav2Vec2AudioEncoder(wav2vec2_model(feat_extract_norm="layer"), normalize=False), 80
    time = torch.arange(61 * RATE + reach) / RATE
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(4))
    waveform = (0.1 * noise * (2 * math.pi * 1.3 * time).sin())[None]
    starts = encoder.segments.starts(61 * 50)
    middle = (starts[0] + 1500 + starts[1]) // 2
    around = waveform[:, (middle - 750) * 320 : (middle + 750) * 320 + reach]

    def rows(samples, count):  # one for each position
        return encoder.features(Audio(samples, RATE), count, count * RATE / samples.shape[1])

    joined = rows(waveform, 61 * 50)[middle - 250 : middle + 250]
    uncut = rows(around, 1500)[500:1000]
    torch.testing.assert_close(joined, uncut, atol=0.02, rtol=0)
    assert float(uncut.std()) > 0.5


def test_whispers_floor_is_that_of_the_whole_sound():
    """80 dB below the loudest moment everything is alike, also in segments that hold nothing loud."""
    encoder = placeless(whisper_model())
    noise = torch.randn(70 * RATE, generator=torch.Generator().manual_seed(2))
    noise[: 40 * RATE] *= 3e-5
    quiet = encoder.features(Audio(noise[None, : 30 * RATE], RATE), 750, 25.0)[50:500]
    beside_loud = encoder.features(Audio(noise[None], RATE), 1750, 25.0)[50:500]
    assert float(beside_loud.std(dim=0).max()) < 1e-5 < 1e-3 < float(quiet.std(dim=0).max())


def test_whispers_own_place_signal_moves_over_within_the_fade():
    model = whisper_model()
    encoder = WhisperAudioEncoder(model.get_encoder())
    steady = Audio(torch.zeros(1, 70 * RATE), RATE)  # only the place signal changes along silence
    rows = encoder.features(steady, 1750, 25.0)
    step = (rows[1:] - rows[:-1]).norm(dim=1)
    inside = [*range(20, 580), *range(680, 1070), *range(1180, 1730)]
    joins = [*range(600, 660), *range(1100, 1160)]
    window = encoder.features(Audio(torch.zeros(1, 30 * RATE), RATE), 750, 25.0)
    jump = float((window[-1] - window[0]).norm())  # of a bare join
    assert float(step[joins].max()) < 1.05 * float(step[inside].max()) < 0.5 * jump


@pytest.fixture
def heard(monkeypatch):
    """(an encoder, the lengths of the spectrograms that its network was given)."""
    encoder = WhisperAudioEncoder(whisper_model().get_encoder())
    lengths = []
    forward = encoder.model.forward
    monkeypatch.setattr(
        encoder.model, "forward", lambda mel, **options: lengths.append(mel.shape[-1]) or forward(mel, **options)
    )
    return encoder, lengths


def test_the_network_never_sees_more_than_a_segment(heard):
    encoder, lengths = heard
    assert encoder.features(sound(120.0), 3000, 25.0).shape == (3000, 160)
    assert lengths == [3000] * 5


def test_progress_counts_segments(heard):
    seen = []
    heard[0].features(sound(70.0), 1750, 25.0, progress=lambda *each: seen.append(each))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_an_exception_from_the_callback_ends_the_hearing(heard):
    encoder, lengths = heard

    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        encoder.features(sound(70.0), 1750, 25.0, progress=stop)
    assert lengths == [3000]


def test_a_cancelled_long_sound_leaves_wav2vec2_as_it_was():
    model = wav2vec2_model()

    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        Wav2Vec2AudioEncoder(model).features(sound(61.0), 1525, 25.0, progress=stop)
    assert not model.feature_extractor.conv_layers[0].layer_norm._forward_hooks
