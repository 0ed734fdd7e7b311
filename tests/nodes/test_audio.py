"""Audio encoders through the nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from svp_portrait.nodes.host import NO_FILES, folder_paths
from svp_portrait.nodes.loaders import SVPApplyAudioEncoder, SVPLoadAudioEncoder, SVPLoadModel
from svp_portrait.nodes.style import SVPStyleExtract
from svp_portrait.svp_models.checkpoints.model_file import load_model, save_model
from svp_portrait.svp_models.config import AudioConfig
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.model import build_networks

CONFIG = Wav2Vec2Config(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7, vocab_size=5,
    num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
)  # fmt: skip


@pytest.fixture
def models(folders, tmp_path, model_file):
    """The models folder with a folder of wav2vec2, a file of it, and a model that reads its 16 numbers."""
    root = tmp_path / "models"
    folder = root / "audio_encoders" / "wav2vec2-base-960h"
    Wav2Vec2Model(CONFIG).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    (root / "audio_encoders" / "notes.txt").write_text("not a model")
    tiny = load_model(model_file)
    audio = AudioConfig(
        features="wav2vec2", feature_size=16, window=4, rows_per_frame=2, layers=1, heads=2, head_size=4
    )
    config = replace(tiny.config, audio=audio, style=replace(tiny.config.style, audio_size=16))
    save_model(root / "svp" / "hearing.safetensors", replace(tiny, config=config, networks=build_networks(config)), {})
    folder_paths.use(tmp_path, root)
    return root


def test_nothing_is_offered_but_the_cure(folders):
    assert SVPLoadAudioEncoder.define_schema().inputs[0].options == [NO_FILES]
    with pytest.raises(
        PortraitError, match="audio_encoders: choose whisper-tiny or wav2vec2-base-960h .see `svp download"
    ):
        SVPLoadAudioEncoder.execute(NO_FILES)


def test_a_published_encoder_that_is_not_there_comes_with_its_cure(folders):
    with pytest.raises(PortraitError) as raised:
        SVPLoadAudioEncoder.execute("wav2vec2-base-960h")
    message = str(raised.value)
    assert message.startswith("config.json, model.safetensors, preprocessor_config.json not found in ")
    assert f"{folder_paths.models_dir}/audio_encoders/wav2vec2-base-960h" in message
    assert f'`svp download wav2vec2-base-960h --models "{folder_paths.models_dir}"`' in message
    assert SVPLoadAudioEncoder.validate_inputs("wav2vec2-base-960h") == message
    assert SVPLoadAudioEncoder.validate_inputs(None) is True  # linked: known when it runs


def test_folders_are_offered_by_their_name_and_files_by_their_own(models):
    source = models / "audio_encoders" / "wav2vec2-base-960h" / "model.safetensors"
    (models / "audio_encoders" / "single.safetensors").write_bytes(source.read_bytes())
    offered = SVPLoadAudioEncoder.define_schema().inputs[0].options
    assert offered == ["single.safetensors", "wav2vec2-base-960h"]
    assert all(SVPLoadAudioEncoder.validate_inputs(each) is True for each in offered)
    assert SVPLoadAudioEncoder.fingerprint_inputs("wav2vec2-base-960h") == source.stat().st_mtime


def test_a_model_hears_once_its_encoder_is_applied(models, clip):
    (deaf, _) = SVPLoadModel.execute("hearing.safetensors").args
    with pytest.raises(
        PortraitError, match="but it has no audio encoder.*audio_encoders/wav2vec2-base-960h.*Apply Audio"
    ):
        SVPStyleExtract.execute(deaf, audio=clip["audio"])
    encoder = SVPLoadAudioEncoder.execute("wav2vec2-base-960h").args[0]
    hearing = SVPApplyAudioEncoder.execute(deaf, encoder).args[0]
    prior = SVPStyleExtract.execute(hearing, audio=clip["audio"]).args[0]
    assert prior.mu.shape == (16,) and torch.isfinite(prior.mu).all()
    assert deaf.portrait.audio_encoder is None and hearing.portrait.audio_encoder is encoder.encoder


def test_the_built_in_kind_of_model_needs_none(loaded, models):
    encoder = SVPLoadAudioEncoder.execute("wav2vec2-base-960h").args[0]
    with pytest.raises(PortraitError, match="'tiny' reads mel features of 1920 values and uses no audio encoder"):
        SVPApplyAudioEncoder.execute(loaded[0], encoder)
