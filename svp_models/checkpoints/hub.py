"""Downloads entries of the model zoo from Hugging Face. Only the command line imports this file, never a node.

`hf_hub_download(local_dir=...)` checks no hash, replaces existing files, leaves a `.cache` folder among the models, and does
not resume in a later call, so this file uses the functions below it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import HfHubHTTPError

from ..errors import PortraitError
from ..io.files import locked_folder
from ..io.progress import Progress
from .model_zoo import Entry, WeightFile
from .safetensors_io import sha256_of

SHA256 = re.compile(r"[0-9a-f]{64}")
# Broken connections raise the base class of the HTTP library that this release of huggingface_hub uses.
FAILURES: tuple[type[BaseException], ...] = (OSError, *HfHubHTTPError.__bases__)


def download(
    entry: Entry, root: Path | str, endpoint: str | None = None, progress: Progress | None = None
) -> list[Path]:
    """Downloads the entry's files from Hugging Face into its folder below `root` and returns their paths.

    A file with the right hash stays. An interrupted download continues where it stopped, in this call or the next: until its
    SHA-256 is checked, the file is called `<name>.<etag>.partial`.
    endpoint: a mirror of the hub, None for the hub or HF_ENDPOINT. progress(bytes done, total bytes), of the hashes.
    """
    if entry.repository is None:
        raise PortraitError(
            f"{entry.name} is not on Hugging Face: download {', '.join(file.name for file in entry.files)} from "
            f"{entry.source} into {Path(root) / entry.folder}"
        )
    folder = Path(root) / entry.folder
    with locked_folder(folder, f"svp download {entry.name}"):  # two processes would spoil each other's partial file
        return [_fetch(entry.repository, file, folder, endpoint, progress) for file in entry.files]


def _fetch(repository: str, file: WeightFile, folder: Path, endpoint: str | None, progress: Progress | None) -> Path:
    target = folder / file.name
    if target.is_file():
        if file.sha256 is not None and (have := sha256_of(target, progress)) != file.sha256:
            raise PortraitError(
                f"{target}: its SHA-256 is {have}, the published file has {file.sha256}: it is damaged or another file, "
                "move it away and download again"
            )
        return target
    url = file.url or hf_hub_url(repository, file.remote or file.name, endpoint=endpoint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file.url:  # a small file of another host, whose answers to HEAD are its own
            location, size, etag = url, file.bytes, (file.sha256 or "")
        else:
            published = get_hf_file_metadata(url, token=False)
            location, size, etag = published.location, published.size, published.etag or ""
        partial = folder / f"{file.name}.{re.sub('[^0-9A-Za-z]', '', etag)[:16]}.partial"
        with partial.open("ab") as handle:
            done = handle.tell()
            if size is None or done < size:
                http_get(location, handle, resume_size=done, expected_size=size)
    except FAILURES as error:
        raise PortraitError(
            f"{file.name} could not be downloaded from {url} ({_first_line(error)}): check the connection and repeat the command, "
            "it continues where it stopped"
        ) from error
    # For large files the hub's etag is the SHA-256.
    expected = file.sha256 or (etag if SHA256.fullmatch(etag) else None)
    if expected is not None and (have := sha256_of(partial, progress)) != expected:
        partial.unlink()
        raise PortraitError(
            f"{file.name} from {url} has SHA-256 {have}, {expected} is expected: it was removed; download it again, and if "
            "that fails too, this release does not know the published file"
        )
    os.replace(partial, target)
    return target


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
