"""svp download: published weights from Hugging Face into the models folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...checkpoints.catalog import ENTRIES, entry_named, size_text
from ...checkpoints.download import download
from ...checkpoints.sources import sha256_of
from ..session import OpenNodes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    known = ", ".join(name for name, entry in ENTRIES.items() if entry.repository)
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"what to download: {known}")
    parser.add_argument(
        "--models", type=Path, default=Path("models"), metavar="DIR", help="models folder to put it below (%(default)s)"
    )
    parser.add_argument("--endpoint", metavar="URL", help="a mirror of huggingface.co; HF_ENDPOINT does the same")


def run(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    entries = [entry_named(name) for name in args.names]
    for entry in entries:
        print(f"{entry.name}: {size_text(entry.bytes)}, licence: {entry.licence or 'not stated by its makers'}")
        known = {file.name: file.sha256 for file in entry.files}
        for path in download(entry, args.models, args.endpoint):
            print(path if known[path.name] else f"{path}  SHA-256 not published; of this file: {sha256_of(path)}")
