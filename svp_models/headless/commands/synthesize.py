"""svp synthesize: one clip of a synthetic person, as training and evaluation see them, written as a video."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ...errors import PortraitError
from ...io.files import check_outputs
from ...io.names import printable
from ...media.pictures import save_png
from ...media.writer import CONTAINERS, VideoWriter
from ...synthetic.clips import make_clip, neutral_portrait
from ...synthetic.emotions import EMOTIONS, INTENSITIES
from ...synthetic.sentences import SPLITS
from ...synthetic.speakers import speaker
from ...synthetic.speech import SAMPLE_RATE
from ...values import Audio
from ..session import OpenNodes

PORTRAIT = ".png"
MOST = 2**31  # people and clips that can be numbered
LARGEST = 2048  # pixels; the face is drawn from curves, beyond this only time grows


def add_arguments(parser: argparse.ArgumentParser) -> None:
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


def run(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
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
