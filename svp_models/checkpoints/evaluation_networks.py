"""Published networks whose features an evaluation compares: SyncNet, FID's Inception, and TorchScript files (I3D, LPIPS)."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ..errors import PortraitError
from ..networks.fid_inception import FidInception
from ..networks.layers import shapes_only
from ..networks.syncnet import SyncNet
from .safetensors_io import check_file, load_strict
from .third_party import COUNTERS, read_content

SYNCNET_FILE, INCEPTION_FILE = "syncnet_v2.model", "pt_inception-2015-12-05-6726825d.pth"
I3D_FILE, LPIPS_FILE = "i3d_torchscript.pt", "vgg16.pt"
Network = TypeVar("Network", bound=nn.Module)


def load_syncnet(path: Path | str) -> SyncNet:
    """SyncNet from `syncnet_v2.model`, in eval mode, float32 on the CPU; every tensor has to fit."""
    return _loaded(SyncNet, path)


def load_fid_inception(path: Path | str) -> FidInception:
    """FID's Inception from `pt_inception-2015-12-05-6726825d.pth`, in eval mode, float32 on the CPU; every tensor has to fit."""
    return _loaded(FidInception, path)


def load_torchscript(path: Path | str) -> torch.jit.ScriptModule:
    """A TorchScript file, in eval mode on the CPU; no Python of the file is run."""
    path = Path(path)
    check_file(path)
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise PortraitError(
            f"{path}: not a TorchScript file that can be read ({str(error).splitlines()[0][:200]}): download it again"
        ) from error


def _loaded(kind: type[Network], path: Path | str) -> Network:
    """Old files lack the counters of batch norms, which nothing reads."""
    content = read_content(Path(path))
    if not isinstance(content, dict):
        raise PortraitError(f"{path}: it holds no tensors by name but a {type(content).__name__}: choose another file")
    with shapes_only():
        network = kind()
    counters = {name: torch.tensor(0) for name in network.state_dict() if name.endswith(COUNTERS)}
    tensors = {**counters, **content}
    load_strict(
        network,
        {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()},
        path,
    )
    return network.eval()
