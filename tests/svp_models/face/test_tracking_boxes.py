"""Small faces: the network of drawn faces looks again at where they are, other backends are asked once."""

from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.crop import Square, portrait_square
from svp_portrait.svp_models.face.detection import FaceDetection
from svp_portrait.svp_models.face.detectors.built_in import BuiltInBackend
from svp_portrait.svp_models.face.tracking import FaceTracker, find_face_boxes, track_face_if_any
from svp_portrait.svp_models.synthetic.clips import neutral_portrait
from svp_portrait.svp_models.synthetic.speakers import speaker


class Marks:
    """Finds a face of 16 pixels at every frame's brightest spot, none in black frames."""

    name = "marks"

    def __init__(self):
        self.asked = 0

    def detect(self, frames):
        self.asked += 1
        for frame in frames:
            if not frame.any():
                yield []
                continue
            y, x = np.unravel_index(int(frame.sum(axis=-1).argmax()), frame.shape[:2])
            box = np.array([x, y, x + 16, y + 16], np.float32)
            corners = np.array([[x, y], [x + 16, y], [x + 16, y + 16], [x, y + 16]], np.float32)
            yield [FaceDetection(box, corners[[0, 1, 2, 3] * 2], corners[[0, 1, 2, 3, 0]], corners[[0, 1, 2, 3] * 17])]


def spots(places) -> np.ndarray:
    frames = np.zeros((len(places), 48, 64, 3), np.uint8)
    for frame, place in zip(frames, places, strict=True):
        if place is not None:
            frame[place[1], place[0]] = 255
    return frames


def test_a_backend_that_searches_is_asked_once():
    marks, told = Marks(), []
    frames = spots([(10, 8), None, (14, 8), (16, 8)])
    boxes, present = find_face_boxes(
        FaceTracker(marks), frames, "the film", lambda done, total: told.append((done, total))
    )
    assert present.tolist() == [True, False, True, True]
    assert marks.asked == 1 and told[-1] == (4, 4)
    assert boxes[:, 0].tolist() == pytest.approx([10, 12, 14, 16], abs=0.5)  # the gap is bridged
    assert (boxes[:, 2] - boxes[:, 0]).tolist() == pytest.approx([16] * 4)


def test_a_picture_without_a_drawn_face_is_told_with_its_size(analyzer):
    with pytest.raises(PortraitError, match=r"no face found in the film \(150 x 90 pixels, frames 0-1 of 2\)"):
        find_face_boxes(analyzer, np.full((2, 90, 150, 3), 128, np.uint8), "the film")


def test_no_face_is_told_with_its_frames():
    with pytest.raises(PortraitError, match=r"no face found in the film \(64 x 48 pixels, frames 0-2 of 3\)"):
        find_face_boxes(FaceTracker(Marks()), spots([None] * 3), "the film")
    with pytest.raises(PortraitError, match="no face analyser, so the film cannot be analysed"):
        find_face_boxes(None, spots([(3, 3)]), "the film")


def test_a_portrait_is_cut_around_a_box():
    assert portrait_square(np.array([100.0, 100, 200, 180]), 0) == Square(150 - 105, 140 - 8 - 105, 210)
    assert portrait_square(np.array([100.0, 100, 200, 180]), 300) == Square(0, 132 - 150, 300)


@pytest.fixture(scope="module")
def analyzer() -> bytes:
    if not BUILTIN_MODEL.is_file():
        pytest.skip(f"the built-in model {BUILTIN_MODEL} is not there")
    return load_model(BUILTIN_MODEL).face_analyzer


@pytest.fixture(scope="module")
def portrait():
    return neutral_portrait(speaker(4, "test"), 96)


@pytest.mark.parametrize("left, above, right, below", [(0, 60, 150, 0), (60, 20, 110, 30), (0, 100, 0, 80)])
@pytest.mark.parametrize("kind", ["of the model", "loaded"])
def test_drawn_faces_are_found_where_they_are(analyzer, portrait, kind, left, above, right, below):
    around = ((above, below), (left, right), (0, 0))
    frame = np.pad(portrait.images[0], around, mode="edge")
    truth = np.concatenate([portrait.landmarks[0].min(axis=0), portrait.landmarks[0].max(axis=0)]) + (left, above) * 2
    given = analyzer if kind == "of the model" else FaceTracker(BuiltInBackend(analyzer), smoothing=0.5)
    told = []
    ((box,), _) = find_face_boxes(given, frame[None], "the image", lambda done, total: told.append(done / total))
    assert np.abs(box - truth).max() < 4, (box, truth)  # pixels, of a face of 45
    assert told == sorted(told) and told[-1] == 1
    once = track_face_if_any(analyzer, frame[None], "the image")
    off = np.abs(once.head_keypoints[0] - portrait.head_keypoints[0] - (left, above)).max()
    assert not once.present[0] or off > 4  # a single look is not enough
