"""A real host as a process of its own, its HTTP API, and runs of graphs that are followed through its websocket."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .hosts import ROOT, Host
from .websocket import WebSocket

WORKFLOWS = ROOT / "workflows"
ASSETS = WORKFLOWS / "assets"
SECONDS_TO_START, SECONDS_TO_ANSWER, SECONDS_TO_RUN = 600, 300, 900
ENDINGS = ("execution_success", "execution_error", "execution_interrupted")


@dataclass
class Run:
    """A graph that was run. Nodes are named by their ids in it."""

    prompt_id: str
    executed: list[str] = field(default_factory=list)  # in this order
    cached: list[str] = field(default_factory=list)  # taken from earlier runs
    progress: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # (done, total) by node
    previews: int = 0  # pictures sent while it ran
    ending: str = ""  # one of ENDINGS
    message: dict[str, Any] = field(default_factory=dict)  # what came with the ending
    entry: dict[str, Any] = field(default_factory=dict)  # of the host's history

    @property
    def error(self) -> str:
        """What the interface shows of a failed run."""
        return str(self.message.get("exception_message", ""))

    def files(self, kind: str) -> list[Path]:
        """The files with that ending which the graph's outputs report, below the output or temp folder."""
        shown = [each for node in self.entry["outputs"].values() for each in node.get("images", [])]
        return [Path(each["subfolder"]) / each["filename"] for each in shown if each["filename"].endswith(kind)]


class Server:
    """A running host: `base` is its base directory, `address` its http://..., `process` the process."""

    def __init__(self, base: Path, port: int, process: subprocess.Popen):
        self.base, self.address, self.process = base, f"http://127.0.0.1:{port}", process

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.address + path, timeout=SECONDS_TO_ANSWER) as answer:
            return json.load(answer)

    def send(self, path: str, content: Any) -> Any:
        """POST; a refusal raises HTTPError."""
        request = urllib.request.Request(self.address + path, json.dumps(content).encode())
        with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def post(self, path: str, content: Any) -> Any:
        """POST; a refusal fails the test."""
        try:
            return self.send(path, content)
        except urllib.error.HTTPError as error:
            pytest.fail(f"{path}: {error.read().decode()[:3000]}")

    def refusal(self, graph: dict[str, Any]) -> dict[str, list[str]]:
        """What is wrong with a graph, by node, when the host does not take it."""
        with pytest.raises(urllib.error.HTTPError) as raised:
            self.send("/prompt", {"prompt": graph})
        errors = json.load(raised.value)["node_errors"]
        return {key: [each["details"] for each in entry["errors"]] for key, entry in errors.items() if entry["errors"]}

    def fetch(self, file: Path, kind: str = "output") -> bytes:
        """A result, as the interface fetches it."""
        query = {"filename": file.name, "subfolder": file.parent.as_posix().strip("."), "type": kind}
        with urllib.request.urlopen(
            f"{self.address}/view?{urllib.parse.urlencode(query)}", timeout=SECONDS_TO_ANSWER
        ) as answer:
            return answer.read()

    def interrupt(self) -> None:
        """Cancel, as the interface's button does."""
        self.post("/interrupt", {})

    def forget(self) -> None:
        """The host drops what it keeps of earlier runs before the next one: models and results."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def log(self) -> str:
        return (self.base / "log.txt").read_text(errors="replace")[-3000:]

    def follow(self, graph: dict[str, Any], on_event: Callable[[Run, str, dict[str, Any]], None] | None = None) -> Run:
        """Runs a graph to its end, however it ends. `on_event` gets (run so far, type, data) of each message of it."""
        client = uuid.uuid4().hex
        address = f"ws{self.address.removeprefix('http')}/ws?clientId={client}"
        until = time.monotonic() + SECONDS_TO_RUN
        with WebSocket(address, SECONDS_TO_ANSWER) as messages:
            run = Run(self.post("/prompt", {"prompt": graph, "client_id": client})["prompt_id"])
            while not run.ending:
                assert self.process.poll() is None, f"the host has ended: {self.log()}"
                if time.monotonic() > until:
                    pytest.fail(f"not done after {SECONDS_TO_RUN} s: {self.log()}")
                try:
                    message = messages.receive(timeout=2)
                except TimeoutError:
                    continue
                if isinstance(message, bytes):
                    run.previews += 1
                    continue
                content = json.loads(message)
                kind, data = content["type"], content["data"]
                if data.get("prompt_id") != run.prompt_id:
                    continue
                note(run, kind, data)
                if on_event is not None:
                    on_event(run, kind, data)
        run.entry = self.entry(run.prompt_id)  # the history gets it a moment after the last message
        return run

    def entry(self, prompt_id: str) -> dict[str, Any]:
        """What the host's history says of a run, once it has ended."""
        until = time.monotonic() + SECONDS_TO_RUN
        while time.monotonic() < until:
            found = self.get(f"/history/{prompt_id}").get(prompt_id)
            if found:
                return found
            time.sleep(0.05)
        pytest.fail(f"not done after {SECONDS_TO_RUN} s: {self.log()}")

    def takes(self, path: str) -> bool:
        """Whether the host has something to POST to there."""
        try:
            self.send(path, {})
        except urllib.error.HTTPError as error:
            return error.code not in (404, 405)
        return True

    def run(self, graph: dict[str, Any]) -> Run:
        """Runs a graph that has to succeed."""
        run = self.follow(graph)
        assert run.ending == "execution_success", json.dumps(run.message)[:3000]
        return run


def note(run: Run, kind: str, data: dict[str, Any]) -> None:
    """Enters one of the host's messages."""
    if kind == "executing" and data["node"] is not None:
        run.executed.append(data["node"])
    elif kind == "execution_cached":
        run.cached += data["nodes"]
    elif kind == "progress":
        run.progress.setdefault(data["node"], []).append((data["value"], data["max"]))
    elif kind in ENDINGS:
        run.ending, run.message = kind, data


@contextmanager
def running(host: Host, base: Path, *flags: str, packs: tuple[Path, ...] = ()) -> Iterator[Server]:
    """A host on the CPU with this pack, other packs and the pack's example files, in a new folder `base`; it ends with the block."""
    shutil.copytree(ASSETS, base / "input")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "svp-portrait").symlink_to(host.pack)
    for each in packs:
        (base / "custom_nodes" / each.name).symlink_to(each)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [host.python, str(host.folder / "main.py"), "--cpu", "--port", str(port), "--base-directory", str(base)]
    command += ["--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:", *flags]
    with (base / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=base, stdout=log, stderr=subprocess.STDOUT)
    server = Server(base, port, process)
    try:
        wait_until_up(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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


def graph(name: str, **changes: dict[str, Any]) -> dict[str, Any]:
    """A bundled graph, with few steps and with inputs changed by class."""
    nodes = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    for node in nodes.values():
        if node["class_type"] == "SVPSampler":
            node["inputs"]["steps"] = 2
        node["inputs"].update(changes.get(node["class_type"], {}))
    return nodes


def speech(server: Server, frames: int) -> str:
    """The first so many frames (25 a second) of the example's speech, as a file of the input folder."""
    name = f"speech_{frames}.wav"
    with wave.open(str(ASSETS / "speech.wav")) as whole, wave.open(str(server.base / "input" / name), "wb") as part:
        part.setparams(whole.getparams())
        part.writeframes(whole.readframes(round(frames / 25 * whole.getframerate())))
    return name


def talking(server: Server, frames: int = 10, **changes: dict[str, Any]) -> dict[str, Any]:
    """A short clip of the built-in model, by node names that say what a node gives; inputs are changed by those names."""
    nodes = {
        "model": ("SVPLoadModel", {"model": "built-in demo"}),
        "picture": ("LoadImage", {"image": "portrait.png"}),
        "speech": ("LoadAudio", {"audio": speech(server, frames)}),
        "clip": ("LoadVideo", {"file": "style_happy.mp4"}),
        "parts": ("GetVideoComponents", {"video": ["clip", 0]}),
        "few": ("ImageFromBatch", {"image": ["parts", 0], "batch_index": 0, "length": 8}),
        "motion": ("SVPHeadKpsExtract", {"model": ["model", 0], "frames": ["few", 0], "fps": ["parts", 2]}),
        "prior": ("SVPStyleExtract", {"model": ["model", 0], "frames": ["few", 0], "fps": ["parts", 2]}),
        "style": ("SVPStyleSample", {"style_prior": ["prior", 0], "seed": 1, "temperature": 1.0}),
        "sampler": (
            "SVPSampler",
            {
                **{"model": ["model", 0], "vae": ["model", 1], "portrait": ["picture", 0], "audio": ["speech", 0]},
                **{"head_motion": ["motion", 0], "style": ["style", 0], "seed": 0, "steps": 1, "cfg": 1.0},
                **{
                    "scheduler": "euler",
                    "reference_weight": 1.0,
                    "audio_weight": 1.0,
                    "style_weight": 1.0,
                    "fps": 25.0,
                },
                **{"window": 0, "overlap": -1, "width": 0, "height": 0, "length": "audio"},
            },
        ),
        "video": (
            "SVPVideoCombine",
            {
                **{"latent": ["sampler", 0], "vae": ["model", 1], "audio": ["speech", 0], "fps": ["sampler", 1]},
                **{"crf": 18, "filename_prefix": "svp/short"},
            },
        ),
    }
    return {key: {"class_type": kind, "inputs": inputs | changes.get(key, {})} for key, (kind, inputs) in nodes.items()}


def node_ids(nodes: dict[str, Any], *classes: str) -> list[str]:
    """The ids of a graph's nodes of those classes."""
    return [key for key, node in nodes.items() if node["class_type"] in classes]
