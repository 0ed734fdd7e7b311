"""The nodes as the web page shows them: found by plain words, explained by tooltips and help pages, put into subgraphs."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ..host.server import ROOT
from .conftest import RENDERERS

PACK_LABEL = "svp-portrait"
SEARCHES = {  # what a user types: what is among the answers
    "animate photo": ("Animate Photo", "Portrait Sampler"),
    "talking photo": ("Animate Photo", "Portrait Sampler"),
    "avatar": ("Talking Avatar", "Portrait Sampler"),
    "lip sync": ("Lip Sync", "Portrait Sampler"),
    "talking head": ("Talking Head", "Portrait Sampler"),
    "style": ("Speaking Style",),
    "head motion": ("Extract Head Motion",),
    "portrait": ("Portrait Sampler",),
    "face": ("Crop Face",),
}
HIDDEN_BY_DESIGN = {"control_after_generate", "upload", "audioUI"}


@pytest.mark.parametrize(("words", "found"), SEARCHES.items())
def test_search_finds_nodes_by_plain_words(front_end, words, found):
    """Pages that know other words than a node's name offer the sampler; all offer a ready-made node or the node itself."""
    answers = front_end.search(words).all_inner_texts()
    ours = [each for each in answers if PACK_LABEL in each or "Blueprint" in each]
    assert any(name in each for name in found for each in ours), answers[:10]


def widgets_of(front_end, kind: str) -> tuple[int, list[str]]:
    """A new node of that type, alone in the graph: its id and the names of the widgets it shows."""
    add = """(kind) => {
        const node = window.LiteGraph.createNode(kind);
        window.app.graph.clear(); window.app.graph.add(node);
        return [node.id, node.widgets.filter((each) => node.isWidgetVisible(each)).map((each) => each.name)];
    }"""
    node, names = front_end.page.evaluate(add, kind)
    front_end.show(node)
    return node, [each for each in names if each not in HIDDEN_BY_DESIGN]


def spot_of_widget(front_end, node: int, name: str) -> tuple[float, float]:
    where = """([id, name]) => {
        const node = window.app.graph.getNodeById(id), widget = node.widgets.find((each) => each.name === name);
        return [node.size[0] / 2, widget.y + 10];
    }"""
    return front_end.place(node, *front_end.page.evaluate(where, [node, name]))


@pytest.mark.parametrize("kind", ["SVPSampler", "SVPVideoCombine", "SVPStyleInterpolate"])
def test_widgets_have_tooltips(front_end, server, kind):
    """Every widget that is shown says, under the mouse, what the schema says."""
    spec = server.get(f"/object_info/{kind}")[kind]["input"]
    known = {**spec["required"], **spec.get("optional", {})}
    node, names = widgets_of(front_end, kind)
    assert names
    for name in names:
        x, y = spot_of_widget(front_end, node, name)
        front_end.page.mouse.move(x - 30, y)
        front_end.page.mouse.move(x, y)
        tooltip = front_end.page.locator(".node-tooltip")
        tooltip.wait_for()
        assert tooltip.inner_text() == known[name][1]["tooltip"]


def test_folded_widgets_leave_no_holes(front_end):
    """Widgets for few are folded away, rows are 24 pixels apart, and unfolding shows all of them."""
    node, names = widgets_of(front_end, "SVPSampler")
    rows = """(id) => {
        const node = window.app.graph.getNodeById(id);
        return node.widgets.filter((each) => node.isWidgetVisible(each)).map((each) => each.y);
    }"""
    folded = front_end.page.evaluate(rows, node)
    assert {round(b - a) for a, b in pairwise(folded)} == {24}
    front_end.page.evaluate("(id) => window.app.graph.getNodeById(id).toggleAdvanced()", node)
    front_end.settle(1)
    unfolded = front_end.page.evaluate(rows, node)
    assert len(unfolded) > len(folded)
    assert {round(b - a) for a, b in pairwise(unfolded)} == {24}


@pytest.mark.parametrize("front_end", RENDERERS, indirect=True)
@pytest.mark.parametrize("kind", ["SVPSampler", "SVPHeadKpsRetarget", "SVPStyleExtract"])
def test_help_panel_shows_our_page(front_end, kind):
    """The info button of a selected node opens its page, with its pictures."""
    node, _ = widgets_of(front_end, kind)
    front_end.page.evaluate("(id) => window.app.canvas.selectNode(window.app.graph.getNodeById(id))", node)
    front_end.page.get_by_test_id("info-button").click()
    panel = front_end.page.locator(".node-help-content")
    heading = (ROOT / "web" / "docs" / f"{kind}.md").read_text().splitlines()[0].lstrip("# ")
    panel.get_by_role("heading", name=heading).first.wait_for()
    front_end.settle()
    shown = (
        "() => [...document.querySelectorAll('.node-help-content img')].map((each) => [each.src, each.naturalWidth])"
    )
    assert [source for source, width in front_end.page.evaluate(shown) if not width] == []


def test_subgraph_of_our_nodes_runs(front_end):
    """A selection becomes a subgraph with sockets that have our names, and it runs."""
    front_end.open_template("portrait")
    convert = """async () => {
        const kinds = ["SVPStyleExtract", "SVPStyleSample", "SVPHeadKpsExtract", "SVPHeadKpsRetarget", "SVPSampler"];
        const canvas = window.app.canvas;
        canvas.deselectAll();
        canvas.selectItems(window.app.graph._nodes.filter((node) => kinds.includes(node.type)));
        await window.app.extensionManager.command.execute("Comfy.Graph.ConvertToSubgraph");
        const made = window.app.graph._nodes.find((node) => node.isSubgraphNode?.());
        return [made.inputs.map((each) => each.name), made.outputs.map((each) => each.name)];
    }"""
    inputs, outputs = front_end.page.evaluate(convert)
    assert {"model", "vae", "portrait", "audio", "frames"} <= set(inputs) and {"latent", "fps"} <= set(outputs)
    front_end.settle()
    entry = front_end.run()
    assert any(":" in key and node["class_type"] == "SVPSampler" for key, node in entry["prompt"][2].items())
    assert [
        each
        for node in entry["outputs"].values()
        for each in node.get("images", [])
        if each["filename"].endswith(".mp4")
    ]


def test_ready_made_subgraph_runs(front_end):
    """What the search offers for "lip sync": one node that takes a portrait and a voice; style and motion may stay open."""
    front_end.search("lip sync").filter(has_text="Talking Head with Lip Sync").first.dispatch_event("click")
    front_end.page.wait_for_function("() => window.app.graph._nodes.some((node) => node.isSubgraphNode?.())")
    front_end.settle()
    connect = """() => {
        const graph = window.app.graph, made = graph._nodes.find((node) => node.isSubgraphNode());
        const sources = [["LoadImage", "image", "portrait.png", "portrait"], ["LoadAudio", "audio", "speech.wav", "speech"]];
        for (const [kind, widget, file, socket] of sources) {
            const source = window.LiteGraph.createNode(kind);
            graph.add(source);
            source.widgets.find((each) => each.name === widget).value = file;
            source.connect(0, made, made.inputs.findIndex((each) => each.name === socket));
        }
        return [made.inputs.filter((each) => !each.widget).map((each) => [each.name, each.link != null]), made.outputs[0].type];
    }"""
    inputs, kind = front_end.page.evaluate(connect)
    assert (
        inputs == [["portrait", True], ["speech", True], ["style", False], ["head_motion", False]] and kind == "VIDEO"
    )
    entry = front_end.run()
    assert any(node["class_type"] == "SVPVideoCombine" for node in entry["prompt"][2].values())
    assert [
        each
        for node in entry["outputs"].values()
        for each in node.get("images", [])
        if each["filename"].endswith(".mp4")
    ]
