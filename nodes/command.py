"""Entry of the `svp` console script: gives this pack's nodes to the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ..svp_models.cli.folders import Folders
from ..svp_models.signals import ending_at_once


def open_nodes(folders: Folders, progress: Callable[[int, int], None]) -> list[type]:
    """The pack's node classes, reading and writing in these folders and reporting their steps to `progress`."""
    from .host import ProgressBar, folder_paths
    from .loaders import MODEL_FOLDER
    from .registry import NODE_CLASSES  # lazy: `svp info` does not wait for the networks

    folder_paths.set_input_directory(str(folders.input))
    folder_paths.set_output_directory(str(folders.output))
    folder_paths.set_temp_directory(str(folders.temp))
    if folders.earlier is not None:
        for parent in (folder_paths.models_dir, folders.earlier):  # in the usual order of the search
            folder_paths.add_model_folder_path(MODEL_FOLDER, os.path.join(parent, MODEL_FOLDER))
    ProgressBar.show = progress
    return NODE_CLASSES


def main() -> int:
    with ending_at_once():  # so that Ctrl-C during imports is one line too
        from ..svp_models.cli.main import main as run_command
    return run_command(open_nodes)


if __name__ == "__main__":
    sys.exit(main())
