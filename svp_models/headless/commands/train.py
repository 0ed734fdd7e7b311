"""svp train: the training itself is in svp_models/training."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ...checkpoints.native import BUILTIN_MODEL
from ...training.demo import DemoRecipe, scaled, train_demo
from ..session import OpenNodes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="WHAT")
    demo = subjects.add_parser(
        "demo", help="the built-in model, from generated clips; a killed run goes on when repeated"
    )
    demo.add_argument("--folder", type=Path, default=Path("runs/demo"), help="corpus, checkpoints and logs")
    demo.add_argument("--output", type=Path, default=BUILTIN_MODEL, help="the model file to write")
    demo.add_argument("--seed", type=int, default=0, help="of weights, batches and corpus")
    demo.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw the corpus")
    demo.add_argument(
        "--scale", type=float, default=1.0, help="factor on steps and speakers; 0.01 only shows that it runs"
    )


def run(args: argparse.Namespace, open_nodes: OpenNodes) -> int | None:
    recipe = DemoRecipe() if args.scale == 1 else scaled(DemoRecipe(), args.scale)
    train_demo(recipe, args.folder, args.output, args.seed, args.workers, lambda line: print(line, flush=True))
    return None
