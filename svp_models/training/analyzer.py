"""Training of the built-in face analyser on drawn frames, and its export to ONNX."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from ..networks.face_analyzer import ANALYZER_SIZE, OUTPUTS, POSE_ORIGIN, POSE_UNITS, FaceAnalyzerNetwork
from .autoencoder import MOUTH, draw_frames
from .corpus import Corpus
from .loop import Schedule, run_phase

BATCH = 48
NO_FACE = 0.08  # share of the batch that shows no face
MAX_ZOOM, MAX_SHIFT = 0.2, 0.12


def _random_view(rng: np.random.Generator, size: int) -> np.ndarray:
    """A similarity transform (2 x 3, pixels) that zooms and shifts the picture a little."""
    zoom = np.exp(rng.uniform(-MAX_ZOOM, MAX_ZOOM))
    shift = rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * size
    middle = size / 2
    return np.float32([[zoom, 0, middle * (1 - zoom) + shift[0]], [0, zoom, middle * (1 - zoom) + shift[1]]])


def _spoil(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What cameras, codecs and decoders do to a picture: blur, resampling, colour shift, noise."""
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.3))
    if rng.random() < 0.3:
        size = image.shape[0]
        small = int(size * rng.uniform(0.45, 0.9))
        image = cv2.resize(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (size, size))
    image = image.astype(np.float32) * rng.uniform(0.8, 1.2, 3) + rng.uniform(-20, 20)
    return np.clip(image + rng.normal(0, rng.uniform(0, 6), image.shape), 0, 255).astype(np.uint8)


def _no_face(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture without a face: a corner of a background blown up, noise, or one colour."""
    size, kind = image.shape[0], rng.integers(3)
    if kind == 0:
        part = image[: size // 5, : size // 5]
        return cv2.resize(part, (size, size), interpolation=cv2.INTER_CUBIC)
    if kind == 1:
        noise = rng.integers(0, 256, (int(rng.integers(2, 64)),) * 2 + (3,), dtype=np.uint8)
        return cv2.resize(noise, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.full_like(image, rng.integers(0, 256, 3))


def analyzer_batch(corpus: Corpus, rng: np.random.Generator, batch: int) -> dict[str, Tensor]:
    """Pictures n x 3 x 128 x 128 in [0, 1] and targets in FaceAnalyzerNetwork.raw's units."""
    clips, frames = draw_frames(corpus, rng, batch)
    size = corpus.config.size
    images, landmarks, keypoints, pose, present = [], [], [], [], []
    for clip, frame in zip(clips, frames, strict=True):
        image, view = corpus.images[clip, frame], _random_view(rng, size)
        present.append(rng.random() >= NO_FACE)
        if not present[-1]:
            image = _no_face(image, rng)
        pixel_view = view + np.float32([[0, 0, 0.5], [0, 0, 0.5]]) * (
            view[0, 0] - 1
        )  # OpenCV counts from pixel centres
        image = cv2.warpAffine(image, pixel_view, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        images.append(_spoil(image, rng))
        landmarks.append(corpus.landmarks[clip, frame] @ view[:, :2].T + view[:, 2])
        keypoints.append(corpus.head_keypoints[clip, frame] @ view[:, :2].T + view[:, 2])
        turned = corpus.pose[clip, frame].copy()
        turned[3:5] = (turned[3:5] * view[0, 0]) + view[:, 2] / size + 0.5 * (view[0, 0] - 1)
        turned[5] *= view[0, 0]
        pose.append((turned - POSE_ORIGIN) / POSE_UNITS)
    stacked = rearrange(torch.from_numpy(np.stack(images)), "n h w c -> n c h w").float() / 255
    if size != ANALYZER_SIZE:
        stacked = functional.interpolate(stacked, (ANALYZER_SIZE, ANALYZER_SIZE), mode="area")
    return {
        "images": stacked,
        "landmarks": torch.from_numpy(np.stack(landmarks) / size - 0.5).float().flatten(1),
        "head_keypoints": torch.from_numpy(np.stack(keypoints) / size - 0.5).float().flatten(1),
        "expression": torch.from_numpy(corpus.expression[clips, frames]),
        "pose": torch.from_numpy(np.stack(pose)).float(),
        "present": torch.tensor(present).float()[:, None],
    }


def analyzer_loss(raw: dict[str, Tensor], batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Weighted sum of the regression errors of pictures with a face, and cross-entropy of presence."""
    present = batch["present"]
    mouth = torch.ones(68, 2)
    mouth[MOUTH] = 3.0
    points = (present * mouth.flatten() * (raw["landmarks"] - batch["landmarks"]).abs()).mean()
    keypoints = (present * (raw["head_keypoints"] - batch["head_keypoints"]).abs()).mean()
    expression = (present * (raw["expression"] - batch["expression"]).square()).mean()
    pose = (present * (raw["pose"] - batch["pose"]).square()).mean()
    presence = functional.binary_cross_entropy_with_logits(raw["present"], present)
    loss = 20 * points + 20 * keypoints + 10 * expression + 0.3 * pose + 0.2 * presence
    return loss, {
        "points": points.item(),
        "keypoints": keypoints.item(),
        "expression": expression.item(),
        "pose": pose.item(),
        "presence": presence.item(),
    }


def train_analyzer(
    corpus: Corpus, schedule: Schedule, folder: Path, seed: int, report: Callable[[str], None]
) -> FaceAnalyzerNetwork:
    """Trains the analyser; see run_phase for files and resuming."""
    torch.manual_seed(seed)
    network = FaceAnalyzerNetwork()

    def loss_function(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        batch = analyzer_batch(corpus, rng, BATCH)
        return analyzer_loss(network.raw(batch["images"]), batch)

    return run_phase("analyzer", network, network.parameters(), loss_function, schedule, folder, seed, report)


def export_onnx(network: FaceAnalyzerNetwork) -> bytes:
    """The network as ONNX with float16 weights: input `image`, outputs as in OUTPUTS, any batch size. Needs the `train` extra."""
    buffer = io.BytesIO()
    torch.onnx.export(
        network.eval(),
        (torch.zeros(1, 3, ANALYZER_SIZE, ANALYZER_SIZE),),
        buffer,
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
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.graph.node.insert(0, cast)
    onnx.checker.check_model(graph)
    return graph.SerializeToString()
