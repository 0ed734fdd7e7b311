"""The small reference networks as files in a folder of models, in the layout in which their authors publish them."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch

from svp_portrait.svp_models.networks.attention import sinusoidal_encoding
from svp_portrait.svp_models.networks.motion_generators.joyvasa import DiffusionSchedule, alignment_mask
from svp_portrait.svp_models.networks.motion_generators.motion_scale import JOYVASA_ORDER, KDTALKER_ORDER

from .weights import generator_weights, liveportrait_weights

JOYVASA_FILE = "joyvasa/motion_generator_hubert_chinese.pt"


def write_liveportrait(
    folder: Path, names: Collection[str] | None = None, below: Mapping[str, str] | None = None
) -> Path:
    """LivePortrait's files, or those of these names; below: file -> subfolder."""
    for file, content in liveportrait_weights().items():
        place = folder / (below or {}).get(file, "")
        place.mkdir(parents=True, exist_ok=True)
        if names is None or file in names:
            torch.save(content, place / f"{file}.pth")
    return folder


def write_generators(models: Path) -> None:
    """`models/kdtalker` and `models/joyvasa` with what belongs to them."""
    files = generator_weights()
    generator = files["motion_generator"]
    generator["model"] |= {
        "denoising_net.alignment_mask": alignment_mask(15, 1),
        "denoising_net.TE.pe": sinusoidal_encoding(501, 32, torch.zeros(()))[None],
        "denoising_net.PE.pe": sinusoidal_encoding(600, 32, torch.zeros(()))[None],
        **{f"diffusion_sched.{name}": tensor for name, tensor in DiffusionSchedule(6).state_dict().items()},
    }
    generator["args"] = argparse.Namespace(fps=25)
    for name in ("kdtalker", "joyvasa"):
        (models / name).mkdir(parents=True)
    torch.save(files["KDTalker"], models / "kdtalker/KDTalker.pth")
    torch.save(files["wav2lip"], models / "kdtalker/wav2lip.pth")
    sizes = KDTALKER_ORDER | {"kp": 63}
    norm = {f"{name}_{kind}": np.full(size, value, np.float32)
            for name, size in sizes.items() for kind, value in (("mean", 0.1), ("std", 0.5))}  # fmt: skip
    np.savez(models / "kdtalker/norm.npz", **norm)
    torch.save(generator, models / JOYVASA_FILE)
    ranges = {f"{kind}_{name}": np.full(size, value, np.float32)
              for name, size in JOYVASA_ORDER.items() for kind, value in (("min", 0.5), ("max", 1.0))}  # fmt: skip
    template = {**ranges, "mean_exp": np.zeros(63, np.float32), "std_exp": np.ones(63, np.float32)}
    (models / "joyvasa/motion_template.pkl").write_bytes(pickle.dumps(template))
