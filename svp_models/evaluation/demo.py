"""`svp evaluate demo`: the built-in model on people and sentences that training never saw.

Everything on the generated side is measured on pixels by the face analyser, whose own error on true frames stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from einops import rearrange

from ..checkpoints.native import PortraitModel
from ..face.analyzer import FaceAnalyzer, FaceTrack
from ..networks.vae import encode_images
from ..sampling.clip import prepare_clip
from ..sampling.decode import decode_latents
from ..sampling.pipeline import SamplerOptions, sample_portrait
from ..sampling.style import extract_style, sample_style
from ..synthetic.clips import Clip, make_clip, neutral_portrait
from ..synthetic.drawing import DrawnClip
from ..synthetic.emotions import EMOTIONS, classify_emotion
from ..synthetic.speakers import speaker
from ..values import Audio, HeadMotion, Style
from .metrics import keypoint_error, lagged_correlation, mean_ssim, mouth_opening, psnr

SAMPLE_RATE = 16000
LAG_REACH = 5  # frames
DEMO_SAMPLING = SamplerOptions(steps=2, cfg=1.0)  # as in the bundled workflows
STYLE_SECONDS = 2.0


@dataclass(frozen=True)
class Case:
    """One test clip with all that drives it. other: a clip of another emotion and sentence; style clips share no sentence with it."""

    clip: Clip
    portrait: DrawnClip  # the relaxed face, one frame
    style: Style
    wrong_style: Style
    other: Clip


@dataclass(frozen=True)
class EvaluationSize:
    """How much is generated. rounds: cases per emotion; seconds: of talking; still_seconds: of the emotion comparisons."""

    rounds: int
    seconds: float
    still_seconds: float


QUICK = EvaluationSize(rounds=2, seconds=1.6, still_seconds=0.64)
FULL = EvaluationSize(rounds=3, seconds=3.0, still_seconds=2.0)


class Evaluator:
    """Generates with one model and reads the results back from pixels."""

    def __init__(self, model: PortraitModel):
        self.model = model
        self.size = model.config.size
        self.analyzer = FaceAnalyzer(model.face_analyzer)

    def style_of(self, clip: Clip, seed: int) -> Style:
        """Style of a clip as a user gets it: expressions read from its pixels, and its sound."""
        expression = torch.from_numpy(self.analyzer.analyze(clip.images).expression)
        return sample_style(extract_style(self.model, expression, audio_of(clip), clip.fps), seed)

    def generate(
        self, portrait: Clip | DrawnClip, clip: Clip, audio: Audio, style: Style | None, frames: int, seed: int
    ) -> np.ndarray:
        """Frames n h w 3 uint8 of the portrait's first frame moving its head as in `clip` and saying `audio`."""
        face = rearrange(torch.from_numpy(portrait.images[0].copy()), "h w c -> c h w").float() / 127.5 - 1
        points, own = (torch.from_numpy(each) for each in (clip.head_keypoints[:frames], portrait.head_keypoints[0]))
        motion = HeadMotion(points, self.size, self.size, clip.fps, portrait=own)
        encode, size = partial(encode_images, self.model.vae), (self.size, self.size)
        request = prepare_clip(self.model, encode, face, audio, motion, style, frames, clip.fps, size)
        latents = sample_portrait(self.model, request, seed, DEMO_SAMPLING)
        decoded = torch.cat(list(decode_latents(self.model.vae, latents)))
        pixels = ((decoded + 1) * 127.5).round().clamp(0, 255).byte()
        return rearrange(pixels, "n c h w -> n h w c").numpy()

    def read(self, frames: np.ndarray) -> FaceTrack:
        return self.analyzer.analyze(frames)


def audio_of(clip: Clip) -> Audio:
    return Audio(torch.from_numpy(clip.audio)[None], SAMPLE_RATE)


def draw_cases(evaluator: Evaluator, size: EvaluationSize, seed: int) -> list[Case]:
    """One case per emotion and round; people and sentences of the test split, drawn from the seed."""
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(size.rounds):
        for number, emotion in enumerate(EMOTIONS):
            who = speaker(int(rng.integers(2**31)), "test")
            wrong = EMOTIONS[(number + int(rng.integers(1, len(EMOTIONS)))) % len(EMOTIONS)]
            seeds = [int(each) for each in rng.integers(2**31, size=6)]
            fps, pixels = evaluator.model.config.fps, evaluator.size
            clip = make_clip(who, emotion, 3, seeds[0], size.seconds, fps, pixels)
            right_clip = make_clip(who, emotion, 3, seeds[1], STYLE_SECONDS, fps, pixels)
            wrong_clip = make_clip(who, wrong, 3, seeds[2], STYLE_SECONDS, fps, pixels)
            other = make_clip(speaker(seeds[3], "test"), wrong, 3, seeds[4], size.seconds, fps, pixels)
            cases.append(
                Case(
                    clip=clip,
                    portrait=neutral_portrait(who, pixels),
                    style=evaluator.style_of(right_clip, seeds[5]),
                    wrong_style=evaluator.style_of(wrong_clip, seeds[5]),
                    other=other,
                )
            )
    return cases


def evaluate(
    model: PortraitModel, size: EvaluationSize, seed: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, float | int]:
    """All figures of the help text as one dict; `svp evaluate --help` says what each means."""
    evaluator = Evaluator(model)
    cases = draw_cases(evaluator, size, seed)
    rows: list[dict[str, float]] = []
    lags: dict[str, list[np.ndarray]] = {"generated": [], "swapped": [], "analyser": []}
    for index, case in enumerate(cases):
        clip, sound = case.clip, audio_of(case.clip)
        frames = len(clip.images)
        still = max(1, round(size.still_seconds * clip.fps))
        made = evaluator.generate(clip, clip, sound, case.style, frames, seed + index)
        swapped = evaluator.generate(clip, clip, audio_of(case.other), case.style, frames, seed + index)
        opening = mouth_opening(clip.landmarks)
        tracks = {"generated": evaluator.read(made), "swapped": evaluator.read(swapped)}
        tracks["analyser"] = evaluator.read(clip.images)
        for name, track in tracks.items():
            lags[name].append(lagged_correlation(mouth_opening(track.landmarks), opening, LAG_REACH))

        def shows(style: Style | None, case: Case = case, seed: int = seed + index, still: int = still) -> float:
            moving = evaluator.generate(case.portrait, case.clip, audio_of(case.clip), style, still, seed)
            return float(classify_emotion(evaluator.read(moving).expression)[0] == case.clip.emotion)

        rows.append(
            {
                "psnr": psnr(made, clip.images),
                "ssim": mean_ssim(made, clip.images),
                "emotion_acc": shows(case.style),
                "emotion_acc_no_style": shows(None),
                "emotion_acc_wrong_style": shows(case.wrong_style),
                "kps_error": keypoint_error(tracks["generated"].head_keypoints, clip.head_keypoints, evaluator.size),
                "analyser_kps_error": keypoint_error(
                    tracks["analyser"].head_keypoints, clip.head_keypoints, evaluator.size
                ),
                "analyser_emotion_acc": float(classify_emotion(tracks["analyser"].expression)[0] == clip.emotion),
            }
        )
        if progress is not None:
            progress(index + 1, len(cases))
    result: dict[str, float | int] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    curve = np.mean(lags["generated"], axis=0)
    result["mouth_corr"] = float(curve[LAG_REACH])
    result["mouth_lag"] = int(np.argmax(curve)) - LAG_REACH
    result["mouth_corr_swapped"] = float(np.mean(lags["swapped"], axis=0)[LAG_REACH])
    result["analyser_mouth_corr"] = float(np.mean(lags["analyser"], axis=0)[LAG_REACH])
    return {**result, "clips": len(cases), "seed": seed}
