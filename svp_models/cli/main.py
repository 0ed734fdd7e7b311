"""The svp command line: picks the command, reports errors in one line, ends cleanly on Ctrl-C."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import io
import sys
from collections.abc import Callable, Sequence

from ..errors import Cancelled, PortraitError
from ..io.file_names import printable
from ..optional_deps import check_libraries, missing_error
from ..signals import MESSAGE, cancelling, ending_at_once, exit_code
from .folders import OpenNodes

COMMANDS = {  # name -> module with `add_NAME_arguments` and `run_NAME`, and summary
    "generate": ("generate", "a portrait and a voice in, a video out"),
    "animate": ("animate", "a photograph and a voice in, a video out: LivePortrait, in the style of a clip"),
    "run": ("generate", "run an API-format workflow without ComfyUI"),
    "demo": ("generate", "a portrait speaks in two styles: the bundled graph with the bundled model"),
    "info": ("models", "describe a model or style file"),
    "convert": ("models", "convert published weights to a model file, or a model file to V-Express' files"),
    "models": ("models", "list the published weights: present or missing, and their use"),
    "download": ("models", "download published weights into the models folder"),
    "evaluate": ("evaluate", "measure a model on synthetic clips"),
    "prepare": ("data", "make training data from videos: cropped, labelled clips in WebDataset shards"),
    "train": ("train", "train a model"),
    "check-parity": ("evaluate", "compare the pack with V-Express' own numbers on a folder of its weights and outputs"),
    "bench": ("bench", "measure the time of networks on this machine"),
    "synthesize": ("data", "write a synthetic talking head, the training data, as a video"),
}
NEW_LINE = "\n"


def main(open_nodes: OpenNodes, argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code. open_nodes: prepares the pack's node classes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for terminals with few characters
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
    # Only the chosen command is imported, so that `svp --help` does not wait for torch.
    chosen = next((word for word in argv if word in COMMANDS), None)
    if chosen:
        check_libraries()
    for name, (module_name, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == chosen:
            module = importlib.import_module(f".{module_name}", __package__)
            getattr(module, f"add_{name.replace('-', '_')}_arguments")(command)
            run = getattr(module, f"run_{name.replace('-', '_')}")
    args = parser.parse_args(argv)
    return run, args
