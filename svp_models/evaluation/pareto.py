"""What every acceleration gives and costs: products of the denoising against how far test people are from the exact result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import torch

from ..config import ModelConfig
from ..diffusion.acceleration import EXACT, PRESETS, Acceleration
from ..diffusion.guidance import GuidedFeatures, guided_prediction
from ..diffusion.pipeline import SamplerOptions
from ..diffusion.style import extract_style
from ..face.detection import given
from ..model import PortraitModel
from ..networks.conditions import AS_TRAINED
from ..networks.foreground import Box, Foreground
from ..networks.unet import DeepFeatures
from ..presets import PRESETS as MODELS
from ..synthetic.performance import EMOTIONS
from .baselines import to_frames, to_planes
from .bench import flop_counter
from .bench_portrait import BenchOptions, denoiser_inputs
from .evaluator import Case, Evaluator, audio_of, head_motion, make_cases
from .measure import measure_clip
from .metrics.style import cosine

STYLE_SECONDS = 1.0  # of the clips that styles are read from
FIGURES = ("psnr", "ssim", "mouth_corr", "stylesim", "still_flicker", "jitter")
EQUAL = 99.0  # dB that stand for no error at all
FACE: Box = (0.28, 0.9, 0.2, 0.75)  # a face in its picture, as far as the test people's boxes reach
LARGE = MODELS["sd15"]
SETTINGS: dict[str, Acceleration] = {
    **PRESETS,
    "every 2nd step whole": Acceleration(2),
    "every 3rd step whole": Acceleration(3),
    "every 3rd, two outer layers": Acceleration(3, 2),
    "every 3rd, Taylor 1": Acceleration(3, taylor_order=1),
    "every 3rd, parallel": Acceleration(3, parallel_steps=True),
    "every 5th step whole": Acceleration(5),
    "every 5th, Taylor 1": Acceleration(5, taylor_order=1),
    "every 5th, guidance until 0.5": Acceleration(5, guidance_end=0.5),
    "face every step, rest every 2nd": Acceleration(foreground_every=2),
    "no reference on the way down": Acceleration(drop_reference="down"),
    "no reference on the way up": Acceleration(drop_reference="up"),
    "no reference at highest resolution": Acceleration(drop_reference="highest"),
    "guidance until 0.5": Acceleration(guidance_end=0.5),
    "guidance until cosine 0.95": Acceleration(guidance_similarity=0.95),
}


@dataclass(frozen=True)
class ParetoOptions:
    """people: of the test split, one emotion after the other; frames: of their clips; steps, cfg: of the sampler."""

    people: int = 6
    frames: int = 12
    steps: int = 25
    cfg: float = 2.0
    seed: int = 7


@torch.no_grad()
def pareto(
    model: PortraitModel, options: ParetoOptions, settings: Mapping[str, Acceleration] = SETTINGS
) -> Iterator[dict[str, Any]]:
    """One row for every setting: `speedup`, how many times fewer products the denoising takes, counted on the first person;
    `large_speedup`, the same at Stable Diffusion's width and 512 x 512; the means of FIGURES against the exact frames (stylesim:
    to the wanted style), and the least PSNR. The row of `exact` has the exact result's own jitter and stylesim."""
    evaluator = Evaluator(model, SamplerOptions(), lambda: None)
    seconds = options.frames / evaluator.fps
    rounds = -(-options.people // len(EMOTIONS))
    cases = list(islice(make_cases(evaluator, rounds, seconds, STYLE_SECONDS, options.seed), options.people))
    exact, products = zip(
        *(_frames(evaluator, case, options, EXACT, count=not number) for number, case in enumerate(cases)), strict=True
    )
    for name, acceleration in settings.items():
        rows, spent = [], 0.0
        for number, case in enumerate(cases):
            made, counted = exact[number], products[number]
            if acceleration != EXACT:
                made, counted = _frames(evaluator, case, options, acceleration, count=not number)
            spent = spent or counted
            rows.append(_figures(evaluator, case, made, exact[number]))
        yield {
            "case": name,
            "speedup": round(products[0] / spent, 3),
            "large_speedup": round(denoising_products(EXACT, options) / denoising_products(acceleration, options), 3),
            "least_psnr": round(min(row["psnr"] for row in rows), 2),
            **{
                key: round(float(np.mean([row[key] for row in rows if key in row])), 4)
                for key in FIGURES
                if key in rows[0]
            },
        }


def _frames(
    evaluator: Evaluator, case: Case, options: ParetoOptions, acceleration: Acceleration, count: bool
) -> tuple[np.ndarray, float]:
    """Frames n h w 3 uint8 of a case, and the products of their denoising if they are to be counted."""
    clip, size, pipeline, length = case.clip, evaluator.size, evaluator.pipeline, len(case.clip.images)
    sampling = SamplerOptions(steps=options.steps, cfg=options.cfg, acceleration=acceleration)
    face, motion = to_planes(clip.images[:1])[0], head_motion(clip, clip, length)
    inputs = pipeline.prepare(face, audio_of(clip), motion, case.style, length, clip.fps, (size, size))
    conditions, products = pipeline.encode_conditions(inputs), 0.0
    if count:
        with flop_counter() as counter:
            latents = pipeline.denoise(inputs, conditions, options.seed, sampling)
        products = float(counter.get_total_flops())
    else:
        latents = pipeline.denoise(inputs, conditions, options.seed, sampling)
    return to_frames(torch.cat(list(pipeline.decode(latents)))), products


def _figures(evaluator: Evaluator, case: Case, made: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    track = evaluator.read(made)
    found = measure_clip(made, exact, track, evaluator.read(exact), evaluator.fps).figures
    expression = torch.from_numpy(given(track.expression, "expression"))
    code = extract_style(evaluator.model, expression, None, evaluator.fps).mu.numpy()
    return {**found, "psnr": found.get("psnr", EQUAL), "stylesim": cosine(code, case.prior.mu.numpy())}


@torch.no_grad()
def denoising_products(acceleration: Acceleration, options: ParetoOptions, config: ModelConfig = LARGE) -> float:
    """Products of all steps for one window of a large model, counted without computing; of adaptive guidance none is left out."""
    spent, stored = 0.0, set[str]()
    for step in range(options.steps):
        guided = options.cfg != 1 and acceleration.guides(step, options.steps)
        halves = {"conditional", "unconditional"} if guided else {"conditional"}
        whole = acceleration.whole(step) or not halves <= stored
        if whole:
            stored |= halves
        layers, unseen = acceleration.cache_layers, acceleration.without_reference(config.unet)
        spent += _step_products(config, layers, unseen, guided, whole, acceleration.everywhere(step))
    return spent


@lru_cache(maxsize=256)
def _step_products(
    config: ModelConfig, layers: int, without_reference: frozenset[int], guided: bool, whole: bool, everywhere: bool
) -> float:
    bench = BenchOptions(config.size, 1, 1, 2.0, device=torch.device("meta"))
    denoiser, latents, conditions = denoiser_inputs(config, bench)
    weights = replace(AS_TRAINED, without_reference=without_reference)
    features = GuidedFeatures(*(DeepFeatures(layers, None, Foreground(FACE)) for _ in range(2)))
    time = torch.zeros(1, device=latents.device)

    def run(cfg: float) -> float:
        with flop_counter() as counter:
            guided_prediction(denoiser, latents, time, conditions, weights, cfg, deep=features)
        return float(counter.get_total_flops())

    run(2.0)
    for half in (features.unconditional, features.conditional):
        half.stored = None if whole else half.stored
        assert half.foreground is not None
        half.foreground.reuse = not everywhere
    return run(2.0 if guided else 1.0)


def front(rows: Sequence[Mapping[str, Any]], x: str = "speedup", y: str = "psnr") -> list[Mapping[str, Any]]:
    """The rows that no other one beats in both figures, by rising x."""
    best = [
        row
        for row in rows
        if not any(
            other[x] >= row[x] and other[y] >= row[y] and (other[x], other[y]) != (row[x], row[y]) for other in rows
        )
    ]
    return sorted(best, key=lambda row: float(row[x]))
