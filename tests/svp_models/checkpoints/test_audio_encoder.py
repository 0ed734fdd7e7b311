"""Encoder files in every published form, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from svp_portrait.svp_models.checkpoints.audio_encoder import STANDARD, load_audio_encoder
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.types import Audio

AUDIO = Audio(0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)), 16000)
WHISPER = WhisperConfig(
    d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=16, decoder_layers=1, decoder_attention_heads=2,
    decoder_ffn_dim=16, vocab_size=16, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
    max_source_positions=100,
)  # fmt: skip
WAV2VEC2 = Wav2Vec2Config(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7, vocab_size=5,
    num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """(folder as published, features of AUDIO at 50 rows a second)."""
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(WHISPER).eval()
    model.save_pretrained(folder)
    prepare = WhisperFeatureExtractor(chunk_length=2)
    prepare.save_pretrained(folder)
    mel = prepare(AUDIO.waveform[0].numpy(), sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        states = model.model.encoder(mel, output_hidden_states=True).hidden_states
    return folder, torch.cat(states, dim=-1)[0, :50]


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory):
    """The same of wav2vec2, at its 49 positions."""
    folder = tmp_path_factory.mktemp("wav2vec2")
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(WAV2VEC2).eval()
    model.save_pretrained(folder)
    prepare = Wav2Vec2FeatureExtractor()
    prepare.save_pretrained(folder)
    values = prepare(AUDIO.waveform[0].numpy(), sampling_rate=16000, return_tensors="pt").input_values
    with torch.no_grad():
        return folder, model.wav2vec2(values).last_hidden_state[0]


def features(path, rows: int) -> torch.Tensor:
    encoder = load_audio_encoder(path)
    assert not encoder.training and not any(each.is_meta or each.requires_grad for each in encoder.parameters())
    return encoder.features(AUDIO, 1, 1.0, rows_per_frame=rows)


def copied(folder, tmp_path, tensors=lambda each: each, suffix=".safetensors", **config):
    """The folder with its tensors changed and saved again, and some values of its config changed."""
    target = tmp_path / "model"
    shutil.copytree(folder, target)
    changed = tensors(load_file(target / "model.safetensors"))
    (target / "model.safetensors").unlink()
    if suffix == ".safetensors":
        save_file(changed, target / "model.safetensors")
    else:
        torch.save(changed, target / "pytorch_model.bin")
    values = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**values, **config}))
    return target


def test_whisper_folder(whisper):
    folder, expected = whisper
    encoder = load_audio_encoder(folder)
    assert (encoder.kind, encoder.feature_size) == ("whisper", 16 * 3)
    assert not any("decoder" in name for name, _ in encoder.named_parameters())
    torch.testing.assert_close(features(folder, 50), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(features(folder / "model.safetensors", 50), expected, atol=1e-5, rtol=0)


def test_wav2vec2_folder(wav2vec2):
    folder, expected = wav2vec2
    encoder = load_audio_encoder(folder)
    assert (encoder.kind, encoder.feature_size, encoder.normalize) == ("wav2vec2", 16, True)
    torch.testing.assert_close(features(folder, 49), expected, atol=1e-5, rtol=0)


def test_old_names_and_pickles(wav2vec2, tmp_path):
    """facebook's own file: torch.save, weight norm as weight_g and weight_v."""
    new, old = ("parametrizations.weight.original0", "parametrizations.weight.original1"), ("weight_g", "weight_v")

    def renamed(have):
        assert sum(any(part in name for part in new) for name in have) == 2
        return {name.replace(new[0], old[0]).replace(new[1], old[1]): tensor for name, tensor in have.items()}

    folder = copied(wav2vec2[0], tmp_path, renamed, ".bin")
    torch.testing.assert_close(features(folder, 49), wav2vec2[1], atol=1e-5, rtol=0)


def test_bare_models_half_precision_and_plain_positions(whisper, wav2vec2, tmp_path):
    def bare(have):
        return {name.removeprefix("model."): each.half() for name, each in have.items() if "decoder" not in name}

    folder = copied(whisper[0], tmp_path / "a", bare)
    torch.testing.assert_close(features(folder, 50), whisper[1], atol=2e-2, rtol=0)
    encoder = load_audio_encoder(wav2vec2[0])
    save_file(encoder.model.state_dict(), tmp_path / "again.safetensors")
    shutil.copy(wav2vec2[0] / "config.json", tmp_path)
    assert torch.equal(features(tmp_path / "again.safetensors", 49), features(wav2vec2[0], 49))


def test_single_files_keep_their_configs_under_their_own_names(whisper, wav2vec2, tmp_path):
    """Two of them in one folder, beside the config.json of a third model that is none of theirs."""
    for name, (folder, _) in (("whisper-small", whisper), ("w2v.v1", wav2vec2)):
        shutil.copy(folder / "model.safetensors", tmp_path / f"{name}.safetensors")
        shutil.copy(folder / "config.json", tmp_path / f"{name}.json")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    torch.testing.assert_close(features(tmp_path / "whisper-small.safetensors", 50), whisper[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(features(tmp_path / "w2v.v1.safetensors", 49), wav2vec2[1], atol=1e-5, rtol=0)
    (tmp_path / "w2v.v1.json").unlink()
    with pytest.raises(
        PortraitError, match="config.json next to it is of model_type 'bert'.*its config into w2v.v1.json"
    ):
        load_audio_encoder(tmp_path / "w2v.v1.safetensors")
    shutil.copy(whisper[0] / "config.json", tmp_path / "w2v.v1.json")
    with pytest.raises(PortraitError, match="w2v.v1.json next to it is of model_type 'whisper'"):
        load_audio_encoder(tmp_path / "w2v.v1.safetensors")


def test_do_normalize_is_obeyed(wav2vec2, tmp_path):
    folder = copied(wav2vec2[0], tmp_path)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "do_normalize": False}))
    assert not load_audio_encoder(folder).normalize
    (folder / "preprocessor_config.json").unlink()
    assert load_audio_encoder(folder).normalize


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2"])
def test_published_sizes_need_no_config(kind, tmp_path):
    with torch.device("meta"):
        if kind == "whisper":
            model = WhisperModel(WhisperConfig(**STANDARD[kind]))
        else:
            model = Wav2Vec2Model(Wav2Vec2Config(**STANDARD[kind]))
    count = sum(each.numel() for each in model.parameters())
    assert count == {"whisper": 37_760_640, "wav2vec2": 94_371_712}[kind]  # as published
    ones = {name: torch.ones(each.shape, dtype=torch.float16) for name, each in model.state_dict().items()}
    torch.save(ones, tmp_path / "weights.bin")
    encoder = load_audio_encoder(tmp_path / "weights.bin")
    assert encoder.kind == kind and encoder.feature_size == {"whisper": 1920, "wav2vec2": 768}[kind]


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2"])
def test_other_sizes_without_a_config(kind, whisper, wav2vec2, tmp_path):
    folder = {"whisper": whisper, "wav2vec2": wav2vec2}[kind][0]
    shutil.copy(folder / "model.safetensors", tmp_path / "own.safetensors")
    with pytest.raises(PortraitError, match="own.safetensors: its encoder has width 16 and 2 layers.*as own.json"):
        load_audio_encoder(tmp_path / "own.safetensors")


def without(name):
    return lambda have: {key: each for key, each in have.items() if key != name}


def beside(name):
    return lambda have: {**have, name: torch.zeros(3)}


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("whisper", without("model.encoder.layers.1.fc1.bias"), r"encoder.layers.1.fc1.bias is missing, shape \[16\]"),
        ("whisper", beside("model.encoder.surplus"), r"encoder.surplus of shape \[3\] is unexpected"),
        ("whisper", beside("model.decoder.layers.7.fc1.bias"), r"decoder.layers.7.fc1.bias of shape \[3\] is unexpected"),
        ("whisper", beside("surplus"), r"model.safetensors: surplus of shape \[3\] is unexpected"),
        ("wav2vec2", without("wav2vec2.encoder.layer_norm.bias"), r"encoder.layer_norm.bias is missing, shape \[16\]"),
        ("wav2vec2", beside("surplus"), r"surplus of shape \[3\] is unexpected"),
        (
            "wav2vec2",
            without("wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
            r"encoder.pos_conv_embed.conv.weight is missing, shape \[16, 8, 8\]",
        ),
        ("whisper", lambda have: {"other": torch.zeros(1)}, "neither a Whisper nor a wav2vec2 model.*tensors are other"),
    ],
)  # fmt: skip
def test_every_tensor_is_accounted_for(kind, change, message, whisper, wav2vec2, tmp_path):
    folder = copied({"whisper": whisper, "wav2vec2": wav2vec2}[kind][0], tmp_path, change)
    with pytest.raises(PortraitError, match=message):
        load_audio_encoder(folder)


def test_heads_and_masks_are_left_out_by_name(wav2vec2, tmp_path):
    def more(have):
        assert "lm_head.weight" in have and "wav2vec2.masked_spec_embed" in have
        return {**have, "quantizer.codevectors": torch.zeros(1), "project_q.bias": torch.zeros(1)}

    torch.testing.assert_close(features(copied(wav2vec2[0], tmp_path, more), 49), wav2vec2[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        ("whisper", {"model_type": "bert"}, "holds a whisper encoder, but config.json next to it is of model_type 'bert'"),
        ("whisper", {"d_model": 32}, r"has shape \[16, 80, 3\], \[32, 80, 3\] is needed"),
        ("whisper", {"max_source_positions": 99}, "99 positions"),
        ("wav2vec2", {"add_adapter": True}, "adapter"),
        ("wav2vec2", {"conv_stride": [5, 2, 2, 2, 2, 2, 4]}, r"step by 640 samples, steps of 320 \(20 ms\) are needed"),
    ],
)  # fmt: skip
def test_configs_that_do_not_fit(kind, config, message, whisper, wav2vec2, tmp_path):
    folder = copied({"whisper": whisper, "wav2vec2": wav2vec2}[kind][0], tmp_path, **config)
    with pytest.raises(PortraitError, match=message):
        load_audio_encoder(folder)


def test_broken_settings_and_empty_folders(whisper, tmp_path):
    folder = copied(whisper[0], tmp_path)
    (folder / "preprocessor_config.json").write_text('{"hop_length": 200}')
    with pytest.raises(PortraitError, match="hop_length is 200, only 160 is supported"):
        load_audio_encoder(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(PortraitError, match="config.json: not JSON"):
        load_audio_encoder(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(PortraitError, match="config.json: holds a list"):
        load_audio_encoder(folder)
    with pytest.raises(PortraitError, match="there is no pytorch_model with one of the endings"):
        load_audio_encoder(tmp_path)
    with pytest.raises(PortraitError, match="no such file"):
        load_audio_encoder(tmp_path / "none.safetensors")
