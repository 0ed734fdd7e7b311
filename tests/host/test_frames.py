"""Frames out of the host against the headless run's: the same graphs, written as PNG by both, pixel by pixel."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ..nodes.conftest import ENCODER, vae_folder, vexpress_folder, wav2vec2_folder
from ..reference.published import write_generators, write_liveportrait
from .server import Server, graph, speech

NAMES = [
    "talk", "portrait", "style_interpolation", "style_library", "face_restore", "train_style", "vexpress_portrait",
    "talk_photo", "talk_photo_style", "redub", "expression_sliders", "warp_portrait",
]  # fmt: skip
FRAMES = 6
LARGEST = 1  # of 255
RUN = "from svp_portrait.nodes.command import main; raise SystemExit(main())"
SMALL: dict[str, dict[str, dict[str, Any]]] = {  # by graph and node class: what makes it quick
    "train_style": {
        "SVPPrepareDataset": {"size": 64, "people": 2, "clips_per_person": 2},
        "SVPTrainStyleExtractor": {"steps": 2, "batch": 4},
        "SVPTrainStage": {"steps": 2, "frames": 2},
    },
    "vexpress_portrait": {
        "SVPLoadFaceAnalyzer": {"backend": "built-in"},  # the example portrait is drawn
        "SVPSampler": {"steps": 2, "width": 64, "height": 64},
    },
    "talk_photo": {"SVPMotionGenerate": {"steps": 2}},
    "talk_photo_style": {"SVPMotionGenerate": {"steps": 2}},
    "redub": {"SVPMotionGenerate": {"steps": 2}},
    "expression_sliders": {"SVPMotionEdit": {"keyframes": f"0 yaw 0\n{(FRAMES - 1) / 25} yaw 10"}},
}


def pictured(nodes: dict[str, Any], voice: str) -> dict[str, Any]:
    """A graph on a short voice whose videos are written as pictures, without loss."""
    for key, node in list(nodes.items()):
        inputs = node["inputs"]
        if node["class_type"] == "LoadAudio":
            inputs["audio"] = voice
        if node["class_type"] == "PreviewImage":
            nodes[key] = {"class_type": "SaveImage", "inputs": {**inputs, "filename_prefix": "frames/frame"}}
        if node["class_type"] != "SVPVideoCombine":
            continue
        images = inputs.get("images")
        if images is None:
            images = [f"{key}.decoded", 0]
            decode = {"samples": inputs["latent"], "vae": inputs["vae"]}
            nodes[images[0]] = {"class_type": "VAEDecode", "inputs": decode}
        nodes[key] = {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": "frames/frame"}}
    return nodes


def headless(nodes: dict[str, Any], server: Server, folder: Path) -> list[Path]:
    """`svp run` with the host's inputs and models; the pictures it writes below `folder`."""
    file = folder / "graph.json"
    file.write_text(json.dumps(nodes))
    command = [sys.executable, "-c", RUN, "run", str(file), "--input", str(server.base / "input"), "--out", str(folder)]
    done = subprocess.run(command, cwd=server.base, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return sorted((folder / "frames").glob("*.png"))


def difference(first: Path, second: Path) -> int:
    """The largest difference of two pictures in any pixel and channel, of 255."""
    pixels = [np.asarray(Image.open(path).convert("RGB"), np.int16) for path in (first, second)]
    assert pixels[0].shape == pixels[1].shape
    return int(np.abs(pixels[0] - pixels[1]).max())


@pytest.fixture(scope="module")
def small_vexpress(server) -> Iterator[None]:
    """Weights in V-Express' layout among the host's models, and nothing of them left behind."""
    models = server.base / "models"
    made = [vexpress_folder(models / "svp/vexpress", ENCODER.hidden_size), vae_folder(models / "vae")]
    made.append(wav2vec2_folder(models / "audio_encoders"))
    yield
    for folder in made:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def small_liveportrait(server) -> Iterator[None]:
    """LivePortrait and the motion generators in miniature."""
    models = server.base / "models"
    write_liveportrait(models / "liveportrait")
    write_generators(models)
    yield
    for name in ("liveportrait", "joyvasa", "kdtalker"):
        shutil.rmtree(models / name)


@pytest.mark.parametrize("name", NAMES)
def test_the_host_makes_the_frames_of_the_headless_run(
    server, small_vexpress, small_liveportrait, tmp_path, name, record_property
):
    nodes = pictured(graph(name, **SMALL.get(name, {})), speech(server, FRAMES))
    run = server.run(nodes)
    made = sorted(server.base / "output" / path for path in run.files(".png") if path.parent.name == "frames")
    wanted = headless(nodes, server, tmp_path)
    assert len(made) == len(wanted) >= FRAMES
    apart = [difference(*pair) for pair in zip(made, wanted, strict=True)]
    record_property("largest_difference", max(apart))
    assert max(apart) <= LARGEST, apart
    assert np.asarray(Image.open(made[0])).std() > 5  # a picture, not one colour
