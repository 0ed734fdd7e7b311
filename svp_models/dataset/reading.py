"""Prepared clips read one member at a time: a seek, no scan. Decoders for each member are handed on from `members`."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import PortraitError
from .manifest import Manifest, SampleEntry, ShardEntry, open_manifest
from .members import decode_audio, decode_features, decode_frames, decode_info, decode_labels
from .shards import BLOCK

__all__ = [
    "Manifest",
    "SampleEntry",
    "ShardEntry",
    "decode_audio",
    "decode_features",
    "decode_frames",
    "decode_info",
    "decode_labels",
    "open_manifest",
    "read_member",
]

NAME_BYTES = 100  # of a USTAR header


def read_member(folder: Path | str, shard: ShardEntry, sample: SampleEntry, ending: str) -> bytes:
    """The bytes of one member, for example `labels.npz`. folder: Manifest.folder.

    A shard that is missing, cut off or not the one that the manifest describes raises PortraitError.
    """
    if ending not in sample.members:
        raise PortraitError(f"{sample.key} has no {ending}, only {', '.join(sample.members)}: prepare the data with it")
    path, (start, size) = Path(folder) / shard.name, sample.members[ending]
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if start + size <= found:  # what a manifest says is not believed before so much memory is taken
                file.seek(start - BLOCK)
                block = file.read(BLOCK + size)
    except FileNotFoundError as error:
        raise PortraitError(f"{path}: the shard is missing: copy it again") from error
    if start + size > found or len(block) < BLOCK + size:
        raise PortraitError(
            f"{path}: it is cut off, {found} of {shard.bytes} bytes are there, {sample.key}.{ending} ends at "
            f"{start + size}: copy it again"
        )
    name = block[:NAME_BYTES].rstrip(b"\0").decode("ascii", "replace")
    if name != f"{sample.key}.{ending}":
        raise PortraitError(
            f"{path}: at byte {start - BLOCK} is {name[:60]!r}, not {sample.key}.{ending}: shard and manifest are of "
            "different preparations, copy both again"
        )
    return block[BLOCK:]
