"""The stand-in against the real host: every node has the same schema on both. And the pack's objects against what the host's
methods read of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .attributes import lacking

CHECK = Path(__file__).with_name("check_contract.py")
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


@pytest.mark.parametrize("part", ["vae", "patcher", "network"])
def test_the_hosts_methods_find_all_that_they_read(contract, part):
    assert contract["methods"] > 40 and contract[part] == {}


@pytest.fixture(scope="module")
def contract(host, tmp_path_factory) -> dict[str, Any]:
    base = tmp_path_factory.mktemp("base")
    command = [host.python, str(CHECK), str(host.pack), str(host.folder), str(base)]
    done = subprocess.run(command, cwd=base, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


class Codec:
    """Stands for a class of the host."""

    def encode(self):
        return self.crop() + self.scale if self.tiles else self.later

    def crop(self):
        return self.size + getattr(self, "offset", 0)

    def unused(self):
        return self.never


def test_what_is_lacking_is_named_with_its_readers():
    ours = Codec()
    ours.scale, ours.later = 1, 2
    assert lacking(ours, "self", Codec, ["encode"]) == {"size": ["crop"], "tiles": ["encode"]}
