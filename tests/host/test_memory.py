"""The pack's networks under the real host's memory management."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHECK = Path(__file__).with_name("check_memory.py")


@pytest.fixture(scope="module")
def seen(host, tmp_path_factory) -> dict[str, Any]:
    base = tmp_path_factory.mktemp("base")
    command = [host.python, str(CHECK), str(host.pack), str(host.folder), str(base)]
    done = subprocess.run(command, cwd=base, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_networks_are_loaded_and_unloaded_whole(seen):
    assert seen["ours"] == [1, 1]
    assert seen["plain"] != [1, 1]  # what the host would do without our patcher


def test_what_denoises_is_apart_from_what_encodes(seen):
    assert seen["conditions_first"] == [True] and seen["both_loaded"]
    assert seen["parts"] == seen["whole"]


def test_the_memory_that_is_asked_for_is_the_plans(seen):
    assert 1e6 < seen["memory"] < seen["room"] and seen["halves_together"]
    assert seen["the_same_in_inference_mode"]
