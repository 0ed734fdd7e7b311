"""Commands `svp evaluate` (figures of a model) and `svp check-parity` (this pack's results against those of other projects)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from ..checkpoints.emotion_bank import FOLDER as BANK_FOLDER
from ..checkpoints.emotion_bank import find_emotion_bank
from ..checkpoints.model_file import PORTRAIT_MODEL, load_model
from ..checkpoints.portrait_reader import built_in_scorer
from ..checkpoints.vexpress import load_vexpress_networks
from ..data.executor import LOCAL_RAY
from ..errors import PortraitError
from ..evaluation import motion_style
from ..evaluation.demo_report import demo_report
from ..evaluation.evaluator import analyzer_of
from ..evaluation.figures import over_seeds, seed_tables
from ..evaluation.parity import IDENTICAL, LIMITS, LOOP, MOTION_LOOP, NETWORK, Measure, largest, open_folder, remaining
from ..evaluation.parity_liveportrait import check_liveportrait, holds_motion_weights, open_liveportrait_folder
from ..evaluation.parity_networks import check_loops, check_networks
from ..evaluation.parity_processing import check_processing
from ..evaluation.protocols import FULL, QUICK, run_evaluation
from ..evaluation.report import REPORT, report_json, write_report
from ..evaluation.suite import read_suite
from ..evaluation.suite_report import run_suite
from ..face.detectors.built_in import FaceAnalyzer
from ..face.portrait_reader import Analyzer
from ..io.files import check_outputs, whole_file
from ..model import PortraitModel
from ..synthetic.identity import VERSIONS
from .evaluate_motion import MOTION_FIGURES, add_motion_arguments, motion_figures_of
from .folders import OpenNodes

FIGURES = """\
psnr (dB), ssim: reconstructed clips against the true ones (portrait: first true frame; style: another clip of the same
person and emotion). mouth_corr: correlation of generated and true mouth opening at lag 0; mouth_lag: the lag in frames
where it is highest (positive: late); mouth_corr_swapped: the same with the speech of another clip. emotion_acc: share of
clips whose emotion is recognised in generated frames when a relaxed portrait gets the style of that emotion;
emotion_acc_no_style: without style; emotion_acc_wrong_style: with the style of another emotion. kps_error: distance of the
8 head keypoints from the given ones, fraction of the width. analyser_*: the face analyser's own errors on true frames.
label_emotion_acc: emotion_acc with the emotion by its name from the model's emotion bank, at strength 1; stranger_emotion_acc: with
the style of another person's clip of that emotion; emotion_confusion: of both, wanted -> recognised -> share of the clips.
strength_amounts: how much of the emotion is read from the frames (1: a strong one), mean over the emotions, by the strength that the
bank is asked for; strength_monotone: 1 where these means rise with every strength, else 0; strength_monotone_clips: share of the
single clips in which they do.
clips: number of test clips in these means. Speakers and sentences are of the test split and follow from the seed.

A model that reads an expression track also gets that of the true clip, and so does the warped portrait: expression_psnr,
expression_ssim, expression_mouth_psnr, expression_mouth_sharpness, expression_eyes_psnr, expression_brows_psnr, expression_lid_corr,
expression_mouth_corr; bent_expression_psnr, bent_expression_ssim, bent_expression_mouth_psnr, bent_expression_mouth_sharpness,
bent_expression_eyes_psnr, bent_expression_brows_psnr, bent_expression_lid_corr, bent_expression_mouth_corr; and that which the
built-in motion generator makes of voice and style: spoken_psnr, spoken_ssim, spoken_mouth_psnr, spoken_mouth_sharpness, spoken_eyes_psnr,
spoken_brows_psnr, spoken_lid_corr, spoken_mouth_corr.

The same clips of other makers: bent_psnr, bent_ssim: of the portrait warped to the keypoints without any network; vae_psnr, vae_ssim:
of the model's VAE on the true frames. The model by region of the face, which the true landmarks give: mouth_psnr, eyes_psnr,
brows_psnr, rest_psnr; mouth_ssim, eyes_ssim, brows_ssim, rest_ssim; mouth_sharpness, eyes_sharpness, brows_sharpness,
rest_sharpness: variance of the Laplacian over truth's. f_lmd, m_lmd: mean distance of all landmarks and of the mouth's, in
distances of the outer eye corners. still_flicker: mean change between frames where truth stands still, of 255. lid_corr:
correlation of lid opening with truth's, over the clips whose lids move. colour_drift: how far the mean colour wanders beyond
truth's, of 255. jitter: mean second difference of the landmarks. steps_psnr: PSNR by denoising steps, of the first clips. systems: all figures by system; style_transfer: by
variant, where half of the portraits show another emotion than the target and half of the styles come from another person; spread
over several seeds where there are some. missing: what cannot be measured, and why. With --seeds all figures are means over the seeds,
and spread has their standard deviations under the same names.

Without --quick there are more figures about style. stylesim: cosine of the mean styles that the model's extractor reads from the
expressions of generated and true frames, for relaxed portraits with the style of another clip of the person and emotion;
stylesim_no_style: without style. clustering: by the input of the extractor (audio, expression, both) and emotion, the
distance of an emotion's mean style from those of the person's other emotions over the mean distance of its clips from it,
mean over people; the clips are of all intensities, their expressions performed with the analyser's error added.
identity_leak_sampled: how far a portrait that gets the style of another person with the same emotion moves towards that
person (0 not at all, 1 all the way), against the style of its own person; half by colours, half by proportions of the
face; identity_leak_deterministic: the same with the mean style instead of a sampled one. interpolation: where the mean
expression lies between those of two styles of one person, at the weights 0, 0.1 ... 1; interpolation_jump: largest change
of the expression between neighbouring frames while one style turns into the other, over the largest in the true clip with
the same speech; the highest of all cases.
"""


SUITE_MEANING = """\

SUITE.toml: name, protocol (videos, reconstruction or style_transfer), [[systems]] with a name each, and what they are tested on.
videos: truth is a folder of true videos, and every system's videos a folder of finished ones with the same names; they are
measured at the truth's frame rate and size. reconstruction, style_transfer: dataset is a folder that `svp prepare` made, and
every system a model and a style (sampled, mean, none, voice, face, other emotion). [networks] names files for FID (inception),
FVD (i3d), LPIPS (lpips), SyncNet (syncnet) and an embedding of faces (embedding: any ONNX network of faces); without them these
figures are left out, and the report says so. Landmarks come from face_analyzer (built-in, insightface, mediapipe, none), or lie beside a video as
NAME.landmarks.npz (landmarks, n x 68 x 2). An interrupted suite goes on where it stopped.
"""

MOTION_STYLE_FIGURES = """\

motion-style: motions moved to the style of a clip, where truth is known. Test people say neutral sentences and are moved to the style of clips of other people, who show the eight emotions with other
sentences; no training, no voice of the style clip. emotion_acc: share of moved motions that show the style clip's emotion, by
the true coefficients; analyser_emotion_acc: by what the built-in face analyser reads from the rendered frames. lip_corr:
correlation of the mouth opening with what the voice alone asks for; analyser_lip_corr: with the mouth opening read from the
frames. closed_lips: mouth opening, in distances of the outer eye corners, in the frames in which the voice closes the lips.

Endings tell how the motion was made. None: moved to the mean and spread of the style clip, the lips to its mean alone.
_from_pixels: the style clip's expressions were read from its frames. _named: the emotion by name. _drawn: with temperature 1.
_lips_by_spread: the lips' spread was moved too. _lips_kept: lips_weight 0. _unmoved: not moved. _copied: the style clip's own
motion. _felt: the same people truly show the emotion.

seed_distance: distance of the mean expressions (without the lips) of two seeds with temperature 1; take_distance: of two true
clips of the same person and emotion. weight_scores: mean score of the emotion (0 to 1, neutral left out) at the weights
0, 0.1 ... 1; weight_rises: whether it never falls.
"""
OWN = "own"  # --reader: the analyser of the model itself
DEMO, MOTION_STYLE, MOTION = "demo", "motion-style", "motion"
WORK = "clips"  # folder of a suite's finished clips, in its own


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measures the built-in model on generated test identities (demo), motions moved to the style of a clip (motion-style), the built-in motion generator (motion), or the systems of a suite: a TOML file that names folders "
        "of finished videos, or a model and what it is tested on."
    )
    parser.epilog = FIGURES + SUITE_MEANING + MOTION_STYLE_FIGURES + MOTION_FIGURES
    parser.add_argument("what", metavar="WHAT", help="demo, motion-style, motion, or SUITE.toml")
    add_motion_arguments(parser)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer and shorter clips, of the demo without the figures about style: a few minutes on two cores",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for report.html, report.json and report.csv; of a suite ./evaluation/NAME, where it is resumed",
    )
    parser.add_argument(
        "--reader",
        type=Path,
        metavar="ONNX",
        help="of the demo: the face analyser that scores, or 'own' for the model's; default is one of the pack with a closer look at "
        "faces, which no training used",
    )
    parser.add_argument(
        "--beside",
        type=Path,
        action="append",
        default=[],
        metavar="MODEL",
        help="of the demo: another model file, measured on the same clips in the same tables; may be given several times",
    )
    parser.add_argument("--cases", type=int, default=0, metavar="N", help="of the demo: only the first N cases")
    parser.add_argument(
        "--synthetic-version",
        dest="version",
        type=int,
        choices=VERSIONS,
        help="of the demo's pictures: 1 drawings, 2 looks like photographs (the one that the model was trained on)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="of a suite: processes (%(default)s)")
    parser.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL_RAY,
        default="",
        metavar="ADDRESS",
        help="of a suite: spread it over a Ray cluster (auto: the one of this machine); no address: a new Ray here",
    )
    parser.add_argument(
        "--models",
        type=Path,
        action="append",
        metavar="DIR",
        help="of a suite: models folder (./models), may be given several times; of the demo: where an emotion bank is looked for",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the test speakers and sentences")
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="SEED", help="of the demo: several seeds, for means and their spread"
    )
    parser.add_argument("--model", type=Path, default=PORTRAIT_MODEL, help="model file; default is the built-in one")


def run_evaluate(args: argparse.Namespace, open_nodes: OpenNodes) -> int | None:
    check_outputs(args.json, args.out / REPORT if args.out else None)
    if args.what.endswith(".toml"):
        run_suite_file(args)
        return None
    if args.what not in (DEMO, MOTION_STYLE, MOTION):
        raise PortraitError(
            f"{args.what}: there is nothing to measure of that name: demo, motion-style, motion, or a suite that ends in .toml"
        )
    model = load_model(args.model)
    about = {"model": args.model.name, "step": model.metadata.get("step", "")}
    with tqdm(desc="clips", unit="clip") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        if args.what == MOTION:
            write_figures({**motion_figures_of(args, model, bar.set_description), **about}, args.json)
            return None
        if args.what == MOTION_STYLE:
            steps = motion_style.QUICK if args.quick else motion_style.FULL
            figures = motion_style.evaluate_motion_style(analyzer_of(model), steps, args.seed, progress)
            write_figures({**figures, **about}, args.json)
            return None
        run_demo(args, model, about, bar)
    return None


def run_demo(args: argparse.Namespace, model: PortraitModel, about: dict[str, str], bar: tqdm) -> None:
    """The demo for every seed; the report is that of the first one, beside means over all."""
    if args.cases < 0:
        raise PortraitError(f"--cases is {args.cases}: 1 or more, or 0 for all")
    size = replace(QUICK if args.quick else FULL, most=args.cases)
    version = args.version or data_version(model)
    others = {f"{path.stem} (beside)": load_model(path) for path in args.beside}
    about |= {"synthetic_version": str(version)}
    reader = reader_of(args.reader)
    about |= {"reader": "built-in" if args.reader is None else args.reader.name}
    seeds = list(dict.fromkeys(args.seeds or [args.seed]))
    bank = find_emotion_bank(model.style_space, emotion_banks(args.models or [Path("models")]))
    shown, found = None, {}
    for number, seed in enumerate(seeds):

        def progress(done: int, total: int, before: int = number) -> None:
            bar.total = total * len(seeds)
            bar.update(total * before + done - bar.n)

        evaluation = run_evaluation(model, size, seed, progress, reader, version, others, bank)
        found[seed] = evaluation.figures
        shown = shown or evaluation
    bar.close()
    figures = found[seeds[0]] if len(seeds) == 1 else over_seeds(found)
    write_figures({**figures, **about}, args.json)
    if args.out is not None and shown is not None:
        config = {**about, "protocol": DEMO, "quick": args.quick, "seeds": seeds, "size": asdict(size)}
        report = demo_report(shown, config, tuple(seed_tables(found)) if len(seeds) > 1 else ())
        print(write_report(report, args.out), file=sys.stderr)


def reader_of(path: Path | None) -> Analyzer | None:
    """What scores, as the option --reader says."""
    if path is None:
        return built_in_scorer()
    return None if str(path) == OWN else FaceAnalyzer(path.read_bytes())


def emotion_banks(folders: Iterable[Path]) -> list[Path]:
    """The files in which an emotion bank may lie, below models folders."""
    return [path for folder in folders for path in sorted((folder / BANK_FOLDER).glob("*.safetensors"))]


def data_version(model: PortraitModel) -> int:
    """The version of the synthetic pictures that a model was trained on, as far as its file says."""
    number = model.metadata.get("data_version", "1").partition(".")[0]
    return int(number) if number.isdigit() and int(number) in VERSIONS else 1


def run_suite_file(args: argparse.Namespace) -> None:
    config = read_suite(Path(args.what))
    out = args.out or Path("evaluation") / config.name
    check_outputs(out / REPORT)
    with tqdm(desc="clips", unit="clip") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = run_suite(config, out / WORK, args.models or [Path("models")], args.jobs, args.ray, progress)
    write_figures(report_json(report), args.json)
    print(write_report(report, out), file=sys.stderr)


def write_figures(figures: Mapping[str, object], path: Path | None) -> None:
    """Prints figures as JSON, and writes them to a file."""
    text = json.dumps(figures, indent=2)
    print(text)
    if path is not None:
        with whole_file(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


MEANING = f"""\
FOLDER holds weights as published, their configuration, and inputs and outputs of their own code: V-Express' (io.safetensors,
kps_images.npz, bank_paths.json, context_windows.json, ddim.json) or LivePortrait's, KDTalker's and JoyVASA's (io.safetensors,
joyvasa_io.safetensors, config.json, joyvasa_config.json). One line for each output: its name and the relative error of ours, L2
norm of the difference over L2 norm of theirs (float32, CPU), or the number of differences where both have to be identical;
inputs are named. The last two lines are the largest errors of networks and of sampling loops. Exit code 1 if a network is off
by more than {LIMITS[NETWORK]:g}, a loop by more than {LIMITS[LOOP]:g} (of motions: {LIMITS[MOTION_LOOP]:g}), or anything that has to be identical is not.
"""


def add_check_parity_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = MEANING
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="weights and reference data in one folder")


def run_check_parity(args: argparse.Namespace, open_nodes: OpenNodes) -> int:
    measures: list[Measure] = []
    if holds_motion_weights(args.folder):
        folder = open_liveportrait_folder(args.folder)
        checks: tuple[Iterator[Measure], ...] = (check_liveportrait(folder),)
    else:
        folder = open_folder(args.folder)
        config, networks = load_vexpress_networks(args.folder)
        checks = (
            check_networks(folder, config, networks),
            check_loops(folder, config, networks),
            check_processing(folder, config),
        )
    for check in (*checks, remaining(folder, measures)):
        for measure in check:
            measures.append(measure)
            print(line(measure), flush=True)
    missed = [measure.name for measure in measures if measure.missed]
    if missed:
        print(f"svp: {len(missed)} of {len(measures)} limits exceeded: {', '.join(missed)}", file=sys.stderr)
    compared = {measure.kind for measure in measures if measure.error is not None}
    for kind in (kind for kind in (NETWORK, LOOP, MOTION_LOOP) if kind in compared):
        worst = largest(measures, kind)
        print(f"max {worst.name} {worst.error:.3e}")
    return 1 if missed else 0


def line(measure: Measure) -> str:
    """Name, error and note of a measure."""
    if measure.error is None:
        return f"{measure.name:<56} -          {measure.note}"
    number = f"{measure.error:g}" if measure.kind == IDENTICAL else f"{measure.error:.3e}"
    missed = f"MISSED, at most {LIMITS[measure.kind]:g}" if measure.missed else ""
    return f"{measure.name:<56} {number:<10} {'; '.join(filter(None, (missed, measure.note)))}".rstrip()
