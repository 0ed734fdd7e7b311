"""Command `svp bench`: the time of networks on this machine, split by part."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.liveportrait import load_liveportrait
from ..checkpoints.model_file import BUILTIN_MODEL, load_model
from ..diffusion.acceleration import Acceleration, settings_from_text
from ..errors import PortraitError
from ..evaluation.bench_liveportrait import SIZES, bench_liveportrait, random_networks
from ..evaluation.bench_portrait import BenchOptions, bench_portrait
from ..evaluation.pareto import SETTINGS, ParetoOptions, front, pareto
from ..evaluation.pictures import png_bytes
from ..evaluation.plots import speed_against_quality
from ..io.files import whole_file
from ..presets import PRESETS
from .folders import OpenNodes

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LIVEPORTRAIT = """\
A line for every network and every rearrangement of its arithmetic: CPU seconds and GFLOP a frame, and the share of the rate at
which this machine multiplies matrices (its first line). Where there is a plain way to compute the same, its seconds and GFLOP,
how many times faster ours is, and the relative difference of the results. Memory of the size full: about 4 GB.
"""
PORTRAIT = """\
A line for every part of the way from inputs to frames: seconds and GFLOP a frame (of the denoiser: a frame and a step), and the
share of the rate at which this machine multiplies matrices (its first line). Beside it the same as V-Express computes it: its
seconds and GFLOP, how many times faster ours is, and the relative difference of the results. Weights are random. With
`--device meta` nothing is computed: products and memory are counted, for any size.
"""


PARETO = """\
A line for every way to accelerate the denoising, on people of the test split: how many times fewer products it takes (speedup;
large_speedup: at the width of Stable Diffusion and 512 x 512), and how far its frames are from the exact ones: PSNR (mean and
least), SSIM, correlation of the mouth's opening, flicker where the exact frames stand still, jitter; stylesim is the cosine to the
wanted style.
"""


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="WHAT")
    bench = subjects.add_parser("liveportrait", help="LivePortrait's networks", description=LIVEPORTRAIT)
    bench.add_argument(
        "--size", choices=list(SIZES), default="full", help="of networks with random weights; default is full"
    )
    bench.add_argument(
        "--weights", type=Path, metavar="PATH", help="a folder or file of LivePortrait instead, seen at the size full"
    )
    bench.add_argument(
        "--frames", type=_count, default=3, metavar="N", help="how often everything is computed; default is 3"
    )
    _add_common(bench)
    for name, config in PRESETS.items():
        bench = subjects.add_parser(name, help=f"a portrait model of the preset {name}", description=PORTRAIT)
        bench.add_argument("--size", type=_count, default=config.size, metavar="PIXELS", help="a side (%(default)s)")
        bench.add_argument(
            "--frames", type=_count, default=config.window, metavar="N", help="of the clip (%(default)s)"
        )
        bench.add_argument("--steps", type=_count, default=config.steps, metavar="N", help="of the clip (%(default)s)")
        bench.add_argument("--cfg", type=float, default=config.cfg, metavar="X", help="guidance (%(default)s)")
        bench.add_argument("--style", action="store_true", help="with a speaking style, which V-Express has none of")
        bench.add_argument("--each", action="store_true", help="also every saving of the denoiser alone")
        bench.add_argument("--repeats", type=_count, default=5, metavar="N", help="runs of everything (%(default)s)")
        bench.add_argument("--device", default="cpu", help="cpu, cuda, or meta to count alone (%(default)s)")
        bench.add_argument(
            "--dtype", choices=list(PRECISIONS), default="float32", help="precision of the networks (%(default)s)"
        )
        _add_common(bench)
    _add_pareto(subjects.add_parser("pareto", help="what accelerations give and cost", description=PARETO))


def _add_pareto(bench: argparse.ArgumentParser) -> None:
    usual = ParetoOptions()
    bench.add_argument("--out", type=Path, metavar="FILE.png", help="also a plot of speed against quality")
    bench.add_argument("--model", type=Path, default=BUILTIN_MODEL, metavar="FILE", help="default is the built-in one")
    bench.add_argument(
        "--people", type=_count, default=usual.people, metavar="N", help="of the test split (%(default)s)"
    )
    bench.add_argument("--frames", type=_count, default=usual.frames, metavar="N", help="of a clip (%(default)s)")
    bench.add_argument("--steps", type=_count, default=usual.steps, metavar="N", help="of the sampler (%(default)s)")
    bench.add_argument("--cfg", type=float, default=usual.cfg, metavar="X", help="guidance (%(default)s)")
    bench.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="NAME=VALUE,...",
        help="measure this one; default is a list of them",
    )
    _add_common(bench)


def _add_common(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("--threads", type=_count, metavar="N", help="of the computation; default is one for each core")
    bench.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")


def run_bench(args: argparse.Namespace, open_nodes: OpenNodes) -> int | None:
    if args.threads:
        torch.set_num_threads(args.threads)
    works = {"liveportrait": _liveportrait, "pareto": _pareto}
    for row in works.get(args.subject, _portrait)(args):
        print(json.dumps(row) if args.json else _line(row), flush=True)
    return None


def _pareto(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    chosen = {text: Acceleration(**settings_from_text(text)) for text in args.setting}
    options = ParetoOptions(args.people, args.frames, args.steps, args.cfg)
    rows = []
    for row in pareto(load_model(args.model), options, chosen or SETTINGS):
        rows.append(row)
        yield row
    if args.out is not None:
        shown = [row for row in rows if row["case"] != "exact"]  # it has no error that could be plotted
        points = {row["case"]: (row["speedup"], row["psnr"]) for row in shown}
        axes = "times fewer products of the denoising", "PSNR to the exact result, dB"
        plot = speed_against_quality(points, [row["case"] for row in front(shown)], *axes)
        args.out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with whole_file(args.out) as temporary:
            temporary.write_bytes(png_bytes(plot))


def _liveportrait(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    size = SIZES[args.size]
    networks = load_liveportrait(args.weights) if args.weights else random_networks(size)
    return bench_liveportrait(networks, SIZES["full"].side if args.weights else size.side, args.frames)


def _portrait(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise PortraitError(f"--device {args.device}: torch finds no graphics card here, use cpu or meta")
    if args.device not in ("cpu", "meta") and not args.device.startswith("cuda"):
        raise PortraitError(f"--device {args.device}: choose cpu, cuda or meta")
    options = BenchOptions(
        size=args.size,
        frames=args.frames,
        steps=args.steps,
        cfg=args.cfg,
        style=args.style,
        each_saving=args.each,
        repeats=args.repeats,
        device=torch.device(args.device),
        dtype=PRECISIONS[args.dtype],
    )
    return bench_portrait(PRESETS[args.subject], options)


def _line(row: dict[str, object]) -> str:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, (int, float)))
    return f"{row['case']}: {figures}"


def _count(text: str) -> int:
    count = int(text) if text.isdigit() else 0
    if not count:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return count
