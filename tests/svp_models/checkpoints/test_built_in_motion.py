from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.checkpoints.built_in_motion import MotionModel, load_motion_model, save_motion_model
from svp_portrait.svp_models.checkpoints.safetensors_io import read_safetensors, write_safetensors
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.motion_experts import LipExpert, LipExpertConfig, MovementDetector
from svp_portrait.svp_models.networks.motion_generator import MotionGeneratorConfig, MotionGeneratorNetwork
from svp_portrait.svp_models.networks.style_predictor import StylePredictor, StylePredictorConfig


def whole():
    torch.manual_seed(0)
    return MotionModel(
        "space",
        MotionGeneratorNetwork(MotionGeneratorConfig(width=16, heads=2, joint_layers=1, vocabulary=("nods",))),
        StylePredictor(StylePredictorConfig(inner=64)),
        LipExpert(LipExpertConfig(lips=(0, 3), width=8)),
        MovementDetector(5),
    )


def test_a_file_holds_all_networks_and_their_sizes(tmp_path):
    model = whole()
    save_motion_model(tmp_path / "m.safetensors", model, {"step": "7", "seed": "3"}, torch.float32)
    found = load_motion_model(tmp_path / "m.safetensors")
    assert found.config == model.config and found.style_space == "space" and found.metadata["step"] == "7"
    for name in ("generator", "style_predictor", "lip_expert", "movement_detector"):
        for key, value in getattr(model, name).state_dict().items():
            torch.testing.assert_close(getattr(found, name).state_dict()[key], value, rtol=0, atol=0)
    assert not found.network.training


def test_small_files_mean_the_same_numbers_within_half_a_step(tmp_path):
    model, path = whole(), tmp_path / "m.safetensors"
    save_motion_model(path, model, {})
    found = load_motion_model(path)
    stored, metadata = read_safetensors(path, also=(torch.int8,))
    assert stored["style_predictor.level.2.weight"].dtype == torch.int8
    assert stored["generator.voice_in.weight"].dtype == torch.float16
    matrix = model.style_predictor.level[2].weight
    error = (found.style_predictor.level[2].weight - matrix).abs()
    assert (error <= matrix.abs().amax(dim=1, keepdim=True) / 254 * 1.001).all() and error.max() > 0
    torch.testing.assert_close(found.generator.voice_in.weight, model.generator.voice_in.weight, rtol=1e-3, atol=1e-7)
    del stored["style_predictor.level.2.weight.scale"]
    write_safetensors(path, "motion_generator", stored, metadata)
    with pytest.raises(PortraitError, match="level.2.weight.scale is missing"):
        load_motion_model(path)


def test_parts_may_be_missing_but_not_the_generator_when_it_is_asked_for(tmp_path):
    save_motion_model(tmp_path / "m.safetensors", MotionModel("space", movement_detector=MovementDetector(5)), {})
    found = load_motion_model(tmp_path / "m.safetensors")
    assert found.lip_expert is None and found.movement_detector is not None
    with pytest.raises(PortraitError, match="without the generator"):
        _ = found.network


def test_tensors_of_no_network_are_errors(tmp_path):
    path = tmp_path / "m.safetensors"
    save_motion_model(path, whole(), {})
    tensors, metadata = read_safetensors(path, also=(torch.int8,))
    write_safetensors(path, "motion_generator", {**tensors, "extra.weight": torch.zeros(2)}, metadata)
    with pytest.raises(PortraitError, match="extra.weight is unexpected"):
        load_motion_model(path)
    del tensors["generator.voice_in.weight"]
    write_safetensors(path, "motion_generator", tensors, metadata)
    with pytest.raises(PortraitError, match="voice_in.weight is missing"):
        load_motion_model(path)
