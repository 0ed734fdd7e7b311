"""The bundled workflows in a real host, posted to its HTTP API."""

from __future__ import annotations

import json
import subprocess
import time

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import correlate

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.evaluation.metrics.landmarks import mouth_opening
from svp_portrait.svp_models.evaluation.metrics.series import lagged_correlation
from svp_portrait.svp_models.face.tracking import track_face
from svp_portrait.svp_models.media.audio import frame_count, load_audio
from svp_portrait.svp_models.media.video import load_video

from .hosts import ROOT
from .server import ASSETS, SECONDS_TO_RUN, WORKFLOWS, graph, node_ids, speech, talking

OLD_GRAPHS = ROOT / "tests/nodes/graphs/0.1.0/api"
AAC_FRAME = 1024  # samples: the last frame of a decoded track is filled up with silence


def test_all_nodes_are_listed(server):
    listed = server.get("/object_info")
    assert {"SVPLoadModel", "SVPSampler", "SVPVideoCombine"} <= set(listed)
    assert listed["SVPSampler"]["input"]["optional"]["head_motion"][0] == "IMAGE,SVP_HEAD_MOTION,SVP_MOTION"


def test_templates_are_offered(server):
    offered = server.get("/api/workflow_templates")["svp-portrait"]
    assert set(offered) == {path.stem for path in WORKFLOWS.glob("*.json")}


def test_missing_public_weights_are_told_with_their_cure(server):
    """A graph of nodes the host knows, refused for nothing but the files it lacks."""
    nodes = graph("vexpress_portrait")
    assert {node["class_type"] for node in nodes.values()} <= set(server.get("/object_info"))
    told = server.refusal(nodes)
    assert sorted(told) == ["1", "2"] and all(len(each) == 1 for each in told.values())
    assert f'svp download vexpress --models "{server.base / "models"}"' in told["1"][0]
    assert "svp download wav2vec2-base-960h" in told["2"][0]


def test_lips_and_sound_are_in_time(server, tmp_path):
    """The portrait says what a drawn person says whose true mouth is known, and moves its own as that one does."""
    nodes = talking(server, sampler={"audio": ["parts", 1], "steps": 2}, video={"audio": ["parts", 1]})
    nodes["few"]["inputs"]["length"] = 100
    (file,) = server.run(nodes).files(".mp4")
    fetched = tmp_path / file.name
    fetched.write_bytes(server.fetch(file))
    film, true = load_video(fetched), load_video(ASSETS / "style_happy.mp4")
    analyzer = load_model(str(BUILTIN_MODEL)).face_analyzer
    mouths = [mouth_opening(track_face(analyzer, each.frames, "the film").landmarks) for each in (film, true)]
    agreement = lagged_correlation(*mouths, 5)
    assert agreement.argmax() == 5 and agreement[5] > 0.5, agreement
    assert film.audio.sample_rate == true.audio.sample_rate
    filling = AAC_FRAME / film.audio.sample_rate  # which the host hears as a part of the clip's sound
    assert 0 <= len(film) - len(true) <= frame_count(filling, 25.0)
    heard, said = (each.audio.waveform.mean(0).numpy() for each in (film, true))
    apart = correlate(heard, said, method="fft").argmax() - (len(said) - 1)
    assert abs(apart) <= 1, f"{apart} samples"


@pytest.mark.parametrize("name", ["talk", "portrait", "style_interpolation", "style_library", "face_restore"])
def test_workflow_runs(server, tmp_path, name):
    run = server.run(graph(name))
    (file,) = run.files(".mp4")
    fetched = tmp_path / file.name
    fetched.write_bytes(server.fetch(file))
    video, speech = load_video(fetched), load_audio(ASSETS / "speech.wav")
    assert len(video) == frame_count(speech.seconds, 25.0) and video.fps == 25.0
    assert video.audio is not None and abs(video.audio.seconds - speech.seconds) < AAC_FRAME / video.audio.sample_rate


def test_the_hosts_vae_nodes_give_what_our_vae_gives(server):
    """Encoded and decoded by the host's nodes, whole and in tiles, against the pack's own networks without a host."""
    large = {"vae": ["1", 1], "tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}
    small = large | {"tile_size": 128, "overlap": 32}
    nodes = {
        "1": {"class_type": "SVPLoadModel", "inputs": {"model": "built-in demo"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "portrait.png"}},
        "whole": {"class_type": "VAEEncode", "inputs": {"pixels": ["2", 0], "vae": ["1", 1]}},
        "tiled": {"class_type": "VAEEncodeTiled", "inputs": {"pixels": ["2", 0], **small}},
        "a": {"class_type": "VAEDecode", "inputs": {"samples": ["whole", 0], "vae": ["1", 1]}},
        "b": {"class_type": "VAEDecodeTiled", "inputs": {"samples": ["whole", 0], **large}},
        "c": {"class_type": "VAEDecodeTiled", "inputs": {"samples": ["tiled", 0], **small}},
    }
    for name in "abc":
        nodes[f"save {name}"] = {
            "class_type": "SaveImage",
            "inputs": {"images": [name, 0], "filename_prefix": f"vae_{name}"},
        }
    outputs = server.run(nodes).entry["outputs"]
    seen = {
        name: np.asarray(
            Image.open(server.base / "output" / outputs[f"save {name}"]["images"][0]["filename"]), np.float32
        )
        for name in "abc"
    }
    with Image.open(ASSETS / "portrait.png") as picture:
        given = torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255).movedim(-1, 0)[None]
    vae = load_model(BUILTIN_MODEL).vae
    with torch.no_grad():
        ours = ((vae.decode(vae.encode(given * 2 - 1)) + 1) / 2).clamp(0, 1)[0].movedim(0, -1).numpy() * 255
    ours = np.floor(ours)  # as Save Image makes bytes
    assert np.abs(seen["a"] - ours).max() <= 1 and np.abs(seen["b"] - ours).max() <= 1
    assert np.abs(seen["c"] - ours).mean() <= 1 and np.abs(seen["c"] - ours).max() < 32  # seams of small tiles


@pytest.mark.parametrize("name", ["portrait", "style_interpolation", "style_library"])
def test_graphs_of_the_first_version_run(server, name):
    """As they were saved by 0.1.0, but for a shorter voice."""
    nodes = json.loads((OLD_GRAPHS / f"{name}.json").read_text())
    for node in nodes.values():
        if node["class_type"] == "LoadAudio":
            node["inputs"]["audio"] = speech(server, 10)
    (file,) = server.run(nodes).files(".mp4")
    video = load_video(server.base / "output" / file)
    assert len(video) == 10 and video.frames.std() > 5


def test_a_prefix_outside_the_output_folder_is_refused(server):
    changed = graph("portrait", SVPVideoCombine={"filename_prefix": "../../escaped"})
    (combine,) = node_ids(changed, "SVPVideoCombine")
    (said,) = server.refusal(changed)[combine]
    assert "outside the output folder" in said
    assert not list(server.base.parent.rglob("escaped*"))


def test_training_is_cancelled_and_goes_on(server, host):
    if subprocess.run([host.python, "-c", "import accelerate"], capture_output=True).returncode:
        pytest.skip(f"{host.python} lacks the packages of the extra 'train'")
    whole = graph(
        "train_style",
        SVPPrepareDataset={"name": "host", "size": 64, "people": 2, "clips_per_person": 1},
        SVPTrainStyleExtractor={"name": "host_extractor", "steps": 2, "batch": 4},
        SVPTrainStage={"name": "host", "steps": 30, "frames": 2},
    )
    nodes = {key: whole[key] for key in ("1", "2", "3", "4", "5")}
    prompt_id = server.post("/prompt", {"prompt": nodes})["prompt_id"]
    run, until = server.base / "output/svp_training/host/stage3", time.monotonic() + SECONDS_TO_RUN
    while not run.exists() and time.monotonic() < until:
        time.sleep(0.05)
    server.interrupt()
    while not (stopped := server.get(f"/history/{prompt_id}")) and time.monotonic() < until:
        time.sleep(0.1)
    assert "execution_interrupted" in json.dumps(stopped[prompt_id]["status"]), server.log()
    (kept,) = run.glob("checkpoint-*.pt")
    step = int(kept.stem.removeprefix("checkpoint-"))
    assert 0 < step < 30 and "'host.safetensors'" not in str(server.get("/object_info/SVPLoadModel"))
    server.run(nodes)
    assert f"resumes at step {step} of 30" in server.log()
    assert "'host.safetensors'" in str(server.get("/object_info/SVPLoadModel"))
    assert [*(server.base / "output/svp_style_layers").glob("train_style_*.safetensors")]
