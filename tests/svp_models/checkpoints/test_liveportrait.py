from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from svp_portrait.svp_models.checkpoints.liveportrait import (
    FILES,
    fold_spectral_norm,
    holds_liveportrait,
    load_liveportrait,
)
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.layers import shapes_only
from svp_portrait.svp_models.networks.liveportrait.appearance_extractor import AppearanceExtractor
from svp_portrait.svp_models.networks.liveportrait.motion_extractor import MotionExtractor
from svp_portrait.svp_models.networks.liveportrait.spade_generator import SpadeGenerator
from svp_portrait.svp_models.networks.liveportrait.warping import WarpingNetwork

from ...reference.weights import full_size_liveportrait_shapes

STITCHING = "stitching_retargeting_module"
NETWORKS = ("appearance", "motion", "warping", "generator", "stitching", "mouth", "eyes")


def read(path):
    return torch.load(path, weights_only=True)


def assert_same(one, other):
    for name in NETWORKS:
        theirs = getattr(other, name).state_dict()
        for key, tensor in getattr(one, name).state_dict().items():
            torch.testing.assert_close(tensor, theirs[key], rtol=1e-6, atol=0)  # spectral norms are sums, rounded anew


def test_the_published_networks_have_the_published_shapes():
    shapes = full_size_liveportrait_shapes()
    built = {
        "appearance_feature_extractor": AppearanceExtractor,
        "motion_extractor": MotionExtractor,
        "warping_module": WarpingNetwork,
        "spade_generator": SpadeGenerator,
    }
    for file, network in built.items():
        with shapes_only():
            published = fold_spectral_norm({name: torch.empty(shape) for name, shape in shapes[file].items()}, file)
            own = network().state_dict()
        assert {name: tensor.shape for name, tensor in own.items()} == {
            name: tensor.shape for name, tensor in published.items()
        }


def test_sizes_follow_from_the_tensors(liveportrait_networks):
    networks = liveportrait_networks
    assert networks.appearance.config.widths == [8, 16, 32] and networks.appearance.config.num_resblocks == 2
    assert networks.motion.config.depths == (1, 1, 2, 1) and networks.motion.config.dims == (8, 16, 24, 32)
    dense = networks.warping.config.dense_motion
    assert (dense.compress, dense.num_blocks, dense.block_expansion, dense.reshape_depth) == (2, 3, 4, 8)
    assert networks.generator.config.out_channels == 16 and networks.generator.config.upscale
    assert networks.stitching.widths == (126, 16, 12, 65) and networks.eyes.widths == (66, 16, 12, 8, 63)
    assert not any(network.training for network in (networks.appearance, networks.warping, networks.mouth))


def test_safetensors_in_the_flat_form_are_the_same(liveportrait_folder, liveportrait_networks):
    for file in FILES:
        content = read(liveportrait_folder / f"{file}.pth")
        if file == STITCHING:
            content = {
                f"{part}_module.{name.removeprefix('module.')}": tensor
                for part, tensors in content.items()
                for name, tensor in tensors.items()
            }
        save_file(content, liveportrait_folder / f"{file}.safetensors")
        (liveportrait_folder / f"{file}.pth").unlink()
    assert holds_liveportrait(path.name for path in liveportrait_folder.iterdir())
    assert_same(load_liveportrait(liveportrait_folder), liveportrait_networks)


def test_the_published_subfolders_are_found(liveportrait_folder, liveportrait_networks):
    for name in ("base_models", "retargeting_models"):
        (liveportrait_folder / name).mkdir()
    for file in FILES:
        place = "retargeting_models" if file == STITCHING else "base_models"
        (liveportrait_folder / f"{file}.pth").rename(liveportrait_folder / place / f"{file}.pth")
    assert_same(load_liveportrait(liveportrait_folder), liveportrait_networks)


def test_folded_weights_are_those_of_evaluation():
    layer = nn.utils.spectral_norm(nn.Conv2d(3, 5, 3)).eval()
    stored = {f"conv.{name}": tensor for name, tensor in layer.state_dict().items()}
    folded = fold_spectral_norm(stored, "file")
    assert set(folded) == {"conv.weight", "conv.bias"}
    x = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        nn.functional.conv2d(x, folded["conv.weight"], folded["conv.bias"]), layer(x), rtol=1e-6, atol=1e-6
    )


def test_files_without_spectral_norm_are_taken_as_they_are(liveportrait_folder, liveportrait_networks, tmp_path):
    path = tmp_path / "folded.pth"
    torch.save(fold_spectral_norm(read(liveportrait_folder / "spade_generator.pth"), ""), path)
    (liveportrait_folder / "spade_generator.pth").unlink()
    path.rename(liveportrait_folder / "spade_generator.bin")
    assert_same(load_liveportrait(liveportrait_folder), liveportrait_networks)


def test_half_precision_is_computed_in_float32(liveportrait_folder, liveportrait_networks):
    path = liveportrait_folder / "warping_module.pth"
    torch.save({name: t.half() if t.is_floating_point() else t for name, t in read(path).items()}, path)
    assert_same(load_liveportrait(liveportrait_folder), liveportrait_networks)  # its values are exact in float16


CHANGES = {
    "warping_module": [
        ("third.conv.weight", "remove", "is missing, shape [256, 512, 3, 3] or of that layout is needed"),
        ("fourth.bias", "remove", "is missing, shape [32] is needed"),
        ("fourth.bias", "longer", "has shape [33], [32] is needed"),
        ("extra", "add", "extra of shape [1] is unexpected"),
    ],
    "motion_extractor": [("detector.norm.bias", "nan", "values that are not finite")],
    "appearance_feature_extractor": [
        ("second.weight", "flat", "has shape [1024], shape [512, 256, 1, 1] or of that layout is needed"),
        ("resblocks_3d.3dr1.conv1.weight", "remove", "is missing, shape [4, 4, 3, 3, 3] is needed"),
    ],
    "spade_generator": [
        ("up_0.conv_s.weight_u", "remove", "is missing, [32] is needed for up_0.conv_s.weight_orig"),
        ("up_0.conv_s.weight", "add", "is there beside up_0.conv_s.weight_orig"),
    ],
}


@pytest.mark.parametrize("file", CHANGES)
def test_other_files_are_refused_by_name(liveportrait_folder, file):
    path = liveportrait_folder / f"{file}.pth"
    original = read(path)
    for name, change, message in CHANGES[file]:
        content = dict(original)
        if change == "remove":
            del content[name]
        elif change == "add":
            content[name] = torch.zeros(1)
        elif change == "longer":
            content[name] = torch.zeros(len(content[name]) + 1)
        elif change == "flat":
            content[name] = content[name].flatten()
        else:
            content[name] = content[name] * torch.nan
        torch.save(content, path)
        with pytest.raises(
            PortraitError, match=re.escape(f"{path}: {name}") + ".*" + re.escape(message.removeprefix(name))
        ):
            load_liveportrait(liveportrait_folder)


def test_the_stitching_file_is_strict(liveportrait_folder):
    path = liveportrait_folder / f"{STITCHING}.pth"
    original = read(path)
    torch.save({**original, "retarget_nose.mlp.0.weight": torch.zeros(1)}, path)
    with pytest.raises(PortraitError, match=r"retarget_nose.mlp.0.weight is unexpected"):
        load_liveportrait(liveportrait_folder)
    torch.save({name: part for name, part in original.items() if name != "retarget_eye"}, path)
    message = re.escape("retarget_eye.mlp.0.weight is missing, shape [256, 66] or of that layout is needed")
    with pytest.raises(PortraitError, match=message):
        load_liveportrait(liveportrait_folder)


def test_missing_files_are_named(liveportrait_folder):
    (liveportrait_folder / "motion_extractor.pth").unlink()
    assert not holds_liveportrait(path.name for path in liveportrait_folder.iterdir())
    with pytest.raises(PortraitError, match="there is no motion_extractor with one of the endings"):
        load_liveportrait(liveportrait_folder)
