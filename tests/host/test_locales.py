"""What the web page asks a real host for: every translation of the pack, and English that is the host's own."""

from __future__ import annotations

import json

import pytest

from .server import ROOT

LOCALES = ROOT / "locales"
LANGUAGES = sorted(each.name for each in LOCALES.iterdir() if each.is_dir())


@pytest.fixture(scope="module")
def served(server):
    return server.get("/i18n")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_host_serves_every_language(served, language):
    texts = {
        name: json.loads((LOCALES / language / f"{name}.json").read_text("utf-8")) for name in ("main", "nodeDefs")
    }
    assert served[language] == texts["main"] | {"nodeDefs": texts["nodeDefs"]}


def test_english_is_what_the_host_says_of_the_nodes(server, served):
    nodes = {name: node for name, node in server.get("/object_info").items() if name.startswith("SVP")}
    texts = served["en"]["nodeDefs"]
    assert set(texts) == set(nodes)
    for name, node in nodes.items():
        inputs = node["input"]["required"] | node["input"].get("optional", {})
        outputs = list(zip(node["output_name"], node["output_tooltips"], strict=True))
        shown = {"display_name": node["display_name"], "description": node["description"]}
        shown["inputs"] = {each: {"name": each, "tooltip": options[1]["tooltip"]} for each, options in inputs.items()}
        shown["outputs"] = {str(place): {"name": title, "tooltip": text} for place, (title, text) in enumerate(outputs)}
        assert texts[name] == shown, name
