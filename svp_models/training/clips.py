"""What the phases read of a prepared dataset: pictures, labels and audio features of any clip, in the model's terms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..config import AudioConfig
from ..dataset.format import AUDIO, FEATURES, FPS, LABELS, VIDEO, ClipLabels, check_labels
from ..dataset.reading import (
    SampleEntry,
    decode_audio,
    decode_features,
    decode_frames,
    decode_labels,
    open_manifest,
    read_member,
)
from ..errors import PortraitError
from ..networks.audio_features import mel_features
from ..values import Audio
from .checkpoint import write_atomically

RECENT = 8192  # clips whose labels and features stay in memory


class Clips:
    """The clips of one split, counted from 0; `info` describes them, `pictured` are those that have pictures.

    config: how the model hears: mel features are computed, others have to be in the dataset. cache: a folder in which the
    decoded frames of all clips are kept, which pays for small pictures and many epochs; None decodes at every reading.
    """

    def __init__(self, folder: Path | str, split: str, config: AudioConfig, cache: Path | None = None):
        self.manifest, self.split, self.config = open_manifest(folder), split, config
        entries = self.manifest.samples(split)
        if not entries:
            raise PortraitError(f"{folder}: it holds no clips of the {split} split: prepare more people")
        self._shards = [shard for shard, _ in entries]
        self.info: list[SampleEntry] = [sample for _, sample in entries]
        self.size, self.fps = int(self.manifest.card["options"]["output"]["size"]), float(FPS)
        self.version = f"{self.manifest.card['synthetic']}/{self.manifest.card['sources']['digest'][:16]}"
        self.pictured = [number for number, info in enumerate(self.info) if VIDEO in info.members]
        self.labels = lru_cache(RECENT)(self._labels)
        self._heard = lru_cache(RECENT)(self._features)
        self._decoded = None if cache is None else self._decode(cache / f"{split}-{self.size}.npy")

    def by_shard(self, numbers: Sequence[int]) -> list[list[int]]:
        """These clips, grouped by the shard they lie in."""
        groups: dict[str, list[int]] = {}
        for number in numbers:
            groups.setdefault(self._shards[number].name, []).append(number)
        return list(groups.values())

    def pixels(self, clip: int, frames: Sequence[int]) -> np.ndarray:
        """Frames of a clip, rising: n h w 3, uint8 RGB."""
        if self._decoded is not None:
            return self._decoded[self._first[clip] + np.asarray(frames)]
        first, last = frames[0], frames[-1]
        found = decode_frames(self._member(clip, VIDEO), first, last - first + 1)
        return found[np.asarray(frames) - first]

    def frames(self, clip: int, frames: Sequence[int]) -> Tensor:
        """Frames of a clip: n 3 h w in [-1, 1]."""
        return rearrange(torch.from_numpy(self.pixels(clip, frames)), "n h w c -> n c h w").float() / 127.5 - 1

    def sound(self, clip: int) -> Audio:
        """The sound of a whole clip, 16 kHz."""
        return decode_audio(self._member(clip, AUDIO))

    def features(self, clip: int, rows_per_frame: int = 1) -> Tensor:
        """Audio features of a clip: (frames x rows_per_frame) x F, float32."""
        return self._heard(clip, rows_per_frame).float()

    def expression(self, clip: int) -> np.ndarray:
        """Expression coefficients of a clip as its labels have them: n 64; PortraitError where nobody knows them."""
        found = self.labels(clip).expression
        if not np.isfinite(found).all():
            raise PortraitError(
                f"{self.info[clip].key} has no expression coefficients: prepare the data with --expression deep3d"
            )
        return found

    def _member(self, clip: int, ending: str) -> bytes:
        return read_member(self.manifest.folder, self._shards[clip], self.info[clip], ending)

    def _labels(self, clip: int) -> ClipLabels:
        info = self.info[clip]
        labels = decode_labels(self._member(clip, LABELS))
        check_labels(labels, info.frames, self.size, info.key)
        return labels

    def _features(self, clip: int, rows_per_frame: int) -> Tensor:
        rows = self.info[clip].frames * rows_per_frame
        if self.config.features == "mel":
            return mel_features(self.sound(clip), rows, self.fps * rows_per_frame).half()
        found = torch.from_numpy(decode_features(self._member(clip, FEATURES)))
        stored, rest = divmod(len(found), self.info[clip].frames)
        if not stored or rest or stored % rows_per_frame or found.shape[1] != self.config.feature_size:
            raise PortraitError(
                f"{self.info[clip].key} has {stored} rows of {found.shape[1]} audio features a frame, the model reads "
                f"{rows_per_frame} of {self.config.feature_size}: prepare the data with its audio encoder"
            )
        return found.unflatten(0, (rows, -1)).float().mean(1).half()

    def _decode(self, path: Path) -> np.ndarray:
        """All frames of the pictured clips, decoded once into `path`: n h w 3, uint8, mapped into memory."""
        counts = [self.info[clip].frames for clip in self.pictured]
        starts = np.concatenate([[0], np.cumsum(counts)])
        self._first = {clip: int(start) for clip, start in zip(self.pictured, starts[:-1], strict=True)}
        shape = (int(starts[-1]), self.size, self.size, 3)
        if not path.exists():
            write_atomically(path, lambda partial: self._write_decoded(partial, shape))
        try:
            found = np.load(path, mmap_mode="r")
        except (ValueError, OSError) as error:
            raise PortraitError(f"{path}: not the frames of the data ({error}): remove it, it is made again") from error
        if found.shape != shape:
            raise PortraitError(f"{path} holds frames {found.shape}, the data {shape}: it is of other data, remove it")
        return found

    def _write_decoded(self, path: Path, shape: tuple[int, ...]) -> None:
        """Written and not mapped: a disk that is full is then an error, and not the end of the process."""
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for clip in self.pictured:
                frames = decode_frames(self._member(clip, VIDEO))
                wanted = (self.info[clip].frames, *shape[1:])
                if frames.shape != wanted:
                    raise PortraitError(
                        f"{self.info[clip].key} has pictures {frames.shape}, the manifest says {wanted}: prepare the data again"
                    )
                file.write(frames)
