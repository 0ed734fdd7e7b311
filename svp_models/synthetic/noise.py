"""Random textures: smooth noise of chosen scales, grain, streaks, and the colours of cloth, all from a generator."""

from __future__ import annotations

import numpy as np

from ..optional_deps import cv2


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """h x w float32, mean about 0, deviation about 1; blobs about `cell` pixels wide."""
    height, width = shape
    small = (max(2, round(width / cell) + 1), max(2, round(height / cell) + 1))
    coarse = rng.standard_normal(small[::-1]).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(1.25)


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], cell: float, octaves: int, fall: float = 0.5
) -> np.ndarray:
    """Sum of smooth noise of halving cells, every octave `fall` times as strong: h x w float32, deviation about 1."""
    total = np.zeros(shape, np.float32)
    weight, power = 1.0, 0.0
    for _ in range(octaves):
        total += smooth_noise(rng, shape, max(cell, 1.0)) * np.float32(weight)
        power += weight * weight
        cell, weight = cell / 2, weight * fall
    return total / np.float32(np.sqrt(power))


def streaks(rng: np.random.Generator, shape: tuple[int, int], across: float, along: float) -> np.ndarray:
    """Vertical streaks, `across` pixels wide and `along` pixels long: h x w float32, deviation about 1."""
    height, width = shape
    small = (max(2, round(width / across) + 1), max(2, round(height / along) + 1))
    coarse = rng.standard_normal(small[::-1]).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR) * np.float32(1.3)


def cloth_texture(rng: np.random.Generator, shape: tuple[int, int], unit: float) -> np.ndarray:
    """Factors on a cloth's colour, h x w x 3 float32 around 1: plain, knitted, striped, checked, denim or printed.

    unit: pixels of one face unit.
    """
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32) / np.float32(unit)
    kind = rng.choice(["plain", "knit", "stripes", "checks", "denim", "print"], p=[0.38, 0.16, 0.14, 0.12, 0.1, 0.1])
    tint = rng.uniform(0.5, 1.5, 3).astype(np.float32)
    factor = np.ones((height, width, 3), np.float32)
    if kind == "knit":
        pitch = rng.uniform(0.05, 0.1)
        weave = np.cos(2 * np.pi * x / pitch) * np.cos(2 * np.pi * (y + 0.3 * np.abs((x / pitch) % 1 - 0.5)) / pitch)
        factor += rng.uniform(0.04, 0.12) * weave[..., None]
    if kind in ("stripes", "checks"):
        pitch, share = rng.uniform(0.12, 0.4), rng.uniform(0.2, 0.6)
        angle = rng.choice([0.0, 0.0, np.pi / 2, 0.6])
        line = np.cos(angle) * y + np.sin(angle) * x
        bands = _bands(line / pitch, share)
        if kind == "checks":
            bands = 0.5 * bands + 0.5 * _bands((np.cos(angle) * x - np.sin(angle) * y) / pitch, share)
        factor *= 1 + bands[..., None] * (tint - 1)
    if kind == "denim":
        twill = np.sin(2 * np.pi * (x + y) / 0.03)
        factor += 0.06 * twill[..., None] + 0.07 * smooth_noise(rng, shape, 0.02 * unit + 1)[..., None]
    if kind == "print":
        spots = np.clip(fractal_noise(rng, shape, rng.uniform(0.1, 0.3) * unit, 2) * 2 - 1.2, 0, 1)
        factor *= 1 + spots[..., None] * (tint - 1)
    folds = fractal_noise(rng, shape, 0.7 * unit, 3, 0.6)
    thread = rng.standard_normal(shape).astype(np.float32)
    factor *= (1 + rng.uniform(0.05, 0.16) * folds + rng.uniform(0.01, 0.04) * thread)[..., None]
    return factor


def _bands(position: np.ndarray, share: float) -> np.ndarray:
    """1 on the first `share` of every period of `position`, with soft edges, 0 elsewhere."""
    phase = position % 1
    return np.clip((share - phase) * 12, 0, 1) * np.clip(phase * 12, 0, 1)
