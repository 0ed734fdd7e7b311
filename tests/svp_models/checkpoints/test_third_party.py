"""Third-party weight files: every published form is read, and no code in them runs."""

from __future__ import annotations

import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from svp_portrait.svp_models.checkpoints.third_party import find_weights, read_pickled_arrays, read_weights
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


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        ({"a": np.float64(1)}, "numpy.*scalar"),
        ({"a": torch.zeros(1), "b": np.zeros(2)}, "numpy.*_reconstruct"),
        ({"a": {"deep": [torch.nn.Linear(1, 1)]}}, "torch.nn.modules.linear.Linear"),
    ],
)
def test_what_a_pickle_asks_for_is_named(tmp_path, content, asked):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(PortraitError, match=f"w.pth: its pickle holds more than tensors .{asked}.*, and code"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("old_format", [False, True])
def test_a_file_of_the_other_format_than_its_ending_says_so(tmp_path, old_format):
    save_file(TENSORS, tmp_path / "w.bin")
    with pytest.raises(PortraitError, match="w.bin: it holds safetensors: rename it to w.safetensors"):
        read_weights(tmp_path / "w.bin")
    torch.save(TENSORS, tmp_path / "v.safetensors", _use_new_zipfile_serialization=not old_format)
    with pytest.raises(PortraitError, match="v.safetensors: it is a zip or a pickle, .* rename it to v.bin"):
        read_weights(tmp_path / "v.safetensors")


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_what_is_no_weight_file_at_all_says_so(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    for content in (b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html><html>", bytes(300)):
        path.write_bytes(content)
        with pytest.raises(PortraitError, match=rf"not a readable weight file \({len(content)} bytes.*other format"):
            read_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(PortraitError, match="not a readable weight file|rename it"):
        read_weights(path)
    path.write_bytes(b"")
    with pytest.raises(PortraitError, match=f"w{suffix}: the file is empty, 0 bytes"):
        read_weights(path)


def test_tensors_without_plain_numbers_are_refused(tmp_path):
    torch.save({"a": torch.ones(2), "b": torch.eye(2).to_sparse()}, tmp_path / "w.bin")
    with pytest.raises(PortraitError, match="w.bin: b is a tensor of the layout torch.sparse_coo"):
        read_weights(tmp_path / "w.bin")


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


def test_pickled_arrays_come_back_and_code_among_them_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    path = tmp_path / "arrays.pkl"
    given = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": 2, "list": [{"b": np.float64(0.5)}], "text": "x"}
    path.write_bytes(pickle.dumps(given))
    found = read_pickled_arrays(path)
    assert np.array_equal(found["a"], given["a"]) and found["a"].dtype == np.float32
    assert (found["n"], found["list"], found["text"]) == (2, [{"b": 0.5}], "x")
    for content, message in (
        (
            pickle.dumps({"mean_exp": Evil()}),
            f"it asks for {os.mkdir.__module__}.mkdir, and code in files is never run",
        ),
        (b"no pickle", "not a readable dict of arrays"),
        (pickle.dumps([1]), "it holds a list, a dict of arrays is needed"),
    ):
        path.write_bytes(content)
        with pytest.raises(PortraitError, match=re.escape(message)) as error:
            read_pickled_arrays(path)
        assert str(error.value).startswith(str(path))
    assert not (tmp_path / "run").exists()
