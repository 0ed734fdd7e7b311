"""A ComfyUI that is too old is refused, before anything of it is imported."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import svp_portrait
from svp_portrait import MINIMUM_COMFYUI, check_host_version
from svp_portrait.svp_models.errors import PortraitError

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


@pytest.mark.parametrize("version", ["0.3.64", "0.7.9", "0.7"])
def test_an_older_host_is_refused(monkeypatch, version):
    monkeypatch.setitem(sys.modules, "comfyui_version", SimpleNamespace(__version__=version))
    with pytest.raises(PortraitError, match=f"needs ComfyUI 0.8.0 or newer, this is {version}: update ComfyUI"):
        asyncio.run(svp_portrait.comfy_entrypoint())


@pytest.mark.parametrize("version", ["0.8.0", "0.8.1-rc1", "0.10.0", "1.0"])
def test_newer_ones_are_accepted(monkeypatch, version):
    monkeypatch.setitem(sys.modules, "comfyui_version", SimpleNamespace(__version__=version))
    check_host_version()


def test_without_a_host_there_is_no_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "comfyui_version", None)
    check_host_version()


def test_it_is_the_version_that_the_project_names():
    needed = ".".join(map(str, MINIMUM_COMFYUI))
    assert f'requires-comfyui = ">={needed}"' in PROJECT.read_text(encoding="utf-8")
