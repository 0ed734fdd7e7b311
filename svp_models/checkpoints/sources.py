"""What a weight file or folder is, told by the names in it, and the proof of where a model came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import PortraitError
from ..io.names import printable
from ..io.progress import Progress
from .foreign import SUFFIXES, read_weights
from .tensor_file import FORMAT
from .vexpress import DENOISER

NATIVE, VEXPRESS, SD15, VAE, MOTION = "native", "vexpress", "sd15", "vae", "animatediff"
CHUNK = 1 << 22  # bytes read at a time


def kind_of(path: Path | str) -> str:
    """NATIVE, VEXPRESS, SD15, VAE or MOTION; a path that is none of them raises PortraitError saying what was looked for."""
    path = Path(path)
    if path.is_dir():
        return _kind_of_folder(path)
    names, metadata = _names(path)
    if metadata.get("format") == FORMAT:
        return NATIVE
    if any(name.startswith("model.diffusion_model.") for name in names):
        return SD15
    if any(".motion_modules." in name for name in names) and not any(".resnets." in name for name in names):
        return MOTION
    if any(
        name.removeprefix("first_stage_model.").startswith(("encoder.down.", "encoder.down_blocks.")) for name in names
    ):
        return VAE
    first = printable(", ".join(sorted(names)[:3]))
    raise PortraitError(
        f"{path}: its {len(names)} names ({first}, ...) are those of no known model: a file of this pack, a Stable Diffusion "
        "1.5 checkpoint or autoencoder or an AnimateDiff motion module is needed"
    )


def _kind_of_folder(folder: Path) -> str:
    def has(place: Path, stem: str) -> bool:
        return any((place / f"{stem}{suffix}").is_file() for suffix in SUFFIXES)

    if has(folder, DENOISER):
        return VEXPRESS
    if (folder / "unet").is_dir():
        return SD15
    if has(folder, "diffusion_pytorch_model") or (folder / "vae").is_dir():
        return VAE
    raise PortraitError(
        f"{folder}: it holds neither denoising_unet (V-Express), nor unet/ (Stable Diffusion 1.5), nor "
        "diffusion_pytorch_model (an autoencoder): name the folder that does"
    )


def _names(path: Path) -> tuple[list[str], dict[str, str]]:
    """The names in a file and its metadata, without reading the tensors where the format allows it."""
    if path.suffix != ".safetensors" or not path.is_file():
        return list(read_weights(path)), {}
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys()), dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise PortraitError(
            f"{path}: not a readable safetensors file ({path.stat().st_size} bytes; {printable(error)}): it is truncated or of another "
            "format, copy or download it again"
        ) from error


def sha256_of(path: Path | str, progress: Progress | None = None) -> str:
    """Hex digits of a file's SHA-256, read in pieces. progress: (bytes done, bytes in all)."""
    path = Path(path)
    size, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
            done += len(piece)
            if progress is not None:
                progress(done, size)
    return digest.hexdigest()


def hashes_of(files: Iterable[Path]) -> dict[str, str]:
    """Folder and name of each file -> SHA-256, as a model file's metadata keeps them."""
    return {f"{file.parent.name}/{file.name}": sha256_of(file) for file in dict.fromkeys(Path(each) for each in files)}
