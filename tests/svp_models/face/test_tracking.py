from __future__ import annotations

import logging
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.errors import Cancelled, PortraitError
from svp_portrait.svp_models.face.crop import crop_around, crop_faces, paste_faces
from svp_portrait.svp_models.face.detection import FaceDetection, FaceTrack
from svp_portrait.svp_models.face.detectors.built_in import BuiltInBackend
from svp_portrait.svp_models.face.keypoints import motion_from_track
from svp_portrait.svp_models.face.tracking import FaceTracker, expression_from_track, find_face_boxes, track_face
from svp_portrait.svp_models.media.frame_stream import FrameStream
from svp_portrait.svp_models.synthetic.clips import neutral_portrait
from svp_portrait.svp_models.synthetic.speakers import speaker


def test_a_model_without_analyser_says_what_to_do():
    with pytest.raises(PortraitError, match="no face analyser, so the style clip.*built-in model"):
        track_face(None, np.zeros((1, 8, 8, 3), np.uint8), "the style clip")


def test_expressions_of_missing_frames_lie_between():
    expression = np.zeros((3, 64), np.float32)
    expression[2] = 2.0
    expression[1] = 99.0  # means nothing: no face there
    track = FaceTrack(
        boxes=np.zeros((3, 4), np.float32),
        landmarks=np.zeros((3, 68, 2), np.float32),
        head_keypoints=np.zeros((3, 8, 2), np.float32),
        expression=expression,
        pose=np.zeros((3, 6), np.float32),
        present=np.array([True, False, True]),
        width=8,
        height=8,
        five_points=np.zeros((3, 5, 2), np.float32),
    )
    filled = expression_from_track(track)
    assert filled.dtype == torch.float32 and torch.equal(filled[1], torch.ones(64))


class Backend:
    """Two faces in every frame: a still one, and a larger one that moves and is away in some frames."""

    name = "test"

    def __init__(self, away: tuple[int, ...] = ()):
        self.away = away

    def detect(self, frames):
        for frame, _ in enumerate(frames):
            faces = [self.face(5, 10)]
            if frame not in self.away:
                faces.append(self.face(50 + frame, 30))
            yield faces

    @staticmethod
    def face(x: float, side: float) -> FaceDetection:
        points = np.array([x, 20.0]) + side * np.linspace(0, 1, 16).reshape(8, 2)
        return FaceDetection(np.array([x, 20, x + side, 20 + side]), points, points[:5])


FRAMES = np.zeros((6, 64, 128, 3), np.uint8)


def test_a_tracker_follows_the_chosen_face_and_reports_progress():
    calls = []
    track = FaceTracker(Backend(), "largest").analyze(FRAMES, lambda done, total: calls.append((done, total)))
    assert track.boxes[:, 0].tolist() == [50, 51, 52, 53, 54, 55] and calls[-1] == (6, 6) and len(calls) == 6
    still = FaceTracker(Backend(), "left to right", 0).analyze(FRAMES)
    assert still.boxes[:, 0].tolist() == [5] * 6
    staying = FaceTracker(Backend(away=(2, 3)), "stays").analyze(FRAMES)
    assert staying.boxes[:, 0].tolist() == [5] * 6


def test_missing_frames_are_named_in_a_warning(caplog):
    tracker = FaceTracker(Backend(away=(1, 2, 5)), "left to right", 1)
    with caplog.at_level(logging.WARNING):
        track = track_face(tracker, FRAMES, "the style clip")
    assert "frames 1-2, 5 of 6 of the style clip" in caplog.text
    assert motion_from_track(track, 25).interpolated == (1, 2, 5)


def test_smoothing_bridges_gaps_and_leaves_the_marks():
    tracker = FaceTracker(Backend(away=(2,)), "left to right", 1, smoothing=0.2)
    track = tracker.analyze(FRAMES)
    assert track.present.tolist() == [True, True, False, True, True, True]
    assert np.isclose(track.head_keypoints[2, 0, 0], 52, atol=0.6) and track.landmarks is None


def test_cancelling_stops_the_tracker():
    def cancel(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        FaceTracker(Backend()).analyze(FRAMES, cancel)


def test_expression_comes_from_the_network_where_there_is_one():
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, images):
            return {"expression": self.weight.expand(len(images), 64), "angle": torch.zeros(len(images), 3)}

    calls = []
    tracker = FaceTracker(Backend(away=(1,)), "left to right", 1, expression_network=Network())
    track = tracker.analyze(FRAMES, lambda done, total: calls.append((done, total)))
    assert calls == [*((done, 12) for done in range(1, 7)), (12, 12)]  # twice through the frames
    assert torch.equal(expression_from_track(track), torch.full((6, 64), 2.0)) and track.pose.shape == (6, 3)
    with pytest.raises(PortraitError, match="no expression"):
        expression_from_track(FaceTracker(Backend()).analyze(FRAMES))


class Living:
    """A stream of frames that counts how many of them are alive."""

    def __init__(self, count: int, image: np.ndarray):
        self.count, self.image, self.now, self.most = count, image, 0, 0

    def frames(self):
        for _ in range(self.count):
            frame = self.image.copy()
            self.now += 1
            self.most = max(self.most, self.now)
            weakref.finalize(frame, self.gone)
            yield frame
            del frame

    def gone(self):
        self.now -= 1

    def stream(self) -> FrameStream:
        return FrameStream(self.frames, self.image.shape[1], self.image.shape[0], self.count, 25.0)


@pytest.mark.parametrize("backend", [Backend(), "built-in"])
def test_of_a_film_a_few_frames_are_alive_at_a_time(backend):
    image = FRAMES[0]
    if backend == "built-in":
        if not BUILTIN_MODEL.is_file():
            pytest.skip(f"the built-in model {BUILTIN_MODEL} is not there")
        backend = BuiltInBackend(load_model(BUILTIN_MODEL).face_analyzer)
        image = neutral_portrait(speaker(4, "test"), 96).images[0]
    living = Living(80, image)
    track = track_face(FaceTracker(backend), living.stream(), "the film")
    assert len(track) == 80 and track.present.all() and living.most <= 2
    boxes, present = find_face_boxes(FaceTracker(backend), living.stream(), "the film")
    crop = crop_around(boxes, image.shape[1], image.shape[0], 1.5, 3, present)
    faces = crop_faces(living.stream(), crop, 16)
    pasted = paste_faces(living.stream(), faces, crop, 0.1)
    assert pasted.shape == (80, *image.shape) and living.most <= 3


def test_a_film_that_is_longer_or_shorter_than_its_header_says():
    calls = []
    for count in (4, 8):
        stream = replace(Living(6, FRAMES[0]).stream(), count=count)
        track = track_face(FaceTracker(Backend()), stream, "the film", lambda done, total: calls.append((done, total)))
        assert len(track) == 6
    assert len(calls) == 12 and all(done <= total for done, total in calls)


@pytest.mark.parametrize(
    "degrees, cure", [(90, "clockwise by about 90"), (-120, "counterclockwise by about 120"), (180, "by about 180")]
)
def test_a_turned_face_of_any_backend_is_refused(degrees, cure):
    class Turned(Backend):
        @staticmethod
        def face(x, side):
            turn = np.exp(1j * np.radians(degrees))
            points = np.tile(np.array([[0.0, 0], [side, 0]]), (4, 1)) @ [
                [turn.real, turn.imag],
                [-turn.imag, turn.real],
            ]
            points = points + (x + 40, 30)
            return FaceDetection(np.array([x, 20, x + side, 20 + side]), points, points[:5])

    with pytest.raises(PortraitError, match=f"the face in the film is turned .*{cure} degrees: rotate the image"):
        track_face(FaceTracker(Turned()), FRAMES, "the film")
