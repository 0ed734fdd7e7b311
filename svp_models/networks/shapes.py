"""Building networks whose weights come from a file: neither memory nor time is spent on random ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _Unfilled(TorchFunctionMode):
    """Leaves out the draws of normal numbers. Without memory behind them they are nothing, yet they bring in torch's compiler,
    whose import takes 3 s."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Within, tensors have a shape and a type and nothing else: torch's device `meta`."""
    with torch.device("meta"), _Unfilled():
        yield
