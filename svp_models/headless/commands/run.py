"""svp run: an API-format workflow, or the one stored in a saved file, from start to saved files."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...io.names import printable
from ..session import OpenNodes, run_workflow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "graph",
        type=Path,
        metavar="GRAPH.json",
        help="workflow in API format, or a video or PNG that stores the one it was made by",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        help="change an input; NODE is an id, a title or a class_type; may be given several times",
    )
    parser.add_argument("--out", type=Path, default=Path("output"), metavar="DIR", help="output folder (%(default)s)")
    parser.add_argument(
        "--input", type=Path, metavar="DIR", help="folder the load nodes read from (./input if there, else .)"
    )


def run(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    standard = Path("input")
    folder = args.input or (standard if standard.is_dir() else Path("."))
    for path in run_workflow(args.graph, open_nodes, folder, args.out, args.set):
        print(printable(path))
