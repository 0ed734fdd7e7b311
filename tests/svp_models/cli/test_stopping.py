"""Signals and kills while a graph runs, as a user meets them: in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import sys, time
from types import SimpleNamespace
import numpy as np
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.cli.schema import InputSpec, NodeSpec
from svp_portrait.svp_models.media.writer import VideoWriter

def nodes(folders, progress):
    print("importing", flush=True)
    time.sleep(IMPORT)

    def execute(prefix):
        (folders.temp / "preview.png").touch()
        target = folders.save_target(prefix, 64, 64)
        with target.reserved("mp4") as path, VideoWriter(path, 64, 64, 25) as writer:
            print("writing", flush=True)
            for frame in range(FRAMES):
                writer.write(np.zeros((1, 64, 64, 3), np.uint8))
                time.sleep(0.01)
        return SimpleNamespace(args=(), ui={"images": [target.saved(path)]})

    spec = NodeSpec("Slow", (InputSpec("prefix", "STRING"),), is_output_node=True)
    return [SimpleNamespace(define_schema=lambda: spec, execute=execute)]

sys.exit(main(nodes))
"""


@pytest.fixture
def start(tmp_path):
    def begin(seconds_to_import: float = 0, frames: int = 100_000) -> subprocess.Popen:
        (tmp_path / "graph.json").write_text(json.dumps({"1": {"class_type": "Slow", "inputs": {"prefix": "clip"}}}))
        (tmp_path / "temp").mkdir(exist_ok=True)
        code = PROGRAM.replace("IMPORT", str(seconds_to_import)).replace("FRAMES", str(frames))
        command = [sys.executable, "-c", code, "run", "graph.json", "--out", "out"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        environment = {**os.environ, "TMPDIR": str(tmp_path / "temp")}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)
        assert process.stdout.readline() == "importing\n"
        return process

    return begin


def left(tmp_path) -> list[str]:
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_one_line_and_no_file(tmp_path, start, number, code):
    process = start()
    assert process.stdout.readline() == "writing\n"
    time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert (out, err) == ("", "svp: interrupted, nothing half-written was left\n")
    assert process.returncode == code and left(tmp_path) == ["graph.json"] and os.listdir(tmp_path / "temp") == []


def test_a_signal_during_imports_is_one_line_too(tmp_path, start):
    process = start(seconds_to_import=30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (out, err, process.returncode) == ("", "svp: interrupted, nothing half-written was left\n", 130)
    assert left(tmp_path) == ["graph.json"] and os.listdir(tmp_path / "temp") == []


def test_a_run_after_a_kill_clears_what_it_left(tmp_path, start):
    process = start()
    assert process.stdout.readline() == "writing\n"
    process.kill()
    process.communicate()
    assert len(left(tmp_path)) > 3  # the reserved name, temporary files, the working folder
    process = start(frames=3)
    assert process.communicate()[0].splitlines()[-1] == str(tmp_path / "out" / "clip_00001_.mp4")
    assert left(tmp_path) == ["graph.json", "out/clip_00001_.mp4"] and os.listdir(tmp_path / "temp") == []


def test_runs_at_once_write_videos_of_their_own(tmp_path, start):
    processes = [start(frames=3) for _ in range(4)]
    printed = {process.communicate()[0].splitlines()[-1] for process in processes}
    assert printed == {str(tmp_path / "out" / f"clip_{number:05}_.mp4") for number in range(1, 5)}
    assert left(tmp_path) == ["graph.json", *(f"out/clip_{number:05}_.mp4" for number in range(1, 5))]
