"""Head motion with models that cannot find faces, and V-Express' ways of carrying it over."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.nodes.motion import SVPHeadKpsExtract, SVPHeadKpsRetarget
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.vexpress_keypoints import retarget_three_points, three_points
from svp_portrait.svp_models.values import HeadMotion


@pytest.fixture
def blind(loaded):
    """A model without a face analyser, as those made of public weights are."""
    return replace(loaded[0], portrait=replace(loaded[0].portrait, face_analyzer=None))


def motion(frames: int = 4) -> HeadMotion:
    points = torch.rand(frames, 8, 2, generator=torch.Generator().manual_seed(3)) * 40
    return HeadMotion(points, 48, 64, 25.0)


def test_a_model_that_cannot_find_faces_names_the_node_that_can(blind, clip):
    with pytest.raises(PortraitError, match="no face analyser, so the driving clip cannot be read.*Load Face Analyzer"):
        SVPHeadKpsExtract.execute(blind, clip["frames"], 25.0)
    with pytest.raises(PortraitError, match="no face analyser, so the portrait cannot be read.*Load Face Analyzer"):
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
    expected = retarget_three_points(three_points(portrait.keypoints[0]), three_points(motion().keypoints), way)
    torch.testing.assert_close(three_points(moved.keypoints), expected, rtol=0, atol=1e-5)
