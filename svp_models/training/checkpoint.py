"""The state of a training run on disk: one file for each checkpoint, written atomically, read without executing anything."""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..errors import PortraitError
from ..io.files import whole_file

NAME = re.compile(r"checkpoint-(\d+)\.pt$")
VERSION = 1
KEYS = ("step", "phase", "seed", "config", "module", "ema", "optimizer", "values")
ALIASES = {"average": "ema"}  # keys of earlier versions
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOAD_ERRORS = (OSError, EOFError, KeyError, ValueError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile)
LEAST_FREE = 1 << 20  # bytes; a disk with less is full


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Calls write(partial path) and puts the result in place of `path`: there is a complete file or none."""
    try:
        with whole_file(path) as partial:
            write(partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        if getattr(error, "errno", None) in FULL_DISK or shutil.disk_usage(path.parent).free < LEAST_FREE:
            raise full_disk(path) from error
        raise


def full_disk(path: Path) -> PortraitError:
    """The error for a file that does not fit onto its disk."""
    return PortraitError(f"{path}: no space left on the disk: free some space and run the same command again")


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = [(int(match[1]), path) for path in folder.glob("checkpoint-*.pt") if (match := NAME.search(path.name))]
    return [path for _, path in sorted(found)]


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Writes `state` as the checkpoint of `step` and removes all but the `keep` newest ones."""
    path = folder / f"checkpoint-{step:07}.pt"
    write_atomically(path, lambda partial: torch.save({**state, "version": VERSION, "step": step}, partial))
    for old in checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint file, tensors on the CPU; keys of earlier versions are read too, see ALIASES."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        raise PortraitError(
            f"{path}: not a readable checkpoint ({error}): remove it to resume from the one before"
        ) from error
    if isinstance(state, dict):
        state = {ALIASES.get(key, key): value for key, value in state.items()}
    if not isinstance(state, dict) or not {"version", *KEYS} <= set(state):
        raise PortraitError(f"{path}: not a checkpoint of a training: remove it to resume from the one before")
    if state["version"] != VERSION:
        raise PortraitError(f"{path}: checkpoint version {state['version']}, this pack reads {VERSION}")
    return state
