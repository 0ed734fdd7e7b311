"""Arrays on disk that processes fill row by row: memory-mapped, with a card that says what they hold, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PortraitError

Fields = dict[str, tuple[tuple[int, ...], str]]  # name -> shape, dtype; every shape begins with the number of rows
BLOCK = 8  # rows a process fills at a time


def open_store(folder: Path, card: dict[str, Any], fields: Fields, mode: str = "r") -> dict[str, np.ndarray]:
    """The arrays by name, made anew if the folder is empty; `done` (rows, bool) tells which rows are filled.

    Raises PortraitError when the folder holds something else than `card` says.
    """
    rows = next(iter(fields.values()))[0][0]
    fields = {**fields, "done": ((rows,), "bool")}
    file = folder / "corpus.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name, (shape, kind) in fields.items():
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, shape)
        file.write_text(json.dumps(card))
    found = json.loads(file.read_text())
    if found != card:
        raise PortraitError(f"{folder} holds the corpus {found}, wanted is {card}: remove the folder or choose another")
    return {name: np.load(folder / f"{name}.npy", mmap_mode=mode) for name in fields}


def fill_store(
    done: np.ndarray, fill: Callable[[list[int]], int], workers: int, name: str, report: Callable[[str], None]
) -> None:
    """Has `workers` processes fill the rows that are not done; fill(rows) fills some and returns how many."""
    missing = [int(row) for row in np.flatnonzero(~done)]
    if not missing:
        return
    blocks = [missing[start : start + BLOCK] for start in range(0, len(missing), BLOCK)]
    with ProcessPoolExecutor(workers) as pool:
        filled = len(done) - len(missing)
        futures = [pool.submit(fill, block) for block in blocks]
        for count, future in enumerate(futures):
            filled += future.result()
            if count % 10 == 9 or count + 1 == len(futures):
                report(f"{name} {filled}/{len(done)} clips")
