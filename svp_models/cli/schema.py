"""Node schemas for the runner: inputs, outputs, types, and conversion of values to them."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

ANY_TYPE = "*"
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
HIDDEN_GRAPH = ("prompt", "extra_pnginfo")  # the host's names of hidden inputs
MAX_NUMBER = 2**64  # of the host and of torch

_short = reprlib.Repr()  # values of any depth and length in about 60 characters
_short.maxstring = _short.maxlong = _short.maxother = 60


@dataclass(frozen=True)
class Hidden:
    """Hidden inputs from the host. prompt: the graph in API form; extra_pnginfo: further data of the page, as the workflow."""

    prompt: dict[str, Any] | None = None
    extra_pnginfo: dict[str, Any] | None = None


@dataclass(frozen=True)
class InputSpec:
    """One input. io_type is a type name, `*`, or several separated by commas; options belong to a COMBO; default: of its widget,
    None without one."""

    id: str
    io_type: str
    optional: bool = False
    options: tuple[Any, ...] | None = None
    min: float | None = None
    max: float | None = None
    default: Any = None


@dataclass(frozen=True)
class NodeSpec:
    """One node class: node_id is its class_type in saved graphs."""

    node_id: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...] = ()
    is_output_node: bool = False
    hidden: tuple[str, ...] = ()

    def input(self, name: str) -> InputSpec | None:
        return next((spec for spec in self.inputs if spec.id == name), None)


def read_spec(node: Any) -> NodeSpec:
    """The NodeSpec of a node with `define_schema()`: a V3 node class of the host or the host stub, or a core node."""
    schema = node.define_schema()
    if isinstance(schema, NodeSpec):
        return schema
    return NodeSpec(
        node_id=schema.node_id,
        inputs=tuple(_read_input(given) for given in schema.inputs or ()),
        outputs=tuple(output.get_io_type() for output in schema.outputs or ()),
        is_output_node=bool(schema.is_output_node),
        hidden=tuple(hidden.name for hidden in schema.hidden or ()),
    )


def _read_input(given: Any) -> InputSpec:
    options = getattr(given, "options", None)
    return InputSpec(
        id=given.id,
        io_type=given.get_io_type(),
        optional=bool(given.optional),
        options=None if options is None else tuple(options),
        min=getattr(given, "min", None),
        max=getattr(given, "max", None),
        default=getattr(given, "default", None),
    )


def types_match(given: str, wanted: str) -> bool:
    """Whether an output of type `given` fits an input of type `wanted`: `*` fits all, lists need one in common."""
    given_types = {kind.strip() for kind in given.split(",")}
    wanted_types = {kind.strip() for kind in wanted.split(",")}
    return ANY_TYPE in given_types | wanted_types or bool(given_types & wanted_types)


def convert_value(spec: InputSpec, value: Any, check_range: bool = True) -> tuple[Any, str | None]:
    """(converted value, None), or (value, its problem).

    An INT is accepted for a FLOAT and a whole FLOAT for an INT. check_range=False leaves bounds to the node.
    """
    kinds = [kind.strip() for kind in spec.io_type.split(",")]
    if ANY_TYPE in kinds:
        return value, None
    widgets = [kind for kind in kinds if kind in WIDGET_TYPES]
    if not widgets:
        return value, f"needs a link to an output of type {spec.io_type}, got the value {show_value(value)}"
    for kind in widgets:
        fits, converted = _convert(kind, value, spec.options)
        if fits:
            return converted, _range_problem(spec, kind, converted) if check_range else None
    return value, f"needs a value of type {' or '.join(widgets)}, got {show_value(value)}"


def _convert(kind: str, value: Any, options: tuple[Any, ...] | None) -> tuple[bool, Any]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind in ("INT", "FLOAT"):
        if not number or not abs(value) <= MAX_NUMBER:  # written so that NaN is refused too
            return False, value
        return (value == int(value), int(value)) if kind == "INT" else (True, float(value))
    if kind == "BOOLEAN":
        return isinstance(value, bool), value
    if not isinstance(value, (str, int, float, bool)):
        return False, value
    if kind == "COMBO" and options is not None and value in options:
        return True, value
    return (True, str(value)) if kind == "COMBO" or not isinstance(value, bool) else (False, value)


def _range_problem(spec: InputSpec, kind: str, value: Any) -> str | None:
    if kind in ("INT", "FLOAT"):
        if spec.min is not None and value < spec.min:
            return f"is {value:g}, the smallest allowed is {spec.min:g}"
        if spec.max is not None and value > spec.max:
            return f"is {value:g}, the largest allowed is {spec.max:g}"
    if kind == "COMBO" and spec.options is not None and value not in spec.options:
        return f"is {show_value(value)}, choose one of: {_list(spec.options)}"
    return None


def _list(options: Iterable[Any], maximum: int = 20) -> str:
    shown = [str(option) for option in options]
    if not shown:
        return "(nothing to choose from)"
    return ", ".join(shown[:maximum]) + (f" and {len(shown) - maximum} more" if len(shown) > maximum else "")


def show_value(value: Any) -> str:
    """A value of any depth and length in about 60 characters."""
    return _short.repr(value)
