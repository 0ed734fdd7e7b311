from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from svp_portrait.svp_models.checkpoints.motion_generators import load_wav2lip
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.evaluation.parity import remaining
from svp_portrait.svp_models.evaluation.parity_liveportrait import (
    check_liveportrait,
    holds_motion_weights,
    open_liveportrait_folder,
)
from svp_portrait.svp_models.motion.keypoints import drive_relative, keypoints, motion_from_network, retarget, stitch
from svp_portrait.svp_models.networks.motion_generators.wav2lip import audio_features, mel_windows

GOLDENS = os.environ.get("SVP_GOLDENS")  # a folder with all of the reference data, `liveportrait` in it


def renderer_tensors(networks, io):
    """What LivePortrait would compute from the pictures: its networks are compared with its own code elsewhere."""
    source, driving = (motion_from_network(networks.motion(io[who])) for who in ("source", "driving"))
    found = {name: io[name] for name in ("source", "driving", "lip_ratio", "eye_ratio")}
    for who, motion in (("source", source), ("driving", driving)):
        for name in ("pitch", "yaw", "roll", "scale"):
            found[f"{who}_info.{name}"] = getattr(motion, name)[:, None]
        found |= {f"{who}_info.{name}": getattr(motion, name) for name in ("t", "exp", "kp")}
        found |= {f"{who}_rotation": motion.rotation, f"{who}_keypoints": keypoints(motion)}
    found |= {f"motion_raw.{name}": tensor for name, tensor in networks.motion(io["source"]).items()}
    own = found["source_keypoints"]
    found["feature_3d"] = networks.appearance(io["source"])
    found["relative_keypoints"] = drive_relative(source, driving)
    found["stitched_keypoints"] = stitch(networks.stitching, own, found["relative_keypoints"])
    found["lip_delta"] = retarget(networks.mouth, own, io["lip_ratio"])
    found["eye_delta"] = retarget(networks.eyes, own, io["eye_ratio"])
    warp = networks.warping(found["feature_3d"], found["stitched_keypoints"], own)
    found |= {"warped": warp.warped, "deformation": warp.deformation, "occlusion_map": warp.occlusion_map}
    return found | {"frames": networks.generator(warp.warped)}


@pytest.fixture(scope="module")
def original(
    liveportrait_original, generators_original, liveportrait_networks, liveportrait_io, kdtalker_io, kdtalker_audio,
    joyvasa_io, tmp_path_factory,
) -> Path:  # fmt: skip
    """A folder in the layout of the reference data: KDTalker's and JoyVASA's tensors are their own."""
    folder = tmp_path_factory.mktemp("goldens") / "liveportrait"
    shutil.copytree(liveportrait_original, folder)
    shutil.copytree(generators_original, folder, dirs_exist_ok=True)
    mel, waveform = kdtalker_audio["mel"], kdtalker_audio["waveform_16k"]
    audio = {"kd.waveform_16k": waveform, "kd.mel": mel, "kd.mel_windows": mel_windows(mel, 0, 25)}
    audio["kd.audio_features"] = audio_features(load_wav2lip(folder / "wav2lip.pth"), waveform.numpy(), 25)
    with torch.no_grad():
        renderer = renderer_tensors(liveportrait_networks, liveportrait_io)
    tensors = {name: tensor.contiguous().clone() for name, tensor in (kdtalker_io | audio | renderer).items()}
    save_file(tensors, folder / "io.safetensors")
    joyvasa = {name: tensor for name, tensor in joyvasa_io.items() if not name.startswith("schedule.")}
    save_file(joyvasa, folder / "joyvasa_io.safetensors")
    (folder / "config.json").write_text(json.dumps({"kdtalker": {"steps": 8, "beta_start": 1e-5, "beta_end": 8e-3}}))
    (folder / "joyvasa_config.json").write_text(json.dumps({"cfg_scale": 2.0, "heads": 8, "target": "sample"}))
    return folder


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "liveportrait"))


def measured(folder):
    opened = open_liveportrait_folder(folder)
    measures = list(check_liveportrait(opened))
    return {measure.name: measure for measure in [*measures, *remaining(opened, measures)]}


def test_every_tensor_is_compared(original):
    measures = measured(original)
    stored = load_file(original / "io.safetensors") | load_file(original / "joyvasa_io.safetensors")
    assert measures.keys() == stored.keys()
    assert [name for name, measure in measures.items() if measure.missed] == []
    inputs = {name for name, measure in measures.items() if measure.error is None}
    assert inputs == {
        "source", "driving", "lip_ratio", "eye_ratio", "kd.waveform_16k", "kd.audio", "kd.canonical", "kd.reference",
        "kd.noise", "kd.timesteps", "kd.input_0", "kd.input_5", "waveform_16k", "denoiser.noisy", "denoiser.step",
        "window0.start_noise", "window0.step_noise", "window1.start_noise", "window1.step_noise",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["driving_info.yaw", "kd.sample", "window1.motion", "occlusion_map"])
def test_other_numbers_are_missed_by_name(folder, name):
    file = folder / ("joyvasa_io.safetensors" if name.startswith("window") else "io.safetensors")
    tensors = load_file(file)
    tensors[name] = tensors[name] + 0.01 if name.endswith("yaw") else tensors[name] * 1.001
    save_file(tensors, file)
    missed = [name for name, measure in measured(folder).items() if measure.missed]
    assert missed == ([name, "driving_rotation", "driving_keypoints"] if "yaw" in name else [name])


def test_parts_are_checked_alone(folder):
    for path in folder.iterdir():
        if not path.name.startswith(("motion_generator", "joyvasa")):
            path.unlink()
    assert holds_motion_weights(folder)
    assert {name.split(".")[0] for name in measured(folder)} == {"denoiser", "waveform_16k", "window0", "window1"}


def test_incomplete_folders_are_named(folder, tmp_path):
    assert not holds_motion_weights(tmp_path)
    (folder / "wav2lip.pth").unlink()
    with pytest.raises(PortraitError, match="there is no wav2lip with one of the endings"):
        measured(folder)
    (folder / "io.safetensors").unlink()
    with pytest.raises(PortraitError, match="io.safetensors: source is missing: the folder is not complete"):
        measured(folder)
    (folder / "joyvasa_io.safetensors").unlink()
    with pytest.raises(PortraitError, match="there is no io.safetensors, LivePortrait's inputs and outputs"):
        measured(folder)


def test_the_command_prints_every_tensor(original, folder, capsys):
    assert main(lambda folders, progress: [], ["check-parity", str(original)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines[:-2]} == measured(original).keys()
    assert [line.split()[0] for line in lines[-2:]] == ["max", "max"]
    assert lines[-1].split()[1] in ("kd.sample", "window0.motion", "window1.motion")
    tensors = load_file(folder / "io.safetensors")
    save_file({**tensors, "frames": tensors["frames"] * 1.001, "unknown": torch.ones(1)}, folder / "io.safetensors")
    assert main(lambda folders, progress: [], ["check-parity", str(folder)]) == 1
    assert capsys.readouterr().err.endswith("limits exceeded: frames, unknown\n")


@pytest.mark.skipif(not GOLDENS, reason="SVP_GOLDENS names no folder of reference data")
def test_the_whole_reference_data():
    missed = [name for name, measure in measured(Path(GOLDENS) / "liveportrait").items() if measure.missed]
    assert missed == []
