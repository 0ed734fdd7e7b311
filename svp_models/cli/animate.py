"""`svp animate`: a photograph or video moved by a voice, a driving video or a motion file, in the style of a clip."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..data.sources import VIDEO_EXTENSIONS
from ..errors import PortraitError
from .folders import OpenNodes
from .generate import BACKENDS, Nodes, adder, check_inputs, write_video

REGIONS = ("all", "expression", "pose", "lips", "eyes")  # of Animate Portrait
LIPS, ALL = "lips", "all"


def add_animate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--portrait",
        type=Path,
        required=True,
        metavar="FILE",
        help="the photograph; or a video, of which the lips are moved (see --region)",
    )
    parser.add_argument("--audio", type=Path, metavar="AUDIO", help="the voice: an audio or video file")
    parser.add_argument(
        "--motion", type=Path, metavar="CLIP", help="a driving video, whose movements are taken instead of the voice's"
    )
    parser.add_argument("--style", type=Path, metavar="CLIP", help="the speaking style: a video of a speaker")
    parser.add_argument(
        "--emotion", metavar="NAMES", help="an emotion instead of a style clip, such as 'happy' or 'sad 0.7, fear 0.3'"
    )
    parser.add_argument(
        "--style-weight",
        type=float,
        default=1.0,
        metavar="W",
        help="strength of style or emotion, 0 to 2 (%(default)s)",
    )
    parser.add_argument("--region", choices=REGIONS, help="what is moved (all of a photograph, the lips of a video)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.mp4", help="the video to write")
    parser.add_argument("--force", action="store_true", help="overwrite the video if it is there")
    parser.add_argument(
        "--liveportrait",
        metavar="NAME",
        help="a set of ./models/liveportrait, as Load LivePortrait lists it (the first)",
    )
    parser.add_argument(
        "--generator",
        metavar="NAME",
        help="a motion generator of ./models, as Load Motion Generator lists it (the first)",
    )
    parser.add_argument(
        "--backend", metavar="NAME", help=f"face detection: {', '.join(BACKENDS)} (default: the best installed)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed gives the same video (%(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=0, metavar="N", help="steps of the generator; 0: its own (%(default)s)"
    )


def run_animate(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    check_inputs(args, "portrait", "audio", "motion", "style")
    if args.audio is None and args.motion is None:
        raise PortraitError("nothing moves the portrait: give a voice with --audio or a driving video with --motion")
    if args.style is not None and args.emotion is not None:
        raise PortraitError("--style and --emotion both name a style: give one of them")
    write_video(graph(args), args.out, args.force, open_nodes)


def graph(args: argparse.Namespace) -> Nodes:
    """The workflow in API form: the template `talk_photo` with the optional inputs."""
    nodes: Nodes = {}
    add = adder(nodes)
    names = {"seed": args.seed}
    given = {} if args.liveportrait is None else {"liveportrait": args.liveportrait}
    add("LivePortrait", "SVPLoadLivePortrait", **given)
    liveportrait: dict[str, Any] = {"liveportrait": ["LivePortrait", 0]}
    if args.backend:
        add("faces", "SVPLoadFaceAnalyzer", backend=args.backend)
        liveportrait["face_analyzer"] = ["faces", 0]
    video = args.portrait.suffix.lower() in VIDEO_EXTENSIONS
    if video:
        add("portrait", "LoadVideo", file=str(args.portrait.absolute()))
    else:
        add("portrait", "LoadImage", image=str(args.portrait.absolute()))
    region = args.region or (LIPS if video else ALL)
    if args.audio:
        add("speech", "LoadAudio", audio=str(args.audio.absolute()))
    if args.motion:
        add("driving clip", "LoadVideo", file=str(args.motion.absolute()))
        add("motion", "SVPMotionExtract", frames=["driving clip", 0], **liveportrait)
    else:
        given = {} if args.generator is None else {"generator": args.generator}
        add("generator", "SVPLoadMotionGenerator", **given)
        sources: dict[str, Any] = {"motion_generator": ["generator", 0], "audio": ["speech", 0]}
        if not video:
            sources |= {"portrait": ["portrait", 0], **liveportrait}
        add("motion", "SVPMotionGenerate", **sources, **names, steps=args.steps)
    motion = ["motion", 0]
    if args.style:
        add("style clip", "LoadVideo", file=str(args.style.absolute()))
        add("style", "SVPMotionExtract", frames=["style clip", 0], **liveportrait)
    elif args.emotion:
        add("style", "SVPMotionEmotion", emotion=args.emotion)
    if "style" in nodes:
        add("styled motion", "SVPMotionStyle", motion=motion, style=["style", 0], weight=args.style_weight, **names)
        motion = ["styled motion", 0]
    mode = "absolute" if video and region == LIPS else "relative"
    add("animate", "SVPAnimate", portrait=["portrait", 0], motion=motion, region=region, mode=mode, **liveportrait)
    audio = {"audio": ["speech", 0]} if args.audio else {}
    add("video", "SVPVideoCombine", images=["animate", 0], fps=["animate", 1], filename_prefix="video", **audio)
    return nodes
