"""Networks whose features are compared, by the paths of their files; what is not there is named and left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import nn

from ..checkpoints.evaluation_networks import (
    I3D_FILE,
    INCEPTION_FILE,
    LPIPS_FILE,
    SYNCNET_FILE,
    load_fid_inception,
    load_syncnet,
    load_torchscript,
)
from ..checkpoints.model_zoo import ENTRIES, locate
from ..errors import PortraitError
from ..face.affine import fit_similarity, warp_square
from ..face.detectors.built_in import open_session
from ..io.strict_config import Checked, limited
from ..networks.fid_inception import FidInception
from ..networks.syncnet import SIDE, SyncNet
from ..optional_deps import signal

WINDOW = 16  # frames of a clip that I3D reads, without overlap
FACE_SIDE = 112  # pixels of the pictures that networks of faces read
# Eyes, nose tip and mouth corners in those pictures (ArcFace, Deng et al. 2019).
FACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
# SyncNet's crop of a face (syncnet_python): its context beside and below the box, and the width of the median over frames.
CONTEXT, MEDIAN, PADDING = 0.4, 13, 110
FOREHEAD = 0.25  # of the height from brows to chin: the boxes of the published detector begin there
EMBEDDING_FILE = "an ONNX network of faces (112 x 112)"
LOADING = {"inception": load_fid_inception, "i3d": load_torchscript, "lpips": load_torchscript, "syncnet": load_syncnet}
NEEDED = {  # network -> its file, its figures
    "inception": (INCEPTION_FILE, ("fid",)),
    "i3d": (I3D_FILE, ("fvd", "kvd")),
    "lpips": (LPIPS_FILE, ("lpips",)),
    "syncnet": (SYNCNET_FILE, ("sync_offset", "sync_confidence")),
    "embedding": (EMBEDDING_FILE, ("identity", "embedding_distance")),
}


@dataclass(frozen=True)
class NetworkFiles(Checked):
    """Paths of feature networks; empty: looked for in the models folders (but for `embedding`), else left out."""

    inception: str = limited("", most=4096, least=0)
    i3d: str = limited("", most=4096, least=0)
    lpips: str = limited("", most=4096, least=0)
    syncnet: str = limited("", most=4096, least=0)
    embedding: str = limited("", most=4096, least=0)


@dataclass(frozen=True)
class FeatureNetworks:
    """Those that are there. missing: figure -> which file it lacks."""

    inception: FidInception | None = None
    i3d: nn.Module | None = None
    lpips: nn.Module | None = None
    syncnet: SyncNet | None = None
    embedding: Any = None
    missing: dict[str, str] = field(default_factory=dict)

    @torch.no_grad()
    def inception_features(self, frames: np.ndarray) -> np.ndarray:
        """Frames n h w 3 -> n 2048, one after the other: the result does not depend on the batch."""
        assert self.inception is not None
        return np.concatenate([self.inception(_planes(frame[None]) / 255).numpy() for frame in frames])

    @torch.no_grad()
    def i3d_features(self, frames: np.ndarray) -> np.ndarray:
        """Frames n h w 3 (at least 16) -> k 400, of every whole window of 16 frames."""
        assert self.i3d is not None
        windows = [frames[at : at + WINDOW] for at in range(0, len(frames) - WINDOW + 1, WINDOW)]
        clips = [rearrange(torch.from_numpy(window), "n h w c -> 1 c n h w").float() for window in windows]
        found = [self.i3d(clip, rescale=True, resize=True, return_features=True).float().numpy() for clip in clips]
        return np.concatenate(found)

    @torch.no_grad()
    def lpips_distances(self, made: np.ndarray, true: np.ndarray) -> np.ndarray:
        """Frames n h w 3 twice -> n distances."""
        assert self.lpips is not None
        both = [
            [self.lpips(_planes(frame[None]), resize_images=False, return_lpips=True).double() for frame in frames]
            for frames in (made, true)
        ]
        return np.array([float((one - other).square().sum()) for one, other in zip(*both, strict=True)])

    def embeddings(self, frames: np.ndarray, five_points: np.ndarray) -> np.ndarray:
        """Embeddings of the faces in frames n h w 3 with five points n 5 2: n d."""
        name = self.embedding.get_inputs()[0].name
        rows = []
        for frame, points in zip(frames, five_points, strict=True):
            face = warp_square(frame, fit_similarity(points, FACE_TEMPLATE), FACE_SIDE)
            image = (face.astype(np.float32).transpose(2, 0, 1)[None] - 127.5) / 127.5
            rows.append(self.embedding.run(None, {name: image})[0].reshape(-1))
        return np.stack(rows)


def load_feature_networks(files: NetworkFiles, roots: Sequence[Path | str] = ()) -> FeatureNetworks:
    """The networks of the files that are named, and of those that lie in the models folders `roots`. A named file that is not
    there raises PortraitError."""
    loaded: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for item in fields(files):
        name, path = item.name, getattr(files, item.name)
        wanted, figures = NEEDED[name]
        found = Path(path) if path else locate(name, roots) if name in ENTRIES else None
        if found is None:
            place = f"put it into models/{ENTRIES[name].folder}, or " if name in ENTRIES else ""
            missing |= dict.fromkeys(figures, f"{wanted} is missing: {place}name it as `{name}` under [networks]")
        elif not found.is_file():
            raise PortraitError(f"{found}: there is no such file, {wanted} is needed for {' and '.join(figures)}")
        elif name == "embedding":
            loaded[name] = open_session(
                found.read_bytes(), str(found), "choose another file", ["CPUExecutionProvider"], 1
            )
        else:
            loaded[name] = LOADING[name](found)
    return FeatureNetworks(**loaded, missing=missing)


def syncnet_boxes(landmarks: np.ndarray) -> np.ndarray:
    """Where SyncNet looks at a face with landmarks n 68 2: n 4 (left, top, right, bottom), squares of a smoothed place and size.

    The published boxes are those of a face detector, which begin on the forehead: these are grown upwards to be like them.
    """
    low, high = landmarks.min(1), landmarks.max(1)
    top = low[:, 1] - FOREHEAD * (high[:, 1] - low[:, 1])
    values = [
        np.maximum(high[:, 0] - low[:, 0], high[:, 1] - top) / 2,
        (low[:, 0] + high[:, 0]) / 2,
        (top + high[:, 1]) / 2,
    ]
    width = min(MEDIAN, len(landmarks) - 1 + len(landmarks) % 2)
    half, x, y = (signal.medfilt(np.pad(value, MEDIAN, mode="edge"), max(1, width))[MEDIAN:-MEDIAN] for value in values)
    reach = half * (1 + CONTEXT)
    return np.stack([x - reach, y - half, x + reach, y + half * (1 + 2 * CONTEXT)], axis=1)


def syncnet_face(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """A frame h w 3 cut to a box and resized: 224 224 3, grey outside of the picture."""
    left, top, right, bottom = (float(value) for value in box)
    margin = int(max(right - left, bottom - top)) + 1
    padded = np.pad(frame, ((margin, margin), (margin, margin), (0, 0)), constant_values=PADDING)
    scale = SIDE / (right - left)
    matrix = np.array([[scale, 0, -scale * (left + margin)], [0, scale, -scale * (top + margin)]])
    return warp_square(padded, matrix, SIDE)


def _planes(frames: np.ndarray) -> torch.Tensor:
    return rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "n h w c -> n c h w").float()
