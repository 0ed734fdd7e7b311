"""Where the real host is: COMFYUI_PATH names its folder, COMFYUI_PYTHON an interpreter that has its requirements."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def host() -> SimpleNamespace:
    """folder of ComfyUI, its python, and this pack's folder."""
    folder = os.environ.get("COMFYUI_PATH")
    if not folder:
        pytest.skip("COMFYUI_PATH is not set: name a ComfyUI folder (0.8.0 or newer) to test against the real host")
    if not (Path(folder) / "main.py").is_file():
        pytest.fail(f"COMFYUI_PATH={folder} holds no main.py")
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    return SimpleNamespace(folder=Path(folder).resolve(), python=python, pack=ROOT)
