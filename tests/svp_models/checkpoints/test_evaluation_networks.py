"""The networks of an evaluation against the code that published them, and their files."""

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.evaluation_networks import (
    load_fid_inception,
    load_syncnet,
    load_torchscript,
)
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.fid_inception import FidInception
from svp_portrait.svp_models.networks.layers import shapes_only
from svp_portrait.svp_models.networks.syncnet import SyncNet

from ...reference.weights import reference_weights


def weights(kind, name):
    with shapes_only():
        shapes = {key: list(value.shape) for key, value in kind().state_dict().items()}
    return reference_weights(name, shapes)


@pytest.fixture(scope="module")
def syncnet_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model"
    tensors = weights(SyncNet, "syncnet")
    without = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    torch.save(without, path, _use_new_zipfile_serialization=False)  # as old as the published file
    return path


@pytest.fixture(scope="module")
def syncnet(syncnet_file):
    return load_syncnet(syncnet_file)


def random(seed, low, high, shape):
    return torch.from_numpy(np.random.RandomState(seed).randint(low, high, shape).astype(np.float32))


@torch.no_grad()
def test_lips_are_embedded_as_by_syncnet_python(syncnet, evaluation_io, close):
    windows = random(1, 0, 256, (2, 3, 5, 224, 224))
    close(syncnet.embed_lips(windows), torch.from_numpy(evaluation_io["syncnet_lips"]))


@torch.no_grad()
def test_sound_is_embedded_as_by_syncnet_python(syncnet, evaluation_io, close):
    windows = random(2, -64, 64, (2, 1, 13, 20)) / 8
    close(syncnet.embed_audio(windows), torch.from_numpy(evaluation_io["syncnet_audio"]))


@torch.no_grad()
def test_inception_features_are_those_of_pytorch_fid(tmp_path, evaluation_io, close):
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    tensors = weights(FidInception, "inception")
    torch.save({key: 2 * value if key.endswith("conv.weight") else value for key, value in tensors.items()}, path)
    features = load_fid_inception(path)(random(0, 0, 256, (2, 3, 64, 80)) / 255)
    close(features, torch.from_numpy(evaluation_io["inception"]))


def test_a_file_with_another_tensor_is_refused_by_name(syncnet_file, tmp_path):
    tensors = torch.load(syncnet_file, weights_only=True)
    tensors["netfcaud.0.weight"] = tensors["netfcaud.0.weight"][:, :500]
    torch.save(tensors, tmp_path / "short.model")
    with pytest.raises(
        PortraitError, match=r"short.model: netfcaud.0.weight has shape \[512, 500\], \[512, 512\] is needed"
    ):
        load_syncnet(tmp_path / "short.model")
    del tensors["netfcaud.0.weight"]
    torch.save(tensors, tmp_path / "missing.model")
    with pytest.raises(PortraitError, match="netfcaud.0.weight is missing"):
        load_syncnet(tmp_path / "missing.model")


def test_a_torchscript_file_is_loaded_and_another_one_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 3)).save(tmp_path / "i3d.pt")
    assert load_torchscript(tmp_path / "i3d.pt")(torch.zeros(1, 2)).shape == (1, 3)
    (tmp_path / "other.pt").write_bytes(b"nothing")
    with pytest.raises(PortraitError, match=r"other.pt: not a TorchScript file"):
        load_torchscript(tmp_path / "other.pt")
    with pytest.raises(PortraitError, match=r"gone.pt"):
        load_torchscript(tmp_path / "gone.pt")
