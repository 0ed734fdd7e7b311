"""A report: one HTML page that needs no network, and the same figures as JSON and CSV."""

from __future__ import annotations

import binascii
import csv
import io
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import PortraitError
from ..io.files import whole_file
from .figures import FIGURES, Table

TEMPLATE = Path(__file__).with_name("report.html")
REPORT = "report.html"
PACKAGES = ("torch", "numpy", "scipy", "kornia", "onnxruntime", "diffusers", "transformers", "av", "scikit-learn")


@dataclass(frozen=True)
class Picture:
    """A picture of the page. alt: what it shows, for those who cannot see it; png: its bytes."""

    caption: str
    alt: str
    png: bytes


@dataclass(frozen=True)
class Chart:
    """A chart of the page. svg: from `charts`, which escapes its texts; method: how it was made."""

    caption: str
    svg: str


@dataclass(frozen=True)
class Clip:
    """A video of the page. alt: what is seen and heard; mp4: its bytes."""

    caption: str
    alt: str
    mp4: bytes


@dataclass(frozen=True)
class Section:
    """One chapter: text, then tables, charts, pictures and clips."""

    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    pictures: tuple[Picture, ...] = ()
    clips: tuple[Clip, ...] = ()


@dataclass(frozen=True)
class Report:
    """All that a report says. missing: figure -> why it is not there; config: as it was run; versions: package -> version."""

    title: str
    summary: str
    sections: tuple[Section, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def tables(self) -> list[Table]:
        return [table for section in self.sections for table in section.tables]


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures may depend on, those that are installed."""
    found = {"python": platform.python_version()}
    for name in ("svp-portrait", *PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def report_html(report: Report) -> str:
    """The page. It has no scripts, asks for nothing from a network, and is readable at any width."""
    try:
        jinja = import_module("jinja2")
    except ModuleNotFoundError as error:
        raise PortraitError(
            "a report needs the package jinja2, which is not installed: pip install 'svp-portrait[evaluation]'"
        ) from error
    environment = jinja.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja.StrictUndefined
    )
    environment.globals |= {
        "heading": heading,
        "unit": unit,
        "meaning": meaning,
        "number": number,
        "interval": interval,
    }
    environment.filters |= {
        "data": lambda content, kind: f"data:{kind};base64,{binascii.b2a_base64(content, newline=False).decode()}"
    }
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(report=report)


def report_json(report: Report) -> dict[str, Any]:
    """Tables with intervals, what is missing and why, configuration and versions as plain values."""
    tables = {
        table.caption: {
            "note": table.note,
            "rows": [
                {
                    "system": row.label,
                    "note": row.note,
                    "figures": {key: value for key, value in row.values.items() if math.isfinite(value)},
                    "intervals": {
                        key: list(span) for key, span in row.intervals.items() if all(map(math.isfinite, span))
                    },
                }
                for row in table.rows
            ],
        }
        for table in report.tables
    }
    figures = {key: asdict(FIGURES[key]) for table in report.tables for key in table.columns if key in FIGURES}
    return {
        "title": report.title,
        "tables": tables,
        "figures": figures,
        "missing": dict(report.missing),
        "config": dict(report.config),
        "versions": dict(report.versions),
    }


def report_csv(report: Report) -> str:
    """One line for each figure: table, system, figure, unit, value, and the interval's ends where there is one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "system", "figure", "unit", "value", "low", "high"])
    for table in report.tables:
        for row in table.rows:
            for key in table.columns:
                if key in row.values:
                    span = row.intervals.get(key, ("", ""))
                    writer.writerow([table.caption, row.label, key, unit(key), row.values[key], *span])
    return text.getvalue()


def write_report(report: Report, folder: Path | str) -> Path:
    """`report.html`, `report.json` and `report.csv` in a folder, which is made; the path of the page."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.json": json.dumps(report_json(report), indent=2, ensure_ascii=False) + "\n",
        "report.csv": report_csv(report),
        REPORT: report_html(report),
    }
    for name, text in texts.items():
        with whole_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / REPORT


def heading(key: str) -> str:
    """The title of a column."""
    return FIGURES[key].title if key in FIGURES else key


def unit(key: str) -> str:
    return FIGURES[key].unit if key in FIGURES else ""


def meaning(key: str) -> str:
    """What a figure is, and which way is better."""
    if key not in FIGURES:
        return ""
    figure = FIGURES[key]
    return (
        f"{figure.meaning}; {figure.better} is better" if figure.better else f"{figure.meaning}; compare with truth's"
    )


def number(key: str, value: float) -> str:
    """A figure as it is printed."""
    digits = FIGURES[key].digits if key in FIGURES else 3
    return f"{value:.{digits}f}" if math.isfinite(value) else "exact"


def interval(key: str, span: tuple[float, float] | None) -> str:
    return "" if span is None else f"{number(key, span[0])} to {number(key, span[1])}"
