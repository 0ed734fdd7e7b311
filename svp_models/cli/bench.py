"""Command `svp bench`: the time of networks on this machine, split by part."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from ..checkpoints.liveportrait import load_liveportrait
from ..evaluation.bench_liveportrait import SIZES, bench_liveportrait, random_networks
from .folders import OpenNodes

FIGURES = """\
A line for every network and every rearrangement of its arithmetic: CPU seconds and GFLOP a frame, and the share of the rate at
which this machine multiplies matrices (its first line). Where there is a plain way to compute the same, its seconds and GFLOP,
how many times faster ours is, and the relative difference of the results. Memory of the size full: about 4 GB.
"""


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="WHAT")
    bench = subjects.add_parser("liveportrait", help="LivePortrait's networks", description=FIGURES)
    bench.add_argument(
        "--size", choices=list(SIZES), default="full", help="of networks with random weights; default is full"
    )
    bench.add_argument(
        "--weights", type=Path, metavar="PATH", help="a folder or file of LivePortrait instead, seen at the size full"
    )
    bench.add_argument(
        "--frames", type=_count, default=3, metavar="N", help="how often everything is computed; default is 3"
    )
    bench.add_argument("--threads", type=_count, metavar="N", help="of the computation; default is one for each core")
    bench.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")


def run_bench(args: argparse.Namespace, open_nodes: OpenNodes) -> int | None:
    if args.threads:
        torch.set_num_threads(args.threads)
    size = SIZES[args.size]
    networks = load_liveportrait(args.weights) if args.weights else random_networks(size)
    for row in bench_liveportrait(networks, SIZES["full"].side if args.weights else size.side, args.frames):
        print(json.dumps(row) if args.json else _line(row), flush=True)
    return None


def _line(row: dict[str, object]) -> str:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, (int, float)))
    return f"{row['case']}: {figures}"


def _count(text: str) -> int:
    count = int(text) if text.isdigit() else 0
    if not count:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return count
