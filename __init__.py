"""SVP Portrait: talking portraits in the style of a clip. ComfyUI calls `comfy_entrypoint` to get the nodes."""

from __future__ import annotations

import re
from typing import Any

WEB_DIRECTORY = "./web"  # help pages of the nodes, and what the web page loads
MINIMUM_COMFYUI = (0, 8, 0)  # as in pyproject.toml


async def comfy_entrypoint() -> Any:
    """The extension that lists the nodes; imported only now, so that `svp_models` can be used without them."""
    from .svp_models.optional_deps import check_libraries

    check_host_version()
    check_libraries()
    from .nodes.registry import PortraitExtension

    return PortraitExtension()


def check_host_version() -> None:
    """Raises PortraitError in a ComfyUI that is too old. One without a version is accepted."""
    from .svp_models.errors import PortraitError

    try:
        from comfyui_version import __version__ as version
    except ImportError:
        return
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < MINIMUM_COMFYUI:
        minimum = ".".join(map(str, MINIMUM_COMFYUI))
        raise PortraitError(f"SVP Portrait needs ComfyUI {minimum} or newer, this is {version}: update ComfyUI")
