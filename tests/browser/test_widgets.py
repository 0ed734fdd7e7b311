"""Few widgets at first, all of them when asked for, and none that changes a result unseen; old graphs keep their values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .front_end import FrontEnd

GRAPHS = sorted((Path(__file__).parents[1] / "nodes" / "graphs").glob("*/*.json"))
OPEN = ["seed", "control_after_generate", "steps", "cfg", "style_weight", "fps", "length"]
FOLDED = ["scheduler", "reference_weight", "audio_weight", "window", "overlap", "width", "height"]
CLEAR = "() => window.app.graph.clear()"  # some pages begin with a graph
ADD = """(kind) => {
    const node = window.LiteGraph.createNode(kind);
    window.app.graph.add(node);
    return node.id;
}"""
VISIBLE = """(id) => {
    const node = window.app.graph.getNodeById(id);
    return node.widgets.filter((widget) => node.isWidgetVisible(widget)).map((widget) => widget.name);
}"""
TOGGLE = "(id) => window.app.graph.getNodeById(id).toggleAdvanced()"
HEIGHTS = """(id) => {
    const node = window.app.graph.getNodeById(id);
    return [node.size[1], node.computeSize()[1]];
}"""
SET = """([id, name, value]) => {
    window.app.graph.getNodeById(id).widgets.find((widget) => widget.name === name).value = value;
}"""
RELOAD = "() => window.app.loadGraphData(window.app.graph.serialize())"
CONVERT = """(id) => {
    const {node} = window.app.graph.convertToSubgraph(new Set([window.app.graph.getNodeById(id)]));
    const names = (slots) => slots.map((slot) => slot.label ?? slot.localized_name ?? slot.name);
    const sockets = node.inputs.filter((slot) => !slot.widget);  // some pages also bring the seed's widget to the front
    return {inputs: names(sockets), outputs: names(node.outputs)};
}"""
LOAD = "(graph) => window.app.loadGraphData(graph)"
SEED_CONTROLS = """() => window.app.graph._nodes.map((node) => [
    node.type, (node.widgets ?? []).some((widget) => widget.name === "control_after_generate")
])"""


def visible(front_end: FrontEnd, node: int) -> list[str]:
    return front_end.page.evaluate(VISIBLE, node)


def test_few_widgets_are_open_and_the_menu_unfolds_the_rest(front_end: FrontEnd):
    sampler = front_end.page.evaluate(ADD, "SVPSampler")
    assert visible(front_end, sampler) == OPEN
    front_end.settle(1)
    height, needed = front_end.page.evaluate(HEIGHTS, sampler)
    assert height == pytest.approx(needed, abs=1)
    front_end.page.evaluate(TOGGLE, sampler)
    assert set(visible(front_end, sampler)) == {*OPEN, *FOLDED}


def test_what_is_set_stays_in_view(front_end: FrontEnd):
    """A graph is saved with another scheduler: whoever opens it sees that. One with the defaults stays folded."""
    front_end.page.evaluate(CLEAR)
    sampler = front_end.page.evaluate(ADD, "SVPSampler")
    front_end.page.evaluate(RELOAD)
    assert visible(front_end, sampler) == OPEN
    front_end.page.evaluate(SET, [sampler, "scheduler", "ddim"])
    front_end.page.evaluate(RELOAD)
    assert "scheduler" in visible(front_end, sampler)
    (posted,) = front_end.posted().values()
    assert posted["inputs"]["scheduler"] == "ddim" and posted["inputs"]["steps"] == 0


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_graphs_of_earlier_releases_mean_what_they_meant(front_end: FrontEnd, path: Path):
    front_end.page.evaluate(LOAD, json.loads(path.read_text()))
    front_end.settle()
    then = json.loads((path.parent / "api" / path.name).read_text())
    assert pack_nodes(front_end.posted()) == pack_nodes(then)
    for kind, has_control in front_end.page.evaluate(SEED_CONTROLS):
        assert has_control is (kind in ("SVPSampler", "SVPStyleSample")), kind


def pack_nodes(graph: dict[str, Any]) -> dict[str, Any]:
    return {key: node["inputs"] for key, node in graph.items() if node["class_type"].startswith("SVP")}


def test_a_subgraph_keeps_names_and_values(front_end: FrontEnd):
    """The sampler put into a subgraph: its slots have the names of the sampler's, and folded widgets keep their values."""
    (path,) = [each for each in GRAPHS if each.stem == "portrait"]
    graph = json.loads(path.read_text())
    (sampler,) = [each for each in graph["nodes"] if each["type"] == "SVPSampler"]
    sampler["widgets_values"][4] = "ddim"
    front_end.page.evaluate(LOAD, graph)
    front_end.settle()
    before = typed_values(front_end.posted())
    slots = front_end.page.evaluate(CONVERT, sampler["id"])
    linked = [each["name"] for each in sampler["inputs"] if each["link"] is not None]
    assert slots == {"inputs": linked, "outputs": ["latent", "fps"]}
    assert typed_values(front_end.posted()) == before and before["scheduler"] == "ddim"


def typed_values(graph: dict[str, Any]) -> dict[str, Any]:
    """What is typed into the sampler."""
    (inputs,) = [node["inputs"] for node in graph.values() if node["class_type"] == "SVPSampler"]
    return {name: value for name, value in inputs.items() if not isinstance(value, list)}
