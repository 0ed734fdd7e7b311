import numpy as np
import pytest
import torch

from svp_portrait.svp_models.face.detectors.built_in import FaceAnalyzer
from svp_portrait.svp_models.networks.face_landmarks import OUTPUTS, FaceAnalyzerNetwork
from svp_portrait.svp_models.training.config import AnalyzerPhase, TrainSettings
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


def test_frames_without_a_face_only_count_for_presence():
    network = FaceAnalyzerNetwork(widths=(8, 8, 8), hidden=64)
    raw = network.raw(torch.rand(2, 3, 128, 128))
    batch = {name: value.detach() for name, value in raw.items()}
    batch["present"] = torch.zeros(2, 1)
    batch["landmarks"] = batch["landmarks"] + 5
    config = AnalyzerPhase(settings=TrainSettings(steps=1), presence_weight=0.7)
    loss, _ = analyzer_loss(raw, batch, config)
    expected = 0.7 * torch.nn.functional.binary_cross_entropy_with_logits(raw["present"], torch.zeros(2, 1))
    torch.testing.assert_close(loss, expected)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    raw = {"landmarks": torch.zeros(1, 136), "head_keypoints": torch.zeros(1, 16), "expression": torch.zeros(1, 64),
           "pose": torch.zeros(1, 3), "present": torch.full((1, 1), 50.0)}  # fmt: skip
    batch = {"landmarks": torch.full((1, 136), 0.1), "head_keypoints": torch.full((1, 16), 0.2), "present": torch.ones(1, 1),
             "expression": torch.full((1, 64), 3.0), "pose": torch.full((1, 3), 2.0)}  # fmt: skip
    loss, parts = analyzer_loss(raw, batch, AnalyzerPhase(settings=TrainSettings(steps=1)))
    points = 0.1 * (48 + 20 * 3) / 68  # the 20 landmarks of the mouth count three times
    assert parts["points"].item() == pytest.approx(points) and parts["keypoints"].item() == pytest.approx(0.2)
    assert loss.item() == pytest.approx(20 * points + 20 * 0.2 + 10 * 9 + 0.3 * 4, rel=1e-6)
