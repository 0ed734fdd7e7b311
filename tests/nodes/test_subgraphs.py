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
SCHEMAS = {each.__name__: each.define_schema() for each in NODE_CLASSES}
OUTSIDE = (-10, -20)  # ids of a subgraph's own inputs and outputs


def blueprints() -> dict[str, dict[str, Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


@for_all(blueprints)
def test_it_is_one_node_named_as_its_file(blueprint):
    (node,), (subgraph,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"] and (FOLDER / f"{subgraph['name']}.json").is_file()
    assert [each["name"] for each in node["inputs"]] == [each["name"] for each in subgraph["inputs"]]
    assert "BlueprintDescription" in blueprint["extra"]
    ids = {str(each["id"]): each for each in subgraph["nodes"]}
    for inner, name in node["properties"]["proxyWidgets"]:
        assert name in {each.id for each in SCHEMAS[ids[inner]["type"]].inputs}


@for_all(blueprints)
def test_it_asks_for_portrait_and_speech_first(blueprint):
    (subgraph,) = blueprint["definitions"]["subgraphs"]
    assert [each["name"] for each in subgraph["inputs"]][:2] == ["portrait", "speech"]
    nodes = {each["id"]: each for each in subgraph["nodes"]}
    links = {each["id"]: each for each in subgraph["links"]}
    for given in subgraph["inputs"][2:]:  # what follows may stay open
        for target in (links[each] for each in given["linkIds"]):
            name = nodes[target["target_id"]]["inputs"][target["target_slot"]]["name"]
            kind = nodes[target["target_id"]]["type"]
            assert next(each for each in SCHEMAS[kind].inputs if each.id == name).optional, given["name"]
    assert len(nodes) == 3 and blueprint["extra"]["BlueprintSearchAliases"]


@for_all(blueprints)
def test_its_nodes_are_as_their_schemas(blueprint):
    """Values for all widgets, links between sockets that exist, and everything required is linked."""
    (subgraph,) = blueprint["definitions"]["subgraphs"]
    nodes = {each["id"]: each for each in subgraph["nodes"]}
    linked = set()
    for link in subgraph["links"]:
        if link["origin_id"] not in OUTSIDE:
            source = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert source["type"] == link["type"]
        if link["target_id"] not in OUTSIDE:
            target = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert target["link"] == link["id"]
            linked.add((link["target_id"], target["name"]))
    for node in (each for each in nodes.values() if each["type"] in SCHEMAS):
        required_first = sorted(SCHEMAS[node["type"]].inputs, key=lambda given: given.optional)
        options = [(each, each.as_dict()) for each in required_first]
        wanted = sum(("default" in given) + bool(given.get("control_after_generate")) for _, given in options)
        assert len(node["widgets_values"]) == wanted, node["type"]
        for each, given in options:
            assert "default" in given or each.optional or (node["id"], each.id) in linked, (node["type"], each.id)


def test_other_words_are_given_to_hosts_that_know_them(monkeypatch):
    assert types.found_by("lip sync") == {}

    @dataclass
    class Schema:
        search_aliases: list[str]

    monkeypatch.setattr(types.io, "Schema", Schema)
    assert types.found_by("lip sync", "talking head") == {"search_aliases": ["lip sync", "talking head"]}
