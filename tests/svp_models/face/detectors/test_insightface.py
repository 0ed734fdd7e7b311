"""InsightFace's three networks, played by small ONNX graphs of the published shapes with answers known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detectors.insightface import (
    InsightFaceBackend,
    anchor_centres,
    decode_faces,
    decode_level,
    detector_input,
    suppress,
)
from svp_portrait.svp_models.face.head_pose import LOWER_HEIGHT, UPPER_HEIGHT

onnx = pytest.importorskip("onnx")
FLOAT = onnx.TensorProto.FLOAT
node = onnx.helper.make_node
# Pixels of the frame: these networks count from the first pixel's centre of a crop, here of 192 pixels for 96 of the frame
HALF = 0.5 * 96 / 192
LEVEL = np.array([[-0.25, -0.25], [0.25, -0.25], [0, 0], [-0.2, 0.25], [0.2, 0.25]])  # five points about a box's middle


def save(path: Path, nodes: list, constants: dict, shape: list, outputs: dict[str, list]) -> Path:
    info = onnx.helper.make_tensor_value_info
    stored = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    results = [info(name, FLOAT, sizes) for name, sizes in outputs.items()]
    graph = onnx.helper.make_graph(nodes, "net", [info("input.1", FLOAT, shape)], results, stored)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def detector(path: Path, side: int | None = 128, five: np.ndarray = LEVEL, edges: bool = False) -> Path:
    """Nine answers in the published order. On the coarsest level the first anchor of a cell scores what the red channel
    reaches in it (`edges`: how steeply red rises to the right in it), its box is the cell and its five points lie around
    the cell's middle; every other anchor scores 0 or less."""
    gains = {8: 0.0, 16: 0.0, 32: 1.0}
    constants = {
        "planes": np.array([1, 1, 1], np.int64),
        "rows": np.array([-1, 1], np.int64),
        "nothing": np.float32(0),
        "four": np.zeros((1, 4), np.float32),
        "ten": np.zeros((1, 10), np.float32),
        "cell": np.array([0, 0, 1, 1], np.float32),
        "five": (five + 0.5).astype(np.float32).reshape(10),
        "rise": np.array([-40, 40], np.float32).reshape(1, 1, 1, 2),
    }
    nodes = [node("Split", ["input.1", "planes"], ["red", "green", "blue"], axis=1)]
    nodes.append(node("Conv", ["red", "rise"], ["signal"]) if edges else node("Identity", ["red"], ["signal"]))
    pad = [0, 0, 0, 1] if edges else [0, 0, 0, 0]
    for stride, gain in gains.items():
        constants[f"gain{stride}"] = np.float32(gain)
        nodes += [
            node("MaxPool", ["signal"], [f"m{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2, pads=pad),
            node("Mul", [f"m{stride}", f"gain{stride}"], [f"first{stride}"]),
            node("Mul", [f"m{stride}", "nothing"], [f"second{stride}"]),
            node("Concat", [f"first{stride}", f"second{stride}"], [f"both{stride}"], axis=1),
            node("Transpose", [f"both{stride}"], [f"last{stride}"], perm=[0, 2, 3, 1]),
            node("Reshape", [f"last{stride}", "rows"], [f"score{stride}"]),
            node("MatMul", [f"score{stride}", "four"], [f"no4{stride}"]),
            node("Add", [f"no4{stride}", "cell"], [f"box{stride}"]),
            node("MatMul", [f"score{stride}", "ten"], [f"no10{stride}"]),
            node("Add", [f"no10{stride}", "five"], [f"points{stride}"]),
        ]
    outputs = {
        f"{kind}{stride}": ["n", n] for kind, n in (("score", 1), ("box", 4), ("points", 10)) for stride in gains
    }
    return save(path, nodes, constants, [1, 3, side or "h", side or "w"], outputs)


def fixed_points(path: Path, points: np.ndarray) -> Path:
    """A network that sees 192 x 192 and always answers these points."""
    constants = {"nothing": np.zeros((3, points.size), np.float32), "answer": points.astype(np.float32).reshape(1, -1)}
    nodes = [
        node("GlobalAveragePool", ["input.1"], ["mean"]),
        node("Flatten", ["mean"], ["flat"]),
        node("MatMul", ["flat", "nothing"], ["zero"]),
        node("Add", ["zero", "answer"], ["fc1"]),
    ]
    return save(path, nodes, constants, ["n", 3, 192, 192], {"fc1": [1, points.size]})


def circle() -> np.ndarray:
    """106 points: the outline as the lower part of a circle, its chin first, then the left side and the right one, both out
    of order; the pupils at -0.3 and 0.3."""
    shuffle = np.random.default_rng(0).permutation
    angles = np.linspace(-0.6, np.pi + 0.6, 33)  # from the right ear over the chin to the left ear
    angles = np.concatenate([angles[16:17], shuffle(angles[17:]), shuffle(angles[:16])])
    points = np.zeros((106, 2))
    points[:33] = 0.6 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points[38], points[88] = (-0.3, -0.2), (0.3, -0.2)
    return points


def head() -> np.ndarray:
    """1103 points in space, of which the last 68 are the landmarks."""
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (1103, 3))
    points[-68 + 27] = (0.0, -0.15, 0.3)
    return points


@pytest.fixture
def files(tmp_path):
    return (
        detector(tmp_path / "det_10g.onnx"),
        fixed_points(tmp_path / "2d106det.onnx", circle()),
        fixed_points(tmp_path / "1k3d68.onnx", head()),
    )


def frame_with(*cells: tuple[int, int], size: tuple[int, int] = (256, 256)) -> np.ndarray:
    """Black, with white squares of 64 pixels at these columns and rows of 64."""
    frame = np.zeros((*size, 3), np.uint8)
    for column, row in cells:
        frame[64 * row : 64 * row + 64, 64 * column : 64 * column + 64] = 255
    return frame


def test_every_white_square_is_a_face_in_its_place(files):
    faces = list(InsightFaceBackend(*files).detect(np.stack([frame_with((1, 2), (3, 0)), frame_with()])))
    assert [len(each) for each in faces] == [2, 0]
    boxes = sorted(each.box.tolist() for each in faces[0])
    assert np.allclose(boxes, [[64, 128, 128, 192], [192, 0, 256, 64]])


def test_wide_frames_are_fitted_in(files):
    face = next(InsightFaceBackend(*files).detect(frame_with((3, 1), size=(128, 256))[None]))[0]
    assert np.allclose(face.box, [192, 64, 256, 128])


def test_points_come_back_through_the_crop(files):
    face = next(InsightFaceBackend(*files).detect(frame_with((1, 2))[None]))[0]
    middle, unit = np.array([96.0, 160]), 64 * 1.5 / 2  # the crop shows 1.5 boxes as [-1, 1]
    assert np.allclose(face.five_points, middle + LEVEL * 64, atol=1e-3)
    middle += HALF
    assert np.allclose(face.head_keypoints[4:6], middle + np.array([[-0.3, -0.2], [0.3, -0.2]]) * unit, atol=1e-3)
    assert np.allclose(face.landmarks, middle + head()[-68:, :2] * unit, atol=1e-3)
    assert np.allclose(face.head_keypoints[6], middle + np.array([0, -0.15]) * unit, atol=1e-3)
    assert np.allclose(face.head_keypoints[7], face.five_points[2])
    assert face.pose.shape == (3,) and face.expression is None


def test_edges_lie_on_the_outline_at_their_heights(files):
    face = next(InsightFaceBackend(*files).detect(frame_with((1, 2))[None]))[0]
    edges = face.head_keypoints[:4] - (96, 160)
    inner = edges - HALF
    assert np.allclose(np.linalg.norm(inner, axis=1), 0.6 * 48, atol=0.3)
    heights = -16 + 32 * np.array([UPPER_HEIGHT, LOWER_HEIGHT] * 2)  # eyes at -16, mouth at 16
    assert np.allclose(edges[:, 1], heights, atol=1e-3) and (edges[:, 0] * (-1, -1, 1, 1) > 0).all()


def test_tilted_faces_are_seen_upright(files, tmp_path):
    turn = np.array([[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]])
    tilted = detector(tmp_path / "tilted.onnx", five=LEVEL @ turn)
    face = next(InsightFaceBackend(tilted, *files[1:]).detect(frame_with((1, 2))[None]))[0]
    expected = (96, 160) + (np.array([[-0.3, -0.2], [0.3, -0.2]]) * 48 + HALF) @ turn
    assert np.allclose(face.head_keypoints[4:6], expected, atol=1e-3)


def test_a_face_that_fills_the_picture_is_seen_in_a_smaller_one(files, tmp_path):
    steep = detector(tmp_path / "steep.onnx", side=None, edges=True)
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    faces = next(InsightFaceBackend(steep, *files[1:]).detect(ramp[None]))
    # at 640 pixels red rises by one grey level at most from pixel to pixel, 0.31 after the gain of 40; at 128 by two
    assert faces and all(np.isclose(each.area, 16**2) for each in faces)


def test_wrong_files_are_named(files, tmp_path):
    with pytest.raises(PortraitError, match=r"2d106det.onnx: 1 inputs and 1 outputs, 1 and 9 are needed"):
        InsightFaceBackend(files[1], files[1], files[2])
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(files[0].read_bytes()[:100])
    with pytest.raises(PortraitError, match="broken.onnx is no usable ONNX model"):
        InsightFaceBackend(broken, *files[1:])
    short = fixed_points(tmp_path / "short.onnx", np.zeros((5, 2)))
    with pytest.raises(PortraitError, match="short.onnx: its output has 10 numbers, 106 x 2"):
        next(InsightFaceBackend(files[0], short, files[2]).detect(frame_with((1, 2))[None]))


def test_anchors_stand_two_and_two_row_by_row():
    centres = anchor_centres(64, 16)
    assert centres.shape == (2 * 4 * 4, 2)
    assert centres[:6].tolist() == [[0, 0], [0, 0], [16, 0], [16, 0], [32, 0], [32, 0]]
    assert centres[8].tolist() == [0, 16] and centres[-1].tolist() == [48, 48]


def test_distances_are_measured_from_the_anchor_in_strides():
    scores = np.zeros((32, 1), np.float32)
    boxes, points = np.zeros((32, 4), np.float32), np.zeros((32, 10), np.float32)
    row = 2 * (1 * 4 + 2) + 1  # second anchor of the cell in row 1, column 2
    scores[row], boxes[row] = 0.9, (1, 0.5, 2, 3)
    points[row] = np.arange(10) / 10
    score, box, five = decode_level(scores, boxes, points, 64, 16)
    assert score.tolist() == [np.float32(0.9)] and box.tolist() == [[32 - 16, 16 - 8, 32 + 32, 16 + 48]]
    assert np.allclose(five[0], np.arange(10).reshape(5, 2) / 10 * 16 + (32, 16))


def test_scores_below_a_half_are_nothing():
    empty = decode_level(np.full((32, 1), 0.49), np.ones((32, 4)), np.ones((32, 10)), 64, 16)
    assert [len(each) for each in empty] == [0, 0, 0]


def test_suppression_keeps_the_best_of_each_heap():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 5], [40, 0, 50, 10]], float)
    # overlaps with the first: 0.82, 0.5, 0
    assert suppress(np.array([0.6, 0.9, 0.7, 0.8]), boxes).tolist() == [1, 3]
    assert suppress(np.array([0.9, 0.6, 0.7, 0.8]), boxes, max_iou=0.6).tolist() == [0, 3, 2]
    assert suppress(np.zeros(0), np.zeros((0, 4))).tolist() == []


def test_three_levels_join_in_pixels_of_the_frame():
    side, scale = 64, 0.5
    answers = []
    for width in (1, 4, 10):
        answers += [np.zeros((2 * (side // stride) ** 2, width), np.float32) for stride in (8, 16, 32)]
    answers[0][0], answers[3][0] = 0.8, (0, 0, 1, 1)  # stride 8: a box of 8 pixels at the corner
    answers[2][3], answers[5][3] = 0.9, (0, 0, 1, 1)  # stride 32: a box of 32 pixels at (32, 0)
    scores, boxes, points = decode_faces(answers, side, scale)
    assert np.allclose(scores, [0.9, 0.8])
    assert boxes.tolist() == [[64, 0, 128, 64], [0, 0, 16, 16]]
    assert points[0].tolist() == [[64, 0]] * 5


def test_the_picture_fills_the_square_from_the_top_left():
    frame = np.full((100, 200, 3), (255, 127, 0), np.uint8)
    image, scale = detector_input(frame, 64)
    assert image.shape == (1, 3, 64, 64) and image.dtype == np.float32 and scale == 64 / 200
    assert np.allclose(image[0, :, 10, 10], [(255 - 127.5) / 128, (127 - 127.5) / 128, -127.5 / 128])
    assert np.allclose(image[0, :, 32:], -127.5 / 128)  # black below


@pytest.mark.parametrize("width", [303, 638, 1077, 1232, 1920])
def test_the_longer_side_fills_the_square_to_the_last_column(width):
    """640 / width * width is a little under 640 for some of these."""
    image, _ = detector_input(np.full((200, width, 3), 255, np.uint8), 640)
    assert (image[0, :, 0] > 0.9).all()
