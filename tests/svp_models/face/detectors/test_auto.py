from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detection import FaceDetection
from svp_portrait.svp_models.face.detectors.auto import MAX_INSTABILITY, AutoBackend, first_available, instability
from svp_portrait.svp_models.face.detectors.built_in import BuiltInBackend
from svp_portrait.svp_models.media.video import load_video
from svp_portrait.svp_models.synthetic.clips import neutral_portrait
from svp_portrait.svp_models.synthetic.speakers import speaker

ROOT = Path(__file__).resolve().parents[4]
ASSETS = ROOT / "workflows" / "assets"
CLIPS = ROOT.parent / "shared" / "clips"


class Photo:
    """Sees a face in every frame, or in none."""

    name = "photo"

    def __init__(self, sees: bool = True) -> None:
        self.sees = sees

    def detect(self, frames):
        face = FaceDetection(np.array([0, 0, 9, 9.0]), np.zeros((8, 2)), np.zeros((5, 2)))
        for _ in frames:
            yield [face] if self.sees else []


@pytest.fixture(scope="module")
def drawn() -> BuiltInBackend:
    return BuiltInBackend(load_model(BUILTIN_MODEL).face_analyzer)


def image(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))[None]


@pytest.mark.parametrize("name", ["portrait.png", "portrait_wide.png"])
def test_drawn_portraits_are_for_the_built_in_analyser(drawn, name):
    """Also where the way for photographs sees something in them."""
    assert AutoBackend(drawn, Photo()).choose(image(ASSETS / name)) is drawn


@pytest.mark.parametrize("name", ["driving.mp4", "style_happy.mp4", "style_sad.mp4"])
def test_drawn_clips_too(drawn, name):
    assert AutoBackend(drawn, Photo()).choose(load_video(ASSETS / name).frames) is drawn


def test_people_it_has_not_learned_from(drawn):
    for number in range(4):
        portrait = neutral_portrait(speaker(number, "test"), 256).images[0]
        assert 0 < instability(drawn, portrait) < 0.75 * MAX_INSTABILITY


def test_photographs_are_not(drawn, caplog):
    if not CLIPS.is_dir():
        pytest.skip("the real clips are not at hand")
    photo = Photo()
    for folder in sorted(CLIPS.glob("vasa_*")):
        with caplog.at_level(logging.INFO):
            assert AutoBackend(drawn, photo).choose(image(folder / "portrait.jpg")) is photo, folder.name
    assert "faces are detected by the backend photo" in caplog.text


def test_what_neither_or_one_sees(drawn):
    grey = np.full((3, 64, 64, 3), 128, np.uint8)
    assert list(AutoBackend(drawn, Photo(False)).detect(grey)) == [[], [], []]
    assert AutoBackend(drawn, None).choose(grey) is drawn


class Nervous(BuiltInBackend):
    """Sees a face in the middle of whatever it is shown, and always as if it looked to the same side."""

    def __init__(self) -> None:
        pass

    def detect(self, frames):
        height, width = frames.shape[1:3]
        points = np.zeros((8, 2)) + (width * 0.6, height * 0.5)
        points[4], points[5] = (width * 0.4, height * 0.5), (width * 0.7, height * 0.5)
        for _ in frames:
            box = np.array([0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height])
            yield [FaceDetection(box, points, points[:5])]


def test_an_analyser_that_does_not_know_what_it_sees():
    nervous, photo = Nervous(), Photo()
    frames = np.zeros((7, 60, 80, 3), np.uint8)
    assert instability(nervous, frames[0]) > MAX_INSTABILITY
    assert AutoBackend(nervous, photo).choose(frames) is photo
    assert AutoBackend(nervous, Photo(False)).choose(frames) is nervous, "nobody else sees one"


def test_the_best_that_is_there_is_named_with_why_not_another(caplog):
    def missing():
        raise PortraitError("det_10g.onnx not found")

    photo = Photo()
    with caplog.at_level(logging.INFO):
        assert first_available({"insightface": missing, "photo": lambda: photo, "last": missing}) is photo
    assert "read by the backend photo; not by insightface: det_10g.onnx not found" in caplog.text
    assert "last" not in caplog.text
    assert first_available({"insightface": missing}) is None
    assert "only synthetic faces can be detected" in caplog.text and caplog.records[-1].levelno == logging.WARNING
