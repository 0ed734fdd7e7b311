"""Crop Face and Paste Face Back through the stand-in: from a picture of any shape to squares and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.nodes import head_motion as face_nodes
from svp_portrait.nodes.face_crop import SVPCropFace, SVPPasteBack
from svp_portrait.nodes.head_motion import SVPHeadKpsManual, SVPLoadFaceAnalyzer
from svp_portrait.nodes.host import InputImpl
from svp_portrait.nodes.loaders import SVPLoadModel
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, DEMO_NAME
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.crop import Square
from svp_portrait.svp_models.face.detection import FaceDetection
from svp_portrait.svp_models.media.video import load_video
from svp_portrait.svp_models.media.writer import VideoWriter
from svp_portrait.svp_models.synthetic.clips import neutral_portrait
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import HeadMotion

CROP = {"margin": 2.0, "size": 0, "square": "still", "smoothing": 0, "feather": 0.1}
POINTS = np.array([(30, 24), (31, 34), (50, 24), (49, 34), (36, 26), (44, 26), (40, 26), (40, 32)])
SIDE = 8  # pixels of a marked face


class Marks:
    """A backend that finds a face of SIDE pixels wherever there is a white one."""

    name = "marks"

    def detect(self, frames):
        for frame in frames:
            corners = np.argwhere((frame == 255).all(axis=-1))[:, ::-1].astype(np.float32)
            yield [self.face(corner) for corner in corners]

    def face(self, corner):
        points = corner + np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]] * 17, np.float32)
        return FaceDetection(np.concatenate([corner, corner + SIDE]), points[:8], points[:5], points)


@pytest.fixture
def analyzer(monkeypatch):
    """Load Face Analyzer with that backend; what is given are its other choices."""
    monkeypatch.setitem(face_nodes.BACKENDS, "marks", Marks)

    def load(face: str = "largest", index: int = 0):
        return SVPLoadFaceAnalyzer.execute("marks", face, index, 0.0, "backend").args[0]

    return load


def film(*frames: list[tuple[int, int]]) -> torch.Tensor:
    """IMAGE 48 x 80, grey noise with a white pixel at each (x, y)."""
    images = 0.2 + 0.6 * torch.rand(len(frames), 48, 80, 3, generator=torch.Generator().manual_seed(0))
    for image, places in zip(images, frames, strict=True):
        for x, y in places:
            image[y, x] = 1
    return images


def crop(images, analyzer=None, **changes):
    return SVPCropFace.execute(images, **{**CROP, **changes}, face_analyzer=analyzer).args


def test_a_face_is_cut_out_and_goes_back(analyzer):
    images = film([(30, 20)])
    faces, mask, place = crop(images, analyzer())
    assert place.squares == (Square(34 - 8, 24 - 1 - 8, 16),) and (place.width, place.height) == (80, 48)
    assert torch.equal(faces, images[:, 15:31, 26:42]) and mask.shape == (1, 16, 16) and mask.max() == 1
    assert torch.equal(SVPPasteBack.execute(images, faces, place, 0.15).args[0], images)
    pasted = SVPPasteBack.execute(images, torch.zeros(6, 32, 32, 3), place, 0.0, mask).args[0]
    assert pasted.shape == (6, 48, 80, 3) and (pasted[:, 20:26, 31:37] == 0).all()
    pasted[:, 15:31, 26:42] = images[0, 15:31, 26:42]
    assert torch.equal(pasted, images.expand(6, -1, -1, -1))


@pytest.mark.parametrize("face, index, left", [("left to right", 0, 6), ("left to right", 1, 36), ("largest", 0, 6)])
def test_of_several_faces_the_analyzer_chooses(analyzer, face, index, left):
    faces, _, place = crop(film([(10, 20), (40, 20)]), analyzer(face, index))
    assert place.squares[0].left == left and faces.shape == (1, 16, 16, 3)


def test_one_square_for_a_clip_or_one_that_follows(analyzer):
    images = film([(10, 20)], [(20, 20)], [(30, 20)])
    faces, mask, place = crop(images, analyzer(), margin=1.5)
    assert place.squares == (Square(24 - 21, 24 - 1 - 21, 42),) and faces.shape == (3, 42, 42, 3) == (*mask.shape, 3)
    faces, mask, place = crop(images, analyzer(), square="follow", size=24)
    assert [each.left for each in place.squares] == [6, 16, 26] and faces.shape == (3, 24, 24, 3) == (*mask.shape, 3)
    back = SVPPasteBack.execute(images, torch.zeros_like(faces), place, 0.0).args[0]
    for index, left in enumerate((6, 16, 26)):
        assert (back[index, 15:31, left : left + 16] == 0).all()
        back[index, 15:31, left : left + 16] = images[index, 15:31, left : left + 16]
    assert torch.equal(back, images)


def test_beyond_the_picture_its_edge_is_repeated_and_not_pasted(analyzer):
    images = film([(76, 20)])  # half of the face is outside
    faces, mask, place = crop(images, analyzer(), margin=1.1)
    assert place.squares == (Square(75, 19, 9),)
    assert torch.equal(faces[0, :, :5], images[0, 19:28, 75:]) and (faces[0, :, 5:] == images[0, 19:28, 79:]).all()
    assert mask[0, 4, 0] < mask[0, 4, 8] == 1  # soft where the picture goes on
    pasted = SVPPasteBack.execute(images, 1 - faces, place, 0.0).args[0]
    assert torch.equal(pasted[0, 19:28, 75:], 1 - images[0, 19:28, 75:])
    assert torch.equal(pasted[:, :, :75], images[:, :, :75])


def test_typed_points_take_the_place_of_a_search():
    images = film([])
    points = "0.25,0.4\n0.25,0.6\n0.5,0.4\n0.5,0.6\n0.3,0.4\n0.45,0.4\n0.375,0.4\n0.375,0.6"
    motion = SVPHeadKpsManual.execute(images, points).args[0]
    place = SVPCropFace.execute(images, **{**CROP, "margin": 1.5}, head_motion=motion).args[2]
    # From 20 to 40 across, the eyes at 19.2: the brows are taken to be at 15.2, the chin at 35.2.
    assert place.squares == (Square(30 - 15, 8, 30),)
    with pytest.raises(PortraitError, match="1 images of 80 x 48, there are 1 of 40 x 48"):
        SVPCropFace.execute(images[:, :, :40], **CROP, head_motion=motion)


def test_without_a_face_the_message_says_where_and_what_to_do(analyzer, loaded):
    with pytest.raises(PortraitError, match=r"no face found in the images \(80 x 48 pixels, frames 0-1 of 2\)"):
        crop(film([], []), analyzer())
    with pytest.raises(PortraitError, match="connect Load Face Analyzer, a model .*, or the points"):
        crop(film([]))
    with pytest.raises(PortraitError, match="no face found in the images .64 x 48 pixels, frames 0 of 1"):
        SVPCropFace.execute(torch.zeros(1, 48, 64, 3), **CROP, model=loaded[0])


def test_grey_and_transparent_pictures(analyzer):
    images = film([(30, 20)])
    with_alpha = torch.cat([images, torch.zeros(1, 48, 80, 1)], dim=-1)
    faces, _, place = crop(with_alpha, analyzer())
    assert faces.shape == (1, 16, 16, 3) and torch.equal(faces, crop(images, analyzer())[0])
    pasted = SVPPasteBack.execute(with_alpha, torch.ones(1, 8, 8, 1), place, 0.0).args[0]
    assert torch.equal(pasted, SVPPasteBack.execute(images, torch.ones(1, 8, 8, 3), place, 0.0).args[0])
    assert pasted.shape == (1, 48, 80, 3) and (pasted == 1).all(-1).sum() == 256  # the square of 16 x 16 is white


def test_a_model_finds_a_drawn_face_and_says_what_a_turned_one_needs(folders):
    if not BUILTIN_MODEL.is_file():
        pytest.skip(f"the built-in model {BUILTIN_MODEL} is not there")
    model = SVPLoadModel.execute(DEMO_NAME).args[0]
    drawn = neutral_portrait(speaker(4, "test"), 200)
    picture = torch.full((1, 200, 500, 3), 0.8)
    picture[:, :, 50:250] = torch.from_numpy(drawn.images).float() / 255
    faces, mask, place = SVPCropFace.execute(picture, **{**CROP, "size": 32}, model=model).args
    assert faces.shape == (1, 32, 32, 3) and mask.shape == (1, 32, 32)
    middle = drawn.landmarks[0].mean(axis=0) + (50, 0)
    square = place.squares[0]
    assert abs(square.left + square.side / 2 - middle[0]) < 8 and 150 < square.side <= 200
    with pytest.raises(PortraitError, match="turned clockwise by about 180 degrees: rotate the image"):
        SVPCropFace.execute(picture[:, :, 50:250].flip(1, 2), **CROP, model=model)


def test_frames_without_a_face_pass_through_untouched(analyzer, caplog):
    images = film([(30, 20)], [], [(34, 20)], [])
    for square in ("still", "follow"):
        faces, mask, place = crop(images, analyzer(), square=square)
        assert len(faces) == len(images) and place.present == (True, False, True, False)
        assert "no face in frames 1, 3 of 4 of the images: Paste Face Back leaves them as they are" in caplog.text
        assert (mask[[1, 3]] == 0).all() and (mask[[0, 2]].amax((1, 2)) == 1).all()
        pasted = SVPPasteBack.execute(images, torch.zeros_like(faces), place, 0.0).args[0]
        assert torch.equal(pasted[[1, 3]], images[[1, 3]])
        assert all((pasted[row] == 0).any() for row in (0, 2))
    with pytest.raises(PortraitError, match="3 images, 3 faces, 4 squares of the crop, 4 images of the crop"):
        SVPPasteBack.execute(images[:3], faces[:3], place, 0.0)


def test_what_is_no_face_in_its_own_square_is_refused(analyzer, monkeypatch):
    class Whole(Marks):
        """Sees a face in the whole picture that is not there when looked at closely."""

        def detect(self, frames):
            for faces, frame in zip(super().detect(frames), frames, strict=True):
                yield faces if frame.shape[1] == 80 else []

    monkeypatch.setitem(face_nodes.BACKENDS, "marks", Whole)
    with pytest.raises(
        PortraitError,
        match="what marks took for a face in the images is none in the square around it .16 pixels at 26, 15",
    ):
        crop(film([(30, 20)]), analyzer())


def test_a_video_is_cut_and_pasted_as_its_frames_are(analyzer, folders):
    size = 96
    frames = np.full((6, 64, size, 3), 60, np.uint8)
    for number, frame in enumerate(frames):
        frame[20:44, 30 + number : 54 + number] = 200
    path = folders / "input" / "film.mp4"
    with VideoWriter(path, size, 64, 12, None, 4) as writer:
        writer.write(frames)
    video, pictures = InputImpl.VideoFromFile(path), torch.from_numpy(load_video(path).frames).float() / 255
    motion = HeadMotion(
        torch.from_numpy(np.stack([POINTS + (number, 0) for number in range(6)])).float(), size, 64, 12.0, (2,)
    )
    of_video, of_frames = (
        SVPCropFace.execute(each, **{**CROP, "square": "follow"}, head_motion=motion).args for each in (video, pictures)
    )
    assert torch.equal(of_video[0], of_frames[0]) and of_video[2] == of_frames[2]
    assert of_video[2].present == (True, True, False, True, True, True)
    pasted = [SVPPasteBack.execute(each, 1 - of_video[0], of_video[2], 0.2).args[0] for each in (video, pictures)]
    assert torch.equal(pasted[0], pasted[1]) and torch.equal(pasted[0][2], pictures[2])
    assert not torch.equal(pasted[0][3], pictures[3])
    with pytest.raises(PortraitError, match="6 images, 5 faces"):
        SVPPasteBack.execute(video, of_video[0][:5], SVPCropFace.execute(pictures[:5], **CROP, head_motion=replace(
            motion, keypoints=motion.keypoints[:5], interpolated=())).args[2], 0.2)  # fmt: skip


def test_the_hosts_landmarks_take_the_place_of_a_search(host_landmarks):
    images = film([], [], [])
    given = host_landmarks(80, 48, POINTS, None, POINTS)
    _, _, place = SVPCropFace.execute(images, **CROP, face_landmarks=given).args
    motion = HeadMotion(torch.from_numpy(POINTS).float()[None], 80, 48, 25.0)
    _, _, same = SVPCropFace.execute(images[:1], **CROP, head_motion=motion).args
    assert place.squares == same.squares and place.present == (True, False, True)
    with pytest.raises(PortraitError, match="3 images of 80 x 48, there are 2 of 80 x 48"):
        SVPCropFace.execute(images[:2], **CROP, face_landmarks=given)
