"""The ready-made subgraph, which the host's node search finds by its file name, and words for hosts that search more."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svp_portrait.nodes import types
from svp_portrait.nodes.registry import NODE_CLASSES

from ..looping import for_all

FOLDER = Path(__file__).resolve().parents[2] / "subgraphs"
SCHEMAS = {node.__name__: node.define_schema() for node in NODE_CLASSES}
OUTSIDE = (-10, -20)  # ids of a subgraph's own inputs and outputs


def blueprints() -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


@for_all(blueprints)
def test_it_is_one_node_named_as_its_file(blueprint):
    (node,), (subgraph,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"] and (FOLDER / f"{subgraph['name']}.json").is_file()
    assert [given["name"] for given in node["inputs"]] == [given["name"] for given in subgraph["inputs"]]
    assert "BlueprintDescription" in blueprint["extra"]
    ids = {str(item["id"]): item for item in subgraph["nodes"]}
    for inner, name in node["properties"]["proxyWidgets"]:
        assert name in {given.id for given in SCHEMAS[ids[inner]["type"]].inputs}


@for_all(blueprints)
def test_it_asks_for_portrait_and_speech_first(blueprint):
    (subgraph,) = blueprint["definitions"]["subgraphs"]
    assert [item["name"] for item in subgraph["inputs"]][:2] == ["portrait", "speech"]
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    links = {link["id"]: link for link in subgraph["links"]}
    for given in subgraph["inputs"][2:]:  # what follows may stay open
        for target in (links[item] for item in given["linkIds"]):
            name = nodes[target["target_id"]]["inputs"][target["target_slot"]]["name"]
            kind = nodes[target["target_id"]]["type"]
            assert next(item for item in SCHEMAS[kind].inputs if item.id == name).optional, given["name"]
    assert len(nodes) == 3 and blueprint["extra"]["BlueprintSearchAliases"]


@for_all(blueprints)
def test_its_nodes_are_as_their_schemas(blueprint):
    """Values for all widgets, links between sockets that exist, and everything required is linked."""
    (subgraph,) = blueprint["definitions"]["subgraphs"]
    nodes = {item["id"]: item for item in subgraph["nodes"]}
    linked = set()
    for link in subgraph["links"]:
        if link["origin_id"] not in OUTSIDE:
            source = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert source["type"] == link["type"]
        if link["target_id"] not in OUTSIDE:
            target = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert target["link"] == link["id"]
            linked.add((link["target_id"], target["name"]))
    for node in (item for item in nodes.values() if item["type"] in SCHEMAS):
        required_first = sorted(SCHEMAS[node["type"]].inputs, key=lambda given: given.optional)
        options = [(item, item.as_dict()) for item in required_first]
        wanted = sum(("default" in given) + bool(given.get("control_after_generate")) for _, given in options)
        assert len(node["widgets_values"]) == wanted, node["type"]
        for option, given in options:
            assert "default" in given or option.optional or (node["id"], option.id) in linked, (node["type"], option.id)


def test_other_words_are_given_to_hosts_that_know_them(monkeypatch):
    assert types.search_aliases("lip sync") == {}

    @dataclass
    class Schema:
        search_aliases: list[str]

    monkeypatch.setattr(types.io, "Schema", Schema)
    assert types.search_aliases("lip sync", "talking head") == {"search_aliases": ["lip sync", "talking head"]}
