"""Commands about weights: `svp info` (one file), `svp models` (the model zoo), `svp download` and `svp convert`."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..checkpoints.convert import DTYPES, convert
from ..checkpoints.hub import download
from ..checkpoints.liveportrait import load_liveportrait
from ..checkpoints.liveportrait_file import export_liveportrait
from ..checkpoints.model_file import load_model
from ..checkpoints.model_zoo import ENTRIES, ZOO, Entry, entry_named, file_in, size_text
from ..checkpoints.safetensors_io import FORMAT, check_file, sha256_of
from ..checkpoints.vexpress import dropped, export_vexpress
from ..config import ModelConfig, StyleLayerConfig
from ..errors import PortraitError
from ..io.file_names import printable
from ..io.strict_config import config_from_dict, json_value
from .folders import OpenNodes

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
        help="also the memory for sampling with a model at this size, for example 512x512",
    )


def run_info(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    described = describe(args.file)
    if args.memory:
        described["memory"] = memory(described, args.memory)
    print(json.dumps(described, indent=2) if args.json else as_text(described))
    if described["problem"]:
        raise PortraitError(described["problem"])


def describe(path: Path) -> dict:
    """Contents of a file from its header: size, metadata, config and its problem, and values and dtypes of each part."""
    check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            slices = {key: file.get_slice(key) for key in file.keys()}
            shapes = {key: (part.get_shape(), part.get_dtype()) for key, part in slices.items()}
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
    """Removes the config from the metadata of a file of this pack and returns it with its problem; others keep it as text."""
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
    """Bytes for sampling by precision: weights of the denoising and of the conditions, and working memory by plan."""
    # lazy: these imports take seconds, and only --memory needs them
    from ..diffusion.checks import check_size
    from ..diffusion.memory import PLANS, sampling_memory

    if described["metadata"].get("kind") != MODEL:
        raise PortraitError(f"{described['file']}: --memory is for model files, this is of another kind")
    if described["problem"]:
        raise PortraitError(described["problem"])
    config = config_from_dict(ModelConfig, described["config"], f"{described['file']}: config")
    if not (match := re.fullmatch(r"(\d+)x(\d+)", size)):
        raise PortraitError(f"--memory is {size!r}: write width x height in pixels, 512x512 for example")
    width, height = int(match[1]), int(match[2])
    check_size(width, height, config.vae.downscale)
    counted = {part: entry["values"] for part, entry in described["parts"].items()}
    if missing := sorted({*DENOISING, *CONDITIONS} - set(counted)):
        raise PortraitError(f"{described['file']}: it has no {missing[0]}: use the original file")
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
    """Default sampling settings of a model; files of old releases lack some and get the defaults."""
    default = {name: config.get(name, getattr(ModelConfig, name)) for name in ("steps", "cfg", "fps", "size", "window")}
    return (
        f"  sampling        {default['steps']} steps, cfg {default['cfg']:g}, {default['fps']:g} fps, {default['size']} x {default['size']} pixels, "
        f"windows of {default['window']} frames, by default"
    )


def _fitting(config: dict) -> str:
    """The models that the style layers of a file fit."""
    layers = config_from_dict(StyleLayerConfig, config)
    widths = ", ".join(map(str, layers.base.block_out_channels))
    return (
        f"style layers for a model of widths {widths} and tokens of {layers.base.cross_attention_dim}; styles of "
        f"{layers.style.style_size} values from {layers.features} features and {layers.style.expression_size} coefficients"
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
    lines.append(f"    {'total':<24}{sum(entry['values'] for entry in described['parts'].values()):>14,}")
    if memory := described.get("memory"):
        size = f"{memory['width']} x {memory['height']}, windows of {memory['window']} frames"
        lines.append(f"  memory to sample at {size}, in GB")
        for dtype, needed in memory["bytes"].items():
            known = ", ".join(f"{name.replace('_', ' ')} {count / 1e9:.2f}" for name, count in needed.items())
            lines.append(f"    {dtype:<6}{known}")
    for name, value in (described["config"] or {}).items():
        lines.append(f"  config.{name:<16} {json.dumps(value)}")
    return "\n".join(map(printable, lines))  # metadata of files from others cannot control the terminal


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
    """The entry as plain values; each file with its path in the models folders (None: missing) and its size there."""
    files = []
    for file in entry.files:
        path = file_in(file, entry.folder, roots)
        files.append(
            {
                "name": file.name,
                "bytes": file.bytes,
                "sha256": file.sha256,
                "path": None if path is None else str(path),
                "bytes_there": None if path is None else path.stat().st_size,
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
    for entry in sorted(described, key=lambda entry: not entry["present"]):
        lines.append(f"{'present' if entry['present'] else 'missing'}  {entry['name']}: {entry['enables']}")
        for file in entry["files"]:
            lines.append(f"         {_file_line(file, entry['folder'])}")
        how = f"svp download {entry['name']}, or {entry['source']}" if entry["downloads"] else entry["source"]
        lines.append(f"         licence: {entry['licence'] or 'not stated'}" + ("" if entry["present"] else f"; {how}"))
    return lines


def _file_line(file: dict, folder: str) -> str:
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
a model file of this pack; or Stable Diffusion 1.5 (file or diffusers folder), optionally with an AnimateDiff motion module
and an autoencoder; or a V-Express folder, with an autoencoder unless there is one in it, next to it or in models/vae;
or a folder with LivePortrait's five files, or the single file of them
"""


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help=SOURCES)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="PATH", help=".safetensors file, or folder, to write"
    )
    parser.add_argument(
        "--to", choices=("svp", "vexpress", "liveportrait"), default="svp", help="what to write (%(default)s)"
    )
    parser.add_argument(
        "--dtype",
        choices=tuple(DTYPES),
        help="precision; default: as stored for a model file of this pack, fp32 for LivePortrait, else fp16",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the fresh layers (%(default)s)")


def run_convert(args: argparse.Namespace, open_nodes: OpenNodes) -> None:
    dtype = DTYPES[args.dtype] if args.dtype else None
    if args.to == "vexpress":
        if len(args.sources) != 1:
            raise PortraitError(f"{len(args.sources)} sources: --to vexpress takes one model file of this pack")
        model = load_model(args.sources[0], dtype)
        for line in [*export_vexpress(args.out, model), *dropped(model)]:
            print(line)
        return
    if args.to == "liveportrait":
        if len(args.sources) != 1:
            raise PortraitError(f"{len(args.sources)} sources: --to liveportrait takes the single file of LivePortrait")
        for path in export_liveportrait(args.out, load_liveportrait(args.sources[0])):
            print(path)
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
        print(f"{entry.name}: {size_text(entry.bytes)}, licence: {entry.licence or 'not stated by its authors'}")
        known = {file.name: file.sha256 for file in entry.files}
        for path in download(entry, args.models, args.endpoint):
            print(path if known[path.name] else f"{path}  SHA-256 not published; this file has {sha256_of(path)}")
