"""Load Face Analyzer and the nodes that take what it gives."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from svp_portrait.nodes import head_motion as face_nodes
from svp_portrait.nodes.head_motion import SVPHeadKpsExtract, SVPHeadKpsRetarget, SVPLoadFaceAnalyzer, weight_file
from svp_portrait.nodes.style import SVPStyleExtract
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detection import FaceDetection
from svp_portrait.svp_models.media.video import load_video

ASSETS = Path(__file__).resolve().parents[2] / "workflows" / "assets"
CHOICES = {"backend": "built-in", "face": "largest", "index": 0, "smoothing": 0.0, "expression": "backend"}


class Marks:
    """A backend that finds a face at every frame's brightest spot, none in black frames."""

    name = "marks"

    def detect(self, frames):
        for frame in frames:
            if not frame.any():
                yield []
                continue
            y, x = np.unravel_index(int(frame.sum(axis=-1).argmax()), frame.shape[:2])
            points = np.array([x, y]) + np.arange(8)[:, None]
            yield [FaceDetection(np.array([x, y, x + 16, y + 16]), points, points[:5])]


@pytest.fixture
def marks(monkeypatch):
    monkeypatch.setitem(face_nodes.BACKENDS, "marks", Marks)


def first(output):
    return output.args[0]


def analyzer(**changes):
    return first(SVPLoadFaceAnalyzer.execute(**{**CHOICES, **changes}))


def spots(places) -> torch.Tensor:
    """IMAGE 48 x 64 with a white pixel at each (x, y), black for None."""
    frames = torch.zeros(len(places), 48, 64, 3)
    for frame, place in zip(frames, places, strict=True):
        if place is not None:
            frame[place[1], place[0]] = 1
    return frames


def test_the_choices_travel_with_the_backend(folders):
    found = analyzer(face="stays", index=2, smoothing=0.5)
    assert found.backend.name == "built-in"
    assert (found.choice, found.index, found.smoothing, found.expression_network) == ("stays", 2, 0.5, None)


def test_auto_reads_drawn_faces_as_the_built_in_analyser_does(folders, loaded, caplog):
    frames = torch.from_numpy(load_video(ASSETS / "driving.mp4").frames[:6]) / 255
    with caplog.at_level(logging.INFO):
        chosen = first(SVPHeadKpsExtract.execute(loaded[0], frames, 25.0, analyzer(backend="auto")))
    plain = first(SVPHeadKpsExtract.execute(loaded[0], frames, 25.0, analyzer()))
    assert torch.equal(chosen.keypoints, plain.keypoints)
    assert "insightface: det_10g.onnx" in caplog.text, "what would be better for photographs is named"


def test_motion_is_extracted_with_it_and_gaps_are_named(marks, loaded, caplog):
    places = [(10, 10), (12, 10), None, None, (18, 10)]
    with caplog.at_level(logging.WARNING):
        motion = first(SVPHeadKpsExtract.execute(loaded[0], spots(places), 25.0, analyzer(backend="marks")))
    assert motion.keypoints[:, 0, 0].tolist() == [10, 12, 14, 16, 18] and motion.interpolated == (2, 3)
    assert "no face in frames 2-3 of 5 of the driving clip" in caplog.text


def test_smoothing_reaches_the_motion(marks, loaded):
    places = [(20 + index % 2, 10) for index in range(30)]
    rough = first(SVPHeadKpsExtract.execute(loaded[0], spots(places), 25.0, analyzer(backend="marks"))).keypoints
    smooth = first(
        SVPHeadKpsExtract.execute(loaded[0], spots(places), 25.0, analyzer(backend="marks", smoothing=1.0))
    ).keypoints
    assert smooth[5:-5, 0, 0].std() < 0.5 * rough[5:-5, 0, 0].std() and torch.allclose(
        smooth.mean(0), rough.mean(0), atol=0.3
    )


def test_a_portrait_needs_a_model_or_an_analyzer(marks, loaded, clip):
    driving = first(SVPHeadKpsExtract.execute(loaded[0], clip["frames"], 25.0))
    portrait = spots([(30, 20)])
    moved = first(SVPHeadKpsRetarget.execute(driving, portrait, "fix", face_analyzer=analyzer(backend="marks")))
    assert moved.keypoints[0, 0].tolist() == [30, 20] and (moved.width, moved.height) == (64, 48)
    with pytest.raises(PortraitError, match="connect Load Face Analyzer, a model that .*, or the points"):
        SVPHeadKpsRetarget.execute(driving, portrait, "fix")
    with pytest.raises(PortraitError, match="no face found in the portrait"):
        SVPHeadKpsRetarget.execute(driving, portrait * 0, "fix", face_analyzer=analyzer(backend="marks"))


def test_style_needs_expression(marks, loaded):
    with pytest.raises(PortraitError, match="points but no expression.*deep3d"):
        SVPStyleExtract.execute(loaded[0], frames=spots([(9, 9)] * 3), face_analyzer=analyzer(backend="marks"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"backend": "insightface"}, "det_10g.onnx.*not found in .*insightface.models.buffalo_l"),
        ({"backend": "yunet"}, "face_detection_yunet_2023mar.onnx not found in .*yunet.*svp download yunet"),
        ({"backend": "mediapipe"}, "face_landmarker.task not found in .*mediapipe"),
        ({"expression": "deep3d"}, "epoch_20.pth not found in .*deep3d"),
    ],
)
def test_missing_files_are_named_with_folder_and_source(folders, changes, message):
    with pytest.raises(PortraitError, match=message) as raised:
        analyzer(**changes)
    assert "http" in str(raised.value)


@pytest.mark.parametrize("place", ["svp/mediapipe", "mediapipe"])
def test_a_file_is_found_in_either_folder(folders, tmp_path, monkeypatch, place):
    from svp_portrait.nodes.host import folder_paths

    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    file = tmp_path / "models" / place / "face_landmarker.task"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert weight_file("mediapipe", "face_landmarker.task") == str(file)
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(PortraitError, match="pip install 'mediapipe>=1.0'"):
        analyzer(backend="mediapipe")
