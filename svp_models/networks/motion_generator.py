"""The pack's motion generator: a transformer over frames that turns noise into a motion, beside voice, style and words.

Streams of voice and motion first keep to themselves and then join (Li et al. 2025, MoDA, sec. 3.2). Every frame may have a noise
level of its own (Chen et al. 2024, diffusion forcing): frames at level 1 are given, so one network makes whole clips, goes on
from given frames and fills gaps. Attention is local, so a clip may be of any length at a cost that grows with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import MAX_CHANNELS, MAX_ROWS
from ..errors import PortraitError
from ..io.strict_config import Checked, limited, one_of
from .motion_blocks import MotionBlock, VoiceBlock, zeros
from .motion_generators.kdtalker import sinusoids

LEVEL_WAVES = 64  # sines and cosines of a noise level
LEVEL_UNIT = 1000.0  # a level of 1 in the units of their slowest wave
PHRASE_RATES = (0.4, 0.55, 0.8, 1.0, 1.4, 2.2)  # Hz, waves that tell a phrase's frames how long it has been said
PHRASE_TIMES = 2 + 2 * len(PHRASE_RATES)  # numbers of a frame's place in its phrase
HABITS = ("blink_rate", "yaw_spread", "pitch_spread", "roll_spread")  # blinks a second; standard deviations in degrees
HABIT_UNITS = (0.35, 4.0, 2.0, 2.0)
HEAD = 16  # width of a head of PhrasePose
POSE_PARTS = 3  # groups of the pose: rotation, shift, scale
NEGLIGIBLE = 1e-7  # share of the noise of frames further back
PADDING = 0  # of the words of a phrase, and the number of a frame without one


@dataclass(frozen=True)
class MotionGeneratorConfig(Checked):
    """Sizes of the network and what its numbers are.

    space: of the expression, see types.Motion; eyes: whether lids and gaze are numbers of their own. portrait_size: numbers that
    describe the portrait's resting face. width, heads, feed_forward: of every block; *_layers: blocks of the voice and the
    motion on their own, and of both joined; condition_width: of what modulates the blocks. reach: how many frames away a frame
    attends. vocabulary: words of prompts; words_width: of their embedding. pose_layers, pose_width: of the network that makes the
    pose of frames with words, see `PhrasePose`; without layers there is none. pose_memory: of their noise, see `noise_of`. fps: frames a second.
    """

    space: str = one_of("svp", "svp", "liveportrait")
    expression_size: int = limited(64, 1, MAX_CHANNELS)
    eyes: bool = True
    audio_size: int = limited(1920, 1, MAX_ROWS)
    style_size: int = limited(128, 1, MAX_CHANNELS)
    portrait_size: int = limited(64, 1, MAX_CHANNELS)
    width: int = limited(160, 8, MAX_CHANNELS)
    heads: int = limited(5, 1, 256)
    feed_forward: int = limited(3, 1, 64)
    voice_layers: int = limited(2, 0, 64)
    motion_layers: int = limited(1, 0, 64)
    joint_layers: int = limited(4, 1, 64)
    condition_width: int = limited(96, 1, MAX_CHANNELS)
    reach: int = limited(32, 1, MAX_ROWS)
    words_width: int = limited(64, 2, MAX_CHANNELS)
    pose_layers: int = limited(0, 0, 64)
    pose_width: int = limited(64, HEAD, MAX_CHANNELS)
    pose_memory: float = limited(0.9, 0, 0.999)
    vocabulary: tuple[str, ...] = limited((), least=0, most=10_000)
    fps: float = limited(25.0, 1, 240)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % (2 * self.heads):
            raise PortraitError(f"heads is {self.heads}: half the width {self.width} is no multiple of it")
        if self.pose_width % HEAD:
            raise PortraitError(f"pose_width is {self.pose_width}: it has to be a multiple of {HEAD}")

    @property
    def groups(self) -> dict[str, slice]:
        """The parts of a frame's numbers, each of which can be given on its own: name -> columns."""
        sizes = {"expression": self.expression_size}
        sizes |= {"lids": 2, "gaze": 2} if self.eyes else {}
        sizes |= {"rotation": 3, "shift": 2, "scale": 1}
        columns, first = {}, 0
        for name, size in sizes.items():
            columns[name] = slice(first, first + size)
            first += size
        return columns

    @property
    def channels(self) -> int:
        return self.groups["scale"].stop

    @property
    def pose(self) -> slice:
        """The columns of rotation, shift and scale, the last ones."""
        return slice(self.groups["rotation"].start, self.channels)


@dataclass(frozen=True)
class MotionConditions:
    """What a motion is made from, b clips of n frames. None is an unknown condition.

    voice: b n A, audio features; style: b d_s, or b n d_s where it changes; portrait: b p, its resting face; habits: b 4, see HABITS, NaN where unknown.
    words: b k l, numbers of the words of k phrases (PADDING fills up); phrase: b n, which phrase a frame belongs to, from 1
    on, PADDING for none; phrase_times: b n 2, seconds since its phrase began and until it ends. *_given: b, False where a
    condition is unknown in spite of a value.
    """

    frames: int
    voice: Tensor | None = None
    style: Tensor | None = None
    portrait: Tensor | None = None
    habits: Tensor | None = None
    words: Tensor | None = None
    phrase: Tensor | None = None
    phrase_times: Tensor | None = None
    voice_given: Tensor | None = None
    style_given: Tensor | None = None
    portrait_given: Tensor | None = None

    def without(self, name: str) -> MotionConditions:
        """The same without voice, style or words."""
        names = ("words", "phrase", "phrase_times") if name == "words" else (name,)
        changes: dict[str, Any] = dict.fromkeys(names)
        return replace(self, **changes)


@dataclass(frozen=True)
class EncodedConditions:
    """Conditions that stay the same over all steps. frames: b n w, voice and words of every frame; clip: b 1 c, or b n c with a
    style that changes; words: what `PhrasePose.encode` gives, None without words."""

    frames: Tensor
    clip: Tensor
    words: PhraseFrames | None = None


@dataclass(frozen=True)
class PhraseFrames:
    """What words say of frames. hidden: b n w; said: b n k, 1 where a frame belongs to a phrase; habits: b 1 w."""

    hidden: Tensor
    said: Tensor
    habits: Tensor


class PhraseEncoder(nn.Module):
    """Phrases of a prompt -> one vector for each: b k l numbers of words -> b k w."""

    def __init__(self, config: MotionGeneratorConfig) -> None:
        super().__init__()
        width = config.words_width
        self.embedding = nn.Embedding(len(config.vocabulary) + 1, width, padding_idx=PADDING)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Sequential(nn.Linear(width, config.width), nn.GELU(), nn.Linear(config.width, config.width))

    def forward(self, words: Tensor) -> Tensor:
        batch, phrases, length = words.shape
        words = words.flatten(0, 1)
        said = words != PADDING
        hidden = self.embedding(words)
        seen = said | ~said.any(dim=1, keepdim=True)  # a phrase without words attends to its padding, to stay finite
        found, _ = self.attention(hidden, hidden, hidden, key_padding_mask=~seen, need_weights=False)
        hidden = self.norm(hidden + found) * said[..., None]
        pooled = hidden.sum(dim=1) / said.sum(dim=1, keepdim=True).clamp(min=1)
        return self.out(pooled).unflatten(0, (batch, phrases))


class PhrasePose(nn.Module):
    """The pose of frames with words, from the noisy pose around: its words scale every block, and shares of the noisy pose and of
    its mean over a phrase go straight to what is predicted. A head that keeps still has less of all movement, about a mean that
    only the phrase as a whole tells."""

    def __init__(self, config: MotionGeneratorConfig) -> None:
        super().__init__()
        width, self.pose = config.pose_width, config.pose
        sizes = replace(config, width=width, heads=width // HEAD, condition_width=width)
        numbers = config.channels - config.pose.start
        self.phrases = PhraseEncoder(sizes)
        self.phrase_times = nn.Linear(PHRASE_TIMES, width)
        self.phrase_out = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.level_in = _conditioner(LEVEL_WAVES, width)
        self.habits_in = _conditioner(2 * len(HABITS), width)
        self.motion_in = nn.Linear(2 * numbers + POSE_PARTS + 1, width)
        self.blocks = nn.ModuleList(MotionBlock(sizes) for _ in range(config.pose_layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.out, self.gates = zeros(nn.Linear(width, numbers)), zeros(nn.Linear(width, 2 * numbers))

    def encode(self, words: Tensor, phrase: Tensor, times: Tensor, habits: Tensor) -> PhraseFrames:
        """words b k l, phrase b n, times b n 2 as in MotionConditions; habits: b 2 h as `habit_values` gives them."""
        said = (phrase[..., None] == torch.arange(1, words.shape[1] + 1, device=words.device)).to(habits)
        hidden = said @ self.phrases(words) + self.phrase_times(phrase_waves(times))
        hidden = self.phrase_out(hidden) * said.sum(dim=-1, keepdim=True)
        return PhraseFrames(hidden, said, self.habits_in(habits)[:, None])

    def forward(self, noisy: Tensor, level: Tensor, words: PhraseFrames, known: Tensor, causal: bool = False) -> Tensor:
        """As MotionGeneratorNetwork, noisy: b n c, of which the pose counts; -> b n p."""
        pose, spoken = noisy[..., self.pose], words.said.sum(dim=-1, keepdim=True)
        common = phrase_means(pose, words.said, causal)
        condition = self.level_in(sinusoids((level * LEVEL_UNIT).flatten(), LEVEL_WAVES).to(noisy))
        condition = functional.silu(condition.view(*level.shape, -1) + words.habits + words.hidden)
        hidden = self.motion_in(torch.cat([pose, common, known[..., -POSE_PARTS:], spoken], dim=-1)) + words.hidden
        for block in self.blocks:
            hidden = block(hidden, condition, causal)
        scale, shift = self.modulation(condition).chunk(2, dim=-1)
        hidden = self.norm(hidden) * (1 + scale) + shift
        own, shared = self.gates(hidden).chunk(2, dim=-1)
        return self.out(hidden) + own * pose + shared * common


class MotionGeneratorNetwork(nn.Module):
    """Noisy motion, noise levels and conditions -> the direction to the clean motion, see `motion.flow_matching`.

    Motions are b n c on the scale of `standardize`; levels are 0 (noise) to 1 (clean).
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, config: MotionGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        width, condition = config.width, config.condition_width
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("spread", torch.ones(config.channels))
        self.voice_in = nn.Linear(config.audio_size, width)
        self.no_voice = nn.Parameter(torch.zeros(width))
        self.voice_blocks = nn.ModuleList(VoiceBlock(config) for _ in range(config.voice_layers))
        self.voice_out = nn.Linear(width, width)
        self.phrases = PhraseEncoder(config)
        self.phrase_times = nn.Linear(PHRASE_TIMES, width)
        self.phrase_out = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.style_in = _conditioner(config.style_size, condition)
        self.no_style = nn.Parameter(torch.zeros(condition))
        self.portrait_in = _conditioner(config.portrait_size, condition)
        self.no_portrait = nn.Parameter(torch.zeros(condition))
        self.habits_in = _conditioner(2 * len(HABITS), condition)
        self.level_in = _conditioner(LEVEL_WAVES, condition)
        self.motion_in = nn.Linear(config.channels + len(config.groups), width)
        self.motion_blocks = nn.ModuleList(MotionBlock(config) for _ in range(config.motion_layers))
        self.joint_blocks = nn.ModuleList(MotionBlock(config) for _ in range(config.joint_layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(condition, 2 * width)
        self.motion_out = zeros(nn.Linear(width, config.channels))
        self.phrase_pose = PhrasePose(config) if config.pose_layers else None

    def standardize(self, motion: Tensor) -> Tensor:
        """Numbers of `config.groups` -> the scale that the network works on, ... c."""
        return (motion - self.mean) / self.spread

    def restore(self, numbers: Tensor) -> Tensor:
        """Back from it, ... c."""
        return numbers * self.spread + self.mean

    def encode(self, conditions: MotionConditions, causal: bool = False, batch: int = 1) -> EncodedConditions:
        """What the conditions are to every step. batch: of conditions that are all unknown."""
        given = next((v for v in vars(conditions).values() if isinstance(v, Tensor)), None)
        batch = batch if given is None else len(given)
        frames = self._voice(conditions, batch, causal) + self._phrases(conditions, batch)
        habits = habit_values(conditions.habits, batch, self.no_style)
        style = self._style(conditions, batch)
        clip = (self._portrait(conditions, batch) + self.habits_in(habits))[:, None]
        clip = clip + (style if style.dim() == 3 else style[:, None])
        return EncodedConditions(frames, clip, self.encode_words(conditions))

    def encode_words(self, conditions: MotionConditions) -> PhraseFrames | None:
        """What words are to `phrase_pose`; None without either."""
        words, phrase, times = conditions.words, conditions.phrase, conditions.phrase_times
        if self.phrase_pose is None or words is None or phrase is None or times is None:
            return None
        return self.phrase_pose.encode(words, phrase, times, habit_values(conditions.habits, len(words), self.no_style))

    def noise_of(self, white: Tensor, phrase: Tensor | None, temperature: float = 1.0) -> Tensor:
        """The noise that motions are made of, from white noise b n c: in the pose of frames with words (phrase: b n, see
        MotionConditions) an autoregression of the first order with `pose_memory`, of standard deviation `temperature`.

        Heads move slowly. Beside white noise slow movement is hardly ever in doubt, and nothing asks a network to take the slow part
        of the noise away; this noise has about the spectrum of heads.
        """
        memory, pose = self.config.pose_memory, self.config.pose
        if self.phrase_pose is None or phrase is None:
            return white
        rows = torch.cat([white[:, :1, pose], white[:, 1:, pose] * (1 - memory**2) ** 0.5], dim=1)
        step = 1
        while step < rows.shape[1] and memory**step > NEGLIGIBLE:
            rows = torch.cat([rows[:, :step], rows[:, step:] + memory**step * rows[:, :-step]], dim=1)
            step *= 2
        rows = torch.where((phrase != PADDING)[..., None], temperature * rows, white[..., pose])
        return torch.cat([white[..., : pose.start], rows], dim=-1)

    def _voice(self, conditions: MotionConditions, batch: int, causal: bool) -> Tensor:
        unknown = self.no_voice.expand(batch, conditions.frames, -1)
        hidden = unknown if conditions.voice is None else self.voice_in(conditions.voice)
        if conditions.voice is not None and conditions.voice_given is not None:
            hidden = torch.where(conditions.voice_given[:, None, None], hidden, unknown)
        for block in self.voice_blocks:
            hidden = block(hidden, causal)
        return self.voice_out(hidden)

    def _phrases(self, conditions: MotionConditions, batch: int) -> Tensor:
        if conditions.words is None or conditions.phrase is None or conditions.phrase_times is None:
            return self.no_voice.new_zeros(batch, conditions.frames, self.config.width)
        phrases = self.phrases(conditions.words)  # b k w
        index = (conditions.phrase - 1).clamp(min=0)[..., None].expand(-1, -1, phrases.shape[-1])
        hidden = phrases.gather(1, index) + self.phrase_times(phrase_waves(conditions.phrase_times))
        return self.phrase_out(hidden) * (conditions.phrase != PADDING)[..., None]

    def _style(self, conditions: MotionConditions, batch: int) -> Tensor:
        return _known(self.style_in, conditions.style, conditions.style_given, self.no_style, batch)

    def _portrait(self, conditions: MotionConditions, batch: int) -> Tensor:
        return _known(self.portrait_in, conditions.portrait, conditions.portrait_given, self.no_portrait, batch)

    def forward(
        self, noisy: Tensor, level: Tensor, encoded: EncodedConditions, known: Tensor, causal: bool = False
    ) -> Tensor:
        """noisy: b n c; level: b n, or b 1 for all frames; known: b n g, 1 where a group of `config.groups` is given and clean
        -> b n c."""
        condition = self.level_in(sinusoids((level * LEVEL_UNIT).flatten(), LEVEL_WAVES).to(noisy))
        condition = functional.silu(condition.view(*level.shape, -1) + encoded.clip)
        hidden = self.motion_in(torch.cat([noisy, known], dim=-1))
        for block in self.motion_blocks:
            hidden = block(hidden, condition, causal)
        hidden = hidden + encoded.frames
        for block in self.joint_blocks:
            hidden = block(hidden, condition, causal)
        scale, shift = self.modulation(condition).chunk(2, dim=-1)
        made = self.motion_out(self.norm(hidden) * (1 + scale) + shift)
        if self.phrase_pose is None or encoded.words is None:
            return made
        pose, spoken = self.config.pose, encoded.words.said.sum(dim=-1, keepdim=True) > 0
        worded = self.phrase_pose(noisy, level, encoded.words, known, causal)
        return torch.cat([made[..., : pose.start], torch.where(spoken, worded, made[..., pose])], dim=-1)


def habit_values(habits: Tensor | None, batch: int, like: Tensor) -> Tensor:
    """Habits b 4 in their units with flags of those that are known: b 8, all zeros without any."""
    if habits is None:
        habits = like.new_full((batch, len(HABITS)), torch.nan)
    known = ~habits.isnan()
    values = habits.nan_to_num() / habits.new_tensor(HABIT_UNITS)
    return torch.cat([values * known, known.to(values)], dim=-1)


def phrase_means(pose: Tensor, said: Tensor, causal: bool) -> Tensor:
    """The mean of b n p over the frames of every frame's phrase, causal: over those up to itself; 0 where there is none. said: b n
    k, 1 where a frame belongs to a phrase."""
    parts = said[..., None] * pose[:, :, None]  # b n k p
    if causal:
        sums, counts = parts.cumsum(dim=1), said.cumsum(dim=1)
    else:
        sums, counts = parts.sum(dim=1, keepdim=True), said.sum(dim=1, keepdim=True)
    return (said[..., None] * sums / counts.clamp(min=1)[..., None]).sum(dim=2)


def phrase_waves(times: Tensor) -> Tensor:
    """Seconds since a phrase began and until it ends, b n 2 -> b n PHRASE_TIMES."""
    angles = 2 * torch.pi * times[..., :1] * times.new_tensor(PHRASE_RATES)
    return torch.cat([times.clamp(max=4) / 2, angles.sin(), angles.cos()], dim=-1)


def _conditioner(size: int, condition: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, condition), nn.SiLU(), nn.Linear(condition, condition))


def _known(network: Any, value: Tensor | None, given: Tensor | None, unknown: Tensor, batch: int) -> Tensor:
    """A condition's vector b c (b n c where it changes), or the learnt one for an unknown condition."""
    if value is None:
        return unknown.expand(batch, -1)
    found = network(value)
    return found if given is None else torch.where(given[:, None], found, unknown)
