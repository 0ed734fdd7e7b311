"""svp prepare: training data, see svp_models/data. svp synthesize: one clip of a synthetic person as a video."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..data.executor import LOCAL_RAY
from ..data.manifest import FILE, summary
from ..data.prepare import check, prepare
from ..data.schema import (
    BACKENDS,
    DEEP3D,
    FACES,
    LAYOUTS,
    OF_BACKEND,
    SPACES,
    OutputOptions,
    PrepareConfig,
    SyntheticOptions,
    VideoOptions,
)
from ..errors import PortraitError
from ..io.file_names import printable
from ..io.files import check_outputs
from ..media.images import save_png
from ..media.writer import CONTAINERS, VideoWriter
from ..synthetic.benchmark import render_speed
from ..synthetic.clips import make_clip, neutral_portrait
from ..synthetic.identity import VERSIONS
from ..synthetic.performance import EMOTIONS, INTENSITIES
from ..synthetic.speakers import SPLITS, speaker
from ..synthetic.speech import SAMPLE_RATE
from ..types import Audio
from .folders import OpenNodes

MAX_JOBS = 1024
SYNTHETIC = "synthetic"
SYNTHETIC_SIZE, SYNTHETIC_SECONDS = 256, 4.0  # rendering takes long
MEANING = """\
SOURCE is a folder of videos: MEAD (M003/video/front/angry/level_1/001.mp4, audio beside it in M003/audio), HDTF
(WDA_JimMcGovern1_000.mp4, RD_Radio10_000.mp4, ...) or any other (one folder for each person, or videos of one person each); or
the word synthetic for synthetic people with exact labels (a folder of that name is ./synthetic). Videos are split into shots
and these into clips that show one face; each clip is cropped to a square around the face at 25 fps with 16 kHz audio,
landmarks, head keypoints, expression, pose and masks, and written to WebDataset shards with a manifest. An interrupted run
resumes when it is repeated with the same options. --check compares every byte of finished shards with their manifest.
"""


def add_prepare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = MEANING
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="folder of videos, or: synthetic")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for shards and manifest")
    parser.add_argument("--check", type=Path, metavar="DIR", help="check a finished data set instead")
    parser.add_argument("--jobs", "--workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    parser.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL_RAY,
        default="",
        metavar="ADDRESS",
        help="distribute the work over a Ray cluster (auto: the one of this machine); no address: a new Ray here. SOURCE, --out and "
        "--models have to be on disks that all machines see",
    )
    parser.add_argument(
        "--models",
        type=Path,
        action="append",
        metavar="DIR",
        help="models folder (./models), may be given several times",
    )
    _add_output(parser.add_argument_group("output"))
    _add_videos(parser.add_argument_group("videos"))
    _add_synthetic(parser.add_argument_group("synthetic"))


def _add_output(group: argparse._ArgumentGroup) -> None:
    standard = OutputOptions()
    group.add_argument("--size", type=int, help=f"pixels per side ({standard.size}; synthetic {SYNTHETIC_SIZE})")
    group.add_argument(
        "--seconds", type=float, help=f"longest clip ({standard.seconds:g}); synthetic: of each ({SYNTHETIC_SECONDS:g})"
    )
    group.add_argument(
        "--crf", type=int, default=standard.crf, help="quality of the video, 0 is lossless (%(default)s)"
    )
    group.add_argument(
        "--shard-mb", type=int, default=standard.shard_mb, help="largest shard, 10^6 bytes (%(default)s)"
    )
    group.add_argument(
        "--shard-clips", type=int, default=standard.shard_clips, help="most clips in a shard (0: any number)"
    )
    group.add_argument(
        "--audio-encoder",
        default=standard.audio_encoder,
        metavar="DIR",
        help="also store features of Whisper or wav2vec2",
    )


def _add_videos(group: argparse._ArgumentGroup) -> None:
    standard = VideoOptions()
    group.add_argument("--layout", choices=LAYOUTS, help=f"how videos are named ({standard.layout})")
    group.add_argument("--views", metavar="A,B,...", help=f"camera positions of MEAD ({','.join(standard.views)})")
    group.add_argument("--test-identities", metavar="A,B,...", help="people of the test split (a share of all)")
    group.add_argument(
        "--test-share",
        type=float,
        help=f"share of the identities in the test split, chosen by a hash ({standard.test_share})",
    )
    group.add_argument("--backend", choices=BACKENDS, help=f"detector of the faces ({standard.backend})")
    group.add_argument(
        "--expression",
        choices=(OF_BACKEND, DEEP3D),
        help=f"source of the expression coefficients ({standard.expression})",
    )
    group.add_argument(
        "--space",
        choices=SPACES,
        help="liveportrait: also store every clip's motion in LivePortrait's space; models/liveportrait is needed "
        f"({standard.space})",
    )
    group.add_argument("--smoothing", type=float, help=f"of the points, 0 is off, 1 strongest ({standard.smoothing:g})")
    group.add_argument(
        "--face", choices=FACES, help=f"which of several faces; one: skip segments that show several ({standard.face})"
    )
    group.add_argument("--face-index", type=int, help="for 'left to right': 0 is the leftmost (0)")
    group.add_argument("--min-face", type=int, help="least size of a face in pixels of the video (a quarter of --size)")
    group.add_argument("--margin", type=float, help=f"side of the crop, in faces ({standard.margin:g})")


def _add_synthetic(group: argparse._ArgumentGroup) -> None:
    standard = SyntheticOptions()
    group.add_argument("--speakers", type=int, help=f"people of the train split ({standard.speakers})")
    group.add_argument("--test-speakers", type=int, help=f"people of the test split ({standard.test_speakers})")
    group.add_argument("--clips-per-speaker", type=int, help=f"({standard.clips_per_speaker})")
    group.add_argument("--takes", type=int, help=f"further performances of each clip, without video ({standard.takes})")
    group.add_argument("--seed", type=int, help=f"chooses emotions and sentences ({standard.seed})")
    group.add_argument(
        "--synthetic-version",
        dest="version",
        type=int,
        choices=VERSIONS,
        help=f"of the pictures: 1 drawings, 2 looks like photographs ({standard.version})",
    )


def run_prepare(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    if args.check is not None:
        if args.source is not None or args.out is not None:
            raise PortraitError("--check takes the folder of finished shards and neither SOURCE nor --out")
        with tqdm(desc="check", unit="shard", disable=None) as bar:
            manifest = check(args.check, lambda done, total: _update(bar, done, total))
        print("\n".join(summary(manifest)))
        print(f"{len(manifest.shards)} shards match their manifest")
        return
    if args.source is None or args.out is None:
        raise PortraitError("svp prepare needs SOURCE (a folder of videos, or: synthetic) and --out DIR")
    if not 1 <= args.jobs <= MAX_JOBS:
        raise PortraitError(f"--jobs is {args.jobs}: 1 to {MAX_JOBS} are allowed")
    synthetic = args.source == SYNTHETIC
    config = config_from_arguments(args, synthetic)
    root = None if synthetic else Path(args.source)
    models = args.models or [Path("models")]
    with tqdm(desc="prepare", unit="person" if synthetic else "video", disable=None) as bar:
        manifest = prepare(
            root, args.out, config, args.jobs, args.ray, models, lambda done, total: _update(bar, done, total)
        )
    print("\n".join(summary(manifest)))
    for split in ("train", "test"):
        if not manifest.samples(split):
            print(f"svp: the {split} split is empty: see --test-identities and --test-share", file=sys.stderr)
    print(manifest.folder / FILE)


def config_from_arguments(args: argparse.Namespace, synthetic: bool) -> PrepareConfig:
    """The given options, others at their defaults; options for the other kind of source raise PortraitError."""
    videos = _given(args, VideoOptions)
    people = _given(args, SyntheticOptions)
    if wrong := [*(videos if synthetic else people)]:
        kind = "videos, not for synthetic" if synthetic else "synthetic, not for videos"
        raise PortraitError(f"--{wrong[0].replace('_', '-')} is for {kind}: leave it out")
    for name in ("views", "test_identities"):
        if name in videos:
            videos[name] = tuple(item for item in videos[name].split(",") if item)
    values = _given(args, OutputOptions)
    if synthetic:
        output = OutputOptions(**{"size": SYNTHETIC_SIZE, "seconds": SYNTHETIC_SECONDS, **values})
        return PrepareConfig(output, synthetic=SyntheticOptions(**people))
    return PrepareConfig(OutputOptions(**values), videos=VideoOptions(**videos))


def _given(args: argparse.Namespace, options: type) -> dict[str, Any]:
    """The values of a dataclass's fields that are options of the command and have been given."""
    values = {field.name: getattr(args, field.name, None) for field in fields(options)}
    return {name: value for name, value in values.items() if value is not None}


def _update(bar: tqdm, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)
    bar.refresh()


PORTRAIT = ".png"
MOST = 2**31  # people and clips that can be numbered
LARGEST = 2048  # pixels; the face is drawn from curves, beyond this only time grows


def add_synthesize_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE.mp4", help="video to write")
    parser.add_argument(
        "--benchmark", action="store_true", help="instead, print how many frames a second one core renders"
    )
    parser.add_argument("--portrait", type=Path, metavar="FILE.png", help="also write the person's relaxed face")
    parser.add_argument("--speaker", type=int, default=0, metavar="N", help="which person, from 0 (%(default)s)")
    parser.add_argument("--split", choices=SPLITS, default="test", help="the people to choose from (%(default)s)")
    parser.add_argument("--emotion", choices=EMOTIONS, default="happy", help="(%(default)s)")
    parser.add_argument("--intensity", type=int, choices=INTENSITIES, default=3, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which of the clips, and so which words (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="(%(default)s)")
    parser.add_argument("--fps", type=float, default=25.0, help="(%(default)s)")
    parser.add_argument("--size", type=int, default=256, help="pixels per side (%(default)s)")
    parser.add_argument(
        "--synthetic-version",
        dest="version",
        type=int,
        choices=VERSIONS,
        default=1,
        help="of the pictures: 1 drawings, 2 looks like photographs (%(default)s)",
    )


def run_synthesize(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    if args.benchmark:
        for line in render_speed():
            print(line, flush=True)
        return
    if args.file is None:
        raise PortraitError("svp synthesize needs FILE.mp4, the video to write (or --benchmark)")
    if not (0 <= args.speaker < MOST and 0 <= args.seed < MOST):
        raise PortraitError(f"--speaker is {args.speaker} and --seed {args.seed}: both count from 0 to {MOST - 1}")
    if not (0 < args.seconds <= 600 and 1 <= args.fps <= 120 and 32 <= args.size <= LARGEST):
        raise PortraitError(
            f"{args.seconds:g} s at {args.fps:g} fps and {args.size} pixels: choose up to 600 s, 1 to 120 fps and "
            f"32 to {LARGEST} pixels"
        )
    check_outputs(args.file, args.portrait)
    if args.file.suffix.lower() not in CONTAINERS:
        raise PortraitError(f"{args.file}: the ending must be one of {', '.join(CONTAINERS)}")
    if args.portrait is not None and args.portrait.suffix.lower() != PORTRAIT:
        raise PortraitError(f"{args.portrait}: the ending must be {PORTRAIT}")
    person = speaker(args.speaker, args.split)
    clip = make_clip(person, args.emotion, args.intensity, args.seed, args.seconds, args.fps, args.size, args.version)
    audio = Audio(torch.from_numpy(clip.audio)[None], SAMPLE_RATE)
    args.file.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(args.file, args.size, args.size, args.fps, audio) as writer:
        writer.write(clip.images)
    print(printable(args.file))
    if args.portrait is not None:
        save_png(args.portrait, neutral_portrait(person, args.size, args.version).images[0])
        print(printable(args.portrait))
    print(clip.text)
