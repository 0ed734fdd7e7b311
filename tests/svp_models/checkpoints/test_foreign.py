"""Foreign weight files: every published form is read, none is trusted."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from svp_portrait.svp_models.checkpoints.foreign import find_weights, read_weights
from svp_portrait.svp_models.errors import PortraitError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2, dtype=torch.float16)}


@pytest.mark.parametrize("wrapper", [None, "state_dict", "module"])
@pytest.mark.parametrize("old_format", [False, True])
def test_what_torch_saved_is_read_with_and_without_a_wrapper(tmp_path, wrapper, old_format):
    content = TENSORS if wrapper is None else {wrapper: TENSORS, "epoch": 3}
    torch.save(content, tmp_path / "w.bin", _use_new_zipfile_serialization=not old_format)
    read = read_weights(tmp_path / "w.bin")
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor)


def test_safetensors_are_read_and_come_first(tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "w.bin")
    save_file(TENSORS, tmp_path / "w.safetensors")
    assert find_weights(tmp_path, "w").suffix == ".safetensors"
    assert torch.equal(read_weights(find_weights(tmp_path, "w"))["a.weight"], TENSORS["a.weight"])


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.zeros(1), "b": Trap()}, "w.pth")
    with pytest.raises(PortraitError, match="w.pth: its pickle holds more than tensors.*safetensors"):
        read_weights("w.pth")
    with open("plain.ckpt", "wb") as file:
        pickle.dump(Trap(), file)
    with pytest.raises(PortraitError, match="plain.ckpt"):
        read_weights("plain.ckpt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_truncated_file_says_so(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    save_file(TENSORS, path) if suffix == ".safetensors" else torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(PortraitError, match=r"not a readable weight file \(\d+ bytes.*truncated"):
        read_weights(path)


def test_missing_and_empty_files_are_named(tmp_path):
    with pytest.raises(PortraitError, match="no reference_net with one of the endings .safetensors, .bin"):
        find_weights(tmp_path, "reference_net")
    with pytest.raises(PortraitError, match="no such file"):
        read_weights(tmp_path / "no.bin")
    torch.save({"epoch": 3}, tmp_path / "e.pth")
    with pytest.raises(PortraitError, match="no tensors by name, but a dict of epoch"):
        read_weights(tmp_path / "e.pth")
