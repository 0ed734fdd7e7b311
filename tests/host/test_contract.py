"""The stand-in against the real host: every node has the same schema on both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DUMP = Path(__file__).with_name("dump_schemas.py")


def schemas(python: str, *arguments: str, cwd: Path) -> dict[str, Any]:
    done = subprocess.run([python, str(DUMP), *arguments], cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def both(host, tmp_path_factory) -> tuple[dict[str, Any], dict[str, Any]]:
    base = tmp_path_factory.mktemp("base")
    hosted = schemas(host.python, str(host.pack), str(host.folder), str(base), cwd=base)
    standing_in = schemas(sys.executable, str(host.pack), cwd=base)
    return hosted, standing_in


def test_each_side_is_what_it_says(both):
    hosted, standing_in = both
    assert hosted["hosted"] and not standing_in["hosted"]


def test_schemas_are_equal(both):
    hosted, standing_in = (side["nodes"] for side in both)
    assert [each["node_id"] for each in hosted] == [each["node_id"] for each in standing_in]
    for real, ours in zip(hosted, standing_in, strict=True):
        assert ours == real, real["node_id"]
