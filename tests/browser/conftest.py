"""The host's web page in a Chromium: COMFYUI_PATH and COMFYUI_PYTHON name the host, CHROMIUM_PATH the browser if it is not in
the PATH. `--screenshots [FOLDER]` also takes the pictures of the workflows, into this repository unless told otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..host.conftest import host, server
from ..host.server import ROOT, Server
from .front_end import FrontEnd

__all__ = ["host", "server"]  # fixtures

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
NO_PLAYWRIGHT = 'playwright is not installed: pip install "svp-portrait[browser]" brings what drives the browser'
NO_BROWSER = "no Chromium was found: install one, or name it with CHROMIUM_PATH"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
WINDOW = {"width": 1600, "height": 900}
# The page as it is after installing, so nothing about how it looks; a test starts without the last one's graph.
SETTINGS = {
    "Comfy.TutorialCompleted": True,  # else the first start opens the templates
    "Comfy.Locale": "en",
    "Comfy.Workflow.Persist": False,
}
RENDERERS = {"canvas": False, "nodes 2.0": True}  # what draws the nodes, and the setting


def pytest_addoption(parser) -> None:
    parser.addoption(
        "--screenshots", nargs="?", const=str(ROOT), metavar="FOLDER", help="write docs/images and thumbnails of the workflows"
    )  # fmt: skip


def pytest_terminal_summary(terminalreporter) -> None:
    """One line for all tests that lacked the same thing."""
    skipped = [str(each.longrepr) for each in terminalreporter.stats.get("skipped", [])]
    for reason in (NO_PLAYWRIGHT, NO_BROWSER):
        count = sum(reason in each for each in skipped)
        if count:
            terminalreporter.write_line(f"{count} tests skipped: {reason}")


@pytest.fixture(scope="session")
def browser(host, chromium) -> object:
    """The browser, where there is a host to look at."""
    return chromium


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """One browser for all tests."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip(NO_PLAYWRIGHT)
    path = os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(NO_BROWSER)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(FLAGS), timeout=300_000)
        yield opened
        opened.close()


@pytest.fixture
def front_end(browser, server: Server, request) -> Iterator[FrontEnd]:
    """A fresh page of the host; `parametrize` with RENDERERS chooses what draws the nodes, else the canvas does."""
    renderer = getattr(request, "param", "canvas")
    server.post("/settings", SETTINGS | {"Comfy.VueNodes.Enabled": RENDERERS[renderer]})
    context = browser.new_context(viewport=WINDOW)
    opened = FrontEnd(context.new_page(), server)
    opened.open()
    yield opened
    context.close()


@pytest.fixture
def fresh_input(server: Server) -> Iterator[Path]:
    """The host's input folder as it is after installing: empty. Its files are back afterwards."""
    folder, aside = server.base / "input", server.base / "aside"
    folder.rename(aside)
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)
    aside.rename(folder)
