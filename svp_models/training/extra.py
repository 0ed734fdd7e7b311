"""Opens the parts of this package that need what training alone needs: the packages of the extra `train`."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ..errors import PortraitError


def open_training(name: str) -> ModuleType:
    """A module of this package; PortraitError says which package it lacks and how to get that."""
    try:
        return import_module(f".{name}", __package__)
    except ImportError as error:
        raise PortraitError(
            f"training needs the package {error.name}: pip install 'svp-portrait[train]', from a clone -e '.[train]'"
        ) from error
