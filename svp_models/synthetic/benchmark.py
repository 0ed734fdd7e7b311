"""How fast pictures are rendered: frames a second and core, by size and version."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..optional_deps import cv2
from .clips import act
from .identity import VERSIONS
from .renderer import renderer_for
from .speakers import speaker

SIZES = (128, 256, 512)
PEOPLE, FRAMES = 6, 20


def render_speed(sizes: tuple[int, ...] = SIZES, versions: tuple[int, ...] = VERSIONS) -> Iterator[str]:
    """One line for each version and size: frames a second of one core, and what a new person costs first."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for version in versions:
            for size in sizes:
                first = later = 0.0
                for number in range(PEOPLE):
                    person = speaker(number, "train")
                    _, _, states = act(person, "happy", 3, 0, FRAMES, 25.0)
                    rows = zip(states.expression, states.pose, states.blink, states.gaze, strict=True)
                    start = time.process_time()
                    renderer = renderer_for(person.identity, version)
                    renderer.render(*next(rows), size)
                    middle = time.process_time()
                    for row in rows:
                        renderer.render(*row, size)
                    first += middle - start
                    later += time.process_time() - middle
                speed = PEOPLE * (FRAMES - 1) / later
                yield f"version {version}, {size} pixels: {speed:.0f} frames/s, {1000 * first / PEOPLE:.0f} ms for a new person"
    finally:
        cv2.setNumThreads(threads)
