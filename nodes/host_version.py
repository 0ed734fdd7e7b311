"""Which versions of the host the pack runs in."""

from __future__ import annotations

import re

from ..svp_models.errors import PortraitError

OLDEST = (0, 8, 0)  # as pyproject.toml has it


def check_host_version() -> None:
    """Raises PortraitError in a host that is too old; one that does not tell its version is taken as it is."""
    try:
        from comfyui_version import __version__ as version
    except ImportError:
        return
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise PortraitError(f"SVP Portrait needs ComfyUI {needed} or newer, this is {version}: update ComfyUI")
