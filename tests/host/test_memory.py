"""The pack's networks under the real host's memory management, and the host's own memory over many runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL

from .process import KNOWN, memory
from .server import Server, running, talking

RUNS, WARM, FLAT = 20, 5, 1.05  # the first few runs fill caches and pools; after them memory stays within 5 %
CHECK = Path(__file__).with_name("check_memory.py")


@pytest.fixture(scope="module")
def seen(host, tmp_path_factory) -> dict[str, Any]:
    base = tmp_path_factory.mktemp("base")
    command = [host.python, str(CHECK), str(host.pack), str(host.folder), str(base)]
    done = subprocess.run(command, cwd=base, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_networks_are_loaded_in_parts_and_compute_the_same(seen):
    assert 0.4 < seen["unloaded_a_little"] < 0.8
    assert seen["loaded_none"] < 0.01 and seen["loaded_all"] == 1
    assert 0.1 < seen["loaded_a_part"] < 0.6
    assert all(seen[f"{name}_the_same"] for name in ("unloaded_a_little", "loaded_none", "loaded_a_part", "loaded_all"))


def test_weights_that_lie_elsewhere_come_to_the_device_of_the_input(seen):
    assert len(seen["devices"]) == 7 and set(seen["devices"].values()) == {"cuda"}


def test_what_denoises_is_apart_from_what_encodes(seen):
    assert seen["conditions_first"] == [True] and seen["both_loaded"]
    assert seen["parts"] == seen["whole"]  # all but the style extractor, which stays on the CPU


def test_the_memory_that_is_asked_for_is_the_plans(seen):
    assert 1e6 < seen["memory"] < seen["room"] and seen["halves_together"]
    assert seen["the_same_in_inference_mode"]


def test_another_model_pushes_ours_out_and_they_come_back(seen):
    assert seen["beside"] == [True, True]  # both parts were loaded
    assert seen["pushed_out"] == [False, False] and seen["pusher_stays"]
    assert seen["back"] == [True, True] and seen["the_same_when_back"]


@pytest.fixture(scope="module")
def watched(host, tmp_path_factory) -> Iterator[Server]:
    """A host that shows pictures while it samples, with a memory that nobody else uses."""
    if not BUILTIN_MODEL.is_file():
        pytest.skip(f"the built-in model {BUILTIN_MODEL} is not there")
    with running(host, tmp_path_factory.mktemp("watched") / "base", "--preview-method", "auto") as server:
        yield server


@pytest.mark.skipif(not KNOWN, reason="looks into Linux' /proc")
def test_nothing_leaks_over_many_runs(watched):
    taken = []
    for seed in range(RUNS):
        run = watched.run(talking(watched, sampler={"seed": seed}))
        assert "sampler" in run.executed and "video" in run.executed
        taken.append(memory(watched.process.pid))
    told = ", ".join(f"{each / 1e6:.0f}" for each in taken)
    assert max(taken[WARM:]) < FLAT * min(taken[WARM:]), f"MB after each run: {told}"


def test_pictures_are_shown_where_the_host_wants_them(watched, server):
    assert watched.run(talking(watched, sampler={"seed": 100, "steps": 3})).previews > 0
    assert server.run(talking(server, sampler={"seed": 100, "steps": 3})).previews == 0
