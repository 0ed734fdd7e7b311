"""Which hosts the tests run in: COMFYUI_PATHS names them, or COMFYUI_PATH and COMFYUI_PYTHON a single one."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_SET = (
    f"COMFYUI_PATHS is not set: COMFYUI_PATHS=/old/ComfyUI=/its/python{os.pathsep}/new/ComfyUI=/its/python python -m pytest "
    "tests/host tests the pack in real hosts"
)


@dataclass(frozen=True)
class Host:
    """Where a host is: ComfyUI's folder, an interpreter with its requirements, and this pack's folder."""

    folder: Path
    python: str
    pack: Path = ROOT

    @property
    def version(self) -> str:
        """As the host tells it, for example 0.8.0."""
        found = re.search(r'__version__ = "([^"]+)"', (self.folder / "comfyui_version.py").read_text())
        return found[1] if found else "unknown"


def read_hosts() -> list[Host]:
    """FOLDER=PYTHON of every host, separated as the system separates paths; PYTHON may be left out."""
    single = os.environ.get("COMFYUI_PATH", "")
    listed = os.environ.get("COMFYUI_PATHS") or (
        single and f"{single}={os.environ.get('COMFYUI_PYTHON', sys.executable)}"
    )
    found = []
    for entry in filter(None, listed.split(os.pathsep)):
        folder, _, python = entry.partition("=")
        if not (Path(folder) / "main.py").is_file():
            pytest.exit(f"COMFYUI_PATHS: {folder} holds no main.py", returncode=pytest.ExitCode.USAGE_ERROR)
        found.append(Host(Path(folder).resolve(), python or sys.executable))
    return found


def host_params() -> list:
    """For a fixture's `params`: the hosts, or a skip that says how to name some."""
    hosts = [pytest.param(host, id=f"comfyui-{host.version}") for host in read_hosts()]
    return hosts or [pytest.param(None, id="no-host", marks=pytest.mark.skip(reason=NOT_SET))]
