"""svp demo: the bundled portrait speaks the bundled sentence in two styles, with a contact sheet to compare them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import PortraitError
from ...io.files import reserved_file, whole_file
from ...io.names import printable
from ...libraries import cv2
from ...media.video import load_video
from ..session import OpenNodes, run_workflow

WORKFLOWS = Path(__file__).resolve().parents[3] / "workflows"
STYLES = {"happy": "style_happy.mp4", "sad": "style_sad.mp4"}
SHEET_COLUMNS = 6
TILE = 256  # pixels per side of a picture on the contact sheet
LABEL = 32  # pixels of the line above each row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("output/demo"), metavar="DIR", help="output folder (%(default)s)"
    )


def run(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    started = time.perf_counter()
    clips = {}
    for style, file in STYLES.items():
        assignments = [f"Style clip.file={file}", f"SVPVideoCombine.filename_prefix=demo_{style}"]
        saved = run_workflow(
            WORKFLOWS / "api" / "portrait.json", open_nodes, WORKFLOWS / "assets", args.out, assignments
        )
        clips[style] = next((path for path in saved if path.suffix == ".mp4"), None)
        if clips[style] is None:
            raise PortraitError("the portrait workflow saved no mp4: its SVPVideoCombine node is missing")
        print(printable(clips[style]), flush=True)  # now, because an interruption leaves it
    with reserved_file(args.out, "demo_contact_sheet", "jpg") as sheet, whole_file(sheet) as temporary:
        Image.fromarray(contact_sheet(clips)).save(temporary, format="JPEG", quality=92)
    print(printable(sheet))
    print(f"{len(clips)} clips in {time.perf_counter() - started:.0f} s")


def contact_sheet(clips: Mapping[str, Path]) -> np.ndarray:
    """One row for each clip: its name and SHEET_COLUMNS frames evenly over its length. h w 3, uint8."""
    rows = []
    for name, path in clips.items():
        frames = load_video(path).frames  # n h w 3
        chosen = np.linspace(0, len(frames) - 1, SHEET_COLUMNS).round().astype(int)
        tiles = [cv2.resize(frames[index], (TILE, TILE), interpolation=cv2.INTER_CUBIC) for index in chosen]
        label = np.full((LABEL, TILE * SHEET_COLUMNS, 3), 255, np.uint8)
        cv2.putText(label, name, (8, LABEL - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (40, 40, 40), 1, cv2.LINE_AA)
        rows += [label, np.hstack(tiles)]
    return np.vstack(rows)
