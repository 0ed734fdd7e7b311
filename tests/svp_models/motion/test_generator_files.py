"""The public generators' files as a models folder has them: found, opened with what belongs to them, and missed by name."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from svp_portrait.svp_models.checkpoints.motion_generators import load_joyvasa
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.generator_files import KINDS, open_joyvasa, open_kdtalker
from svp_portrait.svp_models.networks.motion_generators.motion_scale import JOYVASA_ORDER, KDTALKER_ORDER

ARRAYS = KDTALKER_ORDER | {"kp": 63}


def write_norm(path):
    np.savez(
        path,
        **{f"{name}_{kind}": np.ones(size, np.float32) for name, size in ARRAYS.items() for kind in ("mean", "std")},
    )


def write_template(path):
    ranges = {f"{kind}_{name}": np.full(size, value, np.float32)
              for name, size in JOYVASA_ORDER.items() for kind, value in (("min", -1.0), ("max", 1.0))}  # fmt: skip
    path.write_bytes(pickle.dumps({**ranges, "mean_exp": np.zeros(63, np.float32), "std_exp": np.ones(63, np.float32)}))


def test_names_tell_the_kind():
    kdtalker, joyvasa = KINDS
    assert kdtalker.is_own("KDTalker.pth") and kdtalker.is_own("kdtalker_v2.safetensors")
    assert joyvasa.is_own("motion_generator_hubert_chinese.pt") and joyvasa.is_own("iter_0020000.pt")
    for name in ("wav2lip.pth", "norm.npz", "motion_template.pkl", "config.json", "pytorch_model.bin", "README.md"):
        assert not kdtalker.is_own(name) and not joyvasa.is_own(name)


def test_kdtalker_opens_with_what_lies_beside_it(generators_folder):
    path = generators_folder / "KDTalker.pth"
    with pytest.raises(PortraitError, match=r"norm.npz not found in .*: run `svp download kdtalker"):
        open_kdtalker(path)
    write_norm(generators_folder / "norm.npz")
    generator = open_kdtalker(path)
    assert generator.needs_face and generator.network.config.dim == 256
    assert float(generator.scale.offset["kp"][0]) == 1
    (generators_folder / "wav2lip.pth").unlink()
    with pytest.raises(PortraitError, match="wav2lip.pth not found"):
        open_kdtalker(path)


def test_the_published_folders_are_found(generators_folder, tmp_path):
    root = tmp_path / "models" / "kdtalker"
    for name in ("ckpts", "dataset_process"):
        (root / name).mkdir(parents=True)
    for name in ("KDTalker.pth", "wav2lip.pth"):
        shutil.move(generators_folder / name, root / "ckpts" / name)
    with pytest.raises(PortraitError, match=re.escape(f'svp download kdtalker --models "{tmp_path / "models"}"')):
        open_kdtalker(root / "ckpts" / "KDTalker.pth")
    write_norm(root / "dataset_process" / "norm.npz")
    assert open_kdtalker(root / "ckpts" / "KDTalker.pth").name == "KDTalker"


def test_joyvasa_opens_with_its_template(generators_folder):
    folder = generators_folder / "motion_generator"
    folder.mkdir()
    path = folder / "motion_generator_hubert_chinese.pt"
    shutil.move(generators_folder / "motion_generator.pt", path)
    with pytest.raises(PortraitError, match=r"motion_template.pkl not found in .*: run `svp download joyvasa"):
        open_joyvasa(path)
    (generators_folder / "motion_template").mkdir()
    write_template(generators_folder / "motion_template" / "motion_template.pkl")
    generator = open_joyvasa(path)
    assert not generator.needs_face and generator.networks.config.feature_dim == 32


def test_a_hubert_folder_serves_files_without_an_audio_encoder(generators_folder, joyvasa):
    write_template(generators_folder / "motion_template.pkl")
    path, whole = generators_folder / "motion_generator.safetensors", generators_folder / "motion_generator.pt"
    state = load_joyvasa(whole).state_dict()
    config = joyvasa.audio_encoder.config
    with torch.serialization.safe_globals([argparse.Namespace, type(generators_folder)]):
        stored = torch.load(whole, weights_only=True)["model"]
    save_file(
        {name: tensor.contiguous() for name, tensor in stored.items() if not name.startswith("audio_encoder.")}, path
    )
    whole.unlink()
    with pytest.raises(PortraitError, match=r"it has no audio encoder .*: run `svp download chinese-hubert-base`"):
        open_joyvasa(path)
    folder = generators_folder / "chinese-hubert-base"
    folder.mkdir()
    hubert = {name.removeprefix("audio_encoder."): t for name, t in stored.items() if name.startswith("audio_encoder.")}
    torch.save({**hubert, "final_proj.weight": torch.zeros(2, 2)}, folder / "pytorch_model.bin")
    settings = {
        "num_attention_heads": config.num_attention_heads,
        "conv_stride": list(config.conv_stride),
        "vocab_size": 32,
    }
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    again = open_joyvasa(path).networks.state_dict()
    assert again.keys() == state.keys() and all(torch.equal(tensor, again[name]) for name, tensor in state.items())
