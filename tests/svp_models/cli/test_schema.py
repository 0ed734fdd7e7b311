from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from svp_portrait.svp_models.cli.schema import InputSpec, convert_value, read_spec, types_match


@pytest.mark.parametrize(
    ("given", "wanted", "fits"),
    [
        ("IMAGE", "IMAGE", True),
        ("IMAGE", "LATENT", False),
        ("IMAGE", "*", True),
        ("*", "IMAGE", True),
        ("SVP_HEAD_MOTION", "IMAGE,SVP_HEAD_MOTION", True),
        ("IMAGE, MASK", "MASK", True),
        ("INT", "FLOAT", False),
    ],
)
def test_types_match_as_in_the_host(given, wanted, fits):
    assert types_match(given, wanted) is fits


@pytest.mark.parametrize(
    ("io_type", "value", "expected"),
    [
        ("INT", 3, 3),
        ("INT", 3.0, 3),
        ("FLOAT", 3, 3.0),
        ("FLOAT", 2.5, 2.5),
        ("STRING", "a", "a"),
        ("STRING", 5, "5"),
        ("BOOLEAN", True, True),
        ("*", [1], [1]),
        ("IMAGE,FLOAT", 1, 1.0),
    ],
)
def test_values_are_converted(io_type, value, expected):
    converted, problem = convert_value(InputSpec("x", io_type), value)
    assert problem is None
    assert converted == expected and type(converted) is type(expected)


@pytest.mark.parametrize(
    ("io_type", "value"),
    [("INT", 2.5), ("INT", True), ("INT", "3"), ("FLOAT", "3"), ("FLOAT", math.nan), ("BOOLEAN", 1), ("STRING", None)],
)
def test_values_of_another_type_are_refused(io_type, value):
    assert "needs a value of type" in convert_value(InputSpec("x", io_type), value)[1]


def test_socket_types_need_a_link():
    assert "needs a link" in convert_value(InputSpec("x", "IMAGE"), "picture.png")[1]


def test_bounds_and_options_are_named():
    spec = InputSpec("steps", "INT", min=1, max=100)
    assert convert_value(spec, 0)[1] == "is 0, the smallest allowed is 1"
    assert convert_value(spec, 101)[1] == "is 101, the largest allowed is 100"
    assert convert_value(spec, 0, check_range=False) == (0, None)
    combo = InputSpec("mode", "COMBO", options=("fix", "offset"))
    assert convert_value(combo, "fix") == ("fix", None)
    assert convert_value(combo, "scale")[1] == "is 'scale', choose one of: fix, offset"
    assert "nothing to choose from" in convert_value(InputSpec("file", "COMBO", options=()), "a")[1]


def test_a_schema_of_the_host_is_read():
    socket = SimpleNamespace(id="images", optional=False, get_io_type=lambda: "IMAGE")
    combo = SimpleNamespace(id="mode", optional=True, get_io_type=lambda: "COMBO", options=["a", "b"], default="a")
    number = SimpleNamespace(id="n", optional=False, get_io_type=lambda: "INT", min=1, max=None)
    out = SimpleNamespace(get_io_type=lambda: "LATENT")
    schema = SimpleNamespace(
        node_id="X", inputs=[socket, combo, number], outputs=[out], is_output_node=False, hidden=[]
    )
    spec = read_spec(SimpleNamespace(define_schema=lambda: schema))
    assert spec.node_id == "X" and spec.outputs == ("LATENT",) and not spec.is_output_node
    assert spec.input("mode") == InputSpec("mode", "COMBO", optional=True, options=("a", "b"), default="a")
    assert spec.input("n").min == 1 and spec.input("n").max is None
    assert spec.input("other") is None
