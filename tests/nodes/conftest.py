"""A tiny random model in a file, and folders to work in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from transformers import Wav2Vec2Config

from svp_portrait.nodes.host import folder_paths
from svp_portrait.nodes.loaders import SVPLoadModel
from svp_portrait.svp_models.checkpoints.model_file import save_model
from svp_portrait.svp_models.checkpoints.vexpress import export_vexpress
from svp_portrait.svp_models.config import AudioConfig, GuiderConfig, ModelConfig, StyleConfig, UNetConfig, VaeConfig
from svp_portrait.svp_models.model import PortraitModel, build_networks
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.presets import PRESETS

FPS = 25.0
TINY = ModelConfig(
    name="tiny",
    size=32,
    window=4,
    overlap=1,
    unet=UNetConfig(
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_levels=(False, True),
        attention_heads=2,
        cross_attention_dim=8,
        norm_groups=4,
        motion_heads=2,
        motion_groups=4,
        motion_positions=8,
    ),
    vae=VaeConfig(kind="portrait", fold=4, scale=1.0, encoder_widths=(8, 8), decoder_widths=(8, 8, 8), layers=1),
    guider=GuiderConfig(channels=(4, 4, 4, 4)),
    audio=AudioConfig(features="mel", window=3, tokens=2, layers=1, heads=2, head_size=4),
    style=StyleConfig(style_size=16, layers=1, heads=2, feed_forward=16, max_frames=16, tokens=3),
)

VEXPRESS_UNET = {
    "attention_head_dim": 2, "block_out_channels": [32, 32], "cross_attention_dim": 8, "in_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "layers_per_block": 1, "norm_num_groups": 8,
    "out_channels": 4, "sample_size": 8, "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip
VEXPRESS_EXTRA = {
    "v_kps_guider": {"block_out_channels": [4, 4, 4, 4]},
    "audio_projection": {"dim": 8, "output_dim": 8, "depth": 1, "dim_head": 4, "heads": 2, "num_queries": 3},
}  # fmt: skip

ENCODER = Wav2Vec2Config(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7, vocab_size=5,
    num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
)  # fmt: skip
OUTPUTS = ("landmarks", "head_keypoints", "expression", "pose")
SHAPES = {
    "landmarks": [-1, 68, 2],
    "head_keypoints": [-1, 8, 2],
    "expression": [-1, 64],
    "pose": [-1, 6],
    "column": [-1, 1],
    "present": [-1],
}


def analyzer_bytes() -> bytes:
    """An ONNX face analyser whose answers move with the mean brightness; a black picture shows no face."""
    points = torch.rand(76, 2, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    constants = {
        "landmarks_at": points[:68].flatten(),
        "head_keypoints_at": points[68:].flatten(),
        "expression_at": torch.linspace(-1, 1, 64),
        "pose_at": torch.zeros(6),
        "limit": torch.tensor([0.02]),
    }
    weights = [numpy_helper.from_array(value[None].numpy(), name) for name, value in constants.items()]
    weights += [numpy_helper.from_array(torch.tensor(shape).numpy(), f"{name}_shape") for name, shape in SHAPES.items()]
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["channels"]),
        helper.make_node("ReduceMean", ["channels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "column_shape"], ["column"]),
        *(helper.make_node("Add", [f"{name}_at", "column"], [f"{name}_flat"]) for name in SHAPES if name in OUTPUTS),
        *(helper.make_node("Reshape", [f"{name}_flat", f"{name}_shape"], [name]) for name in SHAPES if name in OUTPUTS),
        helper.make_node("Greater", ["column", "limit"], ["bright"]),
        helper.make_node("Cast", ["bright"], ["certain"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["certain", "present_shape"], ["present"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 128, 128])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *SHAPES[name][1:]])
        for name in (*OUTPUTS, "present")
    ]
    graph = helper.make_graph(nodes, "analyzer", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def model_file(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    networks = build_networks(TINY)
    with torch.no_grad():
        for weight in networks.parameters():  # layers that start as zeros would hide their conditions
            weight.add_(0.02 * torch.randn(weight.shape))
    portrait = PortraitModel(TINY, networks, build_vae(TINY.vae), analyzer_bytes(), "computed on saving")
    path = tmp_path_factory.mktemp("models") / "svp" / "tiny.safetensors"
    path.parent.mkdir()
    save_model(path, portrait, {"seed": "0"}, dtype=torch.float32)
    return path


@pytest.fixture
def folders(tmp_path, monkeypatch, model_file):
    """The stand-in's folders, in a place of their own."""
    if not hasattr(folder_paths, "use"):
        pytest.skip("runs on the stand-in: ComfyUI is importable here")
    for name in ("input", "output", "temp"):
        (tmp_path / name).mkdir()
    before = dict(vars(folder_paths))
    folder_paths.use(tmp_path, model_file.parents[1])
    yield tmp_path
    vars(folder_paths).update(before)


@pytest.fixture
def loaded(folders):
    """(SVP_MODEL, VAE) of the tiny model."""
    return SVPLoadModel.execute("tiny.safetensors").args


@pytest.fixture
def clip() -> dict:
    """IMAGE of 10 frames, AUDIO of as long, and a portrait."""
    generator = torch.Generator().manual_seed(1)
    return {
        "frames": torch.rand(10, 48, 40, 3, generator=generator),
        "audio": {"waveform": 0.1 * torch.randn(1, 1, 6400, generator=generator), "sample_rate": 16000},
        "portrait": torch.rand(1, 64, 48, 3, generator=generator),
    }


def vexpress_folder(folder: Path, features: int) -> Path:
    """Writes small random weights as V-Express publishes its own, for audio features of so many numbers."""
    preset = PRESETS["vexpress"]
    unet = replace(
        preset.unet, block_out_channels=(32, 32), layers_per_block=1, attention_levels=(True, False),
        attention_heads=2, cross_attention_dim=8, norm_groups=8,
    )  # fmt: skip
    audio = replace(preset.audio, feature_size=features, tokens=3, layers=1, heads=2, head_size=4)
    guider, style = replace(preset.guider, channels=(4, 4, 4, 4)), replace(preset.style, audio_size=features)
    config = replace(preset, unet=unet, audio=audio, guider=guider, style=style)
    torch.manual_seed(0)
    networks = build_networks(config)
    with torch.no_grad():
        for weight in networks.parameters():
            weight.add_(0.02 * torch.randn(weight.shape))
    export_vexpress(folder, PortraitModel(config, networks, torch.nn.Identity(), None, ""))
    extra = {**VEXPRESS_EXTRA, "audio_projection": {**VEXPRESS_EXTRA["audio_projection"], "embedding_dim": features}}
    (folder / "unet_config.json").write_text(json.dumps(VEXPRESS_UNET))
    (folder / "extra_config.json").write_text(json.dumps(extra))
    return folder


def vae_folder(folder: Path) -> Path:
    """Writes a small random VAE as diffusers' folder sd-vae-ft-mse into a folder."""
    torch.manual_seed(1)
    vae = build_vae(VaeConfig(encoder_widths=(32,) * 4, decoder_widths=(32,) * 4, layers=1))
    place = folder / "sd-vae-ft-mse"
    place.mkdir(parents=True)
    save_file(vae.autoencoder.state_dict(), place / "diffusion_pytorch_model.safetensors")
    (place / "config.json").write_text(json.dumps({"block_out_channels": [32] * 4, "layers_per_block": 1}))
    return place


def wav2vec2_folder(folder: Path) -> Path:
    """Writes a small random wav2vec2 as Hugging Face publishes it."""
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(2)
    place = folder / "wav2vec2-base-960h"
    Wav2Vec2Model(ENCODER).save_pretrained(place)
    Wav2Vec2FeatureExtractor().save_pretrained(place)
    return place


@pytest.fixture
def write_vexpress() -> Callable[[Path, int], Path]:
    return vexpress_folder


@pytest.fixture
def write_vae() -> Callable[[Path], Path]:
    return vae_folder


@pytest.fixture
def host_landmarks() -> Callable[..., dict]:
    """FACE_LANDMARKS as the host's node gives them, of faces whose 8 head keypoints (8 2) are given, None where there is none."""

    def face(points: np.ndarray) -> dict:
        mesh = np.tile(points.mean(axis=0), (478, 1)).astype(np.float32)
        mesh[[127, 132, 356, 361, 468, 473, 168, 4]] = points
        box = np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float32)
        other = {"blendshapes": {}, "landmarks_3d": np.zeros((478, 3), np.float32), "presence": 9.0, "score": 0.9}
        return {"bbox_xyxy": box, "landmarks_xy": mesh, **other}

    def value(width: int, height: int, *frames: np.ndarray | None) -> dict:
        faces = [[] if points is None else [face(points)] for points in frames]
        return {"frames": faces, "image_size": (height, width), "connection_sets": {}}

    return value
