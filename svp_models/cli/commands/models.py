"""svp models: which published weights are there, which are not, and what the missing ones would enable.

svp info: what is in a model or style file, from its header alone.

svp convert: published weights -> one model file of the pack, or such a file -> V-Express' five.

svp download: published weights from Hugging Face into the models folder.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ...checkpoints.convert import DTYPES, convert
from ...checkpoints.hub import download
from ...checkpoints.model_file import load_model
from ...checkpoints.model_zoo import ENTRIES, ZOO, Entry, entry_named, file_in, size_text
from ...checkpoints.safetensors_io import sha256_of
from ...checkpoints.vexpress import dropped, export_vexpress
from ...config import ModelConfig, StyleLayerConfig
from ...errors import PortraitError
from ...io.file_names import printable
from ...io.strict_config import config_from_dict, json_value
from ..runner import OpenNodes

FORMAT = "svp-portrait"
MODEL, STYLE_LAYER = "model", "style_layer"  # kinds of files
CONFIGS = {MODEL: ModelConfig, STYLE_LAYER: StyleLayerConfig}
DENOISING, CONDITIONS = ("denoiser", "guider"), ("reference", "audio_projection", "style_projection", "style_extractor")
FIRST_KEYS = ("format", "format_version", "kind", "label", "style_space", "seed", "step", "data_version")


def add_info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a .safetensors file: model, style layers, style prior or style"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument(
        "--memory",
        metavar="WxH",
        help="also the memory that sampling with a model takes at this size, 512x512 for example",
    )


def run_info(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    described = describe(args.file)
    if args.memory:
        described["memory"] = memory(described, args.memory)
    print(json.dumps(described, indent=2) if args.json else as_text(described))
    if described["problem"]:
        raise PortraitError(described["problem"])


def describe(path: Path) -> dict:
    """File, size in bytes, metadata, decoded config, what is wrong with that, and for each part its number of values and
    dtypes."""
    if not path.is_file():
        raise PortraitError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            slices = {key: file.get_slice(key) for key in file.keys()}
            shapes = {key: (each.get_shape(), each.get_dtype()) for key, each in slices.items()}
    except (OSError, SafetensorError) as error:
        raise PortraitError(f"{path}: not a whole safetensors file ({error}): download or save it again") from error
    counts: Counter[str] = Counter()
    dtypes: dict[str, set[str]] = {}
    for key, (shape, dtype) in shapes.items():
        part = _part(key)
        counts[part] += math.prod(shape)
        dtypes.setdefault(part, set()).add(dtype)
    config, problem = _config(path, metadata)
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "metadata": metadata,
        "config": config,
        "problem": problem,
        "parts": {part: {"values": count, "dtypes": sorted(dtypes[part])} for part, count in counts.items()},
    }


def _config(path: Path, metadata: dict[str, str]) -> tuple[dict | None, str]:
    """The config in the metadata of a file of this pack, which is taken out, and what is wrong with it. Of other files a
    `config` stays the text that it is."""
    cls = CONFIGS.get(metadata.get("kind", "")) if metadata.get("format") == FORMAT else None
    if cls is None:
        return None, ""
    try:
        config = json_value(metadata.get("config", ""), f"{path}: config")
        config_from_dict(cls, config, f"{path}: config")
    except PortraitError as error:
        return None, str(error)
    del metadata["config"]
    return config, ""


def memory(described: dict, size: str) -> dict:
    """Bytes that sampling needs by precision: weights while it denoises and before that, and to work with by plan."""
    # Here, because only this needs what takes seconds to start.
    from ...checkpoints.convert import DTYPES
    from ...diffusion.checks import check_size
    from ...diffusion.memory import PLANS, sampling_memory

    if described["metadata"].get("kind") != MODEL:
        raise PortraitError(f"{described['file']}: --memory is for model files, this holds another kind")
    if described["problem"]:
        raise PortraitError(described["problem"])
    config = config_from_dict(ModelConfig, described["config"], f"{described['file']}: config")
    if not (match := re.fullmatch(r"(\d+)x(\d+)", size)):
        raise PortraitError(f"--memory is {size!r}: write width x height in pixels, 512x512 for example")
    width, height = int(match[1]), int(match[2])
    check_size(width, height, config.vae.downscale)
    counted = {part: entry["values"] for part, entry in described["parts"].items()}
    if missing := sorted({*DENOISING, *CONDITIONS} - set(counted)):
        raise PortraitError(f"{described['file']}: there is no {missing[0]} in it: get the original file")
    needed = {}
    for name in ("fp16", "fp32"):
        dtype = DTYPES[name]
        together, apart = (
            sampling_memory(config, plan, config.cfg, config.window, (width, height), dtype) for plan in PLANS
        )
        needed[name] = {
            "weights_denoising": dtype.itemsize * sum(counted[part] for part in DENOISING),
            "weights_before": dtype.itemsize * sum(counted[part] for part in CONDITIONS),
            "working": together,
            "working_halves_apart": apart,
        }
    return {"width": width, "height": height, "window": config.window, "bytes": needed}


def _part(key: str) -> str:
    """The network a tensor belongs to: the first word of its key, or the second below `networks`."""
    words = key.split(".")
    return words[1] if words[0] == "networks" and len(words) > 1 else words[0]


def _sampling(config: dict) -> str:
    """What a model is sampled with unless told otherwise; a file from before models knew it says nothing about it."""
    own = {name: config.get(name, getattr(ModelConfig, name)) for name in ("steps", "cfg", "fps", "size", "window")}
    return (
        f"  sampling        {own['steps']} steps, cfg {own['cfg']:g}, {own['fps']:g} fps, {own['size']} x {own['size']} pixels, "
        f"windows of {own['window']} frames, unless told otherwise"
    )


def _fitting(config: dict) -> str:
    """Which models the style layers of a file fit."""
    layers = config_from_dict(StyleLayerConfig, config)  # what it leaves out is as always
    widths = ", ".join(map(str, layers.base.block_out_channels))
    return (
        f"style layers for a model of widths {widths} and tokens of {layers.base.cross_attention_dim}; styles of "
        f"{layers.style.style_size} numbers from {layers.features} features and {layers.style.expression_size} coefficients"
    )


def as_text(described: dict) -> str:
    """The description as aligned lines."""
    metadata = described["metadata"]
    lines = [f"{described['file']}: {described['bytes'] / 1e6:.2f} MB"]
    if metadata.get("format") != FORMAT:
        lines.append("not written by this pack; its tensors:")
    ordered = [key for key in FIRST_KEYS if key in metadata] + sorted(set(metadata) - set(FIRST_KEYS))
    lines += [f"  {key:<16}{metadata[key]}" for key in ordered]
    if metadata.get("kind") == MODEL and described["config"]:
        lines.append(_sampling(described["config"]))
    if metadata.get("kind") == STYLE_LAYER and described["config"]:
        lines.append(f"  {_fitting(described['config'])}")
    lines.append("  values")
    for part, entry in described["parts"].items():
        lines.append(f"    {part:<24}{entry['values']:>14,}  {', '.join(entry['dtypes'])}")
    lines.append(f"    {'total':<24}{sum(each['values'] for each in described['parts'].values()):>14,}")
    if memory := described.get("memory"):
        size = f"{memory['width']} x {memory['height']}, windows of {memory['window']} frames"
        lines.append(f"  memory to sample at {size}, in GB")
        for dtype, needed in memory["bytes"].items():
            known = ", ".join(f"{name.replace('_', ' ')} {count / 1e9:.2f}" for name, count in needed.items())
            lines.append(f"    {dtype:<6}{known}")
    for name, value in (described["config"] or {}).items():
        lines.append(f"  config.{name:<16} {json.dumps(value)}")
    return "\n".join(map(printable, lines))  # what others have written into a file is shown and not obeyed


def add_models_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models",
        type=Path,
        action="append",
        metavar="DIR",
        help="models folder (./models), may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list instead")


def run_models(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    roots = args.models or [Path("models")]
    described = [describe_files(entry, roots) for entry in ZOO]
    print(json.dumps(described, indent=2) if args.json else "\n".join(as_lines(described)))


def describe_files(entry: Entry, roots: list[Path]) -> dict:
    """The entry as plain values; each file with its place in the models folders (None: missing) and its size there."""
    files = []
    for file in entry.files:
        place = file_in(file, entry.folder, roots)
        files.append(
            {
                "name": file.name,
                "bytes": file.bytes,
                "sha256": file.sha256,
                "path": None if place is None else str(place),
                "bytes_there": None if place is None else place.stat().st_size,
            }
        )
    return {
        "name": entry.name,
        "present": all(file["path"] for file in files),
        "folder": f"models/{entry.folder}",
        "licence": entry.licence,
        "source": entry.source,
        "downloads": entry.repository is not None,
        "enables": entry.enables,
        "files": files,
    }


def as_lines(described: list[dict]) -> list[str]:
    """A few lines for each entry, those that are present first."""
    lines = []
    for each in sorted(described, key=lambda each: not each["present"]):
        lines.append(f"{'present' if each['present'] else 'missing'}  {each['name']}: {each['enables']}")
        for file in each["files"]:
            lines.append(f"         {_place(file, each['folder'])}")
        how = f"svp download {each['name']}, or {each['source']}" if each["downloads"] else each["source"]
        lines.append(f"         licence: {each['licence'] or 'not stated'}" + ("" if each["present"] else f"; {how}"))
    return lines


def _place(file: dict, folder: str) -> str:
    size = size_text(file["bytes"])
    hashed = "" if file["sha256"] else "  SHA-256 not published"
    if file["path"] is None:
        return f"{folder}/{file['name']}  {size}  missing{hashed}"
    if file["bytes"] not in (None, file["bytes_there"]):
        return (
            f"{file['path']}  {file['bytes_there']:,} bytes, the published file has {file['bytes']:,}: another version?"
        )
    return f"{file['path']}  {size_text(file['bytes_there'])}{hashed}"


SOURCES = """\
a model file of this pack; or Stable Diffusion 1.5 (file or diffusers folder), with an AnimateDiff motion module and an
autoencoder as you like; or a V-Express folder, with an autoencoder unless one lies in it, beside it or in models/vae
"""


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help=SOURCES)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help=".safetensors file, or folder, to write"
    )
    parser.add_argument("--to", choices=("svp", "vexpress"), default="svp", help="what to write (%(default)s)")
    parser.add_argument(
        "--dtype", choices=tuple(DTYPES), help="precision; default: as stored for a model file of this pack, else fp16"
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the layers that start fresh (%(default)s)")


def run_convert(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
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


def add_download_arguments(parser: argparse.ArgumentParser) -> None:
    known = ", ".join(name for name, entry in ENTRIES.items() if entry.repository)
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"what to download: {known}")
    parser.add_argument(
        "--models", type=Path, default=Path("models"), metavar="DIR", help="models folder to put it below (%(default)s)"
    )
    parser.add_argument("--endpoint", metavar="URL", help="a mirror of huggingface.co; HF_ENDPOINT does the same")


def run_download(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    entries = [entry_named(name) for name in args.names]
    for entry in entries:
        print(f"{entry.name}: {size_text(entry.bytes)}, licence: {entry.licence or 'not stated by its makers'}")
        known = {file.name: file.sha256 for file in entry.files}
        for path in download(entry, args.models, args.endpoint):
            print(path if known[path.name] else f"{path}  SHA-256 not published; of this file: {sha256_of(path)}")
