"""SVP Portrait: talking portraits in the style of a clip. The host asks `comfy_entrypoint` for the nodes."""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"  # help pages of the nodes and what the web page loads


async def comfy_entrypoint() -> Any:
    """The extension that lists the nodes; imported only now, so that `svp_models` can be used without them."""
    from .nodes.host_version import check_host_version
    from .svp_models.optional_deps import check_libraries

    check_host_version()
    check_libraries()
    from .nodes.registry import PortraitExtension

    return PortraitExtension()
