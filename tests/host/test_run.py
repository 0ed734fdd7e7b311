"""The bundled workflows in a real host, posted to its HTTP API."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svp_portrait.svp_models.checkpoints.native import BUILTIN_MODEL
from svp_portrait.svp_models.media.audio import frame_count, load_audio
from svp_portrait.svp_models.media.video import load_video

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
ASSETS = WORKFLOWS / "assets"
AAC_FRAME = 1024  # samples: the last frame of a decoded track is filled up with silence
SECONDS_TO_START, SECONDS_TO_RUN = 600, 900


class Server:
    """A running host."""

    def __init__(self, base: Path, port: int, process: subprocess.Popen):
        self.base, self.address, self.process = base, f"http://127.0.0.1:{port}", process

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.address + path, timeout=30) as answer:
            return json.load(answer)

    def send(self, path: str, content: Any) -> Any:
        request = urllib.request.Request(self.address + path, json.dumps(content).encode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, content: Any) -> Any:
        try:
            return self.send(path, content)
        except urllib.error.HTTPError as error:
            pytest.fail(f"{path}: {error.read().decode()[:3000]}")

    def log(self) -> str:
        return (self.base / "log.txt").read_text(errors="replace")[-3000:]

    def run(self, graph: dict[str, Any]) -> dict[str, Any]:
        """The history entry of a graph run to its end."""
        prompt_id = self.post("/prompt", {"prompt": graph})["prompt_id"]
        until = time.monotonic() + SECONDS_TO_RUN
        while time.monotonic() < until:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return entry
            assert self.process.poll() is None, self.log()
            time.sleep(0.5)
        pytest.fail(f"not done after {SECONDS_TO_RUN} s: {self.log()}")


@pytest.fixture(scope="module")
def server(host, tmp_path_factory) -> Iterator[Server]:
    if not BUILTIN_MODEL.is_file():
        pytest.skip(f"the built-in model {BUILTIN_MODEL} is not there")
    base = tmp_path_factory.mktemp("host")
    shutil.copytree(ASSETS, base / "input")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "svp-portrait").symlink_to(host.pack)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [host.python, str(host.folder / "main.py"), "--cpu", "--port", str(port), "--base-directory", str(base)]
    command += ["--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
    with (base / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=base, stdout=log, stderr=subprocess.STDOUT, env=dict(os.environ))
    running = Server(base, port, process)
    try:
        wait_until_up(running)
        yield running
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_until_up(server: Server) -> None:
    until = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < until:
        assert server.process.poll() is None, server.log()
        try:
            server.get("/system_stats")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    pytest.fail(f"the host was not up after {SECONDS_TO_START} s: {server.log()}")


def graph(name: str, **changes: Any) -> dict[str, Any]:
    """A bundled graph, with few steps and with inputs changed by class."""
    nodes = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    for node in nodes.values():
        if node["class_type"] == "SVPSampler":
            node["inputs"]["steps"] = 2
        node["inputs"].update(changes.get(node["class_type"], {}))
    return nodes


def outputs(entry: dict[str, Any]) -> list[Path]:
    """Subfolder and name of each video that a run reports."""
    shown = [each for node in entry["outputs"].values() for each in node.get("images", [])]
    return [Path(each["subfolder"]) / each["filename"] for each in shown if each["filename"].endswith(".mp4")]


def test_all_nodes_are_listed(server):
    listed = server.get("/object_info")
    assert {"SVPLoadModel", "SVPSampler", "SVPVideoCombine"} <= set(listed)
    assert listed["SVPSampler"]["input"]["required"]["head_motion"][0] == "IMAGE,SVP_HEAD_MOTION"


def test_templates_are_offered(server):
    offered = server.get("/api/workflow_templates")["svp-portrait"]
    assert set(offered) == {"portrait", "style_interpolation", "style_library", "train_style", "vexpress_portrait"}


def test_missing_public_weights_are_told_with_their_cure(server):
    """A graph of nodes the host knows, refused for nothing but the files it lacks."""
    nodes = graph("vexpress_portrait")
    assert {node["class_type"] for node in nodes.values()} <= set(server.get("/object_info"))
    with pytest.raises(urllib.error.HTTPError) as raised:
        server.send("/prompt", {"prompt": nodes})
    errors = json.load(raised.value)["node_errors"]
    told = {key: [each["details"] for each in entry["errors"]] for key, entry in errors.items() if entry["errors"]}
    assert sorted(told) == ["1", "2"] and all(len(each) == 1 for each in told.values())
    assert f'svp download vexpress --models "{server.base / "models"}"' in told["1"][0]
    assert "svp download wav2vec2-base-960h" in told["2"][0]


@pytest.mark.parametrize("name", ["portrait", "style_interpolation", "style_library"])
def test_workflow_runs(server, name):
    entry = server.run(graph(name))
    assert entry["status"]["status_str"] == "success", json.dumps(entry["status"])[:3000]
    (path,) = outputs(entry)
    video, speech = load_video(server.base / "output" / path), load_audio(ASSETS / "speech.wav")
    assert len(video) == frame_count(speech.seconds, 25.0) and video.fps == 25.0
    assert video.audio is not None and abs(video.audio.seconds - speech.seconds) < AAC_FRAME / video.audio.sample_rate


def test_the_hosts_vae_nodes_take_our_vae(server):
    nodes = {
        "1": {"class_type": "SVPLoadModel", "inputs": {"model": "built-in demo"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "portrait.png"}},
        "3": {"class_type": "VAEEncode", "inputs": {"pixels": ["2", 0], "vae": ["1", 1]}},
        "4": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 1]}},
    }
    tiles = {"vae": ["1", 1], "tile_size": 64, "overlap": 0, "temporal_size": 64, "temporal_overlap": 8}
    nodes["5"] = {"class_type": "VAEEncodeTiled", "inputs": {"pixels": ["4", 0], **tiles}}
    nodes["6"] = {"class_type": "VAEDecodeTiled", "inputs": {"samples": ["5", 0], **tiles}}
    nodes["7"] = {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "vae"}}
    entry = server.run(nodes)
    assert entry["status"]["status_str"] == "success", json.dumps(entry["status"])[:3000]


def test_a_prefix_outside_the_output_folder_is_refused(server):
    # The host still runs the graph's other outputs, and names the one it will not run.
    changed = graph("portrait", SVPVideoCombine={"filename_prefix": "../../escaped"})
    combine = next(key for key, node in changed.items() if node["class_type"] == "SVPVideoCombine")
    errors = server.post("/prompt", {"prompt": changed})["node_errors"]
    assert "outside the output folder" in json.dumps(errors[combine])
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
    urllib.request.urlopen(urllib.request.Request(server.address + "/interrupt", b"{}"), timeout=30).close()
    while not (stopped := server.get(f"/history/{prompt_id}")) and time.monotonic() < until:
        time.sleep(0.1)
    assert "execution_interrupted" in json.dumps(stopped[prompt_id]["status"]), server.log()
    (kept,) = run.glob("checkpoint-*.pt")
    step = int(kept.stem.removeprefix("checkpoint-"))
    assert 0 < step < 30 and "'host.safetensors'" not in str(server.get("/object_info/SVPLoadModel"))
    entry = server.run(nodes)
    assert entry["status"]["status_str"] == "success", json.dumps(entry["status"])[:3000]
    assert f"goes on at step {step} of 30" in server.log()
    assert "'host.safetensors'" in str(server.get("/object_info/SVPLoadModel"))
    assert [*(server.base / "output/svp_style_layers").glob("train_style_*.safetensors")]
