"""Prints the schemas of the pack's nodes as JSON: `dump_schemas.py PACK_FOLDER [COMFYUI_FOLDER BASE_FOLDER]`.

With a ComfyUI folder the nodes are built on the real host, without one on the stand-in.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from types import ModuleType
from typing import Any


def load_pack(folder: str) -> ModuleType:
    """The pack as the host imports it: by its path, under a name of its own."""
    name = "pack_under_test"
    place = importlib.util.spec_from_file_location(name, f"{folder}/__init__.py", submodule_search_locations=[folder])
    pack = importlib.util.module_from_spec(place)
    sys.modules[name] = pack
    place.loader.exec_module(pack)
    return pack


def open_in_host(pack_folder: str, comfyui: str, base: str) -> ModuleType:
    """The pack in a host on the CPU: a process opens one, before it imports anything of either."""
    sys.path.insert(0, comfyui)
    sys.argv = ["main.py", "--cpu", "--base-directory", base]
    import comfy.options

    comfy.options.enable_args_parsing()
    return load_pack(pack_folder)


def describe(node: Any) -> dict[str, Any]:
    """Everything a user or a saved graph sees of a node."""
    schema = node.define_schema()
    return {
        "node_id": schema.node_id,
        "display_name": schema.display_name,
        "category": schema.category,
        "description": schema.description,
        "is_output_node": schema.is_output_node,
        "inputs": [[each.id, each.get_io_type(), each.optional, each.as_dict()] for each in schema.inputs],
        "outputs": [[each.id, each.get_io_type(), each.display_name, each.tooltip] for each in schema.outputs],
    }


def main() -> None:
    pack_folder, *host = sys.argv[1:]
    pack = open_in_host(pack_folder, *host) if host else load_pack(pack_folder)
    extension = asyncio.run(pack.comfy_entrypoint())
    nodes = asyncio.run(extension.get_node_list())
    hosted = "comfy_api" in sys.modules
    sys.stdout.write(json.dumps({"hosted": hosted, "nodes": [describe(each) for each in nodes]}))


if __name__ == "__main__":
    main()
