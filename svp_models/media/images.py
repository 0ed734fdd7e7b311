"""Images: image files of any kind, PNG files with texts, buffers for many frames, and the median filter.

Values are floats in [0, 1]. A buffer is in memory, or in a file without a name once it is too large for that.
"""

from __future__ import annotations

import importlib
import math
import os
import shutil
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ..errors import PortraitError
from ..io.files import reason, whole_file
from ..io.memory_map import MappedFrames, as_tensor
from ..io.progress import Progress
from .frame_stream import FrameStream

# Formats that are decoded inside this process. EPS, PDF and WMF would be passed to other programs, whatever the file name says.
FORMATS = (
    "PNG", "JPEG", "MPO", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "TGA", "ICO", "QOI", "DDS", "PCX",
    "SGI", "PSD",
)  # fmt: skip
HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # brands of the images of phones
HEIC_READER = "pillow_heif"
# Exceptions of Pillow for damaged files, beside OSError.
DAMAGED = (
    SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError, ZeroDivisionError,
    RuntimeError, struct.error, zlib.error, MemoryError,
)  # fmt: skip
BYTE, WORD = 255, 65535

MAX_IN_MEMORY = 2 * 2**30  # bytes of a buffer
SPARE = 2**30  # bytes of disk and memory that stay free
MEMORY_INFO = Path("/proc/meminfo")


def load_images(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """All images in a file that have the size of the first: n h w 3 in [0, 1], and masks n h w, 1 where they are transparent.

    Images are rotated by the camera's orientation tag. Without transparency the masks are n 64 64 zeros, as in the host.
    Integers are scaled by their largest value. Floats are in units of 1; where they exceed 2, of 255 or 65535.
    """
    path = Path(path)
    images: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    try:
        with warnings.catch_warnings(), _opened(path) as file:
            warnings.simplefilter("ignore")  # Pillow warns of damaged files: what cannot be read is an error
            for page in ImageSequence.Iterator(file):
                page = ImageOps.exif_transpose(page)
                if images and page.size != (images[0].shape[1], images[0].shape[0]):
                    continue
                images.append(_rgb(page, path))
                masks.append(_transparent(page))
                if file.format == "MPO":
                    break  # the other images of a stereo or preview file are no frames
        return np.stack(images), np.stack(masks)
    except PortraitError:
        raise
    except Image.DecompressionBombError as error:
        raise PortraitError(f"{path}: the image is too large ({error}): make it smaller") from error
    except (OSError, *DAMAGED) as error:
        raise PortraitError(
            f"{path}: cannot be read as an image ({_line(error, path)}): open it in an image editor and save it as PNG or JPEG"
        ) from error


def save_png(path: Path, image: np.ndarray, texts: Mapping[str, str] | None = None, clear: bool = True) -> None:
    """Writes h w 3 or 4 (uint8), complete or not at all. texts: by name, stored in the file; clear: see `whole_file`."""
    info = PngInfo()
    for name, text in (texts or {}).items():
        info.add_text(name, text)
    try:
        with whole_file(path, clear) as temporary:
            Image.fromarray(image).save(temporary, format="PNG", compress_level=4, pnginfo=info)
    except OSError as error:
        raise PortraitError(
            f"{path}: the image cannot be written ({reason(error)}): free disk space or choose another folder; nothing "
            "was left behind"
        ) from error


def png_text(path: Path | str, name: str) -> str | None:
    """A text stored in a PNG file, None if there is none of that name."""
    try:
        with _opened(Path(path), ("PNG",)) as file:
            file.load()  # texts may follow the image
            return getattr(file, "text", {}).get(name)
    except (OSError, *DAMAGED, Image.DecompressionBombError) as error:
        raise PortraitError(f"{path}: cannot be read as a PNG file ({_line(error, Path(path))})") from error


def _opened(path: Path, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    Image.init()
    if _is_heic(path) and "HEIF" not in Image.OPEN:
        if find_spec(HEIC_READER) is None:
            raise PortraitError(
                f"{path}: it is a HEIC image: install its reader (pip install pillow-heif) or export it as JPEG or PNG"
            )
        importlib.import_module(HEIC_READER).register_heif_opener()
    with warnings.catch_warnings():  # Pillow warns of large images and refuses those of twice that size
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path, formats=[name for name in formats if name in Image.OPEN])


def _is_heic(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in HEIC


def _rgb(page: Image.Image, path: Path) -> np.ndarray:
    """h w 3 in [0, 1], float32."""
    if page.mode == "F" or page.mode.startswith("I"):
        grey = np.asarray(page, dtype=np.float32)
        if not np.isfinite(grey).all():
            raise PortraitError(f"{path}: the image holds numbers that are not finite: save it again as PNG")
        return np.repeat((grey / _white(grey.max(), page.mode)).clip(0, 1)[..., None], 3, axis=2)
    return np.asarray(page.convert("RGB"), dtype=np.float32) / BYTE


def _white(largest: float, mode: str) -> float:
    """The value of white in an image of numbers that Pillow does not scale."""
    if mode == "F":
        return 1 if largest <= 2 else BYTE if largest <= BYTE else max(largest, WORD)
    return max(largest, WORD)


def _transparent(page: Image.Image) -> np.ndarray:
    """h w in [0, 1], 1 where the image is transparent; 64 x 64 of zeros where it has no transparency."""
    if "A" not in page.getbands() and ("transparency" not in page.info or page.mode.startswith("I")):
        return np.zeros((64, 64), dtype=np.float32)
    return 1 - np.asarray(page.convert("RGBA").getchannel("A"), dtype=np.float32) / BYTE


def _line(error: BaseException, path: Path) -> str:
    """The first line of the message of Pillow, without the name of the file again."""
    text = (reason(error) if isinstance(error, Exception) else str(error)).replace(repr(os.fspath(path)), "the file")
    return text.splitlines()[0] if text else type(error).__name__


class ImageBuffer:
    """Rows h w c (or h w), added in order, about `count` of them; PortraitError at once where there is no room for so many.

    folder: of the file, None for the temporary folder of the system.
    """

    def __init__(
        self, count: int, shape: tuple[int, ...], folder: str | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self._shape, self._dtype, self._folder = tuple(shape), dtype, folder
        self._rows = self._allocate(max(1, count))
        self._filled = 0

    def add(self, row: Tensor) -> None:
        if self._filled == len(self._rows):  # the header of a file promised fewer
            larger = self._allocate(self._filled + max(8, self._filled // 4))
            for start in range(0, self._filled, 8):
                rows = slice(start, min(start + 8, self._filled))
                larger[rows] = self._rows[rows]
            self._rows = larger
        self._rows[self._filled : self._filled + 1] = row[None]
        self._filled += 1

    def tensor(self) -> Tensor:
        """All rows that were added: n x ..."""
        rows = as_tensor(self._rows)
        return rows if self._filled == len(rows) else rows[: self._filled]

    def _allocate(self, count: int) -> Tensor | MappedFrames:
        shape = (count, *self._shape)
        size = math.prod(shape) * self._dtype.itemsize
        folder = self._folder or tempfile.gettempdir()
        os.makedirs(folder, exist_ok=True)
        disk, memory = shutil.disk_usage(folder).free - SPARE, free_memory() - SPARE
        if size <= min(MAX_IN_MEMORY, max(memory, 0)):
            return torch.empty(shape, dtype=self._dtype)
        if size <= disk:
            return MappedFrames(shape, self._dtype, self._folder)
        if size <= memory:
            return torch.empty(shape, dtype=self._dtype)
        raise PortraitError(
            f"{count} frames of {self._shape[1]} x {self._shape[0]} pixels take {size / 1e9:.1f} GB as images, and there are "
            f"{max(memory, 0) / 1e9:.1f} GB of memory and {max(disk, 0) / 1e9:.1f} GB of disk in {folder}: make fewer or smaller "
            "frames"
        )


def images_from_stream(stream: FrameStream, folder: str | None = None, progress: Progress | None = None) -> Tensor:
    """The frames of a stream: n h w 3. progress(frames done, frames in all) may raise to stop."""
    images = ImageBuffer(len(stream), (stream.height, stream.width, 3), folder)
    for done, image in enumerate(stream.images(), start=1):
        images.add(torch.from_numpy(image))
        if progress is not None:
            progress(min(done, len(stream)), len(stream))
    return images.tensor()


def free_memory() -> float:
    """Bytes of memory that are available; infinite where the system does not say."""
    if MEMORY_INFO.is_file():
        lines = dict(line.split(":", 1) for line in MEMORY_INFO.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            return 1024 * float(lines["MemAvailable"].split()[0])
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    return math.inf


def median_filter(frames: Tensor) -> Tensor:
    """f c h w -> f c h w of the same type: the median of the 3 x 3 x 3 values around each; edges are reflected."""
    return torch.stack(list(median_filter_frames(frames)))


def median_filter_frames(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same frame by frame (c h w each), with three of them in memory at a time."""
    source = iter(frames)
    current, following = next(source, None), next(source, None)
    if current is None:
        return
    if following is None:  # a clip of one frame is its own neighbour
        yield _median(current, current, current)
        return
    before = following
    for coming in source:
        yield _median(before, current, following)
        before, current, following = current, following, coming
    yield _median(before, current, following)
    yield _median(current, following, current)


def _median(before: Tensor, current: Tensor, following: Tensor) -> Tensor:
    height, width = current.shape[-2:]
    rows, columns = _reflected(height), _reflected(width)
    around = torch.stack([before, current, following], dim=-1)[:, rows][:, :, columns]  # c h+2 w+2 3
    patches = around.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3)  # c h w 27
    return patches.median(dim=-1).values


def _reflected(length: int) -> list[int]:
    """Indices of a line with one more at each end, reflected at the outermost: 1 0 1 2 ... n-1 n-2."""
    inner = min(1, length - 1)
    return [inner, *range(length), length - 1 - inner]
