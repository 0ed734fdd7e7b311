"""svp convert: published weights -> one model file of the pack, or such a file -> V-Express' five."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...checkpoints.convert import DTYPES, convert
from ...checkpoints.native import load_model
from ...checkpoints.vexpress_export import dropped, export_vexpress
from ...errors import PortraitError
from ..session import OpenNodes

SOURCES = """\
a model file of this pack; or Stable Diffusion 1.5 (file or diffusers folder), with an AnimateDiff motion module and an
autoencoder as you like; or a V-Express folder, with an autoencoder unless one lies in it, beside it or in models/vae
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help=SOURCES)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help=".safetensors file, or folder, to write"
    )
    parser.add_argument("--to", choices=("svp", "vexpress"), default="svp", help="what to write (%(default)s)")
    parser.add_argument(
        "--dtype", choices=tuple(DTYPES), help="precision; default: as stored for a model file of this pack, else fp16"
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the layers that start fresh (%(default)s)")


def run(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    dtype = DTYPES[args.dtype] if args.dtype else None
    if args.to == "vexpress":
        if len(args.sources) != 1:
            raise PortraitError(f"{len(args.sources)} sources: --to vexpress takes one model file of this pack")
        model = load_model(args.sources[0], dtype)
        for line in [*export_vexpress(args.out, model), *dropped(model)]:
            print(line)
        return
    if args.out.suffix != ".safetensors":
        raise PortraitError(f"--out is {args.out}: a model file ends in .safetensors")
    for line in convert(args.sources, args.out, dtype, seed=args.seed):
        print(line)
    print(f"{args.out}  {args.out.stat().st_size:,} bytes")
