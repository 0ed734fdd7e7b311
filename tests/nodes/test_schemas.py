"""What saved graphs and users rely on: ids that never change, tooltips everywhere, bounds that hold."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from svp_portrait.nodes.registry import NODE_CLASSES

from ..looping import for_all

# What saved graphs rely on, as it was released. Run this file to store what is new; nothing stored is ever changed.
FROZEN_FILE = Path(__file__).with_name("frozen_nodes.json")
FROZEN = json.loads(FROZEN_FILE.read_text())
FILE_LISTS = {
    "model",
    "audio_encoder",
    "style_layer",
    "style",
    "liveportrait",
    "generator",
    "motion",
}  # combos of what lies in the folders of a machine
SEEDS = ("seed", "noise_seed")  # inputs of these names get a control from the front end unless they refuse it
MOST_OPEN = 7  # widgets of a node that are not advanced
UNITS = re.compile(
    r"pixel|frame|second|step|share|factor|number|clip|quality|sample|same seed|divisor|size|degree|MB|GB",
    re.I,
)


def described(schema: Any) -> dict[str, Any]:
    """What a saved graph relies on: names and types in order, bounds, fixed choices, and the places of widget values."""
    inputs = []
    for given in schema.inputs:
        entry = {"id": given.id, "type": given.get_io_type(), "optional": bool(given.optional)}
        options = given.as_dict()
        entry |= {
            key: options[key] for key in ("min", "max", "options") if key in options and given.id not in FILE_LISTS
        }
        inputs.append(entry)
    return {
        "inputs": inputs,
        "outputs": [[output.id, output.get_io_type()] for output in schema.outputs],
        "widgets": widget_places(schema),
    }


def widget_places(schema: Any) -> list[str]:
    """The input behind each of a saved node's widget values, as the front end counts them: required ones first."""
    places = []
    for item in sorted(schema.inputs, key=lambda given: bool(given.optional)):
        options = item.as_dict()
        if "default" in options and not options.get("forceInput"):
            places.append(item.id)
            if options.get("control_after_generate", item.id in SEEDS):
                places.append(f"{item.id}: control_after_generate")
    return places


def nodes() -> dict[str, Any]:
    return {node.__name__: node for node in NODE_CLASSES}


def test_all_nodes_are_frozen():
    assert {node.__name__ for node in NODE_CLASSES} == set(FROZEN), (
        f"run `python {Path(__file__).name}` and commit the file"
    )


@for_all(nodes)
def test_what_was_released_is_still_there(node):
    stored, now = FROZEN[node.__name__], described(node.define_schema())
    count = len(stored["inputs"])
    assert [given["id"] for given in now["inputs"][:count]] == [given["id"] for given in stored["inputs"]]
    for old, new in zip(stored["inputs"], now["inputs"][:count], strict=True):
        assert set(old["type"].split(",")) <= set(new["type"].split(",")), old["id"]
        assert new["optional"] or not old["optional"], f"{old['id']} was optional"
        assert set(old.get("options", ())) <= set(new.get("options", ())), old["id"]
        assert "min" not in old or (new["min"] <= old["min"] and old["max"] <= new["max"]), old["id"]
    assert all(given["optional"] for given in now["inputs"][count:]), "new inputs are optional"
    assert now["outputs"][: len(stored["outputs"])] == stored["outputs"]
    assert now["widgets"][: len(stored["widgets"])] == stored["widgets"], "values of saved graphs would move"


@for_all(nodes)
def test_everything_is_explained(node):
    schema = node.define_schema()
    assert schema.node_id == node.__name__ and schema.display_name.endswith("(SVP)")
    assert schema.category.startswith("SVP Portrait") and schema.description.endswith(".")
    assert all(given.tooltip and given.tooltip.endswith(".") for given in (*schema.inputs, *schema.outputs))


@for_all(nodes)
def test_widgets_have_bounds_and_a_default_within(node):
    for given in node.define_schema().inputs:
        widget = given.as_dict()
        if given.get_io_type() in ("INT", "FLOAT"):
            assert widget["min"] <= widget["default"] <= widget["max"], given.id
            assert 0 < widget["step"] <= widget["max"] - widget["min"], given.id
            assert UNITS.search(given.tooltip), f"the unit of {given.id}"
        if given.get_io_type() == "COMBO":
            assert widget["default"] in widget["options"]


@for_all(nodes)
def test_few_widgets_are_open(node):
    inputs = [given.as_dict() for given in node.define_schema().inputs]
    assert sum("default" in given and not given.get("advanced") for given in inputs) <= MOST_OPEN


@for_all(nodes)
def test_seeds_say_who_changes_them(node):
    """A seed that moves by itself is for sampling; another seed in data or training is work from the beginning."""
    for given in node.define_schema().inputs:
        if given.id in SEEDS:
            makes_files = node.define_schema().category.endswith("training")
            assert given.as_dict()["control_after_generate"] is not makes_files


@for_all(nodes)
def test_execute_takes_the_inputs_of_the_schema(node):
    schema = node.define_schema()
    given = inspect.signature(node.execute).parameters
    assert set(given) == {item.id for item in schema.inputs}
    for item in schema.inputs:
        assert (given[item.id].default is not inspect.Parameter.empty) == item.optional, item.id


@for_all(nodes)
def test_execute_is_short(node):
    """A node unpacks, makes one call, returns; so many statements that none has to be packed into another."""
    body = ast.parse(textwrap.dedent(inspect.getsource(node.execute))).body[0].body
    assert sum(isinstance(part, ast.stmt) for statement in body for part in ast.walk(statement)) <= 25


def test_every_socket_type_has_its_own_colour():
    """In colors.js: what has none there is drawn in grey, and two alike look as if they fitted."""
    sockets = {
        socket.get_io_type()
        for schema in [node.define_schema() for node in NODE_CLASSES]
        for socket in [*schema.inputs, *schema.outputs]
    }
    own = {kind for kind in sockets if kind.startswith("SVP_") and "," not in kind}
    text = (Path(__file__).parents[2] / "web" / "js" / "colors.js").read_text()
    colours = dict(re.findall(r"^  (SVP_\w+): \"(#[0-9A-F]{6})\",$", text, re.M))
    assert set(colours) == own
    assert len(set(colours.values())) == len(colours)


if __name__ == "__main__":
    for every in NODE_CLASSES:
        schema = every.define_schema()
        kept, now = FROZEN.setdefault(schema.node_id, {"inputs": [], "outputs": [], "widgets": []}), described(schema)
        for part in kept:
            kept[part] += now[part][len(kept[part]) :]
    FROZEN_FILE.write_text(json.dumps(FROZEN, indent=1) + "\n")
    sys.stdout.write(f"{FROZEN_FILE}: {len(FROZEN)} nodes\n")
