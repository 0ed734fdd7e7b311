"""Metrics of speaking styles: clustering strength, cosines, how far something moved, emotions that were recognised."""

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
