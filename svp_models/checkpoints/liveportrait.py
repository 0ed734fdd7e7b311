"""LivePortrait's weights: as published, five files in one folder or in its two subfolders; or the pack's single file of them.

| file                            | network                                                       |
|---------------------------------|---------------------------------------------------------------|
| `appearance_feature_extractor`  | AppearanceExtractor                                           |
| `motion_extractor`              | MotionExtractor                                               |
| `warping_module`                | WarpingNetwork                                                |
| `spade_generator`               | SpadeGenerator; spectral norm is folded into the weights      |
| `stitching_retargeting_module`  | three MLPs: nested with `module.` (published), or flat        |

The networks' sizes follow from the tensors' shapes. The safetensors set that ComfyUI users have (Kijai's) has the same names but
for its flat stitching file: `retarget_shoulder_module.mlp.*`, `retarget_mouth_module.mlp.*`, `retarget_eye_module.mlp.*`.
The single file (`liveportrait_file`) has all tensors, spectral norm folded, below `appearance.`, `motion.`, `warping.`,
`generator.`, `stitching.`, `mouth.` and `eyes.`
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import PortraitError
from ..networks.layers import shapes_only
from ..networks.liveportrait.appearance_extractor import AppearanceConfig, AppearanceExtractor
from ..networks.liveportrait.motion_extractor import MotionExtractor, MotionExtractorConfig
from ..networks.liveportrait.spade_generator import SpadeConfig, SpadeGenerator
from ..networks.liveportrait.stitching import EYE_WIDTHS, MOUTH_WIDTHS, SHOULDER_WIDTHS, KeypointMLP
from ..networks.liveportrait.warping import DenseMotionConfig, WarpingConfig, WarpingNetwork
from .safetensors_io import load_strict, read_safetensors
from .third_party import find_weights, missing_stems, read_content, read_weights, weights_in

APPEARANCE, MOTION, WARPING = "appearance_feature_extractor", "motion_extractor", "warping_module"
GENERATOR, STITCHING = "spade_generator", "stitching_retargeting_module"
FILES = (APPEARANCE, MOTION, WARPING, GENERATOR, STITCHING)
SUBFOLDERS = ("", "base_models", "retargeting_models")  # as the published folder has them
RETARGETING = {"shoulder": SHOULDER_WIDTHS, "mouth": MOUTH_WIDTHS, "eye": EYE_WIDTHS}
FLAT_NAME = re.compile(r"retarget_(shoulder|mouth|eye)(?:_module)?\.(?:module\.)?(mlp\..+)")
SPECTRAL = ("weight_orig", "weight_u", "weight_v")
KIND = "liveportrait"  # of the single file

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class LivePortraitNetworks:
    """All networks of LivePortrait, in eval mode. stitching, mouth, eyes: corrections of key points."""

    appearance: AppearanceExtractor
    motion: MotionExtractor
    warping: WarpingNetwork
    generator: SpadeGenerator
    stitching: KeypointMLP
    mouth: KeypointMLP
    eyes: KeypointMLP


def holds_liveportrait(names: Iterable[str]) -> bool:
    """Whether the five files of LivePortrait are among these names (without folders), in any of the known formats."""
    return not missing_stems(names, FILES)


def liveportrait_files(folder: Path | str) -> dict[str, Path]:
    """Stem -> path of the five published files of a folder. PortraitError names the first that is missing."""
    folder = Path(folder)
    if not folder.is_dir():
        raise PortraitError(f"{folder}: there is no such folder")
    return {stem: _find(folder, stem) for stem in FILES}


def load_liveportrait(path: Path | str) -> LivePortraitNetworks:
    """The networks of a folder with the published files, or of a single file of this pack; float32 on the CPU.

    Every tensor of every file is used or checked; the first that is missing, unexpected or of another shape raises
    PortraitError with the file, its name there and both shapes.
    """
    if Path(path).suffix == ".safetensors":
        return _load_single_file(Path(path))
    paths = liveportrait_files(path)
    retargeting = load_retargeting(paths[STITCHING])
    return LivePortraitNetworks(
        load_appearance_extractor(paths[APPEARANCE]),
        load_motion_extractor(paths[MOTION]),
        load_warping(paths[WARPING]),
        load_generator(paths[GENERATOR]),
        retargeting["shoulder"],
        retargeting["mouth"],
        retargeting["eye"],
    )


def find_motion_extractor(folder: Path | str) -> MotionExtractor | None:
    """The motion extractor of a folder with published files or the single file; None where there is neither."""
    folder = Path(folder)
    found = next((file for below in SUBFOLDERS if (file := weights_in(folder / below, MOTION))), None)
    if found is not None:
        return load_motion_extractor(found)
    single = folder / f"{KIND}.safetensors"
    return _load_single_file(single).motion if single.is_file() else None


def load_appearance_extractor(path: Path | str) -> AppearanceExtractor:
    return _load(path, AppearanceExtractor, appearance_config)


def load_motion_extractor(path: Path | str) -> MotionExtractor:
    return _load(path, MotionExtractor, motion_config)


def load_warping(path: Path | str) -> WarpingNetwork:
    return _load(path, WarpingNetwork, warping_config)


def load_generator(path: Path | str) -> SpadeGenerator:
    return _load(path, SpadeGenerator, spade_config)


def load_retargeting(path: Path | str) -> dict[str, KeypointMLP]:
    """`shoulder` (stitching), `mouth` and `eye`."""
    path = Path(path)
    return {
        part: _keypoint_mlp(path, tensors, RETARGETING[part], f"retarget_{part}.")
        for part, tensors in _retargeting_tensors(path).items()
    }


def _keypoint_mlp(path: Path, tensors: dict[str, Tensor], published: tuple[int, ...], prefix: str) -> KeypointMLP:
    sizes = Sizes(path, tensors, partial(KeypointMLP, published), prefix)
    weights = [f"mlp.{index}.weight" for index in sizes.numbers("mlp")]
    widths = (sizes.axis("mlp.0.weight", 1), *(sizes.axis(name, 0) for name in weights))
    with shapes_only():
        network = KeypointMLP(widths)
    load_strict(network, tensors, path, prefix)
    return network.eval()


class Sizes:
    """Sizes of a network as its tensors' shapes tell them.

    published: builds the network of the published size, whose shapes messages name for a tensor that is missing.
    """

    def __init__(
        self, path: Path | str, tensors: Mapping[str, Tensor], published: Callable[[], nn.Module], prefix: str = ""
    ) -> None:
        self.path, self.tensors, self.prefix = path, tensors, prefix
        with shapes_only():
            self.published = {name: list(tensor.shape) for name, tensor in published().state_dict().items()}

    def axis(self, name: str, axis: int) -> int:
        """One size of a tensor, which has to be there and to have as many axes as the published one."""
        own = self.published.get(name)
        wanted = "" if own is None else f", shape {own} or of that layout is needed"
        if name not in self.tensors:
            raise PortraitError(f"{self.path}: {self.prefix}{name} is missing{wanted}: it is another file or not whole")
        shape = self.tensors[name].shape
        if (own is not None and len(shape) != len(own)) or 0 in shape or axis >= len(shape):
            raise PortraitError(f"{self.path}: {self.prefix}{name} has shape {list(shape)}{wanted}: it is another file")
        return shape[axis]

    def numbers(self, prefix: str) -> list[int]:
        """The numbers that follow `prefix.` in names, ascending."""
        pattern = re.compile(rf"{re.escape(prefix)}\.?(\d+)\.")
        return sorted({int(found[1]) for name in self.tensors if (found := pattern.match(name))})


def appearance_config(sizes: Sizes) -> AppearanceConfig:
    channels = sizes.axis("resblocks_3d.3dr0.conv1.weight", 1)
    return AppearanceConfig(
        image_channel=sizes.axis("first.conv.weight", 1),
        block_expansion=sizes.axis("first.conv.weight", 0),
        num_down_blocks=len(sizes.numbers("down_blocks")),
        max_features=sizes.axis("second.weight", 0),
        reshape_channel=channels,
        num_resblocks=len(sizes.numbers("resblocks_3d.3dr")),
    )


def motion_config(sizes: Sizes) -> MotionExtractorConfig:
    stages = sizes.numbers("detector.stages")
    return MotionExtractorConfig(
        num_kp=sizes.axis("detector.fc_kp.weight", 0) // 3,
        num_bins=sizes.axis("detector.fc_yaw.weight", 0),
        depths=tuple(len(sizes.numbers(f"detector.stages.{stage}")) for stage in stages),
        dims=tuple(sizes.axis(f"detector.stages.{stage}.0.dwconv.weight", 0) for stage in stages),
    )


def warping_config(sizes: Sizes) -> WarpingConfig:
    dense, hourglass = "dense_motion_network", "dense_motion_network.hourglass"
    channels, compress = sizes.axis(f"{dense}.compress.weight", 1), sizes.axis(f"{dense}.compress.weight", 0)
    points, blocks = sizes.axis(f"{dense}.mask.weight", 0) - 1, len(sizes.numbers(f"{hourglass}.encoder.down_blocks"))
    deepest = max(blocks - 1, 0)
    return WarpingConfig(
        channels=sizes.axis("third.conv.weight", 0),
        dense_motion=DenseMotionConfig(
            num_kp=points,
            feature_channel=channels,
            reshape_depth=sizes.axis("third.conv.weight", 1) // channels,
            compress=compress,
            block_expansion=sizes.axis(f"{hourglass}.decoder.conv.weight", 0) - (points + 1) * (compress + 1),
            max_features=sizes.axis(f"{hourglass}.encoder.down_blocks.{deepest}.conv.weight", 0),
            num_blocks=blocks,
            estimate_occlusion_map=any(name.startswith(f"{dense}.occlusion.") for name in sizes.tensors),
        ),
    )


def spade_config(sizes: Sizes) -> SpadeConfig:
    return SpadeConfig(
        channels=sizes.axis("fc.weight", 1),
        out_channels=sizes.axis("up_1.conv_1.weight", 0),
        hidden=sizes.axis("G_middle_0.norm_0.mlp_shared.0.weight", 0),
        upscale="conv_img.weight" not in sizes.tensors,
    )


def fold_spectral_norm(tensors: Mapping[str, Tensor], path: Path | str) -> dict[str, Tensor]:
    """Weights without spectral norm: weight_orig / (u . W v), as evaluation divides them; others stay as they are."""
    folded = dict(tensors)
    for name in [name for name in tensors if name.endswith(f".{SPECTRAL[0]}")]:
        base = name.removesuffix(SPECTRAL[0])
        matrix = tensors[name].flatten(1)
        vectors = []
        for part, size in zip(SPECTRAL[1:], matrix.shape, strict=True):
            vector = tensors.get(f"{base}{part}")
            found = "is missing" if vector is None else f"has shape {list(vector.shape)}"
            if vector is None or list(vector.shape) != [size]:
                raise PortraitError(f"{path}: {base}{part} {found}, [{size}] is needed for {name}: copy the file again")
            vectors.append(vector)
        if f"{base}weight" in tensors:
            raise PortraitError(f"{path}: {base}weight is there beside {name}: keep one of them")
        u, v = vectors
        folded[f"{base}weight"] = tensors[name] / torch.dot(u, torch.mv(matrix, v))
        for part in SPECTRAL:
            del folded[f"{base}{part}"]
    return folded


def _load(path: Path | str, build: Callable[[Any], Network], config: Callable[[Sizes], Any]) -> Network:
    path = Path(path)
    return _network(path, fold_spectral_norm(_floats(read_weights(path)), path), build, config)


def _network(
    path: Path,
    tensors: dict[str, Tensor],
    build: Callable[[Any], Network],
    config: Callable[[Sizes], Any],
    prefix: str = "",
) -> Network:
    with shapes_only():
        network = build(config(Sizes(path, tensors, lambda: build(None), prefix)))
    load_strict(network, tensors, path, prefix)
    return network.eval()


def _load_single_file(path: Path) -> LivePortraitNetworks:
    stored, _ = read_safetensors(path, KIND)
    parts: dict[str, dict[str, Tensor]] = {part.name: {} for part in fields(LivePortraitNetworks)}
    for name, tensor in _floats(stored).items():
        part, _, below = name.partition(".")
        if part not in parts:
            raise PortraitError(f"{path}: {name} is unexpected: its names begin with {', '.join(parts)}")
        parts[part][below] = tensor
    return LivePortraitNetworks(
        _network(path, parts["appearance"], AppearanceExtractor, appearance_config, "appearance."),
        _network(path, parts["motion"], MotionExtractor, motion_config, "motion."),
        _network(path, parts["warping"], WarpingNetwork, warping_config, "warping."),
        _network(path, parts["generator"], SpadeGenerator, spade_config, "generator."),
        _keypoint_mlp(path, parts["stitching"], SHOULDER_WIDTHS, "stitching."),
        _keypoint_mlp(path, parts["mouth"], MOUTH_WIDTHS, "mouth."),
        _keypoint_mlp(path, parts["eyes"], EYE_WIDTHS, "eyes."),
    )


def _floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors but counters as float32."""
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _find(folder: Path, stem: str) -> Path:
    files = (weights_in(folder / name, stem) for name in SUBFOLDERS)
    return next((file for file in files if file), None) or find_weights(folder, stem)


def _retargeting_tensors(path: Path) -> dict[str, dict[str, Tensor]]:
    """part -> name below it -> tensor, of a nested or a flat file."""
    content = read_content(path)
    flat: dict[str, Any] = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        flat |= (
            {f"{name}.{below}": tensor for below, tensor in value.items()}
            if isinstance(value, Mapping)
            else {name: value}
        )
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in RETARGETING}
    for name, tensor in flat.items():
        found = FLAT_NAME.fullmatch(str(name))
        if not found or not isinstance(tensor, Tensor):
            raise PortraitError(
                f"{path}: {name} is unexpected: the file of LivePortrait has retarget_shoulder, retarget_mouth and "
                "retarget_eye alone"
            )
        parts[found[1]][found[2]] = tensor.float()
    return parts
