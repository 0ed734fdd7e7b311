"""The reference tensors themselves: LivePortrait's formulas hold between them, and its weights are made as they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from ..reference.weights import reference_weights

FOLDER = Path(__file__).resolve().parents[1] / "reference"
LIVEPORTRAIT = FOLDER / "liveportrait"


@pytest.fixture(scope="module")
def io():
    return load_file(LIVEPORTRAIT / "io.safetensors")


def keypoints(info, rotation):
    points = info["scale"][..., None] * (info["kp"] @ rotation + info["exp"])
    return points + functional.pad(info["t"][:, :2], (0, 1))[:, None]


def test_rotations_are_those_of_pitch_yaw_and_roll(io):
    for degrees, rotation in zip(io["pose_degrees"], io["pose_rotation"], strict=True):
        (a, b, c), zero, one = torch.deg2rad(degrees), torch.zeros(()), torch.ones(())
        x = torch.stack([one, zero, zero, zero, a.cos(), -a.sin(), zero, a.sin(), a.cos()]).view(3, 3)
        y = torch.stack([b.cos(), zero, b.sin(), zero, one, zero, -b.sin(), zero, b.cos()]).view(3, 3)
        z = torch.stack([c.cos(), -c.sin(), zero, c.sin(), c.cos(), zero, zero, zero, one]).view(3, 3)
        torch.testing.assert_close(rotation, (z @ y @ x).T, rtol=1e-5, atol=1e-6)


def test_keypoints_are_scaled_turned_and_moved(io):
    bins = torch.arange(66.0)
    for angle in ("pitch", "yaw", "roll"):
        degrees = 3 * (io[f"motion_raw.{angle}"].softmax(1) * bins).sum(1) - 97.5
        torch.testing.assert_close(io[f"source_info.{angle}"][:, 0], degrees, rtol=1e-4, atol=1e-4)
    for who in ("source", "driving"):
        info = {name.split(".")[1]: tensor for name, tensor in io.items() if name.startswith(f"{who}_info.")}
        torch.testing.assert_close(io[f"{who}_keypoints"], keypoints(info, io[f"{who}_rotation"]), rtol=1e-5, atol=1e-6)


def test_the_stitching_network_is_made_of_the_named_weights(io):
    shapes = json.loads((LIVEPORTRAIT / "weights.json").read_text(encoding="utf-8"))["retarget_shoulder"]
    weights = reference_weights("retarget_shoulder", shapes)
    source = io["source_keypoints"].expand(2, -1, -1).flatten(1)
    hidden = torch.cat([source, io["relative_keypoints"].flatten(1)], dim=1)
    for layer in (0, 2, 4):
        hidden = functional.linear(hidden, weights[f"mlp.{layer}.weight"], weights[f"mlp.{layer}.bias"])
        hidden = hidden if layer == 4 else hidden.relu()
    shift = functional.pad(hidden[:, 63:], (0, 1))[:, None]
    stitched = io["relative_keypoints"] + hidden[:, :63].unflatten(1, (21, 3)) + shift
    torch.testing.assert_close(stitched, io["stitched_keypoints"], rtol=1e-5, atol=1e-6)


def test_the_files_are_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 3_000_000
