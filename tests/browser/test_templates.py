"""Every bundled workflow, opened from the template list of the real web page."""

from __future__ import annotations

import itertools
import json
import shutil
from typing import Any

import pytest

from ..host.server import ASSETS, WORKFLOWS

NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
NEED_WEIGHTS = {"vexpress_portrait"}  # lists offer no file that is not there


def wires(graph: dict[str, Any], listed: dict[str, Any]) -> dict[str, Any]:
    """What a graph computes: class and inputs of each node, without what the page adds for its own players."""
    kept = {}
    for key, node in graph.items():
        known = {name for group in listed[node["class_type"]]["input"].values() for name in group}
        kept[key] = (node["class_type"], {name: value for name, value in node["inputs"].items() if name in known})
    return kept


def test_templates_have_thumbnails(front_end):
    front_end.open_templates()
    for name in NAMES:
        card = front_end.page.get_by_test_id(f"template-workflow-{name}")
        card.scroll_into_view_if_needed()
        front_end.page.wait_for_function(
            "(image) => image.naturalWidth >= 256", arg=card.locator("img").element_handle()
        )


@pytest.mark.parametrize("name", NAMES)
def test_template_opens(front_end, server, name):
    """No node is missing, no socket is red, nothing lies on something else, and what Run would post is the graph of the API."""
    front_end.open_template(name)
    if name not in NEED_WEIGHTS:
        assert front_end.errors() == []
    nodes = front_end.nodes()
    assert [each["type"] for each in nodes if not each["known"]] == []
    assert [each["title"] for each in nodes if each["red"]] == []
    for a, b in itertools.combinations(nodes, 2):
        apart_x = a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
        apart_y = a["y"] + a["height"] <= b["y"] or b["y"] + b["height"] <= a["y"]
        assert apart_x or apart_y, f"{a} lies on {b}"
    api = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    listed = server.get("/object_info")
    assert wires(front_end.posted(), listed) == wires(api, listed)


def test_inputs_show_what_is_in_them(front_end, server):
    """Pictures, sound and films of the example are loaded into their nodes."""
    shutil.copytree(ASSETS, server.base / "input", dirs_exist_ok=True)
    front_end.open_template("portrait")
    ready = "() => [...document.querySelectorAll('video')].filter((each) => each.readyState >= 2).length === 2"
    front_end.page.wait_for_function(ready)
    pictures = "() => window.app.graph._nodes.some((node) => node.type === 'LoadImage' && node.imgs?.[0]?.naturalWidth)"
    front_end.page.wait_for_function(pictures)
