"""Times and products of works on this machine: the arithmetic that all benchmarks share.

Seconds are those of the processor (of the clock on a graphics card) for a frame, the least of several runs. GFLOP are counted by
`torch.utils.flop_counter`: multiplications and additions of convolutions and matrix products, those inside attention included.
On torch's meta device there is nothing to compute: products and bytes alone are counted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ..diffusion.memory import PeakBytes

Work = Callable[[], Tensor]
CPU = torch.device("cpu")
MATRIX = 2048  # rows and columns of the product that the rate of the machine is measured with
ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"  # torch's counter has no entry for this kernel


@dataclass(frozen=True)
class Case:
    """Work for `frames` frames, and the same by plain arithmetic where that is another. bytes: whether to report the memory of
    the tensors that it makes; stored: bytes of those that ours has besides, made before."""

    name: str
    fast: Work
    plain: Work | None = None
    frames: float = 1
    bytes: bool = False
    stored: int = 0


def matmul_rate(device: torch.device = CPU, dtype: torch.dtype = torch.float32) -> float:
    """GFLOP a second of a product of matrices, by the library's product or by its 1 x 1 convolution, whichever is faster."""
    a, b = (torch.rand(MATRIX, MATRIX, device=device, dtype=dtype) for _ in range(2))
    cells, kernel = a.view(1, MATRIX, MATRIX, 1), b.view(MATRIX, MATRIX, 1, 1)
    works: tuple[Work, ...] = (lambda: a @ b, lambda: functional.conv2d(cells, kernel))
    return max(2 * MATRIX**3 / 1e9 / min(interleaved([work], 3, device)[0]) for work in works)


def measure(case: Case, rate: float, repeats: int, device: torch.device = CPU) -> dict[str, Any]:
    """Seconds and GFLOP a frame, the share of the machine's rate, and what plain arithmetic takes. speedup: the median over the
    runs, which take turns."""
    works = [case.fast] if case.plain is None else [case.fast, case.plain]
    counted = [gflop(work) / case.frames for work in works]
    row: dict[str, Any] = {"case": case.name, "gflop": round(counted[0], 4)}
    if len(works) == 2:
        row |= {"plain_gflop": round(counted[1], 4), "fewer_products": round(counted[1] / counted[0], 3)}
    if case.bytes:
        row["tensor_mb"] = round((peak_bytes(works[0]) + case.stored) / 1e6, 1)
        if len(works) == 2:
            row["plain_tensor_mb"] = round(peak_bytes(works[1]) / 1e6, 1)
    if device.type == "meta":
        return row
    times = interleaved(works, repeats, device)
    seconds = [min(values) / case.frames for values in times]
    row |= {"seconds": round(seconds[0], 5), "share_of_matmul": round(counted[0] / seconds[0] / rate, 3)}
    if case.plain is not None:
        ours, theirs = case.fast(), case.plain()
        row |= {
            "plain_seconds": round(seconds[1], 5),
            "speedup": round(statistics.median(plain / fast for fast, plain in zip(*times, strict=True)), 3),
            "relative_error": float((ours - theirs).norm() / theirs.norm()),
        }
    return row


def interleaved(works: list[Work], repeats: int, device: torch.device = CPU) -> list[list[float]]:
    """The seconds of every run of every work; they take turns, after one run that is not counted."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(repeats + 1):
        for work, found in zip(works, times, strict=True):
            begin = seconds_on(device)
            work()
            if turn:
                found.append(seconds_on(device) - begin)
    return times


def seconds_on(device: torch.device) -> float:
    """CPU seconds of this process; on another device the clock, after what was started there."""
    if device.type == "cpu":
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def flop_counter() -> FlopCounterMode:
    """torch's counter, which also knows the attention of its CPU kernels."""
    kernel = getattr(torch.ops.aten, ATTENTION, None)
    return FlopCounterMode(display=False, custom_mapping={} if kernel is None else {kernel: _attention_flops})


def gflop(work: Work) -> float:
    """Multiplications and additions of a work, in 10^9."""
    with flop_counter() as counter:
        work()
    return counter.get_total_flops() / 1e9


def peak_bytes(work: Work) -> int:
    """Memory of the tensors that a work makes, at its most, the result included."""
    with PeakBytes() as peak:
        work()
    return peak.peak


def _attention_flops(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: Any, **__: Any) -> int:
    """query: n heads t d; key, value: n heads k d; two products of t x k x d."""
    n, heads, queries, size = query
    return 2 * n * heads * queries * key[-2] * (size + value[-1])
