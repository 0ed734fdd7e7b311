"""The page of an evaluation in a Chromium, as wide as a desktop and as a phone: tables, charts, pictures, a clip that plays, the
keyboard. It needs the browser alone, no host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.evaluation.charts import line_chart, scatter_chart
from svp_portrait.svp_models.evaluation.figures import Row, Table
from svp_portrait.svp_models.evaluation.pictures import png_bytes, side_by_side
from svp_portrait.svp_models.evaluation.report import Chart, Clip, Picture, Report, Section, write_report
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import Audio

SIZES = {"desktop": (1400, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    clip = make_clip(speaker(0, "test"), "happy", 3, 0, seconds=1.0, size=64)
    sound = Audio(torch.from_numpy(clip.audio)[None], 16000)
    columns = (
        "psnr",
        "ssim",
        "sharpness",
        "mouth_psnr",
        "mouth_ssim",
        "eyes_psnr",
        "eyes_ssim",
        "brows_psnr",
        "still_flicker",
    )
    rows = tuple(
        Row(name, {key: float(index + number) for index, key in enumerate(columns)}, {"psnr": (number - 1, number + 1)})
        for number, name in enumerate(("still portrait", "warped portrait", "SVP"))
    )
    points = np.random.default_rng(0).normal(size=(16, 2))
    sections = (
        Section(
            "Reconstruction",
            tables=(Table("Reconstruction of drawn people", columns, rows),),
            charts=(
                Chart("By lag.", line_chart("Lags", {"SVP": [(-1, 0), (0, 1), (1, 0)]}, "lag", "correlation")),
                Chart("Styles.", scatter_chart("Style priors", points, ["sad", "happy"] * 8)),
            ),
            pictures=(
                Picture("A strip.", "frames beside one another", png_bytes(np.concatenate(clip.images[:12], axis=1))),
            ),
        ),
        Section(
            "Clips",
            clips=(Clip("A clip.", "somebody speaks", side_by_side({"a": clip.images, "b": clip.images}, 25, sound)),),
        ),
    )
    report = Report("Evaluation of a model", "A summary.", sections, {"fid": "no weights"}, {"seed": 0}, {"torch": "2"})
    return write_report(report, tmp_path_factory.mktemp("report"))


@pytest.fixture(
    params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids=lambda pair: "-".join(pair)
)
def page(chromium, page_file, request) -> Iterator[object]:
    size, scheme = request.param
    width, height = SIZES[size]
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    opened = context.new_page()
    requests = []
    opened.on("request", lambda asked: requests.append(asked.url))
    problems = []
    opened.on("console", lambda message: problems.append(message.text))
    opened.goto(page_file.as_uri())
    yield opened
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    context.close()


def test_the_page_fits_its_window_and_tables_scroll_inside(page):
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    table = page.get_by_role("table", name="Reconstruction of drawn people")
    assert table.get_by_role("row").count() == 4
    assert table.get_by_role("rowheader", name="SVP").is_visible()
    assert table.locator("td.best strong").first.inner_text() == "2.00"
    label = table.get_by_role("rowheader", name="SVP")
    region = page.get_by_role("region", name="Reconstruction of drawn people").first
    before = label.bounding_box()["x"]
    region.evaluate("element => element.scrollTo(10000, 0)")
    assert label.bounding_box()["x"] >= before - 1  # the names stay in sight


def test_text_can_be_read_on_its_ground(page):
    """Contrast of text and ground by WCAG, at least 4.5, also of the best figures and of quiet text."""
    lowest = page.evaluate(
        """() => {
        const light = colour => { const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map(Number).map(v => v / 255)
            .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const ground = element => { for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor; if (!/, 0\\)$|transparent/.test(colour)) return colour; }
            return 'rgb(255, 255, 255)'; };
        const ratio = element => { const values = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
            return (values[0] + 0.05) / (values[1] + 0.05); };
        return Math.min(...[...document.querySelectorAll('p, td, th, small, a, figcaption, dt, dd, h1, h2, caption')].map(ratio));
        }"""
    )
    assert lowest >= 4.5


def test_charts_and_pictures_are_drawn(page):
    for name in ("Lags", "Style priors"):
        box = page.locator(f"svg[aria-label='{name}']").bounding_box()
        assert box["width"] > 300 and box["height"] > 150
    picture = page.get_by_alt_text("frames beside one another")
    assert picture.evaluate("image => image.complete && image.naturalWidth") == 12 * 64


def test_a_clip_plays(page):
    video = page.locator("video")
    video.scroll_into_view_if_needed()
    video.evaluate("element => { element.muted = true; return element.play(); }")
    page.wait_for_function("() => document.querySelector('video').currentTime > 0.2")
    assert video.evaluate("element => [element.videoWidth, element.videoHeight, element.error]") == [128, 64, None]
    assert video.get_attribute("aria-label") == "somebody speaks"


def test_the_keyboard_reaches_everything(page):
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.tagName + ' ' + (document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim().slice(0, 30))"
            )
        )
    assert reached[0] == "A Skip to the figures"
    assert "DIV Reconstruction of drawn people" in reached
    assert any(name.startswith("VIDEO") for name in reached)
    assert any(name.startswith("PRE") for name in reached)
