from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.config import AudioConfig
from svp_portrait.svp_models.diffusion.inputs import centre_crop, clip_length, fit_motion, fit_portrait, still_motion
from svp_portrait.svp_models.diffusion.pipeline import PortraitPipeline
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.synthetic.identity import FaceStates
from svp_portrait.svp_models.synthetic.renderer import render_clip
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import Audio, HeadMotion, Style


def motion(frames: int, width: int = 60, height: int = 40, fps: float = 25.0) -> HeadMotion:
    start = torch.tensor([[20.0, 10], [20, 30], [40, 10], [40, 30], [25, 15], [35, 15], [30, 12], [30, 20]])
    return HeadMotion(start + torch.arange(frames, dtype=torch.float32)[:, None, None], width, height, fps)


@pytest.mark.parametrize(
    "frames, length, expected",
    [(10, "audio", 100), (10, "shortest", 10), (200, "shortest", 100), (1, "shortest", 100)],
)
def test_length_of_the_clip(frames, length, expected):
    assert clip_length(4.0, motion(frames), 25.0, length) == expected
    assert clip_length(4.0, torch.zeros(frames, 3, 8, 8), 25.0, length) == expected


def test_shortest_counts_time_not_frames():
    assert clip_length(4.0, motion(60, fps=30.0), 25.0, "shortest") == 50


def test_unknown_length_is_named():
    with pytest.raises(PortraitError, match="'longest'.*audio, shortest"):
        clip_length(4.0, motion(1), 25.0, "longest")


def test_points_stay_on_the_picture_that_is_cut():
    """A dot in the portrait and the keypoint on it land on the same pixel."""
    picture = torch.full((3, 40, 60), -1.0)
    picture[:, 10, 20] = 1.0
    cut = fit_portrait(picture, 40, 40)
    row, column = divmod(int(cut[0].argmax()), 40)
    fitted = fit_motion(motion(3), 3, 25.0, 40, 40)
    assert (fitted.width, fitted.height) == (40, 40)
    assert fitted.keypoints[0, 0].tolist() == [column, row]


def test_pictures_are_cut_alike_and_go_back_and_forth():
    pictures = torch.arange(3.0)[:, None, None, None].expand(3, 3, 40, 60)
    fitted = fit_motion(pictures, 7, 25.0, 40, 40)
    assert fitted.shape == (7, 3, 40, 40)
    assert fitted[:][:, 0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2]
    assert fitted.frames.untyped_storage().data_ptr() == pictures.untyped_storage().data_ptr()
    assert len(fit_motion(pictures[:1], 7, 25.0, 60, 40)) == 1


def test_pictures_that_last_are_not_copied():
    pictures = torch.rand(9, 3, 40, 60)
    fitted = fit_motion(pictures, 7, 25.0, 40, 40)
    assert torch.equal(fitted, pictures[:7, :, :, 10:50])
    assert fitted.untyped_storage().data_ptr() == pictures.untyped_storage().data_ptr()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"audio": Audio(torch.zeros(1, 0), 16000)}, "0 samples"),
        ({"style": Style(torch.zeros(1, 16), "elsewhere")}, "'elsewhere', the model reads 'tiny-space'"),
        ({"size": (32, 25)}, "32 x 25 is not a multiple"),
        ({"deaf": True}, "but it has no audio encoder"),
    ],
)
def test_what_cannot_be_sampled_is_refused_before_anything_is_encoded(model, clip, changes, message):
    def encode(frames):
        raise AssertionError("encoded")

    if changes.pop("deaf", False):
        model = replace(model, config=replace(model.config, audio=AudioConfig(features="wav2vec2", feature_size=768)))
    given = {"audio": clip.audio, "style": clip.style, "size": (32, 24), **changes}
    with pytest.raises(PortraitError, match=message):
        PortraitPipeline(model, encode).prepare(
            torch.zeros(3, 48, 64), motion=clip.motion(5), frames=5, fps=25.0, **given
        )


@pytest.mark.parametrize("wide, high", [(60, 40), (40, 60), (41, 41), (1000, 3)])
def test_the_cut_is_what_the_portrait_gets(wide, high):
    left, top, width, height = centre_crop(wide, high, 32, 32)
    assert width == height == min(wide, high) and left == (wide - width) // 2 and top == (high - height) // 2


def test_a_still_head_is_where_the_portrait_has_it():
    """The points of a synthetic face, which are known, within 3 % of the picture; in any picture size."""
    analyzer = load_model(BUILTIN_MODEL).face_analyzer
    person = speaker(5, "test")
    rest = FaceStates(
        expression=person.habits.rest[None],
        pose=np.array([[8, 0, 4, 0.02, 0, 1]], np.float32),
        blink=np.zeros((1, 2), np.float32),
        gaze=np.zeros((1, 2), np.float32),
    )
    for size in (128, 320):
        rendered = render_clip(person.identity, rest, size)
        still = still_motion(analyzer, rendered.images)
        assert (len(still), still.width, still.height) == (1, size, size)
        apart = np.linalg.norm(still.keypoints[0].numpy() - rendered.head_keypoints[0], axis=-1)
        assert apart.max() < 0.03 * size, apart
        assert torch.equal(still.portrait, still.keypoints[0])  # nothing is warped
    with pytest.raises(PortraitError, match="no face found in the portrait"):
        still_motion(analyzer, np.zeros((1, 64, 64, 3), np.uint8))


def test_a_fitting_picture_is_left_alone():
    image = torch.rand(3, 64, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(fit_portrait(image, 48, 64), image)


def test_the_centre_is_kept():
    image = torch.full((3, 64, 128), -1.0)
    image[:, :, 32:96] = 1  # exactly the central square
    assert torch.equal(fit_portrait(image, 64, 64), torch.ones(3, 64, 64))
    assert torch.equal(fit_portrait(image.transpose(1, 2), 32, 32), torch.ones(3, 32, 32))


def test_downscaling_averages_areas():
    stripes = torch.ones(3, 128, 128)
    stripes[:, :, ::2] = -1
    assert fit_portrait(stripes, 32, 32)[:, 4:-4, 4:-4].abs().max() < 0.1


@pytest.mark.parametrize(("high", "wide"), [(33, 57), (57, 33), (512, 32), (1000, 999), (40, 400)])
def test_every_shape_fits(high, wide):
    image = torch.rand(3, high, wide, generator=torch.Generator().manual_seed(0)) * 2 - 1
    fitted = fit_portrait(image, 40, 32)
    assert fitted.shape == (3, 32, 40) and fitted.abs().max() <= 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 1, 1), "the portrait is 1 x 1 pixels: at least 32 x 32"),
        (torch.zeros(4, 64, 64), r"shape \(4, 64, 64\)"),
        (torch.zeros(64, 64), r"shape \(64, 64\)"),
        (torch.full((3, 64, 64), torch.nan), "not finite"),
    ],
)
def test_unusable_portraits(image, message):
    with pytest.raises(PortraitError, match=message):
        fit_portrait(image, 64, 64)
