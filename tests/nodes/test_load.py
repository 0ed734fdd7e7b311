"""Load Portrait Model on folders of V-Express weights."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from svp_portrait.nodes.load import BUILTIN, SVPLoadModel, model_names, model_path
from svp_portrait.nodes.motion import SVPHeadKpsManual
from svp_portrait.nodes.sample import SVPSampler
from svp_portrait.svp_models.checkpoints.native import PortraitModel
from svp_portrait.svp_models.checkpoints.vexpress_export import export_vexpress
from svp_portrait.svp_models.config import PRESETS, VaeConfig
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.audio_encoder import AudioEncoder, Segments
from svp_portrait.svp_models.networks.portrait_model import build_networks
from svp_portrait.svp_models.networks.vae import build_vae

UNET = {
    "attention_head_dim": 2, "block_out_channels": [32, 32], "cross_attention_dim": 8, "in_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "layers_per_block": 1, "norm_num_groups": 8,
    "out_channels": 4, "sample_size": 8, "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip
EXTRA = {
    "v_kps_guider": {"block_out_channels": [4, 4, 4, 4]},
    "audio_projection": {"dim": 8, "output_dim": 8, "depth": 1, "dim_head": 4, "heads": 2, "num_queries": 3, "embedding_dim": 6},
}  # fmt: skip


class Ramp(AudioEncoder):
    """Stands for wav2vec2: six numbers that rise with the rows."""

    kind = "wav2vec2"

    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(1, 1), 6, Segments())

    def features(self, audio, frames, fps, rows_per_frame=1):
        return torch.linspace(-1, 1, frames * rows_per_frame)[:, None].expand(-1, 6).contiguous()

    def _places(self, samples, rows, rate):
        raise AssertionError

    def _hidden(self, samples, starts):
        raise AssertionError


@pytest.fixture
def vexpress(folders) -> str:
    """A folder with the five files below a models folder; its path."""
    preset = PRESETS["vexpress"]
    unet = replace(
        preset.unet, block_out_channels=(32, 32), layers_per_block=1, attention_levels=(True, False), attention_heads=2,
        cross_attention_dim=8, norm_groups=8,
    )  # fmt: skip
    audio = replace(preset.audio, feature_size=6, tokens=3, layers=1, heads=2, head_size=4)
    guider, style = replace(preset.guider, channels=(4, 4, 4, 4)), replace(preset.style, audio_size=6)
    config = replace(preset, unet=unet, audio=audio, guider=guider, style=style)
    torch.manual_seed(0)
    networks = build_networks(config)
    with torch.no_grad():
        for weight in networks.parameters():
            weight.add_(0.02 * torch.randn(weight.shape))
    folder = folders / "output" / "svp" / "v" / "express"
    export_vexpress(folder, PortraitModel(config, networks, torch.nn.Identity(), None, ""))
    (folder / "unet_config.json").write_text(json.dumps(UNET))
    (folder / "extra_config.json").write_text(json.dumps(EXTRA))
    return str(folder)


def add_vae(folder: str) -> None:
    vae = build_vae(VaeConfig(encoder_widths=(32,) * 4, decoder_widths=(32,) * 4, layers=1))
    os.mkdir(f"{folder}/sd-vae-ft-mse")
    save_file(vae.autoencoder.state_dict(), f"{folder}/sd-vae-ft-mse/diffusion_pytorch_model.safetensors")
    with open(f"{folder}/sd-vae-ft-mse/config.json", "w") as file:
        json.dump({"block_out_channels": [32] * 4, "layers_per_block": 1}, file)


def test_a_folder_is_offered_and_its_files_are_not(vexpress):
    add_vae(vexpress)
    assert model_names() == [BUILTIN, "v/express/", "tiny.safetensors"]
    assert os.path.samefile(model_path("v/express/"), vexpress)
    os.remove(f"{vexpress}/motion_module.bin")
    assert model_names()[:2] == [BUILTIN, "tiny.safetensors"]
    with pytest.raises(PortraitError, match="no folder 'v/other/' in .*svp"):
        model_path("v/other/")


def test_a_missing_vae_is_named(vexpress):
    with pytest.raises(PortraitError, match="express: its VAE is missing: put .*sd-vae-ft-mse.safetensors"):
        SVPLoadModel.execute("v/express/")


def test_a_changed_file_is_loaded_again(vexpress):
    before = SVPLoadModel.fingerprint_inputs("v/express/")
    os.utime(f"{vexpress}/v_kps_guider.bin", (before + 10, before + 10))
    assert SVPLoadModel.fingerprint_inputs("v/express/") == before + 10


def test_a_loaded_folder_is_sampled(vexpress, clip):
    add_vae(vexpress)
    loaded, vae = SVPLoadModel.execute("v/express/").args
    loaded = replace(loaded, portrait=replace(loaded.portrait, audio_encoder=Ramp()))
    points = "\n".join(f"{0.1 * index + 0.1}, {0.05 * index + 0.2}" for index in range(8))
    (motion,) = SVPHeadKpsManual.execute(clip["portrait"], points).args
    given = {
        "portrait": clip["portrait"], "audio": clip["audio"], "head_motion": motion, "seed": 1, "steps": 2, "cfg": 2.0,
        "scheduler": "ddim", "reference_weight": 1.0, "audio_weight": 1.0, "style_weight": 1.0, "fps": 30.0, "window": 0,
        "overlap": -1, "width": 0, "height": 0, "length": "audio",
    }  # fmt: skip
    latent, fps = SVPSampler.execute(loaded, vae, **given).args
    assert latent["samples"].shape == (12, 4, 8, 8) and fps == 30.0  # 0.4 s
    assert torch.isfinite(latent["samples"]).all()
    moved = replace(motion, keypoints=motion.keypoints + 8)
    other, _ = SVPSampler.execute(loaded, vae, **{**given, "head_motion": moved}).args
    assert not torch.allclose(latent["samples"], other["samples"], atol=1e-4)
