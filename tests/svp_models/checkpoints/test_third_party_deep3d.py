"""Deep3DFaceRecon's file in its published layout, written here with random numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.third_party import load_deep3d
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detection import FaceDetection, build_track
from svp_portrait.svp_models.face.expression import predict_expression
from svp_portrait.svp_models.face.head_pose import FIVE_POINTS_3D
from svp_portrait.svp_models.networks.deep3d import Deep3DNetwork

DEPTHS = (3, 4, 6, 3)


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{kind}": (channels,) for kind in kinds}, f"{name}.num_batches_tracked": ()}


def layout(stem: int = 64, depths: tuple[int, ...] = DEPTHS) -> dict[str, tuple[int, ...]]:
    """Names and shapes of `net_recon` as published (stem 64)."""
    shapes = {"backbone.conv1.weight": (stem, 3, 7, 7), **norm("backbone.bn1", stem)}
    channels = stem
    for stage, depth in enumerate(depths):
        width = stem * 2**stage
        for block in range(depth):
            at = f"backbone.layer{stage + 1}.{block}"
            shapes[f"{at}.conv1.weight"] = (width, channels, 1, 1)
            shapes[f"{at}.conv2.weight"] = (width, width, 3, 3)
            shapes[f"{at}.conv3.weight"] = (4 * width, width, 1, 1)
            for index, size in enumerate((width, width, 4 * width), start=1):
                shapes.update(norm(f"{at}.bn{index}", size))
            if block == 0:
                shapes[f"{at}.downsample.0.weight"] = (4 * width, channels, 1, 1)
                shapes.update(norm(f"{at}.downsample.1", 4 * width))
            channels = 4 * width
    for index, count in enumerate((80, 64, 80, 3, 27, 2, 1)):
        shapes[f"final_layers.{index}.weight"] = (count, channels, 1, 1)
        shapes[f"final_layers.{index}.bias"] = (count,)
    return shapes


def filled(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            tensors[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            fan = max(1, int(np.prod(shape[1:])))
            tensors[name] = torch.randn(shape, generator=generator) / fan**0.5
    return tensors


def small() -> Deep3DNetwork:
    return Deep3DNetwork(stem=4, depths=(1, 2, 1, 1))


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return filled(layout(4, (1, 2, 1, 1)))


def test_the_published_layout_loads_and_reads_faces(tmp_path):
    path = tmp_path / "epoch_20.pth"
    weight = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    torch.save(
        {"net_recon": filled(layout()), "opt_00": optimizer.state_dict(), "sched_00": schedule.state_dict()}, path
    )
    network, others = load_deep3d(path)
    assert others == ("opt_00", "sched_00") and not network.training
    five = FIVE_POINTS_3D[:, :2] * (60, -60) + (100, 90)
    frames = np.random.default_rng(0).integers(0, 255, (2, 200, 200, 3), dtype=np.uint8)
    track = build_track([FaceDetection(np.zeros(4), np.zeros((8, 2)), five), None], 200, 200)
    expression, pose = predict_expression(network, frames, track)
    assert expression.shape == (2, 64) and pose.shape == (2, 3)
    assert np.isfinite(expression).all() and expression[0].std() > 0 and not expression[1].any()


def test_every_number_comes_from_the_file(tmp_path, weights):
    torch.save({"net_recon": weights}, tmp_path / "w.pth")
    network, others = load_deep3d(tmp_path / "w.pth", small())
    assert others == ()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, weights[name])


def test_files_without_counters_load(tmp_path, weights):
    old = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    torch.save({"net_recon": old}, tmp_path / "w.pth")
    network, _ = load_deep3d(tmp_path / "w.pth", small())
    assert torch.equal(network.final_layers[1].weight, weights["final_layers.1.weight"])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"final_layers.1.weight": torch.zeros(79, 128, 1, 1)}, r"net_recon.final_layers.1.weight has shape \[79, 128, 1, 1\], \[64, 128, 1, 1\]"),
        ({"final_layers.6.bias": None}, r"net_recon.final_layers.6.bias is missing, shape \[1\]"),
        ({"backbone.fc.weight": torch.zeros(2)}, r"net_recon.backbone.fc.weight of shape \[2\] is unexpected"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, weights, change, message):
    changed = {name: tensor for name, tensor in (weights | change).items() if tensor is not None}
    torch.save({"net_recon": changed}, tmp_path / "w.pth")
    with pytest.raises(PortraitError, match=message):
        load_deep3d(tmp_path / "w.pth", small())


def test_other_files_are_refused(tmp_path, weights):
    torch.save(weights, tmp_path / "bare.pth")
    with pytest.raises(PortraitError, match="bare.pth: it has no entry 'net_recon'.*backbone.conv1.weight"):
        load_deep3d(tmp_path / "bare.pth", small())
    torch.save({"net_recon": weights, "net_other": weights}, tmp_path / "more.pth")
    with pytest.raises(PortraitError, match="more.pth: unknown entries net_other"):
        load_deep3d(tmp_path / "more.pth", small())
