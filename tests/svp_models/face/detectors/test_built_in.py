from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.errors import Cancelled, PortraitError
from svp_portrait.svp_models.face.detection import FaceTrack, build_track, choose_faces, require_face
from svp_portrait.svp_models.face.detectors.built_in import BuiltInBackend, FaceAnalyzer

onnx = pytest.importorskip("onnx")


def tiny_graph(without: str | None = None, input_name: str = "image") -> bytes:
    """A network whose 8 head keypoints all are the centre of gravity of the red channel, whose `present` is the blue
    channel's mean, and whose other outputs repeat the green channel's mean."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    centres = (np.arange(128, dtype=np.float32) + 0.5) / 128
    constants = {
        "ramp_x": centres.reshape(1, 1, 1, 128),
        "ramp_y": centres.reshape(1, 1, 128, 1),
        "channels": np.array([1, 1, 1], np.int64),
        "planes": np.array([1, 2, 3], np.int64),
        "point": np.array([-1, 1, 2], np.int64),
        "column": np.array([-1, 1], np.int64),
        "flat": np.array([-1], np.int64),
        "ones_8": np.ones((1, 8, 1), np.float32),
        "ones_68": np.ones((1, 68, 2), np.float32),
        "ones_64": np.ones((1, 64), np.float32),
        "ones_6": np.ones((1, 6), np.float32),
        "single": np.array([-1, 1, 1], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Split", [input_name, "channels"], ["red", "green", "blue"], axis=1),
        node("ReduceSum", ["red", "planes"], ["mass"], keepdims=0),
        node("Mul", ["red", "ramp_x"], ["red_x"]),
        node("Mul", ["red", "ramp_y"], ["red_y"]),
        node("ReduceSum", ["red_x", "planes"], ["sum_x"], keepdims=0),
        node("ReduceSum", ["red_y", "planes"], ["sum_y"], keepdims=0),
        node("Div", ["sum_x", "mass"], ["x"]),
        node("Div", ["sum_y", "mass"], ["y"]),
        node("Reshape", ["x", "column"], ["x_column"]),
        node("Reshape", ["y", "column"], ["y_column"]),
        node("Concat", ["x_column", "y_column"], ["xy"], axis=1),
        node("Reshape", ["xy", "point"], ["xy_point"]),
        node("Mul", ["xy_point", "ones_8"], ["head_keypoints"]),
        node("ReduceMean", ["green"], ["green_mean"], axes=[1, 2, 3], keepdims=0),
        node("Reshape", ["green_mean", "column"], ["green_column"]),
        node("Reshape", ["green_mean", "single"], ["green_single"]),
        node("Mul", ["green_single", "ones_68"], ["landmarks"]),
        node("Mul", ["green_column", "ones_64"], ["expression"]),
        node("Mul", ["green_column", "ones_6"], ["pose"]),
        node("ReduceMean", ["blue"], ["present"], axes=[1, 2, 3], keepdims=0),
    ]
    shapes = {
        "landmarks": ["n", 68, 2],
        "head_keypoints": ["n", 8, 2],
        "expression": ["n", 64],
        "pose": ["n", 6],
        "present": ["n"],
    }
    kind = onnx.TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items() if name != without]
    image = helper.make_tensor_value_info(input_name, kind, ["n", 3, 128, 128])
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [image], outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def spot(width: int, height: int, x: int, y: int, side: int, present: bool = True) -> np.ndarray:
    """A red square centred at (x, y) on black, with blue everywhere where a face is present."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 1] = 51
    frame[..., 2] = 255 if present else 0
    frame[y - side // 2 : y + side // 2, x - side // 2 : x + side // 2, 0] = 255
    return frame


@pytest.fixture(scope="module")
def analyzer() -> FaceAnalyzer:
    return FaceAnalyzer(tiny_graph())


@pytest.mark.parametrize(
    "width, height, x, y, side",
    [
        (128, 128, 40, 90, 8),
        (512, 512, 300, 120, 32),
        (640, 360, 100, 250, 40),
        (360, 641, 200, 500, 40),
        (64, 48, 30, 20, 8),
    ],
)
def test_points_come_back_in_pixels_of_the_frame(analyzer, width, height, x, y, side):
    track = analyzer.analyze(spot(width, height, x, y, side)[None])
    assert np.allclose(track.head_keypoints[0], (x, y), atol=0.02 * max(width, height) / 128)
    assert (track.width, track.height) == (width, height) and track.head_keypoints.shape == (1, 8, 2)


def test_values_batches_boxes_and_progress(analyzer):
    frames = np.stack([spot(96, 64, 40, 30, 8, present=index != 50) for index in range(70)])
    calls = []
    track = analyzer.analyze(frames, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(32, 70), (64, 70), (70, 70)] and len(track) == 70
    assert np.flatnonzero(~track.present).tolist() == [50] and track.present.dtype == bool
    assert np.allclose(track.expression, 0.2, atol=1e-4) and track.expression.shape == (70, 64)
    assert np.allclose(track.pose, 0.2, atol=1e-4) and track.pose.shape == (70, 3)  # the graph gives 6
    landmark = np.array([0.2 * 96, 0.2 * 96 - 16])  # the square has 16 rows above the frame
    assert np.allclose(track.landmarks, landmark, atol=0.01) and track.landmarks.shape == (70, 68, 2)
    expected = [*np.minimum(landmark, (40, 30)), *np.maximum(landmark, (40, 30))]
    assert np.allclose(track.boxes, expected, atol=0.05)


def test_cancelling_passes_through(analyzer):
    def cancel(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        analyzer.analyze(spot(64, 64, 32, 32, 8)[None], cancel)


def test_unusable_models_are_named():
    with pytest.raises(PortraitError, match=r"face analyser \(9 bytes\) is no usable ONNX model"):
        FaceAnalyzer(b"not a net")
    with pytest.raises(PortraitError, match="is no usable ONNX model"):
        FaceAnalyzer(tiny_graph()[:300])
    with pytest.raises(PortraitError, match=r"lacks the outputs \['pose'\]"):
        FaceAnalyzer(tiny_graph(without="pose"))
    with pytest.raises(PortraitError, match=r"inputs \['picture'\]"):
        FaceAnalyzer(tiny_graph(input_name="picture"))


@pytest.mark.parametrize(
    "frames", [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 8, 8, 4), np.uint8)]
)
def test_wrong_frames_are_named(analyzer, frames):
    with pytest.raises(PortraitError, match="must be uint8 of shape"):
        analyzer.analyze(frames)


def track_of(present: list[bool]) -> FaceTrack:
    empty = np.zeros((len(present), 0), np.float32)
    return FaceTrack(empty, empty, empty, empty, empty, np.array(present), 64, 48, empty)


def test_require_face_names_the_frames():
    require_face(track_of([False, True, False]), "the clip")
    with pytest.raises(PortraitError, match=r"no face found in the portrait \(64 x 48 pixels, frames 0 of 1\)"):
        require_face(track_of([False]), "the portrait")
    with pytest.raises(PortraitError, match="in the clip .*frames 0-3 of 4"):
        require_face(track_of([False] * 4), "the clip")


def test_it_gives_what_the_analyser_gives():
    onnx = load_model(BUILTIN_MODEL).face_analyzer
    frames = np.random.default_rng(0).integers(0, 255, (3, 40, 56, 3), dtype=np.uint8)
    track = FaceAnalyzer(onnx).analyze(frames)
    found = list(BuiltInBackend(onnx).detect(frames))
    assert [len(each) == 1 for each in found] == track.present.tolist()
    again = build_track(choose_faces(found), 56, 40)
    for name in ("boxes", "landmarks", "head_keypoints", "expression", "pose", "five_points"):
        value = getattr(again, name)
        assert value is None or np.array_equal(value[track.present], getattr(track, name)[track.present])
    assert np.allclose(track.five_points[:, 2:], track.landmarks[:, [30, 48, 54]])


def test_frames_of_another_shape_are_named():
    onnx = load_model(BUILTIN_MODEL).face_analyzer
    with pytest.raises(PortraitError, match="must be uint8 of shape"):
        list(BuiltInBackend(onnx).detect(np.zeros((2, 8, 8, 4), np.uint8)))
