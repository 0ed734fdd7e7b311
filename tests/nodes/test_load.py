"""Load Portrait Model on folders of V-Express weights."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from svp_portrait.nodes.head_motion import SVPHeadKpsManual, SVPHeadKpsRender
from svp_portrait.nodes.host import folder_paths
from svp_portrait.nodes.loaders import SVPLoadModel, model_names, model_path, vae_path
from svp_portrait.nodes.sampler import SVPSampler
from svp_portrait.svp_models.checkpoints.model_file import DEMO_NAME, SHIPPED_MODELS
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.audio_encoder import AudioEncoder, Segments

FIVE = ["denoising_unet.bin", "motion_module.bin", "reference_net.bin", "v_kps_guider.bin", "audio_projection.bin"]


class Ramp(AudioEncoder):
    """Stands for wav2vec2: six numbers that rise with the rows."""

    kind = "wav2vec2"

    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(1, 1), 6, Segments())

    def features(self, audio, frames, fps, rows_per_frame=1, progress=None):
        return torch.linspace(-1, 1, frames * rows_per_frame)[:, None].expand(-1, 6).contiguous()

    def _row_positions(self, samples, rows, rate):
        raise AssertionError

    def _hidden(self, samples, starts):
        raise AssertionError


@pytest.fixture
def vexpress(folders, write_vexpress) -> str:
    """A folder with the five files below a models folder; its path."""
    return str(write_vexpress(folders / "output" / "svp" / "v" / "express", 6))


@pytest.fixture
def models(folders) -> Path:
    """An empty models folder that is the host's."""
    folder_paths.use(folders, folders / "models")
    return folders / "models"


def test_a_folder_is_offered_and_its_files_are_not(vexpress):
    assert model_names() == [*SHIPPED_MODELS, "v/express/", "tiny.safetensors"]
    assert os.path.samefile(model_path("v/express/"), vexpress)
    os.remove(f"{vexpress}/motion_module.bin")
    assert model_names()[:3] == [*SHIPPED_MODELS, "tiny.safetensors"]


@pytest.mark.parametrize("missing", [FIVE[1:2], FIVE[3:], FIVE])
def test_missing_files_of_v_express_are_named_with_their_cure(vexpress, missing):
    for each in missing:
        os.remove(f"{vexpress}/{each}")
    with pytest.raises(PortraitError) as raised:
        SVPLoadModel.execute("v/express/")
    message = str(raised.value)
    assert message.startswith(f"{', '.join(missing)} not found in {folder_paths.models_dir}/svp/v/express/, ")
    assert vexpress in message and "https://huggingface.co/tk93/V-Express" in message
    assert f'`svp download vexpress --models "{folder_paths.models_dir}"`' in message
    assert SVPLoadModel.validate_inputs("v/express/") == message


def test_a_graph_may_name_what_is_not_there_and_is_told_what_to_do(models, model_file):
    assert "svp download vexpress" in SVPLoadModel.validate_inputs("vexpress/")
    assert "there is no file 'other.safetensors' in" in SVPLoadModel.validate_inputs("other.safetensors")
    assert SVPLoadModel.validate_inputs(DEMO_NAME) is True
    assert SVPLoadModel.validate_inputs(None) is True  # linked: known when it runs
    (models / "svp").mkdir(parents=True)
    shutil.copy(model_file, models / "svp")
    assert SVPLoadModel.validate_inputs("tiny.safetensors") is True


def test_a_missing_vae_is_named_before_the_run_and_in_it(vexpress, models):
    with pytest.raises(PortraitError) as raised:
        SVPLoadModel.execute("v/express/")
    message = str(raised.value)
    for part in (
        "vae-ft-mse-840000-ema-pruned.safetensors not found in", vexpress, str(models / "vae"), "335 MB",
        f'`svp download sd-vae-ft-mse --models "{models}"`',
    ):  # fmt: skip
        assert part in message
    assert SVPLoadModel.validate_inputs("v/express/") == message


@pytest.mark.parametrize(
    "name",
    [
        "models/vae/vae-ft-mse-840000-ema-pruned.safetensors", "models/vae/vae-ft-mse-840000-ema-pruned.ckpt",
        "models/vae/sd-vae-ft-mse.safetensors", "models/vae/sd15/sd-vae-ft-mse.safetensors",
        "models/vae/sd-vae-ft-mse/diffusion_pytorch_model.safetensors", "models/vae/sd-vae-ft-mse/diffusion_pytorch_model.bin",
        "output/svp/v/express/sd-vae-ft-mse.safetensors", "output/svp/v/express/vae/diffusion_pytorch_model.safetensors",
        "output/svp/v/sd-vae-ft-mse/diffusion_pytorch_model.bin",
    ],
)  # fmt: skip
def test_the_vae_is_found_where_it_is_downloaded_to(vexpress, models, folders, name):
    file = folders / name
    for other in ("orangemix.vae.pt", "diffusion_pytorch_model.safetensors"):
        (models / "vae").mkdir(parents=True, exist_ok=True)
        (models / "vae" / other).touch()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    found = file.parent if file.stem == "diffusion_pytorch_model" else file
    assert os.path.samefile(vae_path(vexpress), found)
    assert SVPLoadModel.validate_inputs("v/express/") is True


def test_the_vae_in_the_folder_goes_first(vexpress, models):
    for folder in (models / "vae", Path(vexpress)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sd-vae-ft-mse.safetensors").touch()
    assert os.path.samefile(Path(vae_path(vexpress)).parent, vexpress)


def test_a_changed_file_is_loaded_again(vexpress):
    before = SVPLoadModel.fingerprint_inputs("v/express/")
    os.utime(f"{vexpress}/v_kps_guider.bin", (before + 10, before + 10))
    assert SVPLoadModel.fingerprint_inputs("v/express/") == before + 10


def test_a_loaded_folder_is_sampled(vexpress, clip, models, write_vae):
    write_vae(models / "vae")
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


def test_keypoints_are_drawn_as_the_model_sees_them(vexpress, clip, models, write_vae):
    write_vae(models / "vae")
    loaded, _ = SVPLoadModel.execute("v/express/").args
    points = "\n".join(f"{x}, {y}" for x, y in [(8, 8)] * 4 + [(16, 24), (32, 24), (8, 40), (24, 44)])
    (motion,) = SVPHeadKpsManual.execute(clip["portrait"], points).args
    (picture,) = SVPHeadKpsRender.execute(motion, 0, 0, 0, loaded).args
    at = [picture[0, y, x].tolist() for x, y in ((16, 24), (32, 24), (24, 44), (8, 40))]
    assert at == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]  # both pupils and the nose, nothing else
