import cv2
import numpy as np
import pytest
import torch

from svp_portrait.svp_models.evaluation.metrics.landmarks import MOUTH
from svp_portrait.svp_models.evaluation.pictures import (
    GAP,
    LINE,
    SIDE,
    contact_row,
    enlarged,
    png_bytes,
    sheet,
    side_by_side,
    telling_frame,
)
from svp_portrait.svp_models.media.video import load_video
from svp_portrait.svp_models.types import Audio


@pytest.fixture
def face():
    """Landmarks of three frames of 100 x 100; the mouth is open widest in the second."""
    points = np.full((3, 68, 2), 50.0)
    points[:, 36:48] = (50, 30)
    points[:, 36], points[:, 45] = (30, 30), (70, 30)
    points[:, 48:68] = (50, 70)
    points[:, 48], points[:, 54] = (40, 70), (60, 70)
    points[1, 62], points[1, 66] = (50, 66), (50, 76)
    return points


def test_a_png_holds_the_picture():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    found = cv2.imdecode(np.frombuffer(png_bytes(image), np.uint8), cv2.IMREAD_COLOR)
    assert (cv2.cvtColor(found, cv2.COLOR_BGR2RGB) == image).all()


def test_the_frame_with_the_widest_mouth_is_shown(face):
    assert telling_frame(face) == 1


def test_a_mouth_is_enlarged_in_the_middle(face):
    frame = np.zeros((100, 100, 3), np.uint8)
    frame[68:73, 40:61] = 255  # the mouth
    part = enlarged(frame, face[0], MOUTH)
    assert part.shape == (SIDE, SIDE, 3)
    rows, columns = np.nonzero(part[..., 0] > 127)
    assert (rows.mean(), columns.mean()) == pytest.approx((SIDE / 2, SIDE / 2), abs=SIDE * 0.03)
    assert np.ptp(columns) == pytest.approx(SIDE * 20 / (2 * 0.85 * 20), rel=0.1)


def test_a_contact_sheet_has_a_column_for_every_picture_and_part(face):
    frames = {
        name: np.full((3, 100, 100, 3), value, np.uint8) for name, value in (("portrait", 1), ("truth", 2), ("SVP", 3))
    }
    row = contact_row(frames, face)
    assert list(row) == ["portrait", "truth", "SVP", "mouth, truth", "mouth, SVP", "eyes, truth", "eyes, SVP"]
    image = sheet([row, row])
    assert image.shape == (2 * LINE + 2 * (SIDE + GAP) + GAP, 7 * (SIDE + GAP) + GAP, 3)
    assert image[2 * LINE + SIDE // 2, GAP + SIDE // 2].tolist() == [1, 1, 1]
    assert image[-SIDE // 2, -SIDE // 2].tolist() == [3, 3, 3]


def test_clips_are_shown_row_by_row_with_their_sound(tmp_path):
    clips = {str(value): np.full((10, 64, 64, 3), value, np.uint8) for value in (40, 110, 220)}
    sound = Audio(torch.sin(torch.arange(6400) * 0.2)[None] * 0.5, 16000)
    path = tmp_path / "clip.mp4"
    path.write_bytes(side_by_side(clips, 25, sound))
    video = load_video(path)
    assert video.frames.shape == (10, 128, 128, 3) and video.audio is not None
    middles = [video.frames[5, y, x].mean() for y in (32, 96) for x in (32, 96)]
    assert middles == pytest.approx([40, 110, 220, 250], abs=4)
