"""Pictures of workflows for the README and the template browser."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from svp_portrait.svp_models.media.video import load_video

WINDOW = {"width": 2560, "height": 1300}  # pixels
MARGIN = 32  # pixels around the graph: the pack's name stands above its nodes
README_WIDTH = 1600  # pixels
THUMBNAIL = 512  # pixels a side; the template browser shows squares
BACKGROUND = (24, 24, 24)
MOMENTS = (0.3, 0.75)  # of the clip, in a thumbnail
QUALITY = 88
STILL = """async ([file, part]) => {
    for (const video of document.querySelectorAll('video')) {
        video.controls = false;
        if (!file || !video.src.includes(file)) continue;
        video.pause();
        const there = new Promise((done) => video.addEventListener('seeked', done, {once: true}));
        video.currentTime = part * video.duration;
        await there;
    }
}"""
EXTENT = """() => {
    const canvas = window.app.canvas, view = canvas.canvas.getBoundingClientRect();
    const boxes = [...window.app.graph._nodes.map((node) => [...node.getBounding()]),
                   ...window.app.graph._groups.map((group) => [...group.boundingRect])];
    const at = canvas.ds.convertOffsetToCanvas([Math.min(...boxes.map((b) => b[0])), Math.min(...boxes.map((b) => b[1]))]);
    const to = canvas.ds.convertOffsetToCanvas([Math.max(...boxes.map((b) => b[0] + b[2])), Math.max(...boxes.map((b) => b[1] + b[3]))]);
    return [view.left + at[0], view.top + at[1], view.left + to[0], view.top + to[1]];
}"""


def screenshot(front_end, video: Path | None) -> Image.Image:
    """The whole graph with the page's own settings, its video stopped at a moment of speech."""
    page = front_end.page
    page.set_viewport_size(WINDOW)
    front_end.command("Workspace.ToggleFocusMode")
    page.evaluate(STILL, [video.name if video else "", MOMENTS[0]])
    front_end.fit()
    left, top, right, bottom = page.evaluate(EXTENT)
    left, top = max(left - MARGIN, 0), max(top - MARGIN, 0)
    right, bottom = min(right + MARGIN, WINDOW["width"]), min(bottom + MARGIN, WINDOW["height"])
    clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")


def thumbnail(graph: Image.Image, frames: list[Image.Image]) -> Image.Image:
    """A square: moments of the result above the graph that made them."""
    made = Image.new("RGB", (THUMBNAIL, THUMBNAIL), BACKGROUND)
    below = graph.resize((THUMBNAIL, round(graph.height * THUMBNAIL / graph.width)), Image.LANCZOS)
    top = THUMBNAIL - below.height
    made.paste(below, (0, top))
    if frames:
        scale = min(THUMBNAIL / sum(each.width for each in frames), top / max(each.height for each in frames))
        sized = [each.resize((round(each.width * scale), round(each.height * scale)), Image.BICUBIC) for each in frames]
        x = (THUMBNAIL - sum(each.width for each in sized)) // 2
        for each in sized:
            made.paste(each, (x, (top - each.height) // 2))
            x += each.width
    return made


def moments(video: Path) -> list[Image.Image]:
    """Frames of a clip for its thumbnail: two, or one that is wide."""
    frames = load_video(video).frames
    height, width = frames[0].shape[:2]
    return [
        Image.fromarray(frames[round(part * (len(frames) - 1))]) for part in MOMENTS[: 1 if width > height else None]
    ]


def take(front_end, name: str, video: Path | None, still: list[Image.Image], folder: Path) -> None:
    """Writes `docs/images/NAME.jpg` and the thumbnail `workflows/NAME.jpg` below a folder, of a workflow that was run; of one
    that was not, `still` stands for its result."""
    graph = screenshot(front_end, video)
    for place in ("docs/images", "workflows"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    small = graph.resize((README_WIDTH, round(graph.height * README_WIDTH / graph.width)), Image.LANCZOS)
    small.save(folder / "docs" / "images" / f"{name}.jpg", quality=QUALITY)
    frames = still if video is None else moments(video)
    thumbnail(graph, frames).save(folder / "workflows" / f"{name}.jpg", quality=QUALITY)
