import csv
import io
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.evaluation.charts import line_chart
from svp_portrait.svp_models.evaluation.figures import Row, Table
from svp_portrait.svp_models.evaluation.report import (
    Chart,
    Clip,
    Picture,
    Report,
    Section,
    report_csv,
    report_html,
    report_json,
    write_report,
)


@pytest.fixture
def report():
    rows = (
        Row("warped <portrait>", {"psnr": 27.744, "fid": 31.0}, {"psnr": (26.9, 28.5)}),
        Row("SVP", {"psnr": 29.1, "fid": 12.5}, {"psnr": (28.0, 30.2)}, note="ours"),
        Row("truth", {"fid": 0.0, "psnr": float("inf")}, competes=False),
    )
    section = Section(
        "Reconstruction",
        "A text.",
        (Table("Faces", ("psnr", "fid", "sharpness"), rows, "A note."),),
        (Chart("A chart.", line_chart("chart", {"a": [(0, 1), (1, 2)]}, "x", "y")),),
        (Picture("A picture.", "two people", b"png"),),
        (Clip("A clip.", "somebody speaks", b"mp4"),),
    )
    return Report("Title & more", "Summary.", (section,), {"fvd": "no file"}, {"seed": 3}, {"torch": "2"})


class Page(HTMLParser):
    """Tags with their attributes, and the texts of table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.cells, self.open = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th", "caption"):
            self.open = True
            self.cells.append("")

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("td", "th", "caption")

    def handle_data(self, data):
        if self.open:
            self.cells[-1] += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def test_the_page_asks_for_nothing_from_a_network_and_has_no_scripts(report):
    text = report_html(report)
    page = Page(text)
    assert page.all("script") == []
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert addresses and all(value.startswith(("data:", "#")) for value in addresses)
    assert "url(" not in text and "@import" not in text


def test_tables_have_captions_and_headings_and_the_best_is_bold(report):
    text = report_html(report)
    page = Page(text)
    assert page.cells[:5] == ["Faces", "system", "PSNRdB", "FID", "sharpnessof truth's"]
    assert {attributes["scope"] for attributes in page.all("th")} == {"col", "row"}
    assert re.findall(r"<strong>(.*?)</strong>", text) == ["29.10", "12.50"]
    assert "27.7426.90 to 28.50" in page.cells and "exact" in page.cells
    assert page.cells.count("–") == 3  # no sharpness was measured
    assert "warped <portrait>" in page.cells  # escaped


def test_pictures_charts_and_clips_say_what_they_show(report):
    page = Page(report_html(report))
    assert [attributes["alt"] for attributes in page.all("img")] == ["two people"]
    assert page.all("img")[0]["src"] == "data:image/png;base64,cG5n"
    video = page.all("video")[0]
    assert video["aria-label"] == "somebody speaks" and "controls" in video
    assert video["src"] == "data:video/mp4;base64,bXA0"
    assert page.all("svg")[0]["role"] == "img"
    assert page.all("html")[0]["lang"] == "en"
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {attributes["href"][1:] for attributes in page.all("a")}
    assert links <= targets


def test_what_is_missing_and_how_it_was_made_is_said(report):
    text = report_html(report)
    assert "<dt>FVD</dt><dd>no file</dd>" in text
    assert "&#34;seed&#34;: 3" in text or '"seed": 3' in text
    assert "<dt>torch</dt><dd>2</dd>" in text


def test_the_same_figures_as_data(report):
    values = json.loads(json.dumps(report_json(report), allow_nan=False))
    rows = values["tables"]["Faces"]["rows"]
    assert rows[0] == {
        "system": "warped <portrait>",
        "note": "",
        "figures": {"psnr": 27.744, "fid": 31.0},
        "intervals": {"psnr": [26.9, 28.5]},
    }
    assert rows[2]["figures"] == {"fid": 0.0}  # no error at all has no PSNR
    assert values["figures"]["psnr"]["unit"] == "dB" and values["missing"] == {"fvd": "no file"}
    lines = list(csv.DictReader(io.StringIO(report_csv(report))))
    assert lines[0] == {
        "table": "Faces", "system": "warped <portrait>", "figure": "psnr", "unit": "dB", "value": "27.744", "low": "26.9", "high": "28.5",
    }  # fmt: skip
    assert len(lines) == 6


def test_three_files_are_written(report, tmp_path):
    page = write_report(report, tmp_path / "new" / "folder")
    assert sorted(path.name for path in page.parent.iterdir()) == ["report.csv", "report.html", "report.json"]


def test_without_jinja_the_cure_is_named(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(PortraitError, match=r"pip install 'svp-portrait\[evaluation\]'"):
        report_html(report)
