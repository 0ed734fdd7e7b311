"""The host's web page in a Chromium: COMFYUI_PATH and COMFYUI_PYTHON name the host, CHROMIUM_PATH the browser if it is not in
the PATH. `--screenshots [FOLDER]` also takes the pictures of the workflows, into this repository unless told otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from ..host.conftest import host, server
from ..host.server import ROOT, Server
from .front_end import FrontEnd

__all__ = ["host", "server"]  # fixtures

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
NO_PLAYWRIGHT = 'playwright is not installed: pip install "svp-portrait[browser]" brings what drives the browser'
NO_BROWSER = "no Chromium was found: install one, or name it with CHROMIUM_PATH"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
WINDOW = {"width": 1800, "height": 1000}
SETTINGS = {
    "Comfy.TutorialCompleted": True,  # else the first start opens the templates
    "Comfy.Locale": "en",
    "Comfy.Minimap.Visible": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,  # text is drawn when the whole graph is in view
    "Comfy.Workflow.Persist": False,
}


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
def browser(host) -> Iterator[object]:
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
def front_end(browser, server: Server) -> Iterator[FrontEnd]:
    """A fresh page of the host with nothing but the pack's nodes to look at."""
    server.post("/settings", SETTINGS)
    context = browser.new_context(viewport=WINDOW)
    opened = FrontEnd(context.new_page(), server)
    opened.open()
    yield opened
    context.close()
