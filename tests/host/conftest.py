"""The real hosts of these tests, see hosts.py: every test runs in each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL

from .hosts import Host, host_params
from .server import Server, running


@pytest.fixture(scope="session", params=host_params())
def host(request) -> Host:
    return request.param


@pytest.fixture(scope="session")
def server(host, tmp_path_factory) -> Iterator[Server]:
    """One host for all tests: what a test changes in it, it puts back."""
    if not BUILTIN_MODEL.is_file():
        pytest.skip(f"the built-in model {BUILTIN_MODEL} is not there")
    with running(host, tmp_path_factory.mktemp("host") / "base") as running_host:
        yield running_host
