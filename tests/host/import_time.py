"""Prints how long the pack takes to load once the host itself is there: `import_time.py COMFYUI_FOLDER BASE_FOLDER`.

Seconds of the clock and of the processor, and the outside packages that the pack was first to import, the slowest first.
"""

from __future__ import annotations

import asyncio
import builtins
import sys
import time
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[2]


class Watch:
    """Processor seconds of every outermost import of a package that was not there before."""

    def __init__(self) -> None:
        self.known = {each.partition(".")[0] for each in sys.modules}
        self.seconds: dict[str, float] = {}
        self.inside = False
        self.original = builtins.__import__

    def __call__(self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        package = name.partition(".")[0]
        if self.inside or level or package in self.known:
            return self.original(name, globals, locals, fromlist, level)
        start, self.inside = time.process_time(), True
        try:
            return self.original(name, globals, locals, fromlist, level)
        finally:
            self.inside = False
            self.seconds[package] = self.seconds.get(package, 0.0) + time.process_time() - start


def main() -> None:
    comfyui, base = sys.argv[1:]
    sys.path.insert(0, comfyui)
    sys.argv = ["main.py", "--cpu", "--base-directory", base]
    import comfy.options

    comfy.options.enable_args_parsing()
    import utils.install_util  # noqa: F401  as main.py does, before a library brings another module of that name

    import nodes

    asyncio.run(nodes.init_builtin_extra_nodes())
    watch = builtins.__import__ = Watch()
    wall, processor = time.perf_counter(), time.process_time()
    loaded = asyncio.run(nodes.load_custom_node(str(PACK)))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    builtins.__import__ = watch.original
    if not loaded:
        raise SystemExit("the pack did not load: see above")
    slowest = sorted(watch.seconds.items(), key=lambda each: -each[1])
    sys.stdout.write(f"{wall:.2f} s by the clock, {processor:.2f} s of processor time\n")
    sys.stdout.writelines(f"  {name:<24}{seconds:.3f}\n" for name, seconds in slowest if seconds >= 0.005)


if __name__ == "__main__":
    main()
