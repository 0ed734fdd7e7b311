"""The layers of Stable Diffusion's UNet in plain torch, with the parameter names and the numbers of diffusers' layers.

`import diffusers` loads torch's compiler and a computer algebra system, which takes 3 s, and 10 s on a fresh installation:
with these layers the first clip does not wait for it. diffusers builds the full-size autoencoder alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..errors import PortraitError

MAX_PERIOD = 10000  # of the slowest wave of a timestep
# The outputs of a cell of an enlarged map along an axis: the first one, the last one and all between. Each meets one or two cells:
# the first of them, counted from the cell before, and for each which of three taps meet it.
FIRST, LAST, BETWEEN = (0, ((1, 0, 0), (0, 1, 1))), (1, ((1, 1, 0), (0, 0, 1))), (1, ((1, 1, 1),))
# A doubled map is convolved from the small one if all maps together have so many cells, or it takes longer to prepare the weights.
FEWEST_CELLS = 512


def silu(fresh: Tensor) -> Tensor:
    """SiLU, in place of a tensor that nothing else uses where no gradient is wanted."""
    return functional.silu(fresh, inplace=not torch.is_grad_enabled())


def add(fresh: Tensor, other: Tensor) -> Tensor:
    """The sum, in place of the first tensor, which nothing else uses, where no gradient is wanted."""
    return fresh + other if torch.is_grad_enabled() else fresh.add_(other)


class ResnetBlock(nn.Module):
    """Two convolutions behind norms and a residual: n c h w -> n channels h w. time: size of the time embedding, or none."""

    def __init__(self, channels_in: int, channels: int, time: int | None, groups: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels_in, eps)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.time_emb_proj = None if time is None else nn.Linear(time, channels)
        self.norm2 = nn.GroupNorm(groups, channels, eps)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_shortcut = None if channels_in == channels else nn.Conv2d(channels_in, channels, 1)

    def forward(self, images: Tensor, time: Tensor | None = None) -> Tensor:
        """images: n c h w; time: n size."""
        hidden = self.conv1(silu(self.norm1(images)))
        if self.time_emb_proj is not None:
            if time is None:
                raise PortraitError("a block with a time embedding got no time: pass one embedding per image")
            hidden = add(hidden, self.time_emb_proj(functional.silu(time))[:, :, None, None])
        hidden = self.conv2(silu(self.norm2(hidden)))
        return add(hidden, images if self.conv_shortcut is None else self.conv_shortcut(images))


class Downsample(nn.Module):
    """Half the size by a convolution."""

    def __init__(self, channels: int, channels_out: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels_out or channels, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """n c h w -> n channels_out h/2 w/2, odd sizes rounded up"""
        return self.conv(images)


class Upsample(nn.Module):
    """Twice the size, or a given one, and a convolution. fewest_cells: of all maps together, from which a doubled map is not made
    where no gradient is wanted, see `convolve_enlarged`."""

    fewest_cells: float = FEWEST_CELLS

    def __init__(self, channels: int, channels_out: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels_out or channels, 3, padding=1)

    def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """n c h w -> n channels_out and the size"""
        height, width = images.shape[-2:]
        doubled, large = (2 * height, 2 * width), len(images) * height * width >= self.fewest_cells
        if size in (None, doubled) and large and not torch.is_grad_enabled():
            return convolve_enlarged(images, self.conv, 2)
        return self.conv(functional.interpolate(images, size=size or doubled, mode="nearest"))


class GELU(nn.Module):
    """A linear layer and GELU."""

    def __init__(self, channels: int, width: int, bias: bool = True) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, width, bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.gelu(self.proj(hidden))


class GEGLU(nn.Module):
    """A linear layer; one half of its outputs times GELU of the other half."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * width)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden, gate = self.proj(hidden).chunk(2, dim=-1)
        gate = functional.gelu(gate)
        return hidden * gate if torch.is_grad_enabled() else gate.mul_(hidden)


class FeedForward(nn.Module):
    """Two linear layers with a nonlinearity between them; the identity in `net` is diffusers' dropout of 0."""

    def __init__(self, activation: nn.Module, width: int, channels: int, bias: bool = True) -> None:
        super().__init__()
        self.net = nn.ModuleList([activation, nn.Identity(), nn.Linear(width, channels, bias)])

    def forward(self, hidden: Tensor) -> Tensor:
        return self.net[2](self.net[0](hidden))


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of a context, n k width both. folded: the layers around the attention are in them, keys are n c heads*k and
    values n heads*k c; serves: successive rows of queries that one row of these is for."""

    keys: Tensor
    values: Tensor
    folded: bool = False
    serves: int = 1

    @property
    def rows(self) -> int:
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def map(self, change: Callable[[Tensor], Tensor]) -> KeysValues:
        """The same with both tensors changed."""
        return replace(self, keys=change(self.keys), values=change(self.values))


class Attention(nn.Module):
    """Multi-head attention as in Stable Diffusion: only the output layer has a bias.

    context: channels of the keys and values, None for self-attention; width: inner channels of all heads together; folds: whether
    few keys go into the layers around the attention where no gradient is wanted, see `_fold`.
    """

    folds: bool = True

    def __init__(self, channels: int, heads: int, context: int | None, width: int, out_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, width, bias=False)
        self.to_k = nn.Linear(context or channels, width, bias=False)
        self.to_v = nn.Linear(context or channels, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, channels, bias=out_bias), nn.Identity()])  # as in FeedForward

    def forward(self, hidden: Tensor, context: Tensor | None = None) -> Tensor:
        """hidden: n t c; context: n k c', None for hidden itself -> n t c"""
        return self.attend(hidden, self.keys_values(hidden if context is None else context, hidden.shape[1]))

    def keys_values(self, context: Tensor, queries: int, serves: int = 1) -> KeysValues:
        """Keys and values of a context n k c', which serve any queries. queries: about as many of them as a row is for: where
        they make it worthwhile, and no gradient is wanted, the layers around the attention are put into the keys and values."""
        keys, values = self.to_k(context), self.to_v(context)
        tokens, width = keys.shape[1:]
        few = self.heads * tokens + tokens * width / queries < width
        if few and self.folds and not torch.is_grad_enabled():
            return KeysValues(*self._fold(keys, values), True, serves)
        return KeysValues(keys, values, False, serves)

    def attend(self, hidden: Tensor, given: KeysValues) -> Tensor:
        """hidden: n t c, as many rows as of the keys -> n t c"""
        if given.folded:
            return self._attend_to_folded(hidden, given.keys, given.values)
        query, key, value = (
            vectors.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # n heads t d
            for vectors in (self.to_q(hidden), given.keys, given.values)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.output(mixed.transpose(1, 2).flatten(2))

    @property
    def output(self) -> nn.Linear:
        """The layer after the heads."""
        return cast(nn.Linear, self.to_out[0])

    def _fold(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The same with fewer products where all heads together have fewer keys than channels: keys take up the query layer and
        values the output layer, both once a context instead of once a query. n k width -> n c heads*k, n heads*k c"""
        into, out = self.to_q.weight.to(keys), self.output.weight.to(keys)  # a host may store them elsewhere
        key, value = (vectors.unflatten(-1, (self.heads, -1)) for vectors in (keys, values))  # n k heads d
        key = torch.einsum("hdc,nkhd->nchk", into.unflatten(0, (self.heads, -1)), key * key.shape[-1] ** -0.5)
        value = torch.einsum("ohd,nkhd->nhko", out.unflatten(1, (self.heads, -1)), value)
        return key.flatten(2), value.flatten(1, 2)

    def _attend_to_folded(self, hidden: Tensor, key: Tensor, value: Tensor) -> Tensor:
        bias = None if self.output.bias is None else self.output.bias.to(hidden)
        scores = hidden @ key  # n t heads*k
        weights = scores.unflatten(-1, (self.heads, -1)).softmax(-1).flatten(2)
        return weights @ value if bias is None else torch.baddbmm(bias, weights, value)

    def to_nothing(self, hidden: Tensor) -> Tensor:
        """What attention to zero tokens gives for any query, zero through the output layer: n t c -> c"""
        return self.output(hidden.new_zeros(1, self.output.in_features))[0]


class Timesteps(nn.Module):
    """Sinusoidal embedding of timesteps: b -> b c, cosines and then sines of falling frequency."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, timesteps: Tensor) -> Tensor:
        half = self.channels // 2
        exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) * -math.log(MAX_PERIOD) / half
        angles = timesteps[:, None].float() * exponents.exp()
        return functional.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, self.channels % 2))


class TimestepEmbedding(nn.Module):
    """Two linear layers: sinusoidal embedding b c -> b size."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, size)
        self.linear_2 = nn.Linear(size, size)

    def forward(self, embedding: Tensor) -> Tensor:
        return self.linear_2(functional.silu(self.linear_1(embedding)))


def convolve_enlarged(x: Tensor, conv: nn.Conv2d, factor: int) -> Tensor:
    """conv(x enlarged by factor), a 3 x 3 convolution with a border of 1 zero: n c h w -> n o fh fw, factor 2 or more.

    The same sums as of the enlarged map, of fewer products. That map repeats every cell `factor` times along height and width,
    so of the three taps of a kernel along an axis at least two meet the same cell, and their weights can be added first. Of the
    `factor` outputs of a cell along an axis the first also meets the cell before, the last the cell behind, and all between
    are equal.
    """
    weight, bias = conv.weight.to(x), None if conv.bias is None else conv.bias.to(x)  # a host may store them elsewhere
    n, _, h, w = x.shape
    bordered = functional.pad(x, (1, 1, 1, 1))
    out = x.new_empty(n, weight.shape[0], h, factor, w, factor)
    taps = weight.reshape(-1, 9)  # (o c) 9
    outputs = [(slice(0, 1), *FIRST), (slice(factor - 1, factor), *LAST), (slice(1, factor - 1), *BETWEEN)]
    for rows, top, down in outputs[:factor]:
        cells = bordered[:, :, top : top + h + len(down) - 1]
        for columns, left, across in outputs[:factor]:
            sums = torch.kron(torch.tensor(down), torch.tensor(across)).to(x)  # cells x taps
            kernels = (taps @ sums.T).view(*weight.shape[:2], len(down), len(across))
            part = functional.conv2d(cells[..., left : left + w + len(across) - 1], kernels, bias)
            out[:, :, :, rows, :, columns] = part[:, :, :, None, :, None]
    return out.flatten(4, 5).flatten(2, 3)


def feed_forward(channels: int) -> FeedForward:
    """Two linear layers with a gated GELU between them."""
    return FeedForward(GEGLU(channels, 4 * channels), 4 * channels, channels)


def attention(channels: int, heads: int, context: int | None = None, width: int = 0) -> Attention:
    """Attention with heads of equal size. width: inner channels, at most `channels`; 0 means `channels`."""
    return Attention(channels, heads, context, min(width or channels, channels) // heads * heads)


class _SkipNormalInit(TorchFunctionMode):
    """Skips normal initialisation: on the meta device it does nothing, but it imports torch's compiler, which takes 3 s."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Within it, new tensors have a shape and a dtype but no memory (torch's meta device), for weights that come from a file."""
    with torch.device("meta"), _SkipNormalInit():
        yield
