"""`svp evaluate demo`: the built-in model on people and sentences that training never saw.

Everything on the generated side is measured on pixels by the face analyser, whose own error on true frames stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..checkpoints.native import PortraitModel
from ..sampling.pipeline import SamplerOptions
from ..synthetic.emotions import EMOTIONS, classify_emotion
from ..values import Style
from .cases import Case, Evaluator, audio_of, draw_cases
from .metrics import keypoint_error, lagged_correlation, mean_ssim, mouth_opening, psnr
from .style_study import StudySize, StyleStudy

LAG_REACH = 5  # frames
AS_SHIPPED = SamplerOptions()  # the model's own steps and guidance
CLIPS_OF_A_CASE = 5  # that are generated


@dataclass(frozen=True)
class EvaluationSize:
    """How much is generated. rounds: cases per emotion; seconds: of talking; still_seconds: of the emotion comparisons;
    style_seconds: of the clips that styles are read from; study: of the figures about style, None leaves them out."""

    rounds: int
    seconds: float
    still_seconds: float
    style_seconds: float = 2.0
    study: StudySize | None = None


QUICK = EvaluationSize(rounds=2, seconds=1.6, still_seconds=0.64)
FULL = EvaluationSize(
    rounds=3,
    seconds=3.0,
    still_seconds=2.0,
    study=StudySize(leaks=8, blends=8, weight_seconds=0.48, people=10, takes=3),
)


def evaluate(
    model: PortraitModel, size: EvaluationSize, seed: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, object]:
    """All figures of the help text as one dict; `svp evaluate demo --help` says what each means.

    progress(done, total) is called for every clip that is generated and every person whose styles are compared.
    """
    count = size.rounds * len(EMOTIONS)
    total = count * CLIPS_OF_A_CASE + (0 if size.study is None else size.study.steps(count))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    evaluator = Evaluator(model, AS_SHIPPED, step)
    study = None if size.study is None else StyleStudy(evaluator, size.study, seed)
    rows: list[dict[str, float]] = []
    lags: dict[str, list[np.ndarray]] = {"generated": [], "swapped": [], "analyser": []}
    for index, case in enumerate(draw_cases(evaluator, size.rounds, size.seconds, size.style_seconds, seed)):
        clip, sound = case.clip, audio_of(case.clip)
        frames = len(clip.images)
        still = max(1, round(size.still_seconds * clip.fps))
        made = evaluator.generate(clip, clip, sound, case.style, frames, seed + index)
        swapped = evaluator.generate(clip, clip, case.other_sound, case.style, frames, seed + index)
        opening = mouth_opening(clip.landmarks)
        tracks = {name: evaluator.read(each) for name, each in zip(lags, (made, swapped, clip.images), strict=True)}
        for name, track in tracks.items():
            lags[name].append(lagged_correlation(mouth_opening(track.landmarks), opening, LAG_REACH))

        def moving(style: Style | None, case: Case = case, seed: int = seed + index, still: int = still) -> np.ndarray:
            return evaluator.generate(case.portrait, case.clip, audio_of(case.clip), style, still, seed)

        def shows(expression: np.ndarray, emotion: str = clip.emotion) -> float:
            return float(classify_emotion(expression)[0] == emotion)

        styled = moving(case.style)
        plain, wrong = (evaluator.read(moving(style)) for style in (None, case.wrong_style))
        rows.append(
            {
                "psnr": psnr(made, clip.images),
                "ssim": mean_ssim(made, clip.images),
                "emotion_acc": shows(evaluator.read(styled).expression),
                "emotion_acc_no_style": shows(plain.expression),
                "emotion_acc_wrong_style": shows(wrong.expression),
                "kps_error": keypoint_error(tracks["generated"].head_keypoints, clip.head_keypoints, evaluator.size),
                "analyser_kps_error": keypoint_error(
                    tracks["analyser"].head_keypoints, clip.head_keypoints, evaluator.size
                ),
                "analyser_emotion_acc": shows(tracks["analyser"].expression),
            }
        )
        if study is not None:
            study.add(case, tracks["analyser"], styled, plain, seed + index)
    result: dict[str, object] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    curve = np.mean(lags["generated"], axis=0)
    result["mouth_corr"] = float(curve[LAG_REACH])
    result["mouth_lag"] = int(np.argmax(curve)) - LAG_REACH
    result["mouth_corr_swapped"] = float(np.mean(lags["swapped"], axis=0)[LAG_REACH])
    result["analyser_mouth_corr"] = float(np.mean(lags["analyser"], axis=0)[LAG_REACH])
    if study is not None:
        result |= study.figures()
    return {**result, "clips": len(rows), "seed": seed}
