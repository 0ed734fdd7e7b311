from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest

from svp_portrait.svp_models.cli.graph import parse_graph
from svp_portrait.svp_models.cli.runner import SavedFile, build_registry, run_graph
from svp_portrait.svp_models.cli.schema import InputSpec, NodeSpec
from svp_portrait.svp_models.errors import PortraitError


def test_runs_what_the_output_nodes_need(content, registry, shown):
    calls = []
    saved = run_graph(
        parse_graph(content), registry, lambda done, total, node: calls.append((done, total, node and node.id))
    )
    assert shown == [5.0]
    assert saved == [SavedFile("shown.png", "a", "output")]
    assert calls == [(0, 4, "1"), (1, 4, "2"), (2, 4, "3"), (3, 4, "4"), (4, 4, None)]


def test_nothing_runs_when_anything_is_wrong(content, registry, shown):
    content["5"]["class_type"] = "Wrods"
    content["2"]["inputs"] = {}
    with pytest.raises(PortraitError, match=r"cannot run \(2 problems\)") as caught:
        run_graph(parse_graph(content), registry)
    assert "did you mean Words" in str(caught.value) and "'value' (FLOAT) is missing" in str(caught.value)
    assert shown == []


def test_an_error_names_the_node(content, registry):
    content["1"]["inputs"]["value"] = 99
    content["3"]["inputs"] = {"a": 999, "b": ["1", 0]}
    with pytest.raises(PortraitError, match=r"node 3 \(Sum\): 1098.0 is too much: add less"):
        run_graph(parse_graph(content), registry)


def test_two_nodes_of_one_id_are_refused(registry):
    with pytest.raises(PortraitError, match="two nodes are called Number"):
        build_registry([registry.nodes["Number"]] * 2)


class Big:
    """A value whose life can be watched."""


def test_values_are_dropped_after_their_last_use():
    alive = {}

    def node(name, inputs, output, work):
        spec = NodeSpec(name, tuple(InputSpec(each, "BIG") for each in inputs), ("BIG",) if output else (), not output)
        return SimpleNamespace(define_schema=lambda: spec, execute=work)

    def make():
        value = Big()
        alive["first"] = weakref.ref(value)
        return SimpleNamespace(args=(value,), ui=None)

    def end(x):
        gc.collect()
        assert alive["first"]() is None  # only `pass` used it
        return SimpleNamespace(args=(), ui=None)

    registry = build_registry(
        [
            node("make", (), True, make),
            node("pass", ("x",), True, lambda x: SimpleNamespace(args=(Big(),), ui=None)),
            node("end", ("x",), False, end),
        ]
    )
    graph = {
        "1": {"class_type": "make", "inputs": {}},
        "2": {"class_type": "pass", "inputs": {"x": ["1", 0]}},
        "3": {"class_type": "end", "inputs": {"x": ["2", 0]}},
    }
    run_graph(parse_graph(graph), registry)


def test_what_a_progress_callback_raises_ends_the_run(content, registry, shown):
    def stop(done, total, node):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_graph(parse_graph(content), registry, stop)
    assert shown == []
