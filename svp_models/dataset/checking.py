"""A data set compared with its manifest: every byte, every label, and that no person is in both splits."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

from ..errors import PortraitError
from ..io.progress import Progress
from .format import AUDIO, INFO, LABELS, SAMPLES_PER_FRAME, VIDEO, check_labels
from .manifest import Manifest, SampleEntry, ShardEntry, open_manifest
from .members import decode_audio, decode_frames, decode_info, decode_labels
from .reading import read_member

PIECE = 1 << 22  # bytes read at a time


def check(folder: Path | str, progress: Progress | None = None) -> Manifest:
    """Raises PortraitError that names the first thing that is wrong; progress(shards done, shards in all)."""
    manifest = open_manifest(folder)
    splits: dict[str, str] = {}
    for number, shard in enumerate(manifest.shards):
        check_shard(manifest.folder, shard)
        for sample in shard.samples:
            if splits.setdefault(sample.identity, shard.split) != shard.split:
                raise PortraitError(f"{folder}: {sample.identity} is in both splits: prepare the data again")
            check_sample(manifest.folder, shard, sample)
        if progress is not None:
            progress(number + 1, len(manifest.shards))
    return manifest


def check_shard(folder: Path, shard: ShardEntry) -> None:
    """Size, SHA-256, and that a reader who goes through the tar meets the members where the manifest has them."""
    path = folder / shard.name
    if not path.is_file():
        raise PortraitError(f"{path}: the shard is missing: copy it again")
    size = path.stat().st_size
    if size != shard.bytes:
        raise PortraitError(f"{path}: {size} bytes, the manifest says {shard.bytes}: copy it again")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    found = digest.hexdigest()
    if found != shard.sha256:
        raise PortraitError(
            f"{path}: SHA-256 {found[:16]}..., the manifest says {shard.sha256[:16]}...: it is damaged, copy it again"
        )
    with tarfile.open(path) as tar:
        met = [(each.name, each.offset_data, each.size) for each in tar]
    wanted = [
        (f"{sample.key}.{ending}", *place) for sample in shard.samples for ending, place in sample.members.items()
    ]
    if met != wanted:
        raise PortraitError(
            f"{path}: its {len(met)} members are not the {len(wanted)} of the manifest: prepare it again"
        )


def check_sample(folder: Path, shard: ShardEntry, sample: SampleEntry) -> None:
    """A clip's description, labels, length of sound and last picture."""
    info = decode_info(read_member(folder, shard, sample, INFO))
    told = (info.identity, info.emotion, info.intensity, info.frames, info.group, info.split)
    listed = (sample.identity, sample.emotion, sample.intensity, sample.frames, sample.group, shard.split)
    if told != listed:
        raise PortraitError(f"{shard.name}: {sample.key} says {told}, the manifest {listed}: prepare the data again")
    check_labels(decode_labels(read_member(folder, shard, sample, LABELS)), info.frames, info.size, sample.key)
    samples = decode_audio(read_member(folder, shard, sample, AUDIO)).waveform.shape[-1]
    if samples != info.frames * SAMPLES_PER_FRAME:
        raise PortraitError(
            f"{shard.name}: {sample.key} has {samples} samples of sound for {info.frames} frames, "
            f"{info.frames * SAMPLES_PER_FRAME} are needed: prepare the data again"
        )
    if VIDEO not in sample.members:
        return
    picture = decode_frames(read_member(folder, shard, sample, VIDEO), info.frames - 1, 1)
    if picture.shape[1:] != (info.size, info.size, 3):
        raise PortraitError(
            f"{shard.name}: {sample.key} has pictures of {picture.shape[2]} x {picture.shape[1]}, {info.size} are needed: "
            "prepare the data again"
        )
