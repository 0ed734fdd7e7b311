from __future__ import annotations

import json

import pytest

from svp_portrait.svp_models.cli.graph import (
    Link,
    accelerate_samplers,
    check_graph,
    execution_order,
    find_node,
    load_graph,
    output_nodes,
    parse_graph,
    set_input,
)
from svp_portrait.svp_models.cli.schema import InputSpec, NodeSpec
from svp_portrait.svp_models.diffusion.acceleration import settings_from_text
from svp_portrait.svp_models.errors import PortraitError


def problems_of(content, registry):
    return check_graph(parse_graph(content), registry.specs, registry.nodes)


def test_a_sound_graph_has_no_problems_and_its_values_are_converted(content, registry):
    graph = parse_graph(content)
    assert check_graph(graph, registry.specs, registry.nodes) == []
    assert type(graph["1"].inputs["value"]) is float
    assert graph["3"].inputs["a"] == Link("1", 0)
    assert graph["1"].label == 'node 1 (Number "First")'


def test_all_problems_are_reported_at_once(content, registry):
    content["2"]["inputs"] = {"value": 200, "valeu": 1}
    content["3"]["inputs"] = {"a": ["9", 0], "b": ["5", 0]}
    content["4"]["inputs"] = {"anything": ["1", 3]}
    content["5"]["inputs"] = {"text": "t", "mood": "angry", "count": 1.5}
    content["6"] = {"class_type": "Nmber", "inputs": {}}
    content["7"] = {"class_type": "Words", "inputs": {}}
    found = "\n".join(problems_of(content, registry))
    for part in (
        "node 2 (Number): unknown input 'valeu' (did you mean value?)",
        "node 2 (Number): input 'value' is 200, the largest allowed is 100",
        "node 3 (Sum): input 'a' is linked to node 9, which is not in the workflow",
        "node 3 (Sum): input 'b' wants FLOAT, but output 0 of node 5 (Words) is STRING",
        "node 4 (Show): input 'anything' is linked to output 3 of node 1 (Number \"First\"), which has 1 outputs",
        "node 5 (Words): input 'mood' is 'angry', choose one of: happy, sad",
        "node 5 (Words): input 'count' needs a value of type INT, got 1.5",
        "node 6 (Nmber): unknown node class (did you mean Number?)",
        "node 7 (Words): required input 'text' (STRING) is missing",
        "node 7 (Words): required input 'mood' (COMBO) is missing",
    ):
        assert part in found
    assert found.count("\n") == 9


def test_cycles_are_found(content, registry):
    content["3"]["inputs"]["a"] = ["3", 0]
    assert problems_of(content, registry) == ["cycle: 3 <- 3; a node cannot depend on itself"]
    content["3"]["inputs"]["a"] = ["6", 0]
    content["6"] = {"class_type": "Sum", "inputs": {"a": ["3", 0], "b": 1}}
    found = problems_of(content, registry)
    assert len(found) == 1 and found[0].startswith("cycle: 3 <- 6 <- 3")


def test_a_graph_without_output_node_has_nothing_to_run(registry):
    assert "no output node" in problems_of({"1": {"class_type": "Number", "inputs": {"value": 1}}}, registry)[0]


def test_a_list_that_is_no_link_is_reported(content, registry):
    content["1"]["inputs"]["value"] = [1, 2, 3]
    assert "is a list that is no link" in problems_of(content, registry)[0]


def test_the_node_checks_what_it_names_itself(registry):
    def graph_with(name):
        return {"1": {"class_type": "Picky", "inputs": {"name": name}}}

    assert problems_of(graph_with("unlisted"), registry) == []
    assert problems_of(graph_with("missing"), registry) == ["node 1 (Picky): no file 'missing'"]


def test_wrapped_lists_and_widgets_of_the_browser(registry):
    graph = parse_graph(
        {"1": {"class_type": "Words", "inputs": {"text": {"__value__": "t"}, "mood": "sad", "upload": "image"}}}
    )
    assert graph["1"].inputs == {"text": "t", "mood": "sad"}


def test_files_that_are_no_api_workflow(tmp_path):
    def refused(text):
        path = tmp_path / "graph.json"
        path.write_text(text)
        with pytest.raises(PortraitError) as caught:
            load_graph(path)
        return str(caught.value)

    assert "Export (API)" in refused(json.dumps({"nodes": [], "links": []}))
    assert "not a JSON file" in refused("{")
    assert "JSON object of nodes" in refused("{}")
    assert "no class_type" in refused('{"1": {"inputs": {}}}')
    assert "no JSON object" in refused('{"1": {"class_type": "A", "inputs": []}}')
    with pytest.raises(PortraitError, match="no such workflow file"):
        load_graph(tmp_path / "missing.json")


def test_a_request_of_the_host_is_unwrapped(content):
    assert set(parse_graph({"client_id": "x", "prompt": content})) == set(content)


def test_nodes_are_found_by_id_title_and_class(content):
    graph = parse_graph(content)
    assert find_node(graph, "3").id == "3"
    assert find_node(graph, "First").id == "1"
    assert find_node(graph, "Sum").id == "3"
    with pytest.raises(PortraitError, match=r"names 2 nodes \(1, 2\): use the id"):
        find_node(graph, "Number")
    with pytest.raises(PortraitError, match="did you mean Words"):
        find_node(graph, "Word")


@pytest.mark.parametrize(
    ("assignment", "node", "name", "value"),
    [
        ("First.value=7", "1", "value", 7),
        ("5.text=7", "5", "text", "7"),
        ("Words.text=a=b.c", "5", "text", "a=b.c"),
        ("Words.mood=happy", "5", "mood", "happy"),
        ("Words.loud=true", "5", "loud", True),
        ("Sum.a=1.5", "3", "a", 1.5),
        ('Sum.a=["2", 0]', "3", "a", Link("2", 0)),
    ],
)
def test_set_input(content, registry, assignment, node, name, value):
    graph = parse_graph(content)
    set_input(graph, registry.specs, assignment)
    assert graph[node].inputs[name] == value


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("value=7", "write NODE.INPUT=VALUE"),
        ("First.value", "write NODE.INPUT=VALUE"),
        ("First.valu=7", "did you mean value"),
        ("Nobody.value=7", "no node 'Nobody'"),
    ],
)
def test_set_input_refuses(content, registry, assignment, message):
    with pytest.raises(PortraitError, match=message):
        set_input(parse_graph(content), registry.specs, assignment)


def test_order_has_only_what_is_needed_each_after_its_inputs(content, registry):
    graph = parse_graph(content)
    assert execution_order(graph, output_nodes(graph, registry.specs)) == ["1", "2", "3", "4"]


def test_order_of_a_long_chain_needs_no_recursion(registry):
    content = {"0": {"class_type": "Number", "inputs": {"value": 1}}}
    for index in range(1, 3000):
        content[str(index)] = {"class_type": "Sum", "inputs": {"a": [str(index - 1), 0], "b": [str(index - 1), 0]}}
    content["end"] = {"class_type": "Show", "inputs": {"anything": ["2999", 0]}}
    graph = parse_graph(content)
    assert check_graph(graph, registry.specs, registry.nodes) == []
    assert execution_order(graph, ["end"]) == list(content)


def test_a_long_chain_is_checked_in_no_time(registry):
    graph = {"0": {"class_type": "Number", "inputs": {"value": 1}}}
    for index in range(1, 3000):
        graph[str(index)] = {"class_type": "Sum", "inputs": {"a": [str(index - 1), 0], "b": 1.0}}
    graph["end"] = {"class_type": "Show", "inputs": {"anything": ["2999", 0]}}
    parsed = parse_graph(graph)
    assert check_graph(parsed, registry.specs, registry.nodes) == []
    assert len(execution_order(parsed, ["end"])) == 3001


def test_every_sampler_gets_a_node_that_accelerates_its_model():
    inputs = (
        InputSpec("model", "SVP_MODEL"),
        InputSpec("preset", "COMBO", default="balanced"),
        InputSpec("cache_every", "INT", default=1),
        InputSpec("even_windows", "BOOLEAN", default=False),
    )
    specs = {"SVPAccelerate": NodeSpec("SVPAccelerate", inputs, ("SVP_MODEL",))}
    load = {"class_type": "SVPLoadModel", "inputs": {}}
    graph = parse_graph({"1": load, "7": {"class_type": "SVPSampler", "inputs": {"model": ["1", 0]}}})
    accelerate_samplers(graph, specs, "fast")
    assert graph["7"].inputs["model"] == Link("7-accelerate", 0)
    added = graph["7-accelerate"]
    given = {"model": Link("1", 0), "preset": "fast", "cache_every": 1, "even_windows": False}
    assert added.class_type == "SVPAccelerate" and added.inputs == given
    with pytest.raises(PortraitError, match="--accelerate fast: the workflow has no SVPSampler"):
        accelerate_samplers(parse_graph({"1": load}), specs, "fast")
    graph["7"].inputs["model"] = Link("1", 0)
    accelerate_samplers(graph, specs, "cache_every=3, even_windows=true")
    assert graph["7-accelerate"].inputs == given | {"preset": "custom", "cache_every": 3, "even_windows": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slow", "'slow' is no acceleration: choose one of exact, balanced, fast, or settings such as cache_every=3"),
        ("cache_every=3,n=1", "'n=1' is no acceleration"),
        ("cache_every=many", "cache_every=many: a whole number is needed"),
        ("even_windows=1", "even_windows=1: true or false is needed"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(text, message):
    with pytest.raises(PortraitError, match=message):
        settings_from_text(text)
