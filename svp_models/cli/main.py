"""The svp command line: picks the command, reports errors in one line, ends cleanly on Ctrl-C."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import io
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import Cancelled, PortraitError
from ..io.file_names import printable
from ..io.signals import MESSAGE, cancelling, ending_at_once, exit_code
from ..optional_deps import check_libraries, missing_error

if TYPE_CHECKING:
    from .runner import OpenNodes

COMMANDS = {  # name -> module of its `add_NAME_arguments` and `run_NAME`, summary
    "generate": ("generate", "a portrait and a voice in, a video out"),
    "run": ("generate", "run an API-format workflow without ComfyUI"),
    "demo": ("generate", "a portrait speaks in two styles: the bundled graph with the bundled model"),
    "info": ("models", "describe a model or style file"),
    "convert": ("models", "make a model file of published weights, or V-Express' files of a model file"),
    "models": ("models", "list the published weights: which are there, which are missing, what they enable"),
    "download": ("models", "download published weights into the models folder"),
    "evaluate": ("evaluate", "measure a model on generated clips"),
    "prepare": ("data", "make training data of films: cropped, labelled clips in WebDataset shards"),
    "train": ("train", "train a model"),
    "check-parity": ("evaluate", "compare the pack with V-Express' own numbers on a folder of its weights and outputs"),
    "synthesize": ("data", "write a synthetic talking head, the training data, as a video"),
}
NEW_LINE = "\n"


def main(open_nodes: OpenNodes, argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the process's exit code. open_nodes: how to get the pack's node classes ready."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal of few letters is no reason to fail
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        with ending_at_once():
            run, args = _parsed(argv)
        with cancelling():
            return run(args, open_nodes) or 0
    except (KeyboardInterrupt, Cancelled) as error:
        print(MESSAGE, file=sys.stderr)
        return exit_code(error)
    except (PortraitError, OSError, ModuleNotFoundError) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if "--debug" in argv or (missing or "").startswith(__package__.partition(".")[0]):
            raise
        message = str(error if missing is None else missing_error([missing]))
        print(f"svp: {printable(message, keep=NEW_LINE)}", file=sys.stderr)
        return 1


def _parsed(argv: list[str]) -> tuple[Callable[..., int | None], argparse.Namespace]:
    """The function of the command and its arguments."""
    parser = argparse.ArgumentParser(prog="svp", description="Talking portraits in the style of a clip.")
    parser.add_argument("--version", action="version", version=f"svp {importlib.metadata.version('svp-portrait')}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Only the command asked for is imported: `svp --help` does not wait for torch.
    chosen = next((word for word in argv if word in COMMANDS), None)
    if chosen:
        check_libraries()
    for name, (module_name, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == chosen:
            module = importlib.import_module(f".commands.{module_name}", __package__)
            getattr(module, f"add_{name.replace('-', '_')}_arguments")(command)
            run = getattr(module, f"run_{name.replace('-', '_')}")
    args = parser.parse_args(argv)
    return run, args
