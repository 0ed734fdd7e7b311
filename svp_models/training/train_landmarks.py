"""Training of the built-in face analyser on synthetic frames, and its export to ONNX."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from ..errors import PortraitError
from ..networks.face_landmarks import ANALYZER_SIZE, OUTPUTS, POSE_UNITS, FaceAnalyzerNetwork
from ..optional_deps import cv2
from .config import AnalyzerLoss, AnalyzerPhase
from .dataset import Clips, Sample, SampleIndex, ShardSampler, stack
from .losses import MOUTH

TEST_FRAMES = 128
HALF = "_half"  # ending of weights that are stored as float16


def _random_view(rng: np.random.Generator, size: int, max_zoom: float, max_shift: float) -> np.ndarray:
    """A similarity transform (2 x 3, pixels) that zooms and shifts the frame a little."""
    zoom = np.exp(rng.uniform(-max_zoom, max_zoom))
    shift = rng.uniform(-max_shift, max_shift, 2) * size
    middle = size / 2
    moved = middle * (1 - zoom) + shift
    return np.array([[zoom, 0, moved[0]], [0, zoom, moved[1]]], np.float32)


def _degrade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What cameras, codecs and decoders do to an image: blur, resampling, colour shift, noise."""
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.3))
    if rng.random() < 0.3:
        size = image.shape[0]
        small = int(size * rng.uniform(0.45, 0.9))
        image = cv2.resize(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (size, size))
    image = image.astype(np.float32) * rng.uniform(0.8, 1.2, 3) + rng.uniform(-20, 20)
    return np.clip(image + rng.normal(0, rng.uniform(0, 6), image.shape), 0, 255).astype(np.uint8)


def _no_face(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image without a face: an enlarged corner of the background, noise, or one colour."""
    size, kind = image.shape[0], rng.integers(3)
    if kind == 0:
        part = image[: size // 5, : size // 5]
        return cv2.resize(part, (size, size), interpolation=cv2.INTER_CUBIC)
    if kind == 1:
        noise = rng.integers(0, 256, (int(rng.integers(2, 64)),) * 2 + (3,), dtype=np.uint8)
        return cv2.resize(noise, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.full_like(image, rng.integers(0, 256, 3))


class AnalyzerTraining:
    """The phase of the built-in face analyser: exact labels of synthetic frames, degraded as real ones are."""

    name = "analyzer"

    def __init__(self, network: FaceAnalyzerNetwork, clips: Clips, test: Clips, config: AnalyzerPhase, seed: int):
        self.module, self.clips, self.test, self.config = AnalyzerModule(network, config), clips, test, config
        self.sampler = ShardSampler(clips.by_shard(clips.with_video), seed, config.settings.batch_size)

    def sample(self, index: SampleIndex) -> Sample:
        """A frame `images` 3 x 128 x 128 in [0, 1] and its targets in FaceAnalyzerNetwork.raw's units."""
        return self._frame(self.clips, self.sampler.sample(index.step, index.position), index.rng())

    def _frame(self, clips: Clips, clip: int, rng: np.random.Generator) -> Sample:
        config, size, labels = self.config, clips.size, clips.labels(clip)
        frame = int(rng.integers(clips.info[clip].frames))
        image = clips.pixels(clip, [frame])[0]  # h w 3, uint8
        view = _random_view(rng, size, config.zoom, config.shift)
        present = rng.random() >= config.no_face_prob
        if not present:
            image = _no_face(image, rng)
        half = np.array([[0, 0, 0.5], [0, 0, 0.5]], np.float32) * (view[0, 0] - 1)  # OpenCV counts from pixel centres
        image = cv2.warpAffine(
            image, view + half, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        image = _degrade(image, rng)
        image_tensor = rearrange(torch.from_numpy(image), "h w c -> c h w").float() / 255
        if size != ANALYZER_SIZE:
            image_tensor = functional.interpolate(image_tensor[None], (ANALYZER_SIZE, ANALYZER_SIZE), mode="area")[0]

        def moved(points: np.ndarray) -> Tensor:
            return torch.from_numpy((points @ view[:, :2].T + view[:, 2]) / size - 0.5).float().flatten()

        return {
            "images": image_tensor,
            "landmarks": moved(labels.landmarks[frame]),
            "head_keypoints": moved(labels.head_keypoints[frame]),
            "expression": torch.from_numpy(labels.expression[frame]),
            "pose": torch.from_numpy(labels.pose[frame] / POSE_UNITS).float(),
            "present": torch.tensor([float(present)]),
        }

    def validate(self) -> dict[str, float]:
        """The errors on unseen people."""
        rng = np.random.default_rng(0)
        clips = rng.choice(self.test.with_video, size=TEST_FRAMES)
        batch = stack([self._frame(self.test, int(clip), rng) for clip in clips])
        device = next(self.module.parameters()).device
        loss, values = self.module({key: value.to(device) for key, value in batch.items()})
        return {key: float(value) for key, value in {"loss": loss, **values}.items()}

    def write_sample(self, folder: Path, step: int) -> None:
        """Nothing: there is no video to look at."""


class AnalyzerModule(nn.Module):
    """Batch -> loss and its parts."""

    def __init__(self, network: FaceAnalyzerNetwork, config: AnalyzerPhase):
        super().__init__()
        self.network, self.config = network, config

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        return analyzer_loss(self.network.raw(batch["images"]), batch, self.config)


def analyzer_loss(raw: dict[str, Tensor], batch: Sample, config: AnalyzerLoss) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the regression errors of frames with a face, and of the cross-entropy of presence."""
    present = batch["present"]
    mouth = torch.ones(68, 2, device=present.device)
    mouth[MOUTH] = config.mouth_weight
    points = (present * mouth.flatten() * (raw["landmarks"] - batch["landmarks"]).abs()).mean()
    keypoints = (present * (raw["head_keypoints"] - batch["head_keypoints"]).abs()).mean()
    expression = (present * (raw["expression"] - batch["expression"]).square()).mean()
    pose = (present * (raw["pose"] - batch["pose"]).square()).mean()
    presence = functional.binary_cross_entropy_with_logits(raw["present"], present)
    loss = config.landmark_weight * points + config.keypoint_weight * keypoints
    loss = loss + config.expression_weight * expression + config.pose_weight * pose
    loss = loss + config.presence_weight * presence
    return loss, {
        "points": points,
        "keypoints": keypoints,
        "expression": expression,
        "pose": pose,
        "presence": presence,
    }


def export_onnx(network: FaceAnalyzerNetwork) -> bytes:
    """The network as ONNX with float16 weights: input `image`, outputs as in OUTPUTS, any batch size. Needs the optional package onnx."""
    buffer = io.BytesIO()
    torch.onnx.export(
        network.eval(),
        (torch.zeros(1, 3, ANALYZER_SIZE, ANALYZER_SIZE),),
        buffer,  # type: ignore[arg-type]  # torch takes a buffer, its types do not say so
        input_names=["image"],
        output_names=list(OUTPUTS),
        dynamic_axes={name: {0: "n"} for name in ("image", *OUTPUTS)},
        opset_version=17,
        dynamo=False,
    )
    return _half_weights(buffer.getvalue())


def _half_weights(model: bytes) -> bytes:
    """Large weights stored as float16 behind a cast: half the file, computed in float32 as before."""
    import onnx  # only training needs it
    from onnx import numpy_helper

    graph = onnx.load_from_string(model)
    casts = []
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= 1024:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}{HALF}"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}{HALF}"], [name], to=onnx.TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.graph.node.insert(0, cast)
    onnx.checker.check_model(graph)
    return graph.SerializeToString()


@torch.no_grad()
def load_onnx_weights(network: FaceAnalyzerNetwork, onnx_bytes: bytes) -> None:
    """The weights of an ONNX file of `export_onnx` in the network. Batch norms, which the export has folded into the convolutions before
    them, only add what was left of them. Needs the optional package onnx; another network raises PortraitError."""
    import onnx  # only training needs it
    from onnx import numpy_helper

    graph = onnx.load_from_string(onnx_bytes).graph
    stored = {
        item.name.removesuffix(HALF): torch.tensor(numpy_helper.to_array(item)).float() for item in graph.initializer
    }
    weights = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    modules = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    norms = _norms(network)
    if len(weights) != len(modules):
        raise PortraitError(
            f"the face analyser has {len(weights)} layers, {len(modules)} are needed: set widths and hidden to its own"
        )
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
    for name, layer in linear.items():
        _copy(layer.weight, stored[f"{name}.weight"])
        _copy(layer.bias, stored[f"{name}.bias"])
    for node, module in zip((node for node in weights if node.op_type == "Conv"), convolutions, strict=True):
        _copy(module.weight, stored[node.input[1].removesuffix(HALF)])
        bias = stored[node.input[2].removesuffix(HALF)]
        if module.bias is not None:
            _copy(module.bias, bias)
            continue
        norm = norms[module]
        norm.weight.fill_((1 + norm.eps) ** 0.5)
        _copy(norm.bias, bias)
        norm.reset_running_stats()


def _norms(network: nn.Module) -> dict[nn.Module, nn.BatchNorm2d]:
    """The batch norm behind every convolution that has one."""
    found: dict[nn.Module, nn.BatchNorm2d] = {}
    before: nn.Module | None = None
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and before is not None:
            found[before] = module
        if isinstance(module, nn.Conv2d):
            before = module
    return found


def _copy(into: Tensor, value: Tensor) -> None:
    if into.shape != value.shape:
        raise PortraitError(
            f"the face analyser has a weight of shape {list(value.shape)}, {list(into.shape)} is needed: set widths and hidden to "
            "its own"
        )
    into.copy_(value)
