"""Load LivePortrait and Animate Portrait through the stand-in, with the small reference networks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from svp_portrait.nodes import head_motion as face_nodes
from svp_portrait.nodes import liveportrait as nodes
from svp_portrait.nodes.head_motion import SVPLoadFaceAnalyzer
from svp_portrait.nodes.host import InputImpl, folder_paths
from svp_portrait.nodes.liveportrait import SVPAnimate, SVPLoadLivePortrait, SVPMotionExtract, liveportrait_names
from svp_portrait.nodes.loaders import SVPLoadModel
from svp_portrait.nodes.motion_style import SVPMotionEmotion, SVPMotionStyle
from svp_portrait.svp_models.checkpoints.liveportrait import FILES, load_liveportrait
from svp_portrait.svp_models.checkpoints.liveportrait_file import save_liveportrait
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, DEMO_NAME
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.crop import Square, crop_square
from svp_portrait.svp_models.face.detection import FaceDetection
from svp_portrait.svp_models.face.tracking import FaceTracker
from svp_portrait.svp_models.media.writer import VideoWriter
from svp_portrait.svp_models.motion.animation import Framing
from svp_portrait.svp_models.motion.extract import extract_liveportrait_motion
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import Motion

from ..reference.published import write_liveportrait

ANIMATE = {
    "region": "all", "mode": "relative", "framing": "paste back", "stitching": True, "normalize_lips": False, "feather": 0.1,
}  # fmt: skip
FACE = 20  # pixels of a marked face
SQUARE = 46  # 2.3 times that
SIDE = 64  # pixels that the reference networks see; as published 256


class Marks:
    """A backend that finds a face of FACE pixels below and to the right of a white pixel; its mouth is open."""

    name = "marks"

    def detect(self, frames):
        for frame in frames:
            corners = np.argwhere((frame == 255).all(axis=-1))[:, ::-1].astype(np.float32)
            yield [self.face(corner) for corner in corners]

    def face(self, corner):
        points = corner + np.array([[0, 0], [FACE, 0], [FACE, FACE], [0, FACE]] * 17, np.float32)
        box, head, five = np.concatenate([corner, corner + FACE]), points[:8].copy(), points[:5].copy()
        points[[62, 66]] = corner + np.array([[10, 4], [10, 14]], np.float32)
        return FaceDetection(box, head, five, points)


@pytest.fixture
def analyzer(monkeypatch):
    monkeypatch.setitem(face_nodes.BACKENDS, "marks", Marks)
    return SVPLoadFaceAnalyzer.execute("marks", "largest", 0, 0.0, "backend").args[0]


@pytest.fixture
def loaded(folders, tmp_path, monkeypatch):
    folder_paths.use(tmp_path, tmp_path / "models")
    monkeypatch.setattr(nodes, "Framing", partial(Framing, side=SIDE))
    extract = partial(extract_liveportrait_motion, side=SIDE)
    monkeypatch.setattr(nodes, "extract_liveportrait_motion", extract)
    write_liveportrait(tmp_path / "models" / "liveportrait")
    return SVPLoadLivePortrait.execute("/").args[0]


def picture(*places: tuple[int, int], width: int = 120, height: int = 90) -> torch.Tensor:
    """IMAGE, grey noise with a white pixel at (x, y) of each image."""
    images = 0.2 + 0.6 * torch.rand(len(places), height, width, 3, generator=torch.Generator().manual_seed(0))
    for image, (x, y) in zip(images, places, strict=True):
        image[y, x] = 1
    return images


def moves(frames: int, fps: float = 25.0) -> Motion:
    """Nods and speaks; the first frame is at rest."""
    time = torch.linspace(0, 1, frames)
    expression = 0.05 * time[:, None] * torch.randn(1, 63, generator=torch.Generator().manual_seed(1))
    angles = torch.stack([10 * time, -5 * time, 0 * time], dim=1)
    return Motion(angles, torch.zeros(frames, 2), torch.ones(frames), expression, fps, "liveportrait")


def animate(loaded, portrait, motion, analyzer=None, **changes):
    return SVPAnimate.execute(loaded, portrait, motion, **{**ANIMATE, **changes}, face_analyzer=analyzer).args


def test_folders_and_files_are_found(folders, tmp_path):
    folder_paths.use(tmp_path, tmp_path / "models")
    root = tmp_path / "models" / "liveportrait"
    assert liveportrait_names() == ["(none found)"]
    message = SVPLoadLivePortrait.validate_inputs("(none found)")
    assert "svp download liveportrait" in message and str(root) in message and "spade_generator" in message
    published = {file: "base_models" for file in FILES} | {"stitching_retargeting_module": "retargeting_models"}
    write_liveportrait(root / "original", below=published)
    write_liveportrait(root / "half", names=["spade_generator", "motion_extractor"])
    save_liveportrait(root / "one.safetensors", load_liveportrait(root / "original"))
    assert liveportrait_names() == ["original/", "one.safetensors"]
    assert SVPLoadLivePortrait.validate_inputs("original/") is True
    assert "appearance_feature_extractor, warping_module" in SVPLoadLivePortrait.validate_inputs("half/")
    with pytest.raises(PortraitError, match="there is no file 'gone.safetensors'"):
        SVPLoadLivePortrait.execute("gone.safetensors")
    networks = [SVPLoadLivePortrait.execute(name).args[0].networks for name in ("original/", "one.safetensors")]
    for first, second in zip(*(network.warping.state_dict().values() for network in networks), strict=True):
        assert torch.equal(first, second)
    assert SVPLoadLivePortrait.fingerprint_inputs("original/") > 0


@pytest.mark.parametrize("film", [False, True])
def test_an_emotion_shows_in_relative_driving_too(loaded, film):
    """The same in all frames: compared with the first frame of the moved motion it would be gone."""
    motion, crop = moves(2), torch.rand(1 + film, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(4))
    pictures = {}
    for strength in (0.0, 1.0):
        style = SVPMotionEmotion.execute("surprised", strength, "liveportrait").args[0]
        moved = SVPMotionStyle.execute(motion, style, 1.0, 1.0, 1.0, 0.0, True, 0).args[0]
        pictures[strength] = animate(loaded, crop, moved, framing="whole image")[0]
    torch.testing.assert_close(pictures[0.0], animate(loaded, crop, motion, framing="whole image")[0])
    assert all((one - other).abs().max() > 1e-3 for one, other in zip(pictures[0.0], pictures[1.0], strict=True))


def test_a_portrait_moves_and_everything_around_it_stays(loaded, analyzer):
    image = picture((50, 40))
    frames, fps, mask = animate(loaded, image, moves(3), analyzer)
    assert (frames.shape, mask.shape, fps) == ((3, 90, 120, 3), (3, 90, 120), 25.0)
    # The centre of the face, (60, 50), lies an eighth of the side below that of the square.
    square = Square(60 - 23, round(50 - SQUARE / 8 - 23), SQUARE)
    assert (mask[0] > 0).nonzero().min(dim=0).values.tolist() == [square.top, square.left]
    assert (mask[0] > 0).nonzero().max(dim=0).values.tolist() == [square.top + SQUARE - 1, square.left + SQUARE - 1]
    outside = mask[0] == 0
    assert torch.equal(frames[:, outside], image[:, outside].expand(3, -1, -1))
    alone = animate(loaded, image, moves(3), analyzer, framing="face")[0]
    assert alone.shape == (3, 128, 128, 3) and 0 <= alone.min() and alone.max() <= 1
    inside = crop_square(alone[2].numpy(), Square(0, 0, 128), SQUARE)[23, 23]
    assert mask[0, square.top + 23, square.left + 23] == 1
    np.testing.assert_allclose(frames[2, square.top + 23, square.left + 23].numpy(), inside, atol=1e-5)
    crop = torch.from_numpy(crop_square(image[0].numpy(), square, SIDE))[None]
    whole, _, mask = animate(loaded, crop, moves(3), framing="whole image")
    torch.testing.assert_close(whole, alone, rtol=1e-5, atol=1e-5)
    assert mask.shape == (3, 128, 128)
    with pytest.raises(PortraitError, match="120 x 90 pixels, and a face crop is square"):
        animate(loaded, image, moves(3), framing="whole image")


def test_a_film_keeps_its_place_and_the_face_is_followed(loaded, analyzer):
    film = picture((40, 40), (44, 40), (0, 0), (50, 40))
    film[2, 0, 0] = 0.5  # no face
    frames, _, mask = animate(loaded, film, moves(4), analyzer, region="lips", mode="absolute")
    assert frames.shape == film.shape and mask.shape == film.shape[:3]
    assert torch.equal(frames[2], film[2]) and not mask[2].any()
    assert mask[0].nonzero()[:, 1].min() < mask[3].nonzero()[:, 1].min()
    outside = mask == 0
    assert torch.equal(frames[outside], film[outside]) and not torch.equal(frames, film)


def test_the_shorter_of_film_and_motion_ends_both(loaded, analyzer, caplog):
    film = picture(*[(40, 40)] * 3)
    assert len(animate(loaded, film, moves(2), analyzer)[0]) == 2
    assert "the portrait has 3 frames at 25 fps, the motion 2: the 2 that both have come out" in caplog.text
    assert len(animate(loaded, film, moves(7), analyzer)[0]) == 3
    assert len(animate(loaded, film, moves(1), analyzer)[0]) == 3


def test_a_motion_is_brought_to_the_rate_of_a_video(loaded, analyzer, tmp_path):
    path = tmp_path / "film.mp4"
    with VideoWriter(path, 64, 64, 12.5) as writer:
        writer.write(np.full((4, 64, 64, 3), 90, np.uint8))
    frames, fps, _ = animate(loaded, InputImpl.VideoFromFile(str(path)), moves(8), framing="whole image")
    assert len(frames) == 4 and fps == 12.5


def test_lips_are_closed_where_the_analyzer_sees_them_open(loaded, analyzer):
    image = picture((50, 40))
    plain = animate(loaded, image, moves(2), analyzer)[0]
    closed = animate(loaded, image, moves(2), analyzer, normalize_lips=True)[0]
    assert not torch.equal(plain, closed)
    for changes in ({"mode": "absolute"}, {"region": "eyes"}):
        plain = animate(loaded, image, moves(2), analyzer, **changes)[0]
        assert torch.equal(animate(loaded, image, moves(2), analyzer, normalize_lips=True, **changes)[0], plain)


def test_motions_of_the_other_space_are_refused(loaded, analyzer):
    still = Motion(torch.zeros(1, 3), torch.zeros(1, 2), torch.ones(1), torch.zeros(1, 64), 25.0, "svp")
    with pytest.raises(PortraitError, match="LivePortrait needs one of its own"):
        animate(loaded, picture((50, 40)), still, analyzer)


def test_a_portrait_driven_by_its_own_extracted_motion_is_still(loaded, analyzer):
    """Extract Motion and Animate Portrait see the same square; a single frame drives as a motion of no movement does."""
    image = picture((50, 40))
    own = SVPMotionExtract.execute(image, 30.0, "find face", loaded, analyzer).args[0]
    assert (len(own), own.fps, own.space, own.expression.shape) == (1, 30.0, "liveportrait", (1, 63))
    still = replace(own, expression=torch.zeros(1, 63), angles=torch.zeros(1, 3), face=None)
    frames = [
        animate(loaded, image, motion, analyzer, mode=mode, stitching=False)[0]
        for motion, mode in ((own, "relative"), (own, "absolute"), (still, "relative"))
    ]
    for other in frames[1:]:
        torch.testing.assert_close(other, frames[0], rtol=1e-5, atol=1e-5)
    assert not torch.equal(frames[0], image)


def test_a_video_is_read_at_its_own_rate(loaded, tmp_path):
    path = tmp_path / "film.mp4"
    with VideoWriter(path, 64, 64, 30.0) as writer:
        writer.write(np.full((5, 64, 64, 3), 90, np.uint8))
    motion = SVPMotionExtract.execute(InputImpl.VideoFromFile(str(path)), 25.0, "whole image", loaded).args[0]
    assert (len(motion), motion.fps) == (5, 30.0)


def test_without_liveportrait_the_analyser_reads_the_coefficients():
    if not BUILTIN_MODEL.is_file():
        pytest.skip(f"the built-in model {BUILTIN_MODEL} is not there")
    clip = make_clip(speaker(4, "test"), "happy", 3, 0, seconds=0.2)
    model = SVPLoadModel.execute(DEMO_NAME).args[0]
    frames = torch.from_numpy(clip.images).float() / 255
    motion = SVPMotionExtract.execute(frames, 25.0, "find face", model=model).args[0]
    assert (motion.space, motion.expression.shape, motion.fps) == ("svp", (5, 64), 25.0)
    assert np.corrcoef(motion.expression.numpy().ravel(), clip.states.expression.ravel())[0, 1] > 0.8
    with pytest.raises(PortraitError, match="no expression: set 'expression' of Load Face Analyzer to deep3d"):
        SVPMotionExtract.execute(picture((50, 40)), 25.0, "find face", face_analyzer=FaceTracker(Marks()))
