"""Runs workflows: checks a graph, executes the nodes that its outputs need, shows progress and lists saved files."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import Cancelled, PortraitError
from ..io.file_names import printable
from ..io.files import working_folder, working_name
from ..signals import cancelling, ending_at_once
from .core_nodes import core_nodes
from .folders import Folders, OpenNodes
from .graph import (
    Graph,
    GraphNode,
    Link,
    accelerate_samplers,
    check_graph,
    execution_order,
    fill_defaults,
    graph_content,
    load_graph,
    output_nodes,
    set_input,
)
from .schema import Hidden, NodeSpec, read_spec

NodeProgress = Callable[[int, int, "GraphNode | None"], None]


@dataclass(frozen=True)
class SavedFile:
    """A saved file in a node's ui. kind: its folder, `output`, `temp` or `input`."""

    filename: str
    subfolder: str
    kind: str


@dataclass(frozen=True)
class Registry:
    """Node classes by class_type, with their specs."""

    nodes: Mapping[str, Any]
    specs: Mapping[str, NodeSpec]


def build_registry(nodes: Iterable[Any]) -> Registry:
    """Registry of nodes with `define_schema()` and `execute()`. Two nodes with one id raise PortraitError."""
    by_id: dict[str, Any] = {}
    specs: dict[str, NodeSpec] = {}
    for node in nodes:
        spec = read_spec(node)
        if spec.node_id in by_id:
            raise PortraitError(f"two nodes are called {spec.node_id}")
        by_id[spec.node_id] = node
        specs[spec.node_id] = spec
    return Registry(by_id, specs)


def run_graph(graph: Graph, registry: Registry, progress: NodeProgress | None = None) -> list[SavedFile]:
    """Checks the graph, runs it, and returns the saved files. Values are freed after their last use.

    progress(done, total, node) is called before each node, and at the end with None. One PortraitError before the first node
    lists all problems of the graph.
    """
    problems = check_graph(graph, registry.specs, registry.nodes)
    if problems:
        raise PortraitError(
            f"the workflow cannot run ({len(problems)} problem{'s' if len(problems) > 1 else ''}):\n"
            + "\n".join(f"  - {problem}" for problem in problems)
        )
    hidden = Hidden(prompt=graph_content(graph))
    order = execution_order(graph, output_nodes(graph, registry.specs))
    uses = Counter(link.node for node_id in order for _, link in graph[node_id].links())
    values: dict[str, tuple[Any, ...]] = {}
    saved: list[SavedFile] = []
    for done, node_id in enumerate(order):
        node = graph[node_id]
        if progress:
            progress(done, len(order), node)
        arguments = {
            name: values[value.node][value.output] if isinstance(value, Link) else value
            for name, value in node.inputs.items()
        }
        for _, link in node.links():
            uses[link.node] -= 1
            if not uses[link.node]:
                del values[link.node]
        result = _execute(node, registry, arguments, hidden)
        if uses[node_id]:
            values[node_id] = tuple(result.args)
        saved += _saved_files(result.ui)
    if progress:
        progress(len(order), len(order), None)
    return saved


def _execute(node: GraphNode, registry: Registry, arguments: dict[str, Any], hidden: Hidden) -> Any:
    implementation, spec = registry.nodes[node.class_type], registry.specs[node.class_type]
    try:
        result = (_with_hidden(implementation, hidden) if spec.hidden else implementation).execute(**arguments)
    except Cancelled:
        raise
    except (PortraitError, OSError) as error:
        raise PortraitError(f"{node.label}: {error}") from error
    except Exception as error:  # from any library: the user has to know the node
        what = (str(error).splitlines() or [""])[0][:300]
        raise PortraitError(f"{node.label}: {type(error).__name__}: {what} (svp --debug shows where)") from error
    if len(result.args) != len(spec.outputs):
        raise RuntimeError(f"{node.label} returned {len(result.args)} values, its schema declares {len(spec.outputs)}")
    return result


def _with_hidden(implementation: Any, hidden: Hidden) -> Any:
    """The node with the running graph in `hidden`, as in the host: a subclass, or a copy of a core node."""
    if isinstance(implementation, type):
        return type(implementation.__name__, (implementation,), {"hidden": hidden})
    return replace(implementation, hidden=hidden)


def _saved_files(ui: Any) -> list[SavedFile]:
    """The files in a node's ui, a dict or an object with as_dict(): {"images": [{"filename", "subfolder", "type"}]}."""
    if ui is None:
        return []
    content = ui if isinstance(ui, dict) else ui.as_dict()
    entries = [entry for value in content.values() if isinstance(value, (list, tuple)) for entry in value]
    return [
        SavedFile(entry["filename"], entry.get("subfolder", ""), _folder_name(entry.get("type", "output")))
        for entry in entries
        if isinstance(entry, dict) and "filename" in entry
    ]


def _folder_name(kind: Any) -> str:
    return str(kind.value if isinstance(kind, Enum) else kind)


class ProgressDisplay:
    """Progress on stderr: a line for each completed node, and on a terminal a bar for the steps of the running one."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._node: GraphNode | None = None
        self._since = 0.0

    def node(self, done: int, total: int, node: GraphNode | None) -> None:
        """Called before each node, and at the end with None."""
        self.close()
        if self._node is not None:
            seconds = time.perf_counter() - self._since
            tqdm.write(f"[{done}/{total}] {self._node.label}: {seconds:.1f} s", file=sys.stderr)
        self._node, self._since = node, time.perf_counter()

    def steps(self, done: int, total: int) -> None:
        """Called by the running node."""
        if self._bar is None:
            name = printable(self._node.class_type) if self._node else None
            self._bar = tqdm(total=total, desc=name, leave=False, disable=None, file=sys.stderr)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def run_workflow(
    workflow: Path,
    open_nodes: OpenNodes,
    input_folder: Path,
    output_folder: Path,
    assignments: Sequence[str] = (),
    earlier: Path | None = None,
    complete: bool = True,
    accelerate: str | None = None,
    shown: bool = True,
) -> list[Path]:
    """Runs an API-format workflow file and returns the files it saved in the output folder.

    assignments: `NODE.INPUT=VALUE` strings. earlier: the output folder of other runs, also searched for models. complete: the
    workflow has all inputs, as saved ones have; else missing widgets take their defaults. accelerate: a preset or settings of the Accelerate
    node, for every sampler. shown: whether progress is. Previews go to a temp folder that is removed afterwards.
    """
    graph = load_graph(workflow)
    if not input_folder.is_dir():
        raise PortraitError(f"input folder {input_folder} does not exist: name one with --input")
    display = ProgressDisplay()
    with cancelling() as check:

        def steps(done: int, total: int) -> None:
            check()
            if shown:
                display.steps(done, total)

        def node(done: int, total: int, next_node: GraphNode | None) -> None:
            check()
            if shown:
                display.node(done, total, next_node)

        folders = Folders(
            input_folder.resolve(), output_folder.resolve(), working_name().resolve(), earlier and earlier.resolve()
        )
        with ending_at_once():  # nothing is written yet, and imports take seconds
            registry = build_registry([*core_nodes(folders), *open_nodes(folders, steps)])
        if not complete:
            fill_defaults(graph, registry.specs)
        for assignment in assignments:
            set_input(graph, registry.specs, assignment)
        if accelerate is not None:
            accelerate_samplers(graph, registry.specs, accelerate)
        try:
            with working_folder(folders.temp):
                saved = run_graph(graph, registry, node)
        except PortraitError:
            check()  # a library may have turned the interruption into another error
            raise
        finally:
            display.close()
    return [folders.output / file.subfolder / file.filename for file in saved if file.kind == "output"]
