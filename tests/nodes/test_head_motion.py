"""Head motion with models that cannot find faces, and V-Express' ways of carrying it over."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from svp_portrait.nodes.head_motion import SVPHeadKpsExtract, SVPHeadKpsRender, SVPHeadKpsRetarget
from svp_portrait.nodes.host import InputImpl
from svp_portrait.svp_models.cli.core_nodes import ComponentVideo, VideoComponents
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.keypoints import vexpress_keypoints
from svp_portrait.svp_models.face.retarget import retarget_vexpress
from svp_portrait.svp_models.media import images as pictures
from svp_portrait.svp_models.media.video import load_video
from svp_portrait.svp_models.media.writer import VideoWriter
from svp_portrait.svp_models.types import HeadMotion


@pytest.fixture
def blind(loaded):
    """A model without a face analyser, as those made of public weights are."""
    return replace(loaded[0], portrait=replace(loaded[0].portrait, face_analyzer=None))


def motion(frames: int = 4) -> HeadMotion:
    points = torch.rand(frames, 8, 2, generator=torch.Generator().manual_seed(3)) * 40
    return HeadMotion(points, 48, 64, 25.0)


def test_a_model_that_cannot_find_faces_names_the_node_that_can(blind, clip):
    with pytest.raises(
        PortraitError, match="no face analyser, so the driving clip cannot be analysed.*Load Face Analyzer"
    ):
        SVPHeadKpsExtract.execute(blind, clip["frames"], 25.0)
    with pytest.raises(PortraitError, match="no face analyser, so the portrait cannot be analysed.*Load Face Analyzer"):
        SVPHeadKpsRetarget.execute(motion(), clip["portrait"], "offset", blind)


def test_given_points_need_no_face_analyser(blind):
    moved = SVPHeadKpsRetarget.execute(motion(), motion(1), "offset", blind).args[0]
    assert torch.allclose(moved.keypoints[0], motion(1).keypoints[0])


@pytest.mark.parametrize("way", ["offset", "naive"])
def test_v_express_ways_are_offered(way):
    mode = next(each for each in SVPHeadKpsRetarget.define_schema().inputs if each.id == "mode")
    assert f"vexpress {way}" in mode.options
    portrait = replace(motion(1), keypoints=motion(1).keypoints * 3 + 5)
    moved = SVPHeadKpsRetarget.execute(motion(), portrait, f"vexpress {way}").args[0]
    expected = retarget_vexpress(vexpress_keypoints(portrait.keypoints[0]), vexpress_keypoints(motion().keypoints), way)
    torch.testing.assert_close(vexpress_keypoints(moved.keypoints), expected, rtol=0, atol=1e-5)


def test_a_video_is_read_at_its_own_rate(loaded, clip, folders):
    path = folders / "input" / "driving.mp4"
    with VideoWriter(path, 48, 40, 12, None, 4) as writer:
        writer.write((clip["frames"].transpose(1, 2) * 255).byte().numpy())
    frames = torch.from_numpy(load_video(path).frames).float() / 255
    of_video = SVPHeadKpsExtract.execute(loaded[0], InputImpl.VideoFromFile(path), 25.0).args[0]
    of_frames = SVPHeadKpsExtract.execute(loaded[0], frames, 12.0).args[0]
    assert of_video.fps == of_frames.fps == 12.0 and (of_video.width, of_video.height) == (48, 40)
    torch.testing.assert_close(of_video.keypoints, of_frames.keypoints, rtol=0, atol=1e-4)
    made = ComponentVideo(VideoComponents(frames, Fraction(12)))
    assert torch.equal(SVPHeadKpsExtract.execute(loaded[0], made, 25.0).args[0].keypoints, of_frames.keypoints)


POINTS = np.array([(10, 20), (11, 34), (40, 20), (39, 34), (18, 22), (32, 22), (25, 22), (25, 30)], np.float32)


def test_the_hosts_landmarks_become_motion(blind, clip, host_landmarks):
    given = host_landmarks(64, 48, POINTS, None, POINTS + 4)
    found = SVPHeadKpsExtract.execute(blind, clip["frames"], 20.0, face_landmarks=given).args[0]
    assert (found.width, found.height, found.fps, found.interpolated) == (64, 48, 20.0, (1,))
    assert np.array_equal(found.keypoints.numpy(), np.stack([POINTS, POINTS + 2, POINTS + 4]))
    moved = SVPHeadKpsRetarget.execute(found, host_landmarks(64, 48, POINTS * 2), "offset").args[0]
    assert np.allclose(moved.keypoints[0], POINTS * 2) and np.allclose(moved.keypoints[2], POINTS * 2 + 8)


def test_drawn_motion_is_bounded_before_it_is_made(folders):
    with pytest.raises(PortraitError, match="1000000 frames of 4096 x 4096 pixels take 201326.6 GB"):
        SVPHeadKpsRender.execute(motion(), 4096, 4096, 1_000_000)


def test_drawn_motion_is_the_same_in_a_file(folders, monkeypatch):
    whole = SVPHeadKpsRender.execute(motion(), 64, 48, 70).args[0]
    monkeypatch.setattr(pictures, "MAX_IN_MEMORY", 0)
    assert torch.equal(SVPHeadKpsRender.execute(motion(), 64, 48, 70).args[0], whole) and whole.shape == (70, 48, 64, 3)
    assert whole.max() > 0.9
