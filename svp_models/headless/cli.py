"""The svp command line: picks the command, reports errors in one line, ends cleanly on Ctrl-C."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import Cancelled, PortraitError

if TYPE_CHECKING:  # `svp --help` does not wait for torch
    from .session import OpenNodes

COMMANDS = {
    "generate": "a portrait and a voice in, a video out",
    "run": "run an API-format workflow without ComfyUI",
    "demo": "a portrait speaks in two styles: the bundled graph with the bundled model",
    "info": "describe a model or style file",
    "convert": "make a model file of published weights, or V-Express' files of a model file",
    "models": "list the published weights: which are there, which are missing, what they enable",
    "download": "download published weights into the models folder",
    "evaluate": "measure a model on generated clips",
    "prepare": "make training data of films: cropped, labelled clips in WebDataset shards",
    "train": "train a model",
    "check-parity": "compare the pack with V-Express' own numbers on a folder of its weights and outputs",
    "synthesize": "write a synthetic talking head, the training data, as a video",
}
INTERRUPTED = 130  # the shell's code for a program ended by Ctrl-C


def main(open_nodes: OpenNodes, argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the process's exit code. open_nodes: how to get the pack's node classes ready."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="svp", description="Talking portraits in the style of a clip.")
    parser.add_argument("--version", action="version", version=f"svp {importlib.metadata.version('svp-portrait')}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Only the command asked for is imported, for the same reason.
    chosen = next((each for each in argv if each in COMMANDS), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == chosen:
            module = importlib.import_module(f".commands.{name.replace('-', '_')}", __package__)
            module.add_arguments(command)
    args = parser.parse_args(argv)
    try:
        return module.run(args, open_nodes) or 0
    except (KeyboardInterrupt, Cancelled):
        print("svp: interrupted, nothing half-written was left", file=sys.stderr)
        return INTERRUPTED
    except (PortraitError, OSError) as error:
        if args.debug:
            raise
        print(f"svp: {error}", file=sys.stderr)
        return 1
