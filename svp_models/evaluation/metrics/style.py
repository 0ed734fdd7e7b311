"""Metrics of speaking styles: clustering and distances of codes, what can be read from them, cosines, emotions that were recognised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def cosine(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Cosine of the angle between two vectors; 0 if one of them is zero.

    Of two style codes it is StyleSim (the paper's section 4); of two embeddings of faces, the identity similarity (CSIM).
    """
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / length if length else 0.0


def identity_similarity(frames: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """CSIM: mean cosine of the embeddings of frames (n x d) and that of a reference picture (d); any face network's, -1 to 1."""
    return float(np.mean([cosine(frame, reference) for frame in frames]))


def share_of_way(moved: NDArray[np.floating], way: NDArray[np.floating]) -> float:
    """How far displacements (n x d) have gone along their ways (n x d): 0 not at all, 1 to the end, negative backwards.

    One number for all, sum(moved way) / sum(way way), in which long ways count more than short ones; 0 without any way.
    """
    length = float(np.square(way).sum())
    return float((moved * way).sum()) / length if length else 0.0


def emotion_recovery(recognised: Sequence[str], expected: Sequence[str]) -> tuple[float, dict[str, dict[str, float]]]:
    """Share of clips whose expected emotion was recognised, and the confusion: expected -> recognised -> share of its clips."""
    pairs = list(zip(recognised, expected, strict=True))
    names = list(dict.fromkeys([*expected, *recognised]))
    table = {
        wanted: {name: sum(pair == (name, wanted) for pair in pairs) / expected.count(wanted) for name in names}
        for wanted in dict.fromkeys(expected)
    }
    return (sum(found == wanted for found, wanted in pairs) / len(pairs) if pairs else 0.0), table


def clustering_strength(
    codes: NDArray[np.floating], identities: Sequence[str], emotions: Sequence[str]
) -> dict[str, float]:
    """How well the emotions of a person part in style space (eq. 8): d_inter / d_intra by emotion, mean over people.

    codes: n x d style codes (the priors' means). Categories are the emotions of one identity; d_intra is the mean distance of
    an emotion's codes from their centre, d_inter the mean distance of that centre from those of the person's other emotions.
    People with a single emotion, and emotions with a single code, say nothing and are left out.
    """
    found: dict[str, list[float]] = {}
    names = np.array([f"{who}\n{mood}" for who, mood in zip(identities, emotions, strict=True)])
    for who in dict.fromkeys(identities):
        moods = list(dict.fromkeys(mood for name, mood in zip(identities, emotions, strict=True) if name == who))
        groups = {mood: codes[names == f"{who}\n{mood}"] for mood in moods}
        centres = {mood: group.mean(0) for mood, group in groups.items()}
        for mood, group in groups.items():
            others = [np.linalg.norm(centre - centres[mood]) for name, centre in centres.items() if name != mood]
            intra = float(np.linalg.norm(group - centres[mood], axis=-1).mean())
            if others and len(group) > 1 and intra > 0:
                found.setdefault(mood, []).append(float(np.mean(others)) / intra)
    return {mood: float(np.mean(values)) for mood, values in found.items()}


def code_distances(codes: NDArray[np.floating], identities: Sequence[str], emotions: Sequence[str]) -> dict[str, float]:
    """Mean distances of pairs of style codes n x d. clips: of one person and emotion; people: of one emotion, of two people;
    emotions: of two emotions. Kinds without a pair are left out.
    """
    who, mood = np.unique(identities, return_inverse=True)[1], np.unique(emotions, return_inverse=True)[1]
    squares = np.square(codes.astype(np.float64)).sum(1)
    squared = squares[:, None] + squares - 2 * codes.astype(np.float64) @ codes.T
    same_person, same_emotion = who[:, None] == who, mood[:, None] == mood
    once = np.triu(np.ones((len(codes), len(codes)), bool), 1)
    kinds = {"clips": same_emotion & same_person, "people": same_emotion & ~same_person, "emotions": ~same_emotion}
    distances = np.sqrt(np.maximum(squared, 0))
    return {name: float(distances[kind & once].mean()) for name, kind in kinds.items() if (kind & once).any()}


def probe_r2(
    codes: NDArray[np.floating],
    values: NDArray[np.floating],
    test_codes: NDArray[np.floating],
    test_values: NDArray[np.floating],
    ridge: float = 1e-3,
) -> NDArray[np.float64]:
    """How much of values a linear probe reads from codes (Alain and Bengio 2017): R^2 on test clips, one for each column.

    codes: n x d and values: n x k of the clips that the probe is fitted on by ridge regression; `ridge` x n is the penalty, in
    units of the codes' mean variance. Values that are not finite are left out. 1 is all; 0 is no better than the mean of the test
    clips, a negative value is worse. NaN where too little is known, or all test values are equal.
    """
    found = np.full(values.shape[1], np.nan)
    for column in range(values.shape[1]):
        rows, test_rows = (np.isfinite(given[:, column]) for given in (values, test_values))
        if rows.sum() < 2 or test_rows.sum() < 2:
            continue
        x, y = codes[rows].astype(np.float64), values[rows, column].astype(np.float64)
        wanted = test_values[test_rows, column].astype(np.float64)
        centred = x - x.mean(0)
        penalty = ridge * len(x) * max(centred.var(0).mean(), 1e-12) * np.eye(x.shape[1])
        slope = np.linalg.solve(centred.T @ centred + penalty, centred.T @ (y - y.mean()))
        error = wanted - y.mean() - (test_codes[test_rows] - x.mean(0)) @ slope
        total = np.square(wanted - wanted.mean()).sum()
        found[column] = 1 - np.square(error).sum() / total if total > 0 else np.nan
    return found
