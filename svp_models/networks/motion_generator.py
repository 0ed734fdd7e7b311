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
from .motion_generators.kdtalker import RotaryEmbedding, sinusoids

LEVEL_WAVES = 64  # sines and cosines of a noise level
LEVEL_UNIT = 1000.0  # a level of 1 in the units of their slowest wave
PHRASE_RATES = (0.4, 0.55, 0.8, 1.0, 1.4, 2.2)  # Hz, waves that tell a phrase's frames how long it has been said
PHRASE_TIMES = 2 + 2 * len(PHRASE_RATES)  # numbers of a frame's place in its phrase
HABITS = ("blink_rate", "yaw_spread", "pitch_spread", "roll_spread")  # blinks a second; standard deviations in degrees
HABIT_UNITS = (0.35, 4.0, 2.0, 2.0)
PADDING = 0  # of the words of a phrase, and the number of a frame without one


@dataclass(frozen=True)
class MotionGeneratorConfig(Checked):
    """Sizes of the network and what its numbers are.

    space: of the expression, see types.Motion; eyes: whether lids and gaze are numbers of their own. portrait_size: numbers that
    describe the portrait's resting face. width, heads, feed_forward: of every block; *_layers: blocks of the voice and the
    motion on their own, and of both joined; condition_width: of what modulates the blocks. reach: how many frames away a frame
    attends. vocabulary: words of prompts; words_width: of their embedding. fps: frames a second.
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
    vocabulary: tuple[str, ...] = limited((), least=0, most=10_000)
    fps: float = limited(25.0, 1, 240)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % (2 * self.heads):
            raise PortraitError(f"heads is {self.heads}: half the width {self.width} is no multiple of it")

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
    style that changes."""

    frames: Tensor
    clip: Tensor


def local_attention(q: Tensor, k: Tensor, v: Tensor, reach: int, causal: bool) -> Tensor:
    """Attention of every frame to those at most `reach` frames away, causal: before it. b h n d -> b h n d.

    Frames are taken in blocks of `reach`: the time grows with n, not with its square.
    """
    batch, heads, frames, size = q.shape
    blocks = -(-frames // reach)
    spare = blocks * reach - frames
    around = 2 if causal else 3
    queries = functional.pad(q, (0, 0, 0, spare)).unflatten(2, (blocks, reach))
    behind = (0, 0, reach, spare + (0 if causal else reach))
    keys, values = (
        functional.pad(part, behind).unfold(2, around * reach, reach).transpose(-1, -2) for part in (k, v)
    )  # b h blocks around*reach d
    mask = local_mask(frames, reach, causal, q.device)  # blocks reach around*reach
    queries, keys, values = (
        part.transpose(1, 2).reshape(batch * blocks, heads, -1, size) for part in (queries, keys, values)
    )
    found = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask.repeat(batch, 1, 1)[:, None])
    found = found.view(batch, blocks, heads, reach, size).transpose(1, 2)
    return found.reshape(batch, heads, blocks * reach, size)[:, :, :frames]


def local_mask(frames: int, reach: int, causal: bool, device: torch.device | str = "cpu") -> Tensor:
    """True where a frame may look: blocks x reach x (2 or 3 reach). Frames beyond the clip's end look at themselves."""
    blocks = -(-frames // reach)
    around = 2 if causal else 3
    query = torch.arange(blocks * reach, device=device).view(blocks, reach, 1)
    key = torch.arange(around * reach, device=device) + (torch.arange(blocks, device=device)[:, None, None] - 1) * reach
    near = (key <= query) & (query - key <= reach) if causal else (key - query).abs() <= reach
    return (near & (key >= 0) & (key < frames)) | (query == key)


class _Attention(nn.Module):
    def __init__(self, config: MotionGeneratorConfig) -> None:
        super().__init__()
        self.heads, self.reach = config.heads, config.reach
        self.to_qkv = nn.Linear(config.width, 3 * config.width)
        self.to_out = nn.Linear(config.width, config.width)
        self.rotary = RotaryEmbedding(config.width // config.heads // 2)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """b n w -> b n w"""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.to_qkv(x).chunk(3, dim=-1))
        found = local_attention(self.rotary(q), self.rotary(k), v, self.reach, causal)
        return self.to_out(found.transpose(1, 2).flatten(2))


def _feed_forward(config: MotionGeneratorConfig) -> nn.Sequential:
    inner = config.feed_forward * config.width
    return nn.Sequential(nn.Linear(config.width, inner), nn.GELU(), nn.Linear(inner, config.width))


class VoiceBlock(nn.Module):
    """Attention and feed-forward behind norms, each added: b n w -> b n w."""

    def __init__(self, config: MotionGeneratorConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.attention, self.feed_forward = _Attention(config), _feed_forward(config)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        x = x + self.attention(self.norm1(x), causal)
        return x + self.feed_forward(self.norm2(x))


class MotionBlock(nn.Module):
    """The same, each part scaled, shifted and gated by the condition (Peebles and Xie 2023, adaLN-zero): it begins as identity."""

    def __init__(self, config: MotionGeneratorConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.modulation = nn.Linear(config.condition_width, 6 * config.width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.attention, self.feed_forward = _Attention(config), _feed_forward(config)

    def forward(self, x: Tensor, condition: Tensor, causal: bool) -> Tensor:
        """b n w, b 1 c or b n c -> b n w"""
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(condition).chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1, causal)
        return x + gate2 * self.feed_forward(self.norm(x) * (1 + scale2) + shift2)


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
        self.motion_out = nn.Linear(width, config.channels)
        nn.init.zeros_(self.motion_out.weight)
        nn.init.zeros_(self.motion_out.bias)

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
        style = self._style(conditions, batch)
        clip = (self._portrait(conditions, batch) + self._habits(conditions, batch))[:, None]
        return EncodedConditions(frames, clip + (style if style.dim() == 3 else style[:, None]))

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

    def _habits(self, conditions: MotionConditions, batch: int) -> Tensor:
        habits = conditions.habits
        if habits is None:
            habits = self.no_style.new_full((batch, len(HABITS)), torch.nan)
        known = ~habits.isnan()
        values = habits.nan_to_num() / habits.new_tensor(HABIT_UNITS)
        return self.habits_in(torch.cat([values * known, known.to(values)], dim=-1))

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
        return self.motion_out(self.norm(hidden) * (1 + scale) + shift)


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
