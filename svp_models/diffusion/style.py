"""Style priors: extracted from a clip (eq. 2-3), sampled (eq. 4), interpolated and checked against a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import PortraitError
from ..io.progress import Progress, shared
from ..io.resampling import frame_centre_positions, interpolate_rows
from ..media.audio import check_audio, frame_count
from ..model import PortraitModel
from ..networks.emotion_bank import EmotionBank
from ..networks.style_extractor import sample_code
from ..types import Audio, Style, StylePrior
from .conditioning import audio_features

INTERPOLATION_SAMPLES = 64  # codes that stand for a style changing over a clip
MAX_STRENGTH = 1.5  # of an emotion; what the bank has learnt ends at 1
SLOPE = 0.25  # of strength: how fast an emotion grew up to 1 tells how it goes on

EASINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda t: t,
    "ease_in_out": lambda t: t * t * (3 - 2 * t),
    "ease_in": lambda t: t * t,
    "ease_out": lambda t: t * (2 - t),
}


@torch.no_grad()
def extract_style(
    model: PortraitModel,
    expression: Tensor | None,
    audio: Audio | None,
    fps: float,
    label: str = "",
    progress: Progress | None = None,
) -> StylePrior:
    """The style prior of a clip: mu and sigma (d_s) of eq. 2-3.

    expression: n x 64 coefficients at `fps` frames per second, or None; audio: the clip's audio, or None. A missing one
    enters as zeros; one of the two is needed. Both are brought to the model's frame rate and cut to the
    shorter of the two. A clip longer than the extractor's max_frames is read in segments of nearly equal length, and
    the prior is the mean and variance of their mixture. progress(done, total) is called for every audio segment that is
    encoded and every segment that is read, and may raise to stop the work.
    """
    config = model.config
    if expression is None and audio is None:
        raise PortraitError("a style needs frames or audio to be read from: connect a video, an audio or both")
    if expression is not None:
        expression = resample_rows(_checked_expression(expression, config.style.expression_size), fps, config.fps)
    if audio is not None:
        check_audio(audio)
        _check_audio_size(config)
    lengths = [] if expression is None else [len(expression)]
    lengths += [] if audio is None else [frame_count(audio.seconds, config.fps)]
    frames = min(lengths)
    encoding, reading = shared(progress, 3, 1)
    alpha = torch.zeros(frames, config.style.audio_size)
    beta = torch.zeros(frames, config.style.expression_size)
    if audio is not None:
        alpha = audio_features(model, audio, frames, config.fps, progress=encoding)  # n A
    if expression is not None:
        beta = expression[:frames]  # n 64
    extractor = model.networks.style_extractor
    training = extractor.training
    extractor.eval()  # dropout would make a prior depend on torch's global generator
    try:
        moments = _segment_moments(extractor, alpha, beta, config.style.max_frames, reading)
    finally:
        extractor.train(training)
    mu, sigma = mixture_moments(moments)
    return StylePrior(mu=mu, sigma=sigma, style_space=model.style_space, label=label)


def _segment_moments(
    extractor: nn.Module, alpha: Tensor, beta: Tensor, limit: int, progress: Progress | None
) -> list[tuple[int, Tensor, Tensor]]:
    """(frames, mu d_s, sigma d_s) of every segment of at most `limit` frames. alpha: n x A; beta: n x 64."""
    like = next(extractor.parameters())
    segments = math.ceil(len(alpha) / limit)
    moments = []
    for a, b in zip(alpha.tensor_split(segments), beta.tensor_split(segments), strict=True):
        mask = torch.ones(1, len(a), dtype=torch.bool, device=like.device)
        mu, sigma = extractor(a[None].to(like), b[None].to(like), mask)  # 1 d_s each
        moments.append((len(a), mu[0].float().cpu(), sigma[0].float().cpu()))
        if progress is not None:
            progress(len(moments), segments)
    return moments


def mixture_moments(moments: list[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a mixture of (count, mean d, standard deviation d), weighted by count."""
    share = torch.tensor([float(count) for count, _, _ in moments])
    share = (share / share.sum())[:, None]  # k 1
    means = torch.stack([mu for _, mu, _ in moments])  # k d
    spreads = torch.stack([sigma for _, _, sigma in moments])  # k d
    mean = (share * means).sum(0)
    return mean, (share * (spreads**2 + (means - mean) ** 2)).sum(0).sqrt()


def resample_rows(rows: Tensor, fps: float, target_fps: float) -> Tensor:
    """Rows at one frame rate -> the same span of time at another, linear between frame centres. n x d -> m x d."""
    if not (math.isfinite(fps) and fps > 0):
        raise PortraitError(f"the style clip's frame rate is {fps}: it must be above 0")
    if fps == target_fps:
        return rows
    count = max(1, math.floor(len(rows) * target_fps / fps + 0.5))
    return interpolate_rows(rows, frame_centre_positions(count, fps / target_fps, len(rows)))


def sample_style(prior: StylePrior, seed: int, temperature: float = 1.0) -> Style:
    """One constant style s = mu + temperature sigma eps (eq. 4); temperature 0 is the mean style."""
    if not (math.isfinite(temperature) and temperature >= 0):
        raise PortraitError(f"temperature is {temperature}: it must be 0 (the mean style) or more; 1 is the paper's")
    generator = torch.Generator().manual_seed(seed)
    code = sample_code(prior.mu.float(), prior.sigma.float(), generator, temperature)
    return Style(codes=code[None], style_space=prior.style_space, label=prior.label)


@torch.no_grad()
def emotion_prior(bank: EmotionBank, style_space: str, shares: Mapping[str, float], strength: float) -> StylePrior:
    """The style prior of an emotion by its name, or of a mixture.

    shares: emotion -> its part, which are brought to the sum 1; means and variances are mixed in these parts. strength: 0 is
    neutral, 1 full; up to 1.5 the mean goes on along the line from neutral, as fast as it has grown just before 1.
    """
    names = bank.config.emotions
    if unknown := [name for name in shares if name not in names]:
        raise PortraitError(f"the model's emotion bank has no emotion {unknown[0]!r}: choose one of {', '.join(names)}")
    if not (math.isfinite(strength) and 0 <= strength <= MAX_STRENGTH):
        raise PortraitError(f"strength is {strength}: 0 (neutral) to {MAX_STRENGTH:g} is allowed")
    if not (sum(shares.values()) > 0 and all(math.isfinite(share) and share >= 0 for share in shares.values())):
        raise PortraitError(f"the shares of the emotions are {list(shares.values())}: 0 or more, one of them above 0")
    emotion = torch.tensor([names.index(name) for name in shares])
    parts = torch.tensor(list(shares.values())) / sum(shares.values())

    def at(value: float) -> tuple[Tensor, Tensor]:
        mu, sigma = bank(emotion, torch.full((len(parts),), value))
        return parts @ mu, (parts @ sigma.square()).sqrt()

    mu, sigma = at(min(strength, 1.0))
    if strength > 1:
        full, before, rest = mu, at(1 - SLOPE)[0], at(0.0)[0]
        way = (full - rest) / (full - rest).norm().clamp(min=torch.finfo(torch.float32).eps)
        grown = ((full - before) @ way).clamp(min=0)
        mu = full + (strength - 1) / SLOPE * grown * way
    shown = [
        name if len(shares) == 1 else f"{name} {float(part):.2g}" for name, part in zip(shares, parts, strict=True)
    ]
    return StylePrior(mu, sigma, style_space, f"{', '.join(shown)} at {strength:g}")


def interpolate_styles(a: Style, b: Style, start: float = 0.0, end: float = 1.0, easing: str = "linear") -> Style:
    """A style that moves from a (weight 0) towards b (weight 1) over the clip.

    The weight of b runs from `start` at the first frame to `end` at the last along the easing; a and b may themselves
    change over the clip. The result holds 64 codes.
    """
    if a.style_space != b.style_space or a.codes.shape[-1] != b.codes.shape[-1]:
        raise PortraitError(
            f"styles of different models cannot be mixed: one is of style space {a.style_space!r} with "
            f"{a.codes.shape[-1]} numbers, the other of {b.style_space!r} with {b.codes.shape[-1]}; extract both "
            "with the same model"
        )
    if easing not in EASINGS:
        raise PortraitError(f"unknown easing {easing!r}: choose one of {', '.join(EASINGS)}")
    if not (math.isfinite(start) and math.isfinite(end)):
        raise PortraitError(f"interpolation weights are {start} and {end}: both must be numbers, usually 0 to 1")
    eased = EASINGS[easing](torch.linspace(0, 1, INTERPOLATION_SAMPLES))
    weight = (start + (end - start) * eased)[:, None]  # 64 1
    codes = (1 - weight) * a.at(INTERPOLATION_SAMPLES) + weight * b.at(INTERPOLATION_SAMPLES)
    return Style(codes=codes, style_space=a.style_space, label=f"{a.label or 'style'} > {b.label or 'style'}")


def _check_audio_size(config: ModelConfig) -> None:
    """Style layers of another model may come with an extractor for other audio features than this model has."""
    if config.style.audio_size != config.audio.feature_size:
        raise PortraitError(
            f"the style extractor takes {config.style.audio_size} audio features a frame, model {config.name!r} has "
            f"{config.audio.feature_size} ({config.audio.features}): read the style from frames alone"
        )


def _checked_expression(expression: Tensor, size: int) -> Tensor:
    if expression.dim() != 2 or expression.shape[1] != size or len(expression) < 1:
        raise PortraitError(
            f"expression coefficients have shape {tuple(expression.shape)}: frames x {size} is needed, with at least "
            "one frame"
        )
    if not torch.isfinite(expression).all():
        raise PortraitError("expression coefficients hold numbers that are not finite: track the clip again")
    return expression.detach().float().cpu()
