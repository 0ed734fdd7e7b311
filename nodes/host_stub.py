"""Host stub: strict replacement of the parts of ComfyUI that the nodes use, for the command line; its `io` is in host_stub_io."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..svp_models.cli.core_nodes import FileVideo
from ..svp_models.cli.folders import Folders
from ..svp_models.config import VaeConfig
from . import host_stub_io as io

VAE_CHUNK = 16  # images per chunk


class ComfyExtension(ABC):
    """Lists the nodes of a pack."""

    @abstractmethod
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes."""


class SavedResult(dict):
    """The entry of a file in one of the three folders in a node's ui."""

    def __init__(self, filename: str, subfolder: str, type: io.FolderType):
        super().__init__(filename=filename, subfolder=subfolder, type=type.value)


class PreviewVideo:
    """Shows saved videos under the node."""

    def __init__(self, values: list[SavedResult]):
        self.values = values

    def as_dict(self) -> dict[str, Any]:
        return {"images": self.values, "animated": (True,)}


ui = SimpleNamespace(SavedResult=SavedResult, PreviewVideo=PreviewVideo)
InputImpl = SimpleNamespace(VideoFromFile=FileVideo)


class FolderPaths:
    """The host's folders; below the working folder unless `use` names others."""

    def __init__(self) -> None:
        self.use(Path.cwd(), Path("models").absolute())

    def use(self, base: Path, models: Path) -> None:
        """Resets all folders: input, output and temp below `base`, kinds of models below `models`."""
        self.folders = Folders(base / "input", base / "output", base / "temp")
        self.models_dir = str(models)
        self.model_folders: dict[str, list[str]] = {}
        self.filename_list_cache: dict[str, Any] = {}  # stays empty: folders are listed anew

    def get_input_directory(self) -> str:
        return str(self.folders.input)

    def set_input_directory(self, input_dir: str) -> None:
        self.folders = replace(self.folders, input=Path(input_dir).absolute())

    def get_output_directory(self) -> str:
        return str(self.folders.output)

    def set_output_directory(self, output_dir: str) -> None:
        self.folders = replace(self.folders, output=Path(output_dir).absolute())

    def get_temp_directory(self) -> str:
        return str(self.folders.temp)

    def set_temp_directory(self, temp_dir: str) -> None:
        self.folders = replace(self.folders, temp=Path(temp_dir).absolute())

    def add_model_folder_path(self, folder_name: str, full_folder_path: str) -> None:
        known = self.model_folders.setdefault(folder_name, [])
        if full_folder_path not in known:
            known.append(full_folder_path)

    def get_folder_paths(self, folder_name: str) -> list[str]:
        return list(self.model_folders[folder_name])

    def get_filename_list(self, folder_name: str) -> list[str]:
        roots = [Path(folder) for folder in self.model_folders[folder_name] if os.path.isdir(folder)]
        return sorted({str(path.relative_to(root)) for root in roots for path in root.rglob("*") if path.is_file()})

    def get_full_path_or_raise(self, folder_name: str, filename: str) -> str:
        inside = os.path.relpath(os.path.join("/", filename), "/")  # '..' cannot climb out
        for root in self.model_folders[folder_name]:
            if os.path.isfile(os.path.join(root, inside)):
                return os.path.join(root, inside)
        raise FileNotFoundError(f"Model in folder '{folder_name}' with filename '{filename}' not found.")

    def get_save_image_path(
        self, filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
    ) -> tuple[str, str, int, str, str]:
        """(folder, file name without counter, free counter, subfolder, prefix); a prefix outside output_dir raises."""
        folders = replace(self.folders, output=Path(output_dir))
        target = folders.save_target(filename_prefix, image_width, image_height)
        return str(target.folder), target.stem, target.counter, target.subfolder, filename_prefix


folder_paths = FolderPaths()


class ProgressBar:
    """Receives progress; a front end sets `show`, a callback (done, total) that may raise to cancel."""

    show: Callable[[int, int], None] | None = None

    def __init__(self, total: int):
        self.total = total

    def update_absolute(self, value: int, total: int | None = None, preview: Any = None) -> None:
        self.total = self.total if total is None else total
        if ProgressBar.show is not None:
            ProgressBar.show(value, self.total)


class Vae:
    """VAE as in the host, always in float32: images n H W 3 in [0, 1] <-> latents n c h w."""

    def __init__(self, model: nn.Module, config: VaeConfig):
        self.model, self.config = model.float(), config
        self.latent_channels = config.latent_channels

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        chunks = (pixels[..., :3].movedim(-1, 1) * 2 - 1).split(VAE_CHUNK)
        return torch.cat([self.model.encode(chunk) for chunk in chunks])  # n c h w

    @torch.no_grad()
    def decode(self, samples: Tensor) -> Tensor:
        images = torch.cat([self.model.decode(chunk) for chunk in samples.split(VAE_CHUNK)])  # n 3 H W
        return ((images + 1) / 2).clamp(0, 1).movedim(1, -1)
