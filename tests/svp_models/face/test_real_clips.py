"""Real films: their mesh tracks, what is derived from them, and smoothing and gaps on them. Skipped where they are absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from svp_portrait.svp_models.face.backends.mediapipe import face_of_mesh
from svp_portrait.svp_models.face.head_pose import pose_from_five_points
from svp_portrait.svp_models.face.head_template import TEMPLATE, face_edges
from svp_portrait.svp_models.face.keypoints import head_keypoints_from_mesh, interpolate_missing
from svp_portrait.svp_models.face.one_euro import smooth_points

CLIPS = Path(__file__).parents[4] / "shared/clips"
NAMES = ["vasa_10", "vasa_13", "vasa_15", "vasa_17", "vasa_3", "vasa_7", "vasa_l2", "vasa_l4"]
# Mean distance of mesh and InsightFace points (left eye, right eye, nose) in inter-ocular distances, as documented there.
AGREEMENT = {
    "vasa_3": (0.041, 0.025, 0.047), "vasa_7": (0.030, 0.022, 0.058), "vasa_10": (0.027, 0.033, 0.060),
    "vasa_13": (0.026, 0.024, 0.035), "vasa_15": (0.022, 0.019, 0.053), "vasa_17": (0.018, 0.019, 0.034),
    "vasa_l2": (0.028, 0.017, 0.025), "vasa_l4": (0.033, 0.036, 0.036),
}  # fmt: skip


@pytest.fixture(params=NAMES)
def name(request) -> str:
    if not CLIPS.is_dir():
        pytest.skip("the real clips are not at hand")
    return request.param


def track(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Meshes n 478 3 (all in pixels), head keypoints n 8 2, eye distances n."""
    with np.load(CLIPS / name / "landmarks.npz") as stored:
        mesh = stored["mesh"] * (1, 1, stored["width"])
        points = stored["head_kps"].astype(float)
    return mesh, points, np.linalg.norm(points[:, 5] - points[:, 4], axis=1)


def test_head_keypoints_of_the_meshes_are_the_stored_ones(name):
    mesh, points, _ = track(name)
    assert np.abs(head_keypoints_from_mesh(mesh) - points).max() <= 1 / 64  # the mesh is rounded to 1/32 pixel


def test_three_points_agree_with_insightface_as_documented(name):
    _, points, size = track(name)
    with np.load(CLIPS / name / "insightface_kps.npz") as stored:
        others = stored["kps"]
    count = min(len(points), len(others))
    apart = np.linalg.norm(points[:count, [4, 5, 7]] - others[:count], axis=2) / size[:count, None]
    assert np.allclose(apart.mean(axis=0), AGREEMENT[name], atol=0.0015)


def test_poses_from_five_points_follow_those_of_the_mesh(name):
    faces = [face_of_mesh(each) for each in track(name)[0][::5]]
    of_mesh = np.stack([each.pose for each in faces])
    of_five = np.stack([pose_from_five_points(each.five_points) for each in faces])
    yaw, pitch, roll = (of_five - of_mesh).T
    assert abs(yaw.mean()) < 2 and yaw.std() < 3 and abs(roll.mean()) < 1 and roll.std() < 1.2
    assert abs(pitch.mean()) < 8 and pitch.std() < 4  # the two mean heads hold their noses differently
    nose = np.stack([each.head_keypoints[7, 0] - each.head_keypoints[4:6, 0].mean() for each in faces])
    assert np.corrcoef(nose, of_mesh[:, 0])[0, 1] > 0.75  # positive yaw: the nose goes to the image's right


def test_the_template_is_like_these_heads(name):
    _, points, _ = track(name)
    axes = points[:, 5] - points[:, 4]
    length = np.linalg.norm(axes, axis=1)[:, None]
    right = axes / length
    down = np.stack([-right[:, 1], right[:, 0]], axis=1)
    local = (points - points[:, 4:6].mean(axis=1, keepdims=True)) / length[:, None]
    upright = np.stack([(local * right[:, None]).sum(-1), (local * down[:, None]).sum(-1)], axis=-1)
    assert np.linalg.norm(np.median(upright, axis=0) - TEMPLATE[:8], axis=1).max() < 0.25


def test_the_68_points_of_a_mesh_are_in_the_order_of_the_markup(name):
    face = face_of_mesh(track(name)[0][0])
    across = face.five_points[1] - face.five_points[0]
    upright = np.stack([across, (-across[1], across[0])]) / np.linalg.norm(across)
    points, pupils = face.landmarks @ upright.T, face.five_points[:2] @ upright.T
    jaw, brows, bridge, left_eye, right_eye = points[:17], points[17:27], points[27:31], points[36:42], points[42:48]
    chin = int(jaw[:, 1].argmax())
    assert chin in (7, 8, 9) and (np.diff(jaw[: chin + 1, 1]) > 0).all() and (np.diff(jaw[chin:, 1]) < 0).all()
    assert (np.diff(jaw[4:13, 0]) > 0).all()  # the upper ends lean inwards in a turned head
    assert (np.diff(brows[:, 0]) > 0).all() and (np.diff(bridge[:, 1]) > 0).all()
    for eye, pupil in ((left_eye, pupils[0]), (right_eye, pupils[1])):
        assert eye[0, 0] < pupil[0] < eye[3, 0]
        assert eye[1:3, 1].mean() < eye[4:6, 1].mean() + 1  # pixels: in vasa_l4 the eyes are closed
    assert (
        points[48, 0] < points[51, 0] < points[54, 0] and points[51, 1] < points[62, 1] <= points[66, 1] < points[57, 1]
    )


def test_edges_from_the_outline_lie_near_the_meshs(name):
    mesh, points, size = track(name)
    face = face_of_mesh(mesh[0])
    edges = face_edges(face.landmarks[:17], face.five_points)
    assert np.linalg.norm(edges - points[0, :4], axis=1).max() / size[0] < 0.25


def test_smoothing_takes_noise_and_leaves_movement(name):
    """2 % of the eye distance of noise: with strength 0.3 a third of it goes, and over half of the jerks."""
    _, points, sizes = track(name)
    size = float(np.median(sizes))
    noisy = points + np.random.default_rng(0).normal(0, 0.02 * size, points.shape)

    def off(found: np.ndarray) -> float:
        return float(np.sqrt(np.mean((found - points) ** 2))) / size

    def jerk(found: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.diff(found, 2, axis=0) ** 2))) / size

    smooth = smooth_points(noisy, 25, 0.3, size)
    assert off(smooth) < 0.7 * off(noisy) and jerk(smooth) < 0.45 * jerk(noisy)
    assert off(smooth_points(points, 25, 0.3, size)) < 0.012  # what it costs where there is no noise


@pytest.mark.parametrize("gap, most", [(3, 0.025), (10, 0.08)])
def test_gaps_are_bridged(name, gap, most):
    _, points, sizes = track(name)
    present = np.ones(len(points), bool)
    for start in range(20, len(points) - gap - 5, gap + 40):
        present[start : start + gap] = False
    filled, missing = interpolate_missing(points, present)
    assert len(missing) == (~present).sum() and np.allclose(filled[present], points[present], atol=1e-3)
    assert np.linalg.norm(filled - points, axis=2)[~present].mean() / np.median(sizes) < most
