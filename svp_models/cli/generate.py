"""Commands that make videos: `svp generate` (portrait and voice), `svp demo` (two styles), `svp run` (a workflow)."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..checkpoints.model_file import PORTRAIT_NAME, SHIPPED_MODELS
from ..checkpoints.safetensors_io import read_config, read_metadata
from ..config import ModelConfig
from ..diffusion.acceleration import PRESETS
from ..diffusion.processes import joined_processes
from ..diffusion.style import MAX_STRENGTH
from ..errors import PortraitError
from ..face.detectors.auto import AutoBackend
from ..face.detectors.built_in import BuiltInBackend
from ..face.detectors.insightface import InsightFaceBackend
from ..face.detectors.mediapipe import MediaPipeBackend
from ..face.detectors.opencv import ClassicalBackend, YuNetBackend
from ..io.file_names import printable
from ..io.files import reserved_file, whole_file, working_folder
from ..media.video import load_video
from ..motion.emotions import EMOTION_NAMES
from ..motion.generator_files import BUILT_IN
from ..optional_deps import cv2
from .folders import OpenNodes
from .runner import run_workflow

SUFFIX = ".mp4"
OUTPUT = Path("output")  # training writes its models into its folder `svp`
BACKENDS = tuple(  # of Load Face Analyzer
    backend.name
    for backend in (AutoBackend, BuiltInBackend, InsightFaceBackend, MediaPipeBackend, YuNetBackend, ClassicalBackend)
)
Nodes = dict[str, dict[str, Any]]


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--portrait", type=Path, required=True, metavar="IMAGE", help="the portrait: an image of a face"
    )
    parser.add_argument("--audio", type=Path, required=True, metavar="AUDIO", help="the voice: an audio or video file")
    parser.add_argument("--style", type=Path, metavar="CLIP", help="the speaking style: a video of a speaker")
    parser.add_argument(
        "--emotion",
        choices=EMOTION_NAMES,
        metavar="NAME",
        help=f"the speaking style of an emotion, without a clip: {', '.join(EMOTION_NAMES)}",
    )
    parser.add_argument(
        "--strength",
        type=float,
        metavar="X",
        help=f"with --emotion: 0 (neutral) to {MAX_STRENGTH:g}; 1 is full (default: 1)",
    )
    parser.add_argument("--second-emotion", choices=EMOTION_NAMES, metavar="NAME", help="with --emotion: mixed with it")
    parser.add_argument(
        "--share",
        type=float,
        metavar="X",
        help="with --second-emotion: its share of the mixture, 0 to 1 (default: 0.5)",
    )
    parser.add_argument(
        "--motion", type=Path, metavar="CLIP", help="the head motion: a video of a head (default: still)"
    )
    parser.add_argument(
        "--head-from-voice", action="store_true", help="the built-in motion generator moves the head by the voice"
    )
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        help="with --head-from-voice: what the head does, such as 'at 1 s nods, from 3 to 5 s looks left'",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.mp4", help="the video to write")
    parser.add_argument("--force", action="store_true", help="overwrite the video if it is there")
    parser.add_argument(
        "--model",
        default=PORTRAIT_NAME,
        metavar="NAME",
        help="a model of ./models/svp or ./output/svp, as Load Portrait Model lists it (%(default)s)",
    )
    parser.add_argument(
        "--audio-encoder",
        metavar="NAME",
        help="for a model with Whisper or wav2vec2 features: whisper-tiny, wav2vec2-base-960h",
    )
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help=f"face detection: {', '.join(BACKENDS)} (default: the model's own, for synthetic faces)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed gives the same video (%(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=0, metavar="N", help="denoising steps; 0: the model's own (%(default)s)"
    )
    guided = (("cfg", "all conditions", "the model's own"), ("audio-cfg", "the voice", "as --cfg"))
    for option, what, default in (*guided, ("style-cfg", "the speaking style", "as --cfg")):
        parser.add_argument(
            f"--{option}", type=float, metavar="X", help=f"guidance towards {what}; 1 is none (default: {default})"
        )
    parser.add_argument(
        "--fps", type=float, default=0.0, metavar="RATE", help="frames per second; 0: the model's own (%(default)s)"
    )


def run_generate(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    check_inputs(args, "portrait", "audio", "style", "motion")
    if args.motion is not None and args.head_from_voice:
        raise PortraitError("--motion and --head-from-voice both move the head: give one of them")
    if args.style is not None and args.emotion is not None:
        raise PortraitError("--style and --emotion both give the speaking style: give one of them")
    for option, needed in (("strength", "emotion"), ("second_emotion", "emotion"), ("share", "second_emotion")):
        if getattr(args, option) is not None and getattr(args, needed) is None:
            raise PortraitError(f"--{option.replace('_', '-')} goes with --{needed.replace('_', '-')}: give that too")
    if args.prompt is not None and not args.head_from_voice:
        raise PortraitError("--prompt moves the head of --head-from-voice: give that too")
    write_video(graph(args), args.out, args.force, open_nodes)


def check_inputs(args: argparse.Namespace, *names: str) -> None:
    """Raises PortraitError for the first of these options whose file is not there."""
    for name in names:
        path = getattr(args, name)
        if path is not None and not path.is_file():
            raise PortraitError(f"--{name} {path}: there is no such file")


def write_video(nodes: Nodes, out: Path, force: bool, open_nodes: OpenNodes) -> None:
    """Runs a workflow in API form, in which widgets may be left out, and puts the video that it saves at `out`."""
    out = out.absolute()
    check_out(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    # In the folder of the result, so that it is renamed atomically.
    with tempfile.TemporaryDirectory(prefix=f".{out.stem[:40]}-", dir=out.parent) as folder:
        work = Path(folder)
        (work / "graph.json").write_text(json.dumps(nodes))
        try:
            saved = run_workflow(work / "graph.json", open_nodes, work, work, earlier=OUTPUT, complete=False)
        except PortraitError as error:
            raise PortraitError(
                " ".join(str(error).split())
            ) from error  # in one line: the user did not write this graph
        check_out(out, force)  # another program may have written it in the meantime
        os.replace(next(path for path in saved if path.suffix == SUFFIX), out)
    print(out)


def check_out(out: Path, force: bool) -> None:
    """Raises PortraitError unless the video may be written there."""
    if out.suffix.lower() != SUFFIX:
        raise PortraitError(f"--out {out}: the name of a video ends in {SUFFIX}, for example talk{SUFFIX}")
    if out.is_dir():
        raise PortraitError(f"--out {out} is a folder: give the video a name")
    if out.exists() and not force:
        raise PortraitError(f"--out {out} is already there: choose another name, or overwrite it with --force")


def graph(args: argparse.Namespace) -> Nodes:
    """The workflow in API form: the template `talk` with the optional inputs."""
    nodes: Nodes = {}
    add = adder(nodes)

    def add_clip(key: str, path: Path) -> dict[str, Any]:
        add(key, "LoadVideo", file=str(path.absolute()))
        return {"frames": [key, 0]}

    add("model", "SVPLoadModel", model=args.model)
    add("portrait", "LoadImage", image=str(args.portrait.absolute()))
    add("speech", "LoadAudio", audio=str(args.audio.absolute()))
    model: list[Any] = ["model", 0]
    if args.audio_encoder:
        add("audio encoder", "SVPLoadAudioEncoder", audio_encoder=args.audio_encoder)
        add("model with encoder", "SVPApplyAudioEncoder", model=model, audio_encoder=["audio encoder", 0])
        model = ["model with encoder", 0]
    face_analyzer: dict[str, list[Any]] = {}
    if args.backend:
        add("faces", "SVPLoadFaceAnalyzer", backend=args.backend)
        face_analyzer = {"face_analyzer": ["faces", 0]}
    extra: dict[str, list[Any]] = dict(face_analyzer)
    if args.style:
        add("style prior", "SVPStyleExtract", model=model, **add_clip("style clip", args.style), **face_analyzer)
    if args.emotion:
        mixed = {} if args.second_emotion is None else {"second_emotion": args.second_emotion}
        share = {"share": 0.5 if args.share is None else args.share} if mixed else {}
        strength = {} if args.strength is None else {"strength": args.strength}
        add("style prior", "SVPEmotion", model=model, emotion=args.emotion, **strength, **mixed, **share)
    if "style prior" in nodes:
        add("style", "SVPStyleSample", style_prior=["style prior", 0], seed=args.seed)
        extra["style"] = ["style", 0]
    if args.motion:
        add("head motion", "SVPHeadKpsExtract", model=model, **add_clip("motion clip", args.motion), **face_analyzer)
        fitted = {"head_motion": ["head motion", 0], "portrait": ["portrait", 0], "model": model, **face_analyzer}
        add("fitted motion", "SVPHeadKpsRetarget", mode="offset", **fitted)
        extra["head_motion"] = ["fitted motion", 0]
    if args.head_from_voice:
        add("generator", "SVPLoadMotionGenerator", generator=BUILT_IN.entry)
        asked: dict[str, Any] = {"seed": args.seed} | ({} if args.prompt is None else {"prompt": args.prompt})
        if "style" in nodes:
            asked["style"] = ["style", 0]
        voice: dict[str, Any] = {"motion_generator": ["generator", 0], "audio": ["speech", 0]}
        add("motion", "SVPMotionGenerate", **voice, **asked)
        placed: dict[str, Any] = {"motion": ["motion", 0], "portrait": ["portrait", 0], "model": model}
        add("head", "SVPMotionToHeadKps", **placed, **face_analyzer)
        extra["head_motion"] = ["head", 0]
        if reads_motion(args.model):  # the face of the same motion; without, the sampler makes one of the voice
            extra["motion"] = ["motion", 0]
    widgets = {"seed": args.seed, "steps": args.steps, "fps": args.fps}
    guidance = {name: getattr(args, name) for name in ("cfg", "audio_cfg", "style_cfg")}
    widgets |= {name: value for name, value in guidance.items() if value is not None}
    sources = {"model": model, "vae": ["model", 1], "portrait": ["portrait", 0], "audio": ["speech", 0]}
    add("sampler", "SVPSampler", **sources, **widgets, **extra)
    decoded = {"latent": ["sampler", 0], "vae": ["model", 1], "audio": ["speech", 0], "fps": ["sampler", 1]}
    add("video", "SVPVideoCombine", filename_prefix="video", **decoded)
    return nodes


def reads_motion(name: str) -> bool:
    """Whether a model, by its name in Load Portrait Model, takes expression, lids and gaze beside the voice."""
    files = [folder / "svp" / name for folder in (Path("models"), OUTPUT)]
    if name in SHIPPED_MODELS:
        files = [SHIPPED_MODELS[name]]
    for path in files:
        if path.is_file():
            return bool(read_config(path, read_metadata(path), ModelConfig).unet.expression_size)
    return False


def adder(nodes: Nodes) -> Callable[..., None]:
    """A function (title, class_type, inputs by name) that adds a node; a link is [title, output]."""

    def add(title: str, class_type: str, **inputs: Any) -> None:
        nodes[title] = {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}

    return add


WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
STYLES = {"happy": "style_happy.mp4", "sad": "style_sad.mp4"}
SHEET_COLUMNS = 6
TILE = 256  # pixels per side of a frame on the contact sheet
LABEL = 32  # pixels of the line above each row


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("output/demo"), metavar="DIR", help="output folder (%(default)s)"
    )


def run_demo(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    started = time.perf_counter()
    clips: dict[str, Path] = {}
    for style, file in STYLES.items():
        assignments = [f"Style clip.file={file}", f"SVPVideoCombine.filename_prefix=demo_{style}"]
        saved = run_workflow(
            WORKFLOWS / "api" / "portrait.json", open_nodes, WORKFLOWS / "assets", args.out, assignments
        )
        videos = [path for path in saved if path.suffix == ".mp4"]
        if not videos:
            raise PortraitError("the portrait workflow saved no mp4: its SVPVideoCombine node is missing")
        clips[style] = videos[0]
        print(printable(clips[style]), flush=True)  # at once, because it stays after an interruption
    with reserved_file(args.out, "demo_contact_sheet", "jpg") as sheet, whole_file(sheet) as temporary:
        Image.fromarray(contact_sheet(clips)).save(temporary, format="JPEG", quality=92)
    print(printable(sheet))
    print(f"{len(clips)} clips in {time.perf_counter() - started:.0f} s")


def contact_sheet(clips: Mapping[str, Path]) -> np.ndarray:
    """One row for each clip: its name and SHEET_COLUMNS frames evenly over its length. h w 3, uint8."""
    rows = []
    for name, path in clips.items():
        frames = load_video(path).frames  # n h w 3
        chosen = np.linspace(0, len(frames) - 1, SHEET_COLUMNS).round().astype(int)
        tiles = [cv2.resize(frames[index], (TILE, TILE), interpolation=cv2.INTER_CUBIC) for index in chosen]
        label = np.full((LABEL, TILE * SHEET_COLUMNS, 3), 255, np.uint8)
        cv2.putText(label, name, (8, LABEL - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (40, 40, 40), 1, cv2.LINE_AA)
        rows += [label, np.hstack(tiles)]
    return np.vstack(rows)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "graph",
        type=Path,
        metavar="GRAPH.json",
        help="workflow in API format, or a video or PNG with a stored workflow",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        help="change an input; NODE is an id, a title or a class_type; may be given several times",
    )
    parser.add_argument(
        "--accelerate",
        metavar="PRESET",
        help=f"an Accelerate node before every sampler: {', '.join(PRESETS)}, or settings of your own such as "
        "cache_every=3,guidance_end=0.8 (default: none)",
    )
    parser.add_argument("--out", type=Path, default=Path("output"), metavar="DIR", help="output folder (%(default)s)")
    parser.add_argument(
        "--input", type=Path, metavar="DIR", help="folder of the load nodes (./input if it exists, else .)"
    )


def run_run(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    standard = Path("input")
    folder = args.input or (standard if standard.is_dir() else Path("."))
    given = (args.graph, open_nodes, folder)
    with joined_processes() as first, ExitStack() as stack:
        if first:
            for path in run_workflow(*given, args.out, args.set, accelerate=args.accelerate):
                print(printable(path))
            return
        unseen = stack.enter_context(working_folder())  # a process that helps the first one writes nothing to stay
        run_workflow(*given, unseen, args.set, earlier=args.out, accelerate=args.accelerate, shown=False)
