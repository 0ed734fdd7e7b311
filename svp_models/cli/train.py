"""svp train: arguments and signals of a training; the training itself is in svp_models/training."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ..checkpoints.expression_basis import save_expression_basis
from ..errors import PortraitError
from ..io.file_names import printable
from ..io.progress import Progress
from ..signals import Interrupted, ending_at_once, handled_by
from ..synthetic.expression_basis import fit_expression_basis
from ..training.config import PHASES
from ..training.recipe import RECIPES, load_recipe, open_training, scaled
from .folders import OpenNodes

MAX_JOBS = 1024
DEMO, ALL, MOTION, DISTILL = "demo", "all", "motion", "distill"
BASIS = "expression-basis"
ANALYZER, READER = "face-analyzer", "portrait-reader"
READINGS = {ANALYZER: "analyzer_run", READER: "portrait_reader_run"}  # networks that read faces, and what trains them
BANK = "emotion-bank"
BASIS_PEOPLE, BASIS_CLIPS = 120, 4  # of a speaker
DEMO_BUDGET = "demo256"  # the recipe of svp train demo --budget
FACE_PHASES = ("vae", "dense_motion", "denoiser", "mask")
MAX_BUDGET = 30 * 86400  # seconds
UNITS = {"s": 1, "m": 60, "h": 3600}
MEANING = """\
A phase starts from the model that the phase before it in the recipe has written, the first one from the recipe's model, and
ends with RUN/PHASE/model.safetensors, which Load Portrait Model reads. A run that was stopped or killed resumes from its last
checkpoint when the command is repeated. Several processes: accelerate launch ... -m svp_portrait.nodes.command train ...
"""


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = MEANING
    parser.add_argument(
        "phase", choices=(DEMO, ALL, MOTION, BASIS, *READINGS, BANK, *PHASES), metavar="PHASE", help=f"{', '.join(PHASES)}; all: every phase of "
        "the recipe; demo: the built-in model, data and all; motion: a motion generator, every phase of its recipe; "
        f"{BASIS}: how landmarks of synthetic speakers move, for Warp Portrait, written to --output; {ANALYZER}: the face analyser of synthetic people, {READER}: a closer look at their faces, both within --budget, written to --output; {BANK}: styles of a model by emotion and strength, written to --output"
    )  # fmt: skip
    parser.add_argument("--recipe", type=Path, metavar="FILE.toml", help=f"one of {RECIPES.name}/ or your own")
    parser.add_argument("--run", type=Path, metavar="DIR", help="checkpoints, logs and models (runs/NAME)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe: stage1.settings.steps=100"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="also write the finished model here, in half precision"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print parameters, memory, schedule and data, train nothing"
    )
    parser.add_argument(
        "--benchmark", action="store_true", help="print how long loading a batch takes and how long training on it"
    )
    parser.add_argument(
        "--jobs", "--workers", type=int, default=os.cpu_count() or 1, help="processes that render data (%(default)s)"
    )
    parser.add_argument(
        "--budget", type=duration, metavar="TIME", help="demo: train the model of 256 pixels for so long, 9m or 3h, whatever "
        "is reached; another budget goes on from there"
    )  # fmt: skip
    parser.add_argument(
        "--export",
        action="store_true",
        help="demo only: train nothing, write the model of a run with a budget to --output",
    )
    parser.add_argument(
        "--only", action="append", default=[], choices=FACE_PHASES, help="with --budget: these phases alone"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="with --budget: folder of the rendered people (RUN/data)"
    )
    parser.add_argument("--compile", action="store_true", help="with --budget: by torch.compile, which takes a minute")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for all steps; 0.01 only tests that it runs")


def duration(text: str) -> float:
    """90s, 9m, 1.5h -> seconds; a number alone is seconds."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "s")
    try:
        seconds = float(number) * UNITS[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < MAX_BUDGET:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 90s, 9m or 1.5h")
    return seconds


def run_train(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    if args.phase == BASIS:
        _fit_basis(args)
        return
    if args.phase in READINGS:
        _train_reading(args)
        return
    if args.phase == BANK:
        _train_bank(args)
        return
    if args.budget is not None or args.export:
        _train_for(args)
        return
    bundled = {DEMO: f"{DEMO}.toml", MOTION: "motion_drawn.toml", DISTILL: "distill_demo.toml"}
    path = args.recipe or (RECIPES / bundled[args.phase] if args.phase in bundled else None)
    if path is None:
        raise PortraitError(f"svp train {args.phase} needs --recipe FILE.toml; the bundled ones are in {RECIPES}")
    motion = args.phase == MOTION
    recipe = (open_training("motion_recipe").load_motion_recipe if motion else load_recipe)(path, args.set)
    recipe = recipe if args.scale == 1 else scaled(recipe, args.scale)
    names = recipe.phases() if args.phase in (DEMO, ALL, MOTION) else [args.phase]
    with ending_at_once():
        training = open_training("run_motion" if motion else "run")
    if not 1 <= args.jobs <= MAX_JOBS:
        raise PortraitError(f"--jobs is {args.jobs}: 1 to {MAX_JOBS} are allowed")
    with stoppable() as progress:
        kind = training.MotionRun if motion else training.Run
        run = kind(recipe, args.run or Path("runs") / recipe.name, _print_line, progress, args.jobs)
        if args.dry_run:
            for name in names:
                for line in run.describe(name):
                    _print_line(line)
            return
        if args.benchmark:
            for name in names:
                _print_line(run.benchmark(name))
            return
        with run.locked():
            model = [run.phase(name) for name in names][-1]
            if args.output is not None:
                run.export(model, args.output)


def _fit_basis(args: argparse.Namespace) -> None:
    """svp train expression-basis --output FILE"""
    if args.output is None:
        raise PortraitError(f"svp train {BASIS} needs --output FILE.safetensors")
    about = {"people": str(BASIS_PEOPLE), "clips": str(BASIS_CLIPS), "seed": "0", "version": "2"}
    save_expression_basis(args.output, fit_expression_basis(BASIS_PEOPLE, BASIS_CLIPS), about)
    _print_line(f"{args.output}: of {BASIS_PEOPLE} speakers")


def _train_reading(args: argparse.Namespace) -> None:
    """svp train face-analyzer | portrait-reader --budget TIME --output FILE"""
    if args.output is None or args.budget is None:
        raise PortraitError(f"svp train {args.phase} needs --budget TIME and --output FILE")
    with ending_at_once():
        training, device = open_training(READINGS[args.phase]), open_training("face_run").best_device()
    recipe = training.load_reading_recipe(
        args.recipe or RECIPES / f"{args.phase.replace('-', '_')}.toml", tuple(args.set)
    )
    folder = args.run or Path("runs") / recipe.name
    with stoppable() as progress:
        run = training.ReadingRun(
            recipe, folder, args.data or folder / "data", _print_line, progress, args.jobs, device
        )
        run.train(args.budget, args.output)


def _train_bank(args: argparse.Namespace) -> None:
    """svp train emotion-bank --output FILE"""
    if args.output is None:
        raise PortraitError(f"svp train {BANK} needs --output FILE.safetensors")
    if not 1 <= args.jobs <= MAX_JOBS:
        raise PortraitError(f"--jobs is {args.jobs}: 1 to {MAX_JOBS} are allowed")
    with ending_at_once():
        training = open_training("train_emotion_bank")
    recipe = training.load_bank_recipe(args.recipe or RECIPES / "emotion_bank.toml", tuple(args.set))
    folder = args.run or Path("runs") / recipe.name
    with stoppable() as progress:
        training.EmotionBankRun(recipe, folder, _print_line, progress, args.jobs).train(args.output)


def _train_for(args: argparse.Namespace) -> None:
    """svp train demo --budget TIME"""
    if args.phase != DEMO:
        raise PortraitError(f"svp train {args.phase}: --budget is for demo alone; other trainings have steps")
    if args.export and args.output is None:
        raise PortraitError("--export needs --output FILE.safetensors")
    with ending_at_once():
        training, config = open_training("face_run"), open_training("face_config")
    recipe = config.load_face_recipe(args.recipe or RECIPES / f"{DEMO_BUDGET}.toml", tuple(args.set))
    folder = args.run or Path("runs") / recipe.name
    with stoppable() as progress:
        run = training.FaceRun(
            recipe,
            folder,
            args.data or folder / "data",
            _print_line,
            progress,
            args.jobs,
            training.best_device(),
            args.compile,
        )
        if args.dry_run:
            for line in run.describe():
                _print_line(line)
            return
        model = folder / training.MODEL if args.export else run.train(args.budget, tuple(args.only))
        if args.output is not None:
            run.export(model, args.output)


def _print_line(line: str) -> None:
    print(printable(line), flush=True)


@contextmanager
def stoppable() -> Iterator[Progress]:
    """A progress callback for a training that a signal stops: between two steps, with a checkpoint, and at once where there is
    no step to finish (data is rendered, a model is built) or when a second signal comes."""
    received: list[int] = []
    in_step = False

    def stop(number: int, frame: FrameType | None) -> None:
        again = bool(received)
        received.append(number)  # first: other code may swallow the exception, but the next step raises it again
        if again or not in_step:
            raise Interrupted(number)
        print("stopping after this step; a second signal stops at once, without a checkpoint", flush=True)

    def progress(done: int, total: int) -> None:
        nonlocal in_step
        if received:
            raise Interrupted(received[0])
        in_step = done < total

    with handled_by(stop):
        yield progress
