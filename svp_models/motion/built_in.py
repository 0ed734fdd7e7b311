"""Motions from the pack's own generator: whole clips, continuations, filled gaps, and motions without end in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import PortraitError
from ..io.progress import Progress
from ..networks.motion_generator import EncodedConditions, MotionConditions, MotionGeneratorNetwork
from ..networks.style_predictor import StylePredictor
from ..types import LIVEPORTRAIT, Motion
from .flow_matching import angle_steps, clean_of, prediction_of, sample_flow
from .words import TimedPhrase, word_tensors

STEPS = 10
STYLE_SHIFT = 8.0  # a style has far more numbers than it says: what it will be is decided near the noise
STYLE_DRAWS = 16  # of which a predicted style is the most central one
NARROWING = 0.5  # power of the words' guidance by which the noise of a pose with words shrinks
SMOOTHING_REACH = 2  # frames
POSE_GROUPS = ("rotation", "shift", "scale")
GUIDED = ("voice", "style", "words")
WORDS_GUIDANCE = 2.5  # of prompts, unless somebody asks for another
STYLE_GUIDANCE = 2.0  # of styles; with 1 an expression has about two thirds of the strength that its style clip shows


@dataclass(frozen=True)
class MotionGuidance:
    """Classifier-free guidance by condition (Ho and Salimans 2022): 1 is the plain prediction, above 1 exaggerates it.

    Words of a generator that has layers for them are not exaggerated above 1 but drawn more narrowly, see `words_temperature`:
    heads make what is asked for more typically, with less movement of their own, and no larger.
    """

    voice: float = 1.0
    style: float = 1.0
    words: float = 1.0

    @property
    def words_temperature(self) -> float:
        """Standard deviation of the noise of poses with words (cf. Kingma and Dhariwal 2018, Glow, sec. 6)."""
        return max(1.0, self.words) ** -NARROWING


@dataclass(frozen=True)
class GivenMotion:
    """What is known of the motion before it is made. numbers: b n c, as `MotionGeneratorNetwork.restore` gives them; known: b n
    g, True where a group of the config is given; low, high: c, bounds of what is made, infinite where there are none."""

    numbers: Tensor
    known: Tensor
    low: Tensor | None = None
    high: Tensor | None = None


@dataclass
class _Flow:
    """The prediction of a motion under its conditions, with what is given put in place."""

    network: MotionGeneratorNetwork
    variants: list[tuple[float, EncodedConditions]]
    clean: Tensor  # b n c, given numbers on the network's scale
    fixed: Tensor  # b n c, where they are given
    known: Tensor  # b n g
    bounds: tuple[Tensor, Tensor] | None
    causal: bool
    whole: Tensor = field(init=False)  # b n, frames of which everything is given

    def __post_init__(self) -> None:
        self.whole = self.known.bool().all(dim=-1)

    def level(self, level: float) -> Tensor:
        if not bool(self.whole.any()):
            return self.clean.new_full((len(self.clean), 1), level)
        return torch.where(self.whole, 1.0, level).to(self.clean)

    def __call__(self, x: Tensor, level: float) -> Tensor:
        x = torch.where(self.fixed, self.clean, x)
        levels = self.level(level)
        predictions = torch.stack(
            [weight * self.network(x, levels, encoded, self.known, self.causal) for weight, encoded in self.variants]
        ).sum(dim=0)
        if self.bounds is not None:
            at = x.new_tensor(level)
            predictions = prediction_of(x, clean_of(x, predictions, at).clamp(*self.bounds), at)
        return torch.where(self.fixed, 0.0, predictions)


@torch.no_grad()
def generate_motion(
    network: MotionGeneratorNetwork,
    conditions: MotionConditions,
    noise: Tensor,
    given: GivenMotion | None = None,
    steps: int = STEPS,
    guidance: MotionGuidance | None = None,
    causal: bool = False,
    shift: float = 1.0,
    progress: Progress | None = None,
) -> Tensor:
    """Numbers of a motion, all frames at once: b n c from white noise b n c. What is given comes out exactly.

    causal: no frame depends on later ones (of the voice, it hears the 120 ms that its features reach ahead).
    """
    config, guidance = network.config, guidance or MotionGuidance()
    like = next(network.parameters())
    known = torch.zeros(*noise.shape[:2], len(config.groups)) if given is None else given.known.float()
    clean = torch.zeros_like(noise) if given is None else network.standardize(given.numbers.to(like))
    flow = _Flow(
        network=network,
        variants=_variants(network, conditions, guidance, causal, len(noise)),
        clean=clean.to(like),
        fixed=columns_of(known, network).bool(),
        known=known.to(like),
        bounds=_bounds(network, given),
        causal=causal,
    )
    noise = network.noise_of(noise.to(like), conditions.phrase, guidance.words_temperature)
    made = sample_flow(flow, noise, angle_steps(steps, shift), progress)
    if flow.bounds is not None:
        made = made.clamp(*flow.bounds)
    numbers = network.restore(made)
    return numbers if given is None else torch.where(flow.fixed, given.numbers.to(numbers), numbers)


def columns_of(known: Tensor, network: MotionGeneratorNetwork) -> Tensor:
    """Flags of groups b n g -> of numbers b n c."""
    sizes = torch.tensor([columns.stop - columns.start for columns in network.config.groups.values()])
    return known.repeat_interleave(sizes, dim=-1).to(next(network.parameters()).device)


def _variants(
    network: MotionGeneratorNetwork, conditions: MotionConditions, guidance: MotionGuidance, causal: bool, batch: int
) -> list[tuple[float, EncodedConditions]]:
    """Weights and conditions whose weighted predictions make the guided one; those of weight 0 are left out."""
    weights = {name: getattr(guidance, name) - 1 for name in GUIDED}
    if network.phrase_pose is not None:
        weights["words"] = min(0.0, weights["words"])
    found = [(1 + sum(weights.values()), network.encode(conditions, causal, batch))]
    for name, weight in weights.items():
        if weight:
            found.append((-weight, network.encode(conditions.without(name), causal, batch)))
    return found


def _bounds(network: MotionGeneratorNetwork, given: GivenMotion | None) -> tuple[Tensor, Tensor] | None:
    if given is None or given.low is None or given.high is None:
        return None
    like = next(network.parameters())
    return network.standardize(given.low.to(like)), network.standardize(given.high.to(like))


def conditions_for(
    network: MotionGeneratorNetwork,
    features: Tensor | None,
    frames: int,
    style: Tensor | None = None,
    portrait: Tensor | None = None,
    habits: Tensor | None = None,
    phrases: Sequence[TimedPhrase] = (),
    first: int = 0,
) -> MotionConditions:
    """Conditions of one clip of n = `frames` frames, the first of which is frame `first` of the whole: features n A of its
    voice, style d_s or n d_s, portrait p, habits 4 (NaN where unknown), phrases of a prompt."""
    like = next(network.parameters())
    words = word_tensors(phrases, network.config.vocabulary, first, frames, network.config.fps) if phrases else None
    device = like.device
    return MotionConditions(
        frames=frames,
        voice=None if features is None else features[None].to(like),
        style=None if style is None else style[None].to(like),
        portrait=None if portrait is None else portrait[None].to(like),
        habits=None if habits is None else habits[None].to(like),
        words=None if words is None else words[0][None].to(device),
        phrase=None if words is None else words[1][None].to(device),
        phrase_times=None if words is None else words[2][None].to(like),
    )


@dataclass(frozen=True)
class StreamOptions:
    """A motion made in pieces. chunk: frames of one; history: frames before it that it goes on from; steps: of the sampler;
    causal: no frame sees later ones of its own chunk either."""

    chunk: int = 25
    history: int = 64
    steps: int = STEPS
    causal: bool = False


@torch.no_grad()
def stream_motion(
    network: MotionGeneratorNetwork,
    conditions_of: Callable[[int, int], MotionConditions],
    frames: int | None,
    generator: torch.Generator,
    options: StreamOptions | None = None,
    guidance: MotionGuidance | None = None,
    before: Tensor | None = None,
    given_of: Callable[[int, int], GivenMotion] | None = None,
) -> Iterator[Tensor]:
    """Numbers of a motion, chunk after chunk, 1 m c each: the time and the memory of one do not depend on how many there were.

    conditions_of(first, count): conditions of the frames from `first` on, counted from the first one that is made; first is
    negative where `before` reaches back. given_of likewise, what is given. frames: in all, None for no end. before: 1 m c, the
    end of a motion that this one goes on from.
    """
    options = options or StreamOptions()
    config = network.config
    if options.chunk < 1 or options.history < 0:
        raise PortraitError(
            f"a stream has chunks of {options.chunk} frames and {options.history} of history: 1 and 0 are the least"
        )
    history = torch.zeros(1, 0, config.channels) if before is None else before
    done = 0
    while frames is None or done < frames:
        count = options.chunk if frames is None else min(options.chunk, frames - done)
        history = history[:, max(0, history.shape[1] - options.history) :]
        past = history.shape[1]
        conditions = conditions_of(done - past, past + count)
        noise = torch.randn(1, past + count, config.channels, generator=generator)
        numbers = torch.cat([history, torch.zeros(1, count, config.channels)], dim=1)
        known = torch.zeros(1, past + count, len(config.groups))
        known[:, :past] = 1
        low = high = None
        if given_of is not None:
            asked = given_of(done, count)
            numbers[:, past:], known[:, past:] = asked.numbers, asked.known
            low, high = asked.low, asked.high
        given = GivenMotion(numbers, known, low, high)
        made = generate_motion(network, conditions, noise, given, options.steps, guidance, options.causal)[:, past:]
        made = made.cpu()
        yield made
        history = torch.cat([history, made], dim=1)
        done += count


@torch.no_grad()
def predict_style(
    network: StylePredictor,
    prosody: Tensor,
    portrait: Tensor | None,
    generator: torch.Generator,
    steps: int = STEPS,
    progress: Progress | None = None,
    draws: int = STYLE_DRAWS,
) -> Tensor:
    """Style codes b d_s from the prosody of voices b k and resting faces b p (None: unknown); the generator draws them.

    Of `draws` draws the one that is nearest to the others is taken: single ones may lie far from all that the voice suggests.
    """
    like = next(network.parameters())
    condition = network.encode(prosody.to(like), None if portrait is None else portrait.to(like))
    condition = condition.repeat_interleave(draws, dim=0)

    def predict(x: Tensor, level: float) -> Tensor:
        return network(x, x.new_full((len(x),), level), condition)

    noise = torch.randn(len(condition), network.config.style_size, generator=generator).to(like)
    found = network.restore(sample_flow(predict, noise, angle_steps(steps, STYLE_SHIFT), progress))
    found = found.view(len(prosody), draws, -1)
    central = torch.cdist(found, found).mean(dim=-1).argmin(dim=-1)
    return found[torch.arange(len(found)), central]


def smooth_pose_numbers(numbers: Tensor, network: MotionGeneratorNetwork, known: Tensor | None = None) -> Tensor:
    """Motions b n c whose pose is without the jitter of few sampling steps: a weighted mean over five frames, edges repeated.

    known: b n g, groups that were given and stay as they are.
    """
    weights = torch.hann_window(2 * SMOOTHING_REACH + 3, periodic=False, dtype=numbers.dtype)[1:-1]
    groups = network.config.groups
    smooth = numbers.clone()
    for name in POSE_GROUPS:
        if known is None or not bool(known[..., list(groups).index(name)].any()):
            rows = numbers[..., groups[name]].transpose(1, 2)  # b k n
            padded = functional.pad(rows, (SMOOTHING_REACH, SMOOTHING_REACH), mode="replicate")
            found = functional.conv1d(padded.flatten(0, 1)[:, None], (weights / weights.sum())[None, None])
            smooth[..., groups[name]] = found.view(rows.shape).transpose(1, 2)
    return smooth


def motion_of_numbers(numbers: Tensor, network: MotionGeneratorNetwork, face: Tensor | None = None) -> Motion:
    """Numbers n c -> the motion that they mean."""
    groups = {name: numbers[:, columns].float().cpu() for name, columns in network.config.groups.items()}
    eyes = network.config.eyes
    return Motion(
        angles=groups["rotation"],
        shift=groups["shift"],
        scale=groups["scale"][:, 0],
        expression=groups["expression"],
        fps=network.config.fps,
        space=network.config.space,
        lids=groups["lids"].clamp(0, 1) if eyes else None,
        gaze=groups["gaze"].clamp(-1, 1) if eyes else None,
        face=face if network.config.space == LIVEPORTRAIT else None,
    )


def numbers_of_motion(motion: Motion, network: MotionGeneratorNetwork) -> Tensor:
    """A motion of the network's space and frame rate -> its numbers, n c; PortraitError where they do not fit."""
    config = network.config
    if (motion.space, motion.expression.shape[1]) != (config.space, config.expression_size):
        raise PortraitError(
            f"the motion has {motion.expression.shape[1]} numbers of {motion.space!r} expression, the generator makes "
            f"{config.expression_size} of {config.space!r}: convert the motion first"
        )
    if motion.fps != config.fps:
        raise PortraitError(
            f"the motion has {motion.fps:g} frames a second, the generator {config.fps:g}: resample it first"
        )
    eyes: Sequence[Tensor] = ()
    if config.eyes:
        still = torch.zeros(len(motion), 2)
        eyes = [still if part is None else part for part in (motion.lids, motion.gaze)]
    return torch.cat([motion.expression, *eyes, motion.angles, motion.shift, motion.scale[:, None]], dim=1)
