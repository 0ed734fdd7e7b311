import numpy as np
import pytest
import torch

from svp_portrait.svp_models.face.detectors.built_in import FaceAnalyzer
from svp_portrait.svp_models.networks.face_landmarks import OUTPUTS, FaceAnalyzerNetwork
from svp_portrait.svp_models.training.train_landmarks import analyzer_loss, export_onnx

pytest.importorskip("onnx", reason="exporting the analyser needs the `train` extra")


def test_the_exported_network_gives_the_same_figures():
    torch.manual_seed(0)
    network = FaceAnalyzerNetwork(widths=(8, 8, 8), hidden=64).eval()
    frames = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    track = FaceAnalyzer(export_onnx(network)).analyze(frames)
    with torch.no_grad():
        outputs = dict(zip(OUTPUTS, network(torch.from_numpy(frames).movedim(-1, 1) / 255), strict=True))
    np.testing.assert_allclose(track.landmarks, outputs["landmarks"] * 128, atol=0.1)
    np.testing.assert_allclose(track.expression, outputs["expression"], atol=2e-3)
    np.testing.assert_allclose(track.pose, outputs["pose"], atol=2e-2)


def test_pictures_without_a_face_only_count_for_presence():
    network = FaceAnalyzerNetwork(widths=(8, 8, 8), hidden=64)
    raw = network.raw(torch.rand(2, 3, 128, 128))
    batch = {name: value.detach() for name, value in raw.items()}
    batch["present"] = torch.zeros(2, 1)
    batch["landmarks"] = batch["landmarks"] + 5
    loss, _ = analyzer_loss(raw, batch)
    expected = 0.2 * torch.nn.functional.binary_cross_entropy_with_logits(raw["present"], torch.zeros(2, 1))
    torch.testing.assert_close(loss, expected)
