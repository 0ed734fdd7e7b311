"""Deep3DFaceRecon's published file, `epoch_20.pth`: {'net_recon': weights, 'opt_00': ..., 'sched_00': ...}."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import PortraitError
from ..networks.face_recon import FaceReconNetwork
from .foreign import read_content
from .tensor_file import load_strict

FILE = "epoch_20.pth"
WEIGHTS = "net_recon"
TRAINING_STATE = re.compile(r"(opt|sched)_\d{2}")  # states of optimisers and schedulers: of no use here
COUNTERS = (
    "num_batches_tracked"  # of the batch norms; files from before PyTorch 0.4.1 lack them, and nothing reads them
)


def load_deep3d(path: Path | str, network: FaceReconNetwork | None = None) -> tuple[FaceReconNetwork, tuple[str, ...]]:
    """The network in eval mode, float32 on the CPU, and the names of the file's other entries, which are not used.

    network: one of another size than the published, for tests. Every tensor of `net_recon` has to fit; an entry beside
    it that is no training state raises PortraitError.
    """
    content = read_content(path)
    if not isinstance(content, Mapping) or not isinstance(content.get(WEIGHTS), Mapping):
        held = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise PortraitError(
            f"{path}: it has no entry {WEIGHTS!r} of weights (it holds {held}): use {FILE} of Deep3DFaceRecon_pytorch"
        )
    others = tuple(str(name) for name in content if name != WEIGHTS)
    unknown = [name for name in others if not TRAINING_STATE.fullmatch(name)]
    if unknown:
        raise PortraitError(
            f"{path}: unknown entries {', '.join(unknown[:5])} beside {WEIGHTS!r}; known are opt_00, sched_00 and the "
            f"like: use {FILE} of Deep3DFaceRecon_pytorch"
        )
    if network is None:
        with torch.device("meta"):  # weights come from the file: no time is lost on drawing random ones
            network = FaceReconNetwork()
    load_strict(network, _complete(path, content[WEIGHTS], network), path, prefix=f"{WEIGHTS}.")
    return network.eval(), others


def _complete(path: Path | str, weights: Mapping[str, Tensor], network: FaceReconNetwork) -> dict[str, Tensor]:
    """The weights by name as float32, with the batch norms' counters where an old file has none."""
    tensors = {}
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise PortraitError(f"{path}: {WEIGHTS}.{name} is a {type(value).__name__}, a tensor is needed")
        tensors[str(name)] = value.float() if value.is_floating_point() else value
    for name in network.state_dict():
        if name.endswith(COUNTERS):
            tensors.setdefault(name, torch.zeros((), dtype=torch.long))
    return tensors
