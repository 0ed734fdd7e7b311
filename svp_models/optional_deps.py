"""Required packages: checked at the start, imported on first use, named in one line if missing.

`from ..optional_deps import cv2` imports nothing yet and works like the module.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import PortraitError
from .signals import postponed

ROOT = Path(__file__).resolve().parents[1]
# Module -> distribution, as in pyproject.toml
REQUIRED = {
    "torch": "torch",
    "numpy": "numpy",
    "PIL": "pillow",
    "einops": "einops",
    "safetensors": "safetensors",
    "av": "av",
    "scipy": "scipy",
    "soxr": "soxr",
    "kornia": "kornia",
    "tqdm": "tqdm",
    "huggingface_hub": "huggingface_hub",
    "diffusers": "diffusers",
    "transformers": "transformers",
}
# Module -> default distribution: pip cannot require one of several distributions. See install.py.
ANY_OF = {"cv2": "opencv-python-headless", "onnxruntime": "onnxruntime"}
NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"  # read by onnxruntime while it is imported


class Library:
    """A module that is imported on the first access to an attribute."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(sys.modules.get(self._name) or self._imported(), attribute)

    def _imported(self) -> ModuleType:
        with postponed():
            return import_module(self._name)


if TYPE_CHECKING:
    import av
    import cv2
    import soxr
    from av.video import reformatter
    from kornia import filters as kornia_filters
    from kornia import metrics as kornia_metrics
    from scipy import fft, interpolate, linalg, ndimage, optimize, signal
    from scipy.spatial import transform
else:
    av, reformatter = Library("av"), Library("av.video.reformatter")
    cv2, soxr = Library("cv2"), Library("soxr")
    fft, signal = Library("scipy.fft"), Library("scipy.signal")
    interpolate, linalg, ndimage = Library("scipy.interpolate"), Library("scipy.linalg"), Library("scipy.ndimage")
    kornia_filters = Library("kornia.filters")
    kornia_metrics = Library("kornia.metrics")
    optimize, transform = Library("scipy.optimize"), Library("scipy.spatial.transform")

__all__ = [
    "av",
    "check_libraries",
    "cv2",
    "fft",
    "interpolate",
    "kornia_filters",
    "kornia_metrics",
    "linalg",
    "missing_error",
    "ndimage",
    "onnxruntime",
    "optimize",
    "reformatter",
    "signal",
    "soxr",
    "transform",
]


def onnxruntime() -> ModuleType:
    """onnxruntime, imported without telemetry: it would contact a server and write an identity into the home folder."""
    if "onnxruntime" in sys.modules:
        return import_module("onnxruntime")
    before = os.environ.get(NO_TELEMETRY)
    os.environ[NO_TELEMETRY] = "1"
    try:
        return import_module("onnxruntime")
    finally:
        if before is None:
            del os.environ[NO_TELEMETRY]
        else:
            os.environ[NO_TELEMETRY] = before


def check_libraries() -> None:
    """Raises PortraitError if a required package is not installed. It imports none of them."""
    missing = [name for name in (*REQUIRED, *ANY_OF) if name not in sys.modules and find_spec(name) is None]
    if missing:
        raise missing_error(missing)


def missing_error(modules: list[str]) -> PortraitError:
    """The error for required modules that are not installed."""
    python, requirements = f'"{sys.executable}"', ROOT / "requirements.txt"
    names = ", ".join({**REQUIRED, **ANY_OF}.get(module, module) for module in modules)
    if requirements.is_file():
        command = f'{python} -m pip install -r "{requirements}" and then {python} "{ROOT / "install.py"}"'
    else:
        command = f'{python} -m pip install "svp-portrait[standalone]"'
    return PortraitError(f"SVP Portrait needs packages that are not installed: {names}. Run {command}")
