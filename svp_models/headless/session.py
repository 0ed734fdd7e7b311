"""One workflow run as a person sees it: folders made, nodes opened, progress shown, saved files listed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import PortraitError
from ..io.files import working_folder, working_name
from ..io.names import printable
from ..io.signals import cancelling, ending_at_once
from .core_nodes import core_nodes
from .folders import Folders
from .graph import GraphNode, load_graph, set_input
from .runner import build_registry, run_graph

# Readies the pack's nodes for these folders and this progress callback (done, total), and returns the node classes.
OpenNodes = Callable[[Folders, Callable[[int, int], None]], Iterable[Any]]


class ProgressDisplay:
    """A line for each finished node on stderr, and on a terminal a bar for the steps of the one that works."""

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
        """Called by the working node."""
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
) -> list[Path]:
    """Runs an API-format workflow file and returns the files it left in the output folder.

    assignments: `NODE.INPUT=VALUE` each. earlier: the output folder of other runs, whose models are found too. Previews go to
    a temp folder that is removed afterwards.
    """
    graph = load_graph(workflow)
    if not input_folder.is_dir():
        raise PortraitError(f"input folder {input_folder} does not exist: name one with --input")
    display = ProgressDisplay()
    with cancelling() as check:

        def steps(done: int, total: int) -> None:
            check()
            display.steps(done, total)

        def node(done: int, total: int, next_node: GraphNode | None) -> None:
            check()
            display.node(done, total, next_node)

        folders = Folders(
            input_folder.resolve(), output_folder.resolve(), working_name().resolve(), earlier and earlier.resolve()
        )
        with ending_at_once():  # nothing has been written yet, and imports take seconds
            registry = build_registry([*core_nodes(folders), *open_nodes(folders, steps)])
        for assignment in assignments:
            set_input(graph, registry.specs, assignment)
        try:
            with working_folder(folders.temp):
                saved = run_graph(graph, registry, node)
        except PortraitError:
            check()  # a library may have made another error of the interruption
            raise
        finally:
            display.close()
    return [folders.output / each.subfolder / each.filename for each in saved if each.kind == "output"]
