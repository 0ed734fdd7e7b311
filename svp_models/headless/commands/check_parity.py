"""svp check-parity: every tensor of a folder that V-Express wrote, beside what this pack computes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...checkpoints.vexpress import load_vexpress_networks
from ...evaluation.parity import IDENTICAL, LIMITS, LOOP, NETWORK, Measure, largest, open_folder, remaining
from ...evaluation.parity_loop import check_loops
from ...evaluation.parity_networks import check_networks
from ...evaluation.parity_processing import check_processing
from ..session import OpenNodes

MEANING = f"""\
FOLDER holds V-Express weights, their configuration, and inputs and outputs of V-Express on them (io.safetensors,
kps_images.npz, bank_paths.json, context_windows.json, ddim.json). One line for each output: its name and the relative error
of ours, L2 norm of the difference over L2 norm of V-Express' (float32, CPU), or the number of differences where both have to
be identical; inputs are named. The last two lines are the largest errors of networks and of sampling loops. Exit code 1 if a network is off by
more than {LIMITS[NETWORK]:g}, a loop by more than {LIMITS[LOOP]:g}, or anything that has to be identical is not.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = MEANING
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="weights and reference data in one folder")


def run(args: argparse.Namespace, open_nodes: OpenNodes) -> int:
    folder = open_folder(args.folder)
    config, networks = load_vexpress_networks(args.folder)
    measures: list[Measure] = []
    checks = (check_networks(folder, config, networks), check_loops(folder, config, networks))
    for check in (*checks, check_processing(folder, config), remaining(folder, measures)):
        for measure in check:
            measures.append(measure)
            print(line(measure), flush=True)
    missed = [each.name for each in measures if each.missed]
    if missed:
        print(f"svp: {len(missed)} of {len(measures)} demands missed: {', '.join(missed)}", file=sys.stderr)
    for kind in (NETWORK, LOOP):
        worst = largest(measures, kind)
        print(f"max {worst.name} {worst.error:.3e}")
    return 1 if missed else 0


def line(measure: Measure) -> str:
    """`name error`, then what is to be said of it."""
    if measure.error is None:
        return f"{measure.name:<56} -          {measure.note}"
    number = f"{measure.error:g}" if measure.kind == IDENTICAL else f"{measure.error:.3e}"
    missed = f"MISSED, at most {LIMITS[measure.kind]:g}" if measure.missed else ""
    return f"{measure.name:<56} {number:<10} {'; '.join(filter(None, (missed, measure.note)))}".rstrip()
