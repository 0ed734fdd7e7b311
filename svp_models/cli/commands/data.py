"""svp prepare: training data. What it writes and how is in svp_models/dataset.

svp synthesize: one clip of a synthetic person, as training and evaluation see them, written as a video.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from ...data.executor import LOCAL_RAY
from ...data.manifest import FILE, summary
from ...data.prepare import check, prepare
from ...data.schema import (
    BACKENDS,
    DEEP3D,
    FACES,
    LAYOUTS,
    OF_BACKEND,
    DrawnOptions,
    FilmOptions,
    OutputOptions,
    Recipe,
)
from ...errors import PortraitError
from ...io.file_names import printable
from ...io.files import check_outputs
from ...media.images import save_png
from ...media.writer import CONTAINERS, VideoWriter
from ...synthetic.clips import make_clip, neutral_portrait
from ...synthetic.performance import EMOTIONS, INTENSITIES
from ...synthetic.speakers import SPLITS, speaker
from ...synthetic.speech import SAMPLE_RATE
from ...types import Audio
from ..runner import OpenNodes

MOST_WORKERS = 1024
DRAWN = "synthetic"
DRAWN_SIZE, DRAWN_SECONDS = 256, 4.0  # drawing takes long
MEANING = """\
SOURCE is a folder of films: MEAD (M003/video/front/angry/level_1/001.mp4, sound beside it in M003/audio), HDTF
(WDA_JimMcGovern1_000.mp4, RD_Radio10_000.mp4, ...) or any other (one folder for each person, or films of one person each); or
the word synthetic for drawn people with exact labels (a folder of that name is ./synthetic). Films are cut into shots and
these into clips that show one face; each is cropped to a square around the face at 25 fps with 16 kHz sound, landmarks, head
keypoints, expression, pose and masks, and written to WebDataset shards with a manifest. A run that was interrupted goes on when
it is repeated with the same options. --check compares every byte of finished shards with their manifest.
"""


def add_prepare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = MEANING
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="folder of films, or: synthetic")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where shards and manifest go")
    parser.add_argument("--check", type=Path, metavar="DIR", help="check a finished data set instead")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    parser.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL_RAY,
        default="",
        metavar="ADDRESS",
        help="spread the work over a Ray cluster (auto: the one of this machine); no address: a Ray of its own here. SOURCE, "
        "--out and --models have to be on disks that all machines see",
    )
    parser.add_argument(
        "--models",
        type=Path,
        action="append",
        metavar="DIR",
        help="models folder (./models), may be given several times",
    )
    _add_output(parser.add_argument_group("output"))
    _add_films(parser.add_argument_group("films"))
    _add_drawn(parser.add_argument_group("synthetic"))


def _add_output(group: argparse._ArgumentGroup) -> None:
    standard = OutputOptions()
    group.add_argument("--size", type=int, help=f"pixels per side ({standard.size}; synthetic {DRAWN_SIZE})")
    group.add_argument(
        "--seconds", type=float, help=f"longest clip ({standard.seconds:g}); synthetic: of each ({DRAWN_SECONDS:g})"
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


def _add_films(group: argparse._ArgumentGroup) -> None:
    standard = FilmOptions()
    group.add_argument("--layout", choices=LAYOUTS, help=f"how films are named ({standard.layout})")
    group.add_argument("--views", metavar="A,B,...", help=f"camera positions of MEAD ({','.join(standard.views)})")
    group.add_argument("--test-identities", metavar="A,B,...", help="who is in the test split (a share of all)")
    group.add_argument(
        "--test-share", type=float, help=f"share of the identities that is, by a hash ({standard.test_share})"
    )
    group.add_argument("--backend", choices=BACKENDS, help=f"who finds faces ({standard.backend})")
    group.add_argument(
        "--expression", choices=(OF_BACKEND, DEEP3D), help=f"where its coefficients come from ({standard.expression})"
    )
    group.add_argument("--smoothing", type=float, help=f"of the points, 0 is off, 1 strongest ({standard.smoothing:g})")
    group.add_argument(
        "--face", choices=FACES, help=f"which of several; one: refuse pieces that show several ({standard.face})"
    )
    group.add_argument("--face-index", type=int, help="for 'left to right': 0 is the leftmost (0)")
    group.add_argument("--min-face", type=int, help="least size of a face in pixels of the film (a quarter of --size)")
    group.add_argument("--margin", type=float, help=f"side of the crop, in faces ({standard.margin:g})")


def _add_drawn(group: argparse._ArgumentGroup) -> None:
    standard = DrawnOptions()
    group.add_argument("--speakers", type=int, help=f"people of the train split ({standard.speakers})")
    group.add_argument("--test-speakers", type=int, help=f"people of the test split ({standard.test_speakers})")
    group.add_argument("--clips-per-speaker", type=int, help=f"({standard.clips_per_speaker})")
    group.add_argument(
        "--takes", type=int, help=f"further performances of each clip, without pictures ({standard.takes})"
    )
    group.add_argument("--seed", type=int, help=f"draws emotions and sentences ({standard.seed})")


def run_prepare(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    if args.check is not None:
        if args.source is not None or args.out is not None:
            raise PortraitError("--check takes the folder of finished shards and neither SOURCE nor --out")
        with tqdm(desc="check", unit="shard", disable=None) as bar:
            manifest = check(args.check, lambda done, total: _show(bar, done, total))
        print("\n".join(summary(manifest)))
        print(f"{len(manifest.shards)} shards are as their manifest says")
        return
    if args.source is None or args.out is None:
        raise PortraitError("svp prepare needs SOURCE (a folder of films, or: synthetic) and --out DIR")
    if not 1 <= args.workers <= MOST_WORKERS:
        raise PortraitError(f"--workers is {args.workers}: 1 to {MOST_WORKERS} are allowed")
    drawn = args.source == DRAWN
    recipe = recipe_of(args, drawn)
    root = None if drawn else Path(args.source)
    models = args.models or [Path("models")]
    with tqdm(desc="prepare", unit="person" if drawn else "film", disable=None) as bar:
        manifest = prepare(
            root, args.out, recipe, args.workers, args.ray, models, lambda done, total: _show(bar, done, total)
        )
    print("\n".join(summary(manifest)))
    for split in ("train", "test"):
        if not manifest.samples(split):
            print(f"svp: the {split} split is empty: see --test-identities and --test-share", file=sys.stderr)
    print(manifest.folder / FILE)


def recipe_of(args: argparse.Namespace, drawn: bool) -> Recipe:
    """The options given, others at their defaults; those of the other kind of source raise PortraitError."""
    films = {name: getattr(args, name) for name in FilmOptions.__dataclass_fields__}
    people = {name: getattr(args, name) for name in DrawnOptions.__dataclass_fields__}
    stray = [name for name, value in (films if drawn else people).items() if value is not None]
    if stray:
        kind = "films, not for synthetic" if drawn else "synthetic, not for films"
        raise PortraitError(f"--{stray[0].replace('_', '-')} is for {kind}: leave it out")
    for name in ("views", "test_identities"):
        if films[name] is not None:
            films[name] = tuple(each for each in films[name].split(",") if each)
    given = {"size": args.size, "seconds": args.seconds}
    if drawn:
        given = {"size": args.size or DRAWN_SIZE, "seconds": args.seconds or DRAWN_SECONDS}
    rest = {name: getattr(args, name) for name in ("crf", "shard_mb", "shard_clips", "audio_encoder")}
    output = OutputOptions(**{name: value for name, value in given.items() if value is not None}, **rest)
    if drawn:
        return Recipe(
            output, drawn=DrawnOptions(**{name: value for name, value in people.items() if value is not None})
        )
    return Recipe(output, films=FilmOptions(**{name: value for name, value in films.items() if value is not None}))


def _show(bar: tqdm, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)
    bar.refresh()


PORTRAIT = ".png"
MOST = 2**31  # people and clips that can be numbered
LARGEST = 2048  # pixels; the face is drawn from curves, beyond this only time grows


def add_synthesize_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.mp4", help="video to write")
    parser.add_argument("--portrait", type=Path, metavar="FILE.png", help="also write the person's relaxed face")
    parser.add_argument("--speaker", type=int, default=0, metavar="N", help="which person, from 0 (%(default)s)")
    parser.add_argument("--split", choices=SPLITS, default="test", help="the people to choose from (%(default)s)")
    parser.add_argument("--emotion", choices=EMOTIONS, default="happy", help="(%(default)s)")
    parser.add_argument("--intensity", type=int, choices=INTENSITIES, default=3, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which of the clips, and so which words (%(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="(%(default)s)")
    parser.add_argument("--fps", type=float, default=25.0, help="(%(default)s)")
    parser.add_argument("--size", type=int, default=256, help="pixels per side (%(default)s)")


def run_synthesize(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
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
    clip = make_clip(person, args.emotion, args.intensity, args.seed, args.seconds, args.fps, args.size)
    audio = Audio(torch.from_numpy(clip.audio)[None], SAMPLE_RATE)
    args.file.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(args.file, args.size, args.size, args.fps, audio) as writer:
        writer.write(clip.images)
    print(printable(args.file))
    if args.portrait is not None:
        save_png(args.portrait, neutral_portrait(person, args.size).images[0])
        print(printable(args.portrait))
    print(clip.text)
