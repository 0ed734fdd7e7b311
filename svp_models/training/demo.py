"""The recipe of the built-in model: every phase in the paper's order, on drawn talking heads, on an ordinary CPU.

At this scale the networks start from nothing and see minutes of data, where the paper fine-tunes Stable Diffusion on 300
hours. Three things follow, all of them choices of this recipe alone: the projections of audio and style are trained before
the denoiser (`projections`) and then kept; stage 2 goes on training what stage 1 trained and stage 3 the denoiser's layers
of stages 1 and 2 (the paper freezes them); and each stage is some hundred to thousand steps long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..checkpoints.native import PortraitModel, save_model, style_space_of
from ..config import PRESETS
from ..networks.face_analyzer import ANALYZER_SIZE, FaceAnalyzerNetwork
from ..networks.portrait_model import PortraitNetworks, build_networks
from ..synthetic.clips import DATA_VERSION
from .analyzer import export_onnx, train_analyzer
from .autoencoder import load_frames, train_autoencoder
from .corpus import Corpus, CorpusConfig, build_corpus
from .diffusion import DiffusionData, Stage, encode_corpus, train_stage
from .loop import Schedule
from .projections import train_projections
from .style import StyleData, corpus_priors, train_style_extractor
from .takes import build_takes


@dataclass(frozen=True)
class DemoRecipe:
    """Sizes of all phases of the built-in model; the file itself names the steps and seed that it was made with.

    The bundled file is of these phases and lengths, but its stage 3 began with less demanding batches: no singles, portraits
    of another emotion in 0.7 of the clips, less high noise (0.5, later 0.2).
    """

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    takes: int = 5  # of every clip, without pictures
    autoencoder: Schedule = Schedule(750, 1e-3, average=0.0)
    analyzer: Schedule = Schedule(2000, 1.5e-3)
    style: Schedule = Schedule(500, 7e-4)
    projections: Schedule = Schedule(1000, 1e-3)
    stages: tuple[tuple[Stage, Schedule], ...] = (
        (
            Stage("stage1", ("spatial", "reference", "guider"), clips=16, frames=1, mouth_weight=2.0),
            Schedule(600, 1e-3, shards=2),
        ),
        (
            Stage(
                "stage2",
                ("spatial", "temporal", "reference", "guider", "audio"),
                clips=4,
                frames=4,
                audio=True,
            ),
            Schedule(900, 1e-3, shards=2),
        ),
        (
            Stage(
                "stage3",
                ("spatial", "temporal", "style", "audio"),
                clips=3,
                frames=6,
                singles=0.8,
                audio=True,
                style=True,
                cross_emotion=0.9,
                no_style=0.05,
                high_noise=0.35,
            ),
            Schedule(2500, 1e-3, average=0.998, shards=2),
        ),
    )


@torch.no_grad()
def estimate_expressions(
    corpus: Corpus, network: FaceAnalyzerNetwork, file: Path, report: Callable[[str], None]
) -> np.ndarray:
    """Expression coefficients of every frame as the analyser reads them, clips x frames x 64, kept in `file`."""
    if file.exists():
        return np.load(file)
    rows = []
    for index in range(corpus.config.clips):
        images = (load_frames(corpus, index, slice(None)) + 1) / 2  # f 3 h w
        if images.shape[-1] != ANALYZER_SIZE:
            images = nn.functional.interpolate(images, (ANALYZER_SIZE, ANALYZER_SIZE), mode="area")
        rows.append(network.raw(images)["expression"].numpy())
        if index % 200 == 199:
            report(f"expressions {index + 1}/{corpus.config.clips} clips")
    estimates = np.stack(rows)
    np.save(file, estimates)
    return estimates


def train_demo(
    recipe: DemoRecipe, folder: Path, output: Path, seed: int, workers: int, report: Callable[[str], None]
) -> Path:
    """Runs or resumes all phases in `folder` and writes the model file; returns its path."""
    config = PRESETS["demo"]
    folder.mkdir(parents=True, exist_ok=True)
    corpus = build_corpus(folder / "corpus", recipe.corpus, workers, report)
    vae = train_autoencoder(corpus, config.vae, recipe.autoencoder, folder, seed, report)
    analyzer = train_analyzer(corpus, recipe.analyzer, folder, seed, report)
    expression = estimate_expressions(corpus, analyzer, folder / "expressions.npy", report)

    torch.manual_seed(seed)
    networks = build_networks(config)
    takes = build_takes(folder / "takes", recipe.corpus, recipe.takes, workers, report)
    styles = StyleData(corpus, expression, takes)
    train_style_extractor(styles, networks.style_extractor, recipe.style, folder, seed, report)
    mu, sigma = corpus_priors(styles, networks.style_extractor, seed)
    latents = encode_corpus(corpus, vae, folder / "latents.pt", report)
    train_projections(networks, corpus, takes, mu[:, 0], sigma[:, 0], config, recipe.projections, folder, seed, report)
    data = DiffusionData(corpus, latents, vae, mu, sigma)
    for stage, schedule in recipe.stages:
        train_stage(networks, data, config, stage, schedule, folder, seed, report)
    steps = sum(schedule.steps for _, schedule in recipe.stages)
    write_model(networks, vae, analyzer, output, seed, steps)
    report(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB)")
    return output


def write_model(
    networks: PortraitNetworks, vae: nn.Module, analyzer: FaceAnalyzerNetwork, output: Path, seed: int, steps: int
) -> None:
    """One fp16 safetensors file of everything, with seed, step and data version in its metadata."""
    model = PortraitModel(
        config=PRESETS["demo"],
        networks=networks,
        vae=vae,
        face_analyzer=export_onnx(analyzer),
        style_space=style_space_of(networks.style_extractor),
        metadata={"seed": str(seed), "step": str(steps), "data_version": DATA_VERSION},
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    save_model(output, model, model.metadata)


def scaled(recipe: DemoRecipe, factor: float) -> DemoRecipe:
    """The recipe with `factor` times the steps and speakers (at least 8 speakers, 2 steps)."""

    def shorter(schedule: Schedule) -> Schedule:
        return replace(schedule, steps=max(2, round(schedule.steps * factor)))

    return replace(
        recipe,
        corpus=replace(recipe.corpus, speakers=max(8, round(recipe.corpus.speakers * factor))),
        autoencoder=shorter(recipe.autoencoder),
        analyzer=shorter(recipe.analyzer),
        style=shorter(recipe.style),
        projections=shorter(recipe.projections),
        stages=tuple((stage, shorter(schedule)) for stage, schedule in recipe.stages),
    )
