"""The real host of these tests: COMFYUI_PATH names its folder, COMFYUI_PYTHON an interpreter that has its requirements."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from svp_portrait.svp_models.checkpoints.native import BUILTIN_MODEL

from .server import Host, Server, find_host, running


@pytest.fixture(scope="session")
def host() -> Host:
    return find_host()


@pytest.fixture(scope="session")
def server(host, tmp_path_factory) -> Iterator[Server]:
    """One host for all tests: what a test changes in it, it puts back."""
    if not BUILTIN_MODEL.is_file():
        pytest.skip(f"the built-in model {BUILTIN_MODEL} is not there")
    with running(host, tmp_path_factory.mktemp("host") / "base") as running_host:
        yield running_host
