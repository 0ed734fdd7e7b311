"""Published weights -> one model file -> V-Express' files again: nothing is lost on the way, and the origin is on record."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from svp_portrait.svp_models.checkpoints.convert import convert, kind_of
from svp_portrait.svp_models.checkpoints.model_file import load_model, save_model
from svp_portrait.svp_models.checkpoints.safetensors_io import read_metadata
from svp_portrait.svp_models.checkpoints.sd15 import vae_shapes
from svp_portrait.svp_models.checkpoints.style_layers import style_tensors
from svp_portrait.svp_models.checkpoints.vexpress import export_vexpress
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.config import VaeConfig
from svp_portrait.svp_models.errors import PortraitError

FILES = ("denoising_unet", "motion_module", "reference_net", "v_kps_guider", "audio_projection")
VAE_JSON = {"block_out_channels": [32] * 4, "layers_per_block": 1}


@pytest.fixture
def vexpress(vexpress_folder):
    """A small V-Express folder with a VAE beside its files."""
    folder = vexpress_folder
    (folder / "vae").mkdir()
    (folder / "vae/config.json").write_text(json.dumps(VAE_JSON))
    shapes = vae_shapes(VaeConfig(encoder_widths=(32,) * 4, decoder_widths=(32,) * 4, layers=1))
    weights = {name: torch.randn(*shape) for name, shape in shapes.items()}
    save_file(weights, folder / "vae/diffusion_pytorch_model.safetensors")
    return folder


def load_weights(path):
    return torch.load(path, weights_only=True)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_vexpress_there_and_back_keeps_every_bit(vexpress, tmp_path, dtype):
    originals = {}
    for stem in FILES:
        weights = torch.load(vexpress / f"{stem}.bin", weights_only=True)
        originals[stem] = {name: tensor.to(dtype) for name, tensor in weights.items()}
        torch.save(originals[stem], vexpress / f"{stem}.bin")
    lines = convert([vexpress], tmp_path / "model.safetensors", dtype)
    assert any("reference_net.bin" in line for line in lines) and any("fresh   style" in line for line in lines)
    header = read_metadata(tmp_path / "model.safetensors")
    sources = json.loads(header["sources"])
    assert sources["v-express/motion_module.bin"] == sha256(vexpress / "motion_module.bin")
    assert sources["vae/diffusion_pytorch_model.safetensors"] and len(sources) == 6
    assert header["licence"] == "vexpress: non-commercial research only"
    back = tmp_path / "back"
    arguments = ["convert", str(tmp_path / "model.safetensors"), "--to", "vexpress", "--out", str(back)]
    assert main(lambda folders, progress: [], arguments) == 0
    assert sorted(path.name for path in back.iterdir()) == sorted(f"{stem}.bin" for stem in FILES)
    for stem, original in originals.items():
        again = torch.load(back / f"{stem}.bin", weights_only=True)
        assert again.keys() == original.keys()
        for name, tensor in original.items():
            assert again[name].dtype == dtype and torch.equal(again[name], tensor), (stem, name)
    # And from the written files the very same model file, once the sizes lie beside them again.
    for name in ("unet_config.json", "extra_config.json"):
        shutil.copyfile(vexpress / name, back / name)
    shutil.copytree(vexpress / "vae", back / "vae")
    convert([back], tmp_path / "again.safetensors", dtype)
    with safe_open(tmp_path / "model.safetensors", "pt") as one, safe_open(tmp_path / "again.safetensors", "pt") as two:
        assert list(one.keys()) == list(two.keys())
        assert all(torch.equal(one.get_tensor(name), two.get_tensor(name)) for name in one.keys())


def test_trained_style_layers_are_dropped_with_a_word(vexpress, tmp_path, capsys):
    """On the way to V-Express and back, the style layers start anew; all else comes back bit for bit."""
    convert([vexpress], tmp_path / "fresh.safetensors", torch.float32)
    trained = load_model(tmp_path / "fresh.safetensors")
    outputs = [each for each in style_tensors(trained.networks) if each.endswith("style_attn.to_out.0.bias")]
    with torch.no_grad():
        trained.networks.get_parameter(outputs[-1])[0] = 1e-3
    save_model(tmp_path / "trained.safetensors", trained, {}, torch.float32)

    def exported(name):
        out = str(tmp_path / name)
        arguments = ["convert", f"{out}.safetensors", "--to", "vexpress", "--out", out]
        assert main(lambda folders, progress: [], arguments) == 0
        return capsys.readouterr().out.splitlines()

    assert len(exported("fresh")) == len(FILES)
    *paths, line = exported("trained")
    numbers = sum(each.numel() for each in style_tensors(trained.networks).values())
    assert [Path(each).stem for each in paths] == list(FILES)
    assert line.startswith("dropped  style attention") and f"{numbers:,}" in line and "Save Style Layers" in line
    for stem in FILES:
        one, two = (load_weights(tmp_path / name / f"{stem}.bin") for name in ("fresh", "trained"))
        assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    for name in ("unet_config.json", "extra_config.json"):
        shutil.copyfile(vexpress / name, tmp_path / "trained" / name)
    lines = convert([tmp_path / "trained", vexpress / "vae"], tmp_path / "back.safetensors", torch.float32)
    assert any("fresh   style attention (output zero)" in line for line in lines)
    back = load_model(tmp_path / "back.safetensors").networks.state_dict()
    fresh = load_model(tmp_path / "fresh.safetensors").networks.state_dict()
    assert all(torch.equal(back[name], fresh[name]) for name in fresh)


def test_vexpress_takes_an_autoencoder_from_elsewhere(vexpress, tmp_path):
    elsewhere = tmp_path / "downloads" / "some" / "autoencoder"
    elsewhere.parent.mkdir(parents=True)
    (vexpress / "vae").rename(elsewhere)
    with pytest.raises(
        PortraitError, match="svp download sd-vae-ft-mse.*; or name its file or folder as a second SOURCE"
    ):
        convert([vexpress], tmp_path / "model.safetensors")
    convert([vexpress, elsewhere], tmp_path / "model.safetensors")
    assert read_metadata(tmp_path / "model.safetensors")["licence"].endswith("; vae: MIT")


def test_stable_diffusion_and_animatediff_make_one_file(config, single_file, motion_file, vae, tmp_path):
    out, motion = tmp_path / "start.safetensors", motion_file()
    lines = convert([motion, single_file], out, torch.float32, config=config, seed=7)
    model = load_model(out)
    assert model.config == config and model.face_analyzer is None
    own = model.networks.denoiser.state_dict()
    stored = load_file(single_file)
    assert torch.equal(own["conv_in.weight"], stored["model.diffusion_model.input_blocks.0.0.weight"])
    assert torch.equal(model.vae.autoencoder.state_dict()["quant_conv.bias"], vae["quant_conv.bias"])
    header = read_metadata(out)
    assert json.loads(header["sources"]) == {
        f"{path.parent.name}/{path.name}": sha256(path) for path in (single_file, motion)
    }
    assert header["licence"] == "animatediff: Apache-2.0; sd15: CreativeML OpenRAIL-M"
    assert header["seed"] == "7"  # of the layers that start fresh
    assert any("temporal layers" in line and motion.name in line for line in lines)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".safetensors"] == ["start.safetensors"]


def test_a_diffusers_folder_with_another_autoencoder(config, diffusers_folder, single_file, original_vae, tmp_path):
    other = tmp_path / "vae-ft-mse.safetensors"
    save_file({name: tensor + 1 for name, tensor in original_vae.items()}, other)
    convert([diffusers_folder, other], tmp_path / "start.safetensors", torch.float32, config=config)
    weights = load_model(tmp_path / "start.safetensors").vae.autoencoder.state_dict()
    assert torch.equal(weights["quant_conv.bias"], original_vae["quant_conv.bias"] + 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_model_file_in_another_precision(config, diffusers_folder, tmp_path, dtype):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    convert([diffusers_folder], first, torch.float32, config=config)
    convert([first], second, dtype)
    with safe_open(first, "pt") as one, safe_open(second, "pt") as two:
        assert all(torch.equal(one.get_tensor(name).to(dtype), two.get_tensor(name)) for name in one.keys())
    assert load_model(second).config == config  # and its style space is the one that the file names
    assert {parameter.dtype for parameter in load_model(second, dtype=None).networks.parameters()} == {dtype}
    sources = json.loads(read_metadata(second)["sources"])
    assert sources.keys() >= {f"{tmp_path.name}/first.safetensors", "unet/diffusion_pytorch_model.safetensors"}
    convert([second], tmp_path / "third.safetensors")
    assert {each.dtype for each in load_model(tmp_path / "third.safetensors", None).networks.parameters()} == {dtype}


def test_kinds(config, single_file, diffusers_folder, motion_file, original_vae, tmp_path):
    save_file(original_vae, tmp_path / "vae.safetensors")
    kinds = [kind_of(path) for path in (single_file, diffusers_folder, motion_file(), tmp_path / "vae.safetensors")]
    assert kinds == ["sd15", "sd15", "animatediff", "vae"]
    assert kind_of(diffusers_folder / "vae") == "vae"
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(PortraitError, match=r"its 1 names \(x, ...\) belong to no known model"):
        kind_of(tmp_path / "x.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PortraitError, match="it has no denoising_unet"):
        kind_of(tmp_path / "empty")
    with pytest.raises(PortraitError, match="no such file"):
        kind_of(tmp_path / "absent.safetensors")


def test_sources_that_do_not_go_together(single_file, diffusers_folder, motion_file, tmp_path):
    out = tmp_path / "out.safetensors"
    with pytest.raises(PortraitError, match="are both of kind sd15"):
        convert([single_file, diffusers_folder], out)
    with pytest.raises(PortraitError, match="the sources are of kinds animatediff"):
        convert([motion_file()], out)
    assert not out.exists()


def test_a_folder_that_cannot_be_written(vexpress, tmp_path, monkeypatch):
    convert([vexpress], tmp_path / "model.safetensors")
    model = load_model(tmp_path / "model.safetensors")
    with pytest.raises(PortraitError, match="model.safetensors/out: cannot be written"):
        export_vexpress(tmp_path / "model.safetensors" / "out", model)

    def full(tensors, path):
        Path(path).write_bytes(b"half of it")
        raise RuntimeError("unexpected pos 64 vs 0")  # torch.save on a full disk

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(PortraitError, match="out: cannot be written .unexpected pos.*free space"):
        export_vexpress(tmp_path / "out", model)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_model_without_a_place_in_vexpress_is_refused(config, diffusers_folder, tmp_path):
    convert([diffusers_folder], tmp_path / "start.safetensors", config=config)
    with pytest.raises(
        PortraitError, match="keypoints is 'head8', V-Express has 'vexpress3'; audio.features is 'whisper'"
    ):
        export_vexpress(tmp_path / "folder", load_model(tmp_path / "start.safetensors"))
    assert not (tmp_path / "folder").exists()
