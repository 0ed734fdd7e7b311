"""The pack's requirements beside the host's own."""

from __future__ import annotations

import json
import subprocess

import pytest

from .server import Host

# What a package manager would ask: which requirements of the project does this interpreter not meet?
MISSING = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
from packaging.requirements import Requirement
unmet = []
for line in json.loads(sys.argv[1]):
    needed = Requirement(line)
    try:
        there = version(needed.name)
    except PackageNotFoundError:
        there = None
    if there is None or not needed.specifier.contains(there, prereleases=True):
        unmet.append([line, there])
print(json.dumps(unmet))
"""


def test_the_hosts_packages_fit_together(host: Host):
    if subprocess.run([host.python, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip(f"{host.python} has no pip")
    done = subprocess.run([host.python, "-m", "pip", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_host_has_what_the_pack_requires(host: Host):
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((host.pack / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    command = [host.python, "-c", MISSING, json.dumps(project["dependencies"])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
