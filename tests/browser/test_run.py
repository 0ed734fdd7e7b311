"""The bundled workflows, run by the Run button. With `--screenshots` also pictures of them, of those that were not run too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from svp_portrait.svp_models.media.video import load_video

from ..host.server import ASSETS, WORKFLOWS
from .pictures import take
from .test_templates import NEED_WEIGHTS

NOT_RUN = NEED_WEIGHTS
RUN = sorted({path.stem for path in WORKFLOWS.glob("*.json")} - NOT_RUN)
SMALLEST = {  # training is tested elsewhere: here only that its graph runs
    "SVPPrepareDataset": {"name": "browser", "size": 64, "people": 2, "clips_per_person": 1},
    "SVPTrainStyleExtractor": {"name": "browser_extractor", "steps": 2, "batch": 4},
    "SVPTrainStage": {"name": "browser", "steps": 1, "frames": 2},
}
TURN = """(values) => window.app.graph._nodes.map((node) => Object.fromEntries(
    Object.entries(values[node.type] ?? {}).map(([name, value]) => {
        const widget = node.widgets.find((each) => each.name === name), before = widget.value;
        widget.value = value;
        return [name, before];
    })
))"""
BACK = """(values) => window.app.graph._nodes.forEach((node, index) => {
    for (const [name, value] of Object.entries(values[index])) node.widgets.find((each) => each.name === name).value = value;
})"""
PLAY = """async (name) => {
    const video = [...document.querySelectorAll('video')].find((each) => each.src.includes(name));
    video.muted = true;
    await video.play();
    const before = video.currentTime;
    for (let i = 0; i < 300 && video.currentTime <= before; i++) await new Promise((next) => setTimeout(next, 200));
    video.pause();
    return [video.currentTime - before, video.duration];
}"""


@pytest.fixture(scope="module")
def folder(request) -> Path | None:
    """Where `--screenshots` wants the pictures."""
    given = request.config.getoption("--screenshots", None)
    return None if given is None else Path(given)


def written_video(entry: dict[str, Any], base: Path) -> Path:
    shown = [each for node in entry["outputs"].values() for each in node.get("images", [])]
    (video,) = [each for each in shown if each["filename"].endswith(".mp4") and each["type"] == "output"]
    return base / "output" / video["subfolder"] / video["filename"]


@pytest.mark.parametrize("name", RUN)
def test_run_button(front_end, server, folder, name):
    """The run succeeds, and the node that writes the video plays it."""
    front_end.open_template(name)
    before = front_end.page.evaluate(TURN, SMALLEST)
    entry = front_end.run()
    video = written_video(entry, server.base)
    clip = load_video(video)
    shown = "(name) => [...document.querySelectorAll('video')].some((each) => each.src.includes(name) && each.readyState >= 2)"
    front_end.page.wait_for_function(shown, arg=video.name)
    moved, seconds = front_end.page.evaluate(PLAY, video.name)
    assert moved > 0 and seconds == pytest.approx(len(clip.frames) / clip.fps, abs=0.1)
    assert front_end.errors() == []
    if folder is not None:
        front_end.page.evaluate(BACK, before)
        take(front_end, name, video, [], folder)


@pytest.mark.parametrize("name", sorted(NOT_RUN))
def test_picture_of_what_is_not_run(front_end, folder, name):
    if folder is None:
        pytest.skip("pictures are taken with --screenshots")
    front_end.open_template(name)
    front_end.close_messages()
    take(front_end, name, None, [Image.open(ASSETS / "portrait.png").convert("RGB")], folder)
