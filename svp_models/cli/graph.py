"""API-format workflows: reading, changing inputs, and finding every problem before the run."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..diffusion.acceleration import PRESETS, settings_from_text
from ..errors import PortraitError
from ..io.file_names import printable
from ..media.container import open_media
from ..media.images import png_text
from .schema import InputSpec, NodeSpec, convert_value, show_value, types_match

# Values of buttons and players that the browser saves beside a node's inputs; no node receives them.
BROWSER_WIDGETS = frozenset({"upload", "audioUI", "video-preview", "control_after_generate"})
IMAGES, VIDEOS = (".png",), (".mp4", ".m4v", ".mov", ".mkv", ".webm")  # saved files with a stored graph
STORED = "prompt"  # its key in them
MAX_DEPTH = 50  # of nested lists and objects; a graph has about six


@dataclass(frozen=True)
class Link:
    """An input fed by output number `output` (from 0) of node `node`."""

    node: str
    output: int


SAMPLER, ACCELERATE = "SVPSampler", "SVPAccelerate"


@dataclass
class GraphNode:
    """One node of a graph; inputs map to a Link or to a plain value."""

    id: str
    class_type: str
    title: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        title = f' "{self.title}"' if self.title and self.title != self.class_type else ""
        return printable(f"node {self.id} ({self.class_type}{title})")

    def links(self) -> list[tuple[str, Link]]:
        return [(name, value) for name, value in self.inputs.items() if isinstance(value, Link)]


Graph = dict[str, GraphNode]


def load_graph(path: Path | str) -> Graph:
    """Reads an API-format workflow, or the one stored in a video or PNG image; anything else raises PortraitError."""
    path = Path(path)
    if not path.is_file():
        raise PortraitError(f"{path}: no such workflow file")
    try:
        content = json.loads(_graph_text(path))
    except PortraitError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, no UTF-8, or a number of thousands of digits
        raise PortraitError(f"{path}: not a JSON file of a workflow ({error})") from error
    return parse_graph(content, str(path))


def _graph_text(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in IMAGES:
        text = png_text(path, STORED)
    elif suffix in VIDEOS:
        with open_media(path) as container:
            text = container.metadata.get(STORED)
    else:
        return path.read_text(encoding="utf-8")
    if text is None:
        raise PortraitError(f"{path}: no workflow is stored in it: run the API-format workflow that made it")
    return text


def graph_content(graph: Graph) -> dict[str, Any]:
    """The graph as the decoded JSON of an API-format workflow."""
    content = {}
    for node in graph.values():
        inputs = {
            name: [value.node, value.output] if isinstance(value, Link) else value
            for name, value in node.inputs.items()
        }
        content[node.id] = {"inputs": inputs, "class_type": node.class_type}
        if node.title:
            content[node.id]["_meta"] = {"title": node.title}
    return content


def parse_graph(content: Any, where: str = "workflow") -> Graph:
    """The graph in decoded JSON: `{id: {"class_type": ..., "inputs": {...}}}`, or that under the key `prompt`."""
    if _too_deep(content):
        raise PortraitError(f"{where}: lists and objects are nested deeper than {MAX_DEPTH}: it is not a workflow")
    if isinstance(content, dict) and isinstance(content.get("nodes"), list):
        raise PortraitError(
            f"{where}: this is a workflow in the editor's format; in ComfyUI choose 'Workflow > Export (API)' "
            "and run that file (the bundled ones are in workflows/api)"
        )
    if isinstance(content, dict) and isinstance(content.get("prompt"), dict):
        content = content["prompt"]
    if not isinstance(content, dict) or not content:
        raise PortraitError(f"{where}: an API-format workflow is a JSON object of nodes, and not an empty one")
    graph: Graph = {}
    for node_id, entry in content.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("class_type"), str):
            raise PortraitError(
                f"{where}: entry {node_id!r} has no class_type, so it is no node of an API-format workflow"
            )
        inputs = entry.get("inputs", {})
        if not isinstance(inputs, dict):
            raise PortraitError(f"{where}: the inputs of node {node_id} are no JSON object")
        meta = entry.get("_meta")
        title = meta.get("title", "") if isinstance(meta, dict) else ""
        parsed = {name: _parse_value(value) for name, value in inputs.items() if name not in BROWSER_WIDGETS}
        graph[node_id] = GraphNode(node_id, entry["class_type"], title if isinstance(title, str) else "", parsed)
    return graph


def _too_deep(content: Any) -> bool:
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [
            value
            for outer in level
            if isinstance(outer, (dict, list))
            for value in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def _parse_value(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"__value__"}:
        return value["__value__"]
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)) and type(value[1]) is int:
        return Link(str(value[0]), value[1])
    return value


def find_node(graph: Graph, name: str) -> GraphNode:
    """The one node with this id, title or class_type, tried in that order."""
    if name in graph:
        return graph[name]
    for found in (
        [node for node in graph.values() if node.title == name],
        [node for node in graph.values() if node.class_type == name],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise PortraitError(
                f"{name!r} names {len(found)} nodes ({', '.join(node.id for node in found)}): use the id"
            )
    known = [*graph, *(node.title for node in graph.values() if node.title), *(n.class_type for n in graph.values())]
    raise PortraitError(f"no node {name!r} in the workflow{_suggest(name, known)}; nodes: {_overview(graph)}")


def set_input(graph: Graph, specs: Mapping[str, NodeSpec], assignment: str) -> None:
    """Applies `NODE.INPUT=VALUE`: VALUE is JSON where it parses as such, else text; text inputs take it as is."""
    target, equals, text = assignment.partition("=")
    name, dot, input_name = target.strip().rpartition(".")
    if not (equals and dot and name and input_name):
        raise PortraitError(f"--set {assignment!r}: write NODE.INPUT=VALUE, for example SVPSampler.seed=7")
    node = find_node(graph, name)
    spec = specs.get(node.class_type)
    input_spec = spec.input(input_name) if spec else None
    if spec and input_spec is None:
        known = [known_input.id for known_input in spec.inputs]
        raise PortraitError(
            f"{node.label} has no input {input_name!r}{_suggest(input_name, known)}; inputs: {', '.join(known)}"
        )
    try:
        value = json.loads(text)
        value = text if _too_deep(value) else _parse_value(value)
    except (ValueError, RecursionError):
        value = text
    if input_spec and input_spec.io_type in ("STRING", "COMBO") and not isinstance(value, Link):
        value = text if input_spec.options is None or value not in input_spec.options else value
    node.inputs[input_name] = value


def check_graph(graph: Graph, specs: Mapping[str, NodeSpec], nodes: Mapping[str, Any]) -> list[str]:
    """All problems of a graph, one sentence for each. Values of fitting types are converted in place.

    specs: class_type -> NodeSpec; nodes: class_type -> node class, whose `validate_inputs`, if any, is called.
    """
    problems: list[str] = []
    for node in graph.values():
        spec = specs.get(node.class_type)
        if spec is None:
            problems.append(f"{node.label}: unknown node class{_suggest(node.class_type, specs)}")
            continue
        node_problems = _check_inputs(node, spec, graph, specs, _arguments_checked_by(nodes[node.class_type]))
        problems += node_problems or _ask_node(node, nodes[node.class_type])
    problems += _cycles(graph)
    if not problems and not output_nodes(graph, specs):
        problems.append(
            "the workflow has no output node (such as SaveVideo or SVPVideoCombine), so there is nothing to run"
        )
    return problems


def fill_defaults(graph: Graph, specs: Mapping[str, NodeSpec]) -> None:
    """Gives the required inputs that are missing the defaults of their widgets, as a page does with a new node."""
    for node in graph.values():
        for given in specs[node.class_type].inputs if node.class_type in specs else ():
            if not given.optional and given.default is not None:
                node.inputs.setdefault(given.id, given.default)


def accelerate_samplers(graph: Graph, specs: Mapping[str, NodeSpec], wanted: str) -> None:
    """Puts an Accelerate node before the model of every sampler; a graph without one raises PortraitError.

    wanted: a preset, or settings of the preset custom: NAME=VALUE,NAME=VALUE.
    """
    samplers = [
        node for node in graph.values() if node.class_type == SAMPLER and isinstance(node.inputs.get("model"), Link)
    ]
    if not samplers:
        raise PortraitError(
            f"--accelerate {wanted}: the workflow has no {SAMPLER} with a model connected, leave the option out"
        )
    defaults = {given.id: given.default for given in specs[ACCELERATE].inputs if given.default is not None}
    chosen = {"preset": wanted} if wanted in PRESETS else {"preset": "custom", **settings_from_text(wanted)}
    for sampler in samplers:
        settings = defaults | chosen | {"model": sampler.inputs["model"]}
        added = GraphNode(f"{sampler.id}-accelerate", ACCELERATE, "", settings)
        graph[added.id] = added
        sampler.inputs["model"] = Link(added.id, 0)


def _check_inputs(
    node: GraphNode, spec: NodeSpec, graph: Graph, specs: Mapping[str, NodeSpec], left_to_node: frozenset[str]
) -> list[str]:
    problems = []
    known = [known_input.id for known_input in spec.inputs]
    for name in node.inputs:
        if name not in known:
            problems.append(
                f"{node.label}: unknown input {name!r}{_suggest(name, known)}; inputs: {', '.join(known) or 'none'}"
            )
    for wanted in spec.inputs:
        if wanted.id not in node.inputs:
            if not wanted.optional:
                problems.append(f"{node.label}: required input {wanted.id!r} ({wanted.io_type}) is missing")
            continue
        value = node.inputs[wanted.id]
        if isinstance(value, Link):
            problem = _link_problem(wanted, value, graph, specs)
        elif isinstance(value, list):
            problem = "is a list that is no link; a link is [node id, output number]"
        else:
            node.inputs[wanted.id], problem = convert_value(wanted, value, check_range=wanted.id not in left_to_node)
        if problem:
            problems.append(f"{node.label}: input {wanted.id!r} {problem}")
    return problems


def _link_problem(wanted: InputSpec, link: Link, graph: Graph, specs: Mapping[str, NodeSpec]) -> str | None:
    source = graph.get(link.node)
    if source is None:
        return f"is linked to node {printable(link.node)}, which is not in the workflow"
    spec = specs.get(source.class_type)
    if spec is None:
        return None  # reported once, as an unknown class
    if not 0 <= link.output < len(spec.outputs):
        count = len(spec.outputs)
        return f"is linked to output {show_value(link.output)} of {source.label}, which has {count} outputs (counted from 0)"
    given = spec.outputs[link.output]
    if not types_match(given, wanted.io_type):
        return f"wants {wanted.io_type}, but output {link.output} of {source.label} is {given}"
    return None


def _arguments_checked_by(node: Any) -> frozenset[str]:
    """Inputs of the node's `validate_inputs`: as in the host, it also checks their range."""
    check = getattr(node, "validate_inputs", None)
    if check is None:
        return frozenset()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(check).parameters
    return frozenset(name for name, parameter in parameters.items() if parameter.kind in kinds)


def _ask_node(node: GraphNode, implementation: Any) -> list[str]:
    """Problems from the node's `validate_inputs`; linked inputs are not known yet and are None."""
    names = _arguments_checked_by(implementation)
    arguments = {name: node.inputs[name] for name in names if name in node.inputs}
    if not arguments:
        return []
    answer = implementation.validate_inputs(
        **{name: None if isinstance(value, Link) else value for name, value in arguments.items()}
    )
    return [] if answer is True else [f"{node.label}: {answer}"]


def output_nodes(graph: Graph, specs: Mapping[str, NodeSpec]) -> list[str]:
    """Ids of the nodes whose class is an output node, in the graph's order."""
    return [node.id for node in graph.values() if node.class_type in specs and specs[node.class_type].is_output_node]


def execution_order(graph: Graph, wanted: Iterable[str]) -> list[str]:
    """Ids of `wanted` and of all nodes they depend on, inputs first. The graph must have no cycles."""
    order: list[str] = []
    done: set[str] = set()
    stack = [(node_id, False) for node_id in reversed(list(wanted))]
    while stack:
        node_id, inputs_done = stack.pop()
        if node_id in done:
            continue
        if inputs_done:
            done.add(node_id)
            order.append(node_id)
            continue
        stack.append((node_id, True))
        stack += [(link.node, False) for _, link in reversed(graph[node_id].links())]
    return order


def _cycles(graph: Graph) -> list[str]:
    """One sentence for each cycle, found by depth-first search."""
    problems = []
    visited: set[str] = set()
    for start in graph:
        path: dict[str, None] = {}  # an ordered set
        stack = [(start, False)]
        while stack:
            node_id, leaving = stack.pop()
            if leaving:
                visited.add(path.popitem()[0])
            elif node_id in path:
                loop = [*list(path)[list(path).index(node_id) :], node_id]
                problems.append(printable(f"cycle: {' <- '.join(loop)}; a node cannot depend on itself"))
            elif node_id in graph and node_id not in visited:
                path[node_id] = None
                stack.append((node_id, True))
                stack += [(link.node, False) for _, link in graph[node_id].links()]
    return problems


def _suggest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(set(known)), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _overview(graph: Graph) -> str:
    return ", ".join(f"{node.id} {node.title or node.class_type}" for node in graph.values())
