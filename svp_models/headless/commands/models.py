"""svp models: which published weights are there, which are not, and what the missing ones would enable."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ...checkpoints.catalog import TABLE, Entry, file_in, size_text
from ..session import OpenNodes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models",
        type=Path,
        action="append",
        metavar="DIR",
        help="models folder (./models), may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list instead")


def run(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    roots = args.models or [Path("models")]
    described = [describe(entry, roots) for entry in TABLE]
    print(json.dumps(described, indent=2) if args.json else "\n".join(as_lines(described)))


def describe(entry: Entry, roots: list[Path]) -> dict:
    """The entry as plain values; each file with its place in the models folders (None: missing) and its size there."""
    files = []
    for file in entry.files:
        place = file_in(file, entry.folder, roots)
        files.append(
            {
                "name": file.name,
                "bytes": file.bytes,
                "sha256": file.sha256,
                "path": None if place is None else str(place),
                "bytes_there": None if place is None else place.stat().st_size,
            }
        )
    return {
        "name": entry.name,
        "present": all(file["path"] for file in files),
        "folder": f"models/{entry.folder}",
        "licence": entry.licence,
        "source": entry.source,
        "downloads": entry.repository is not None,
        "enables": entry.enables,
        "files": files,
    }


def as_lines(described: list[dict]) -> list[str]:
    """A few lines for each entry, those that are present first."""
    lines = []
    for each in sorted(described, key=lambda each: not each["present"]):
        lines.append(f"{'present' if each['present'] else 'missing'}  {each['name']}: {each['enables']}")
        for file in each["files"]:
            lines.append(f"         {_place(file, each['folder'])}")
        how = f"svp download {each['name']}, or {each['source']}" if each["downloads"] else each["source"]
        lines.append(f"         licence: {each['licence'] or 'not stated'}" + ("" if each["present"] else f"; {how}"))
    return lines


def _place(file: dict, folder: str) -> str:
    size = size_text(file["bytes"])
    hashed = "" if file["sha256"] else "  SHA-256 not published"
    if file["path"] is None:
        return f"{folder}/{file['name']}  {size}  missing{hashed}"
    if file["bytes"] not in (None, file["bytes_there"]):
        return (
            f"{file['path']}  {file['bytes_there']:,} bytes, the published file has {file['bytes']:,}: another version?"
        )
    return f"{file['path']}  {size_text(file['bytes_there'])}{hashed}"
