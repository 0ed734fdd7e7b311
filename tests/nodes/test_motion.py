"""Motions through the nodes: saved and loaded, edited, mixed, drawn, and followed by head keypoints."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from svp_portrait.nodes.head_motion import EXAMPLE_POINTS, SVPHeadKpsManual, SVPHeadKpsRetarget
from svp_portrait.nodes.motion import (
    SVPMotionLoad,
    SVPMotionMix,
    SVPMotionPlot,
    SVPMotionSave,
    SVPMotionToHeadKps,
)
from svp_portrait.nodes.motion_edit import SVPMotionEdit, SVPMotionExpression
from svp_portrait.nodes.saved_files import FROM_INPUT
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.blinks import find_blinks
from svp_portrait.svp_models.motion.mix import region_columns
from svp_portrait.svp_models.motion.sliders import mouth_opening

from ..svp_models.motion.motions import differing, random_motion, still_motion
from ..svp_models.motion.test_files import template

SPACES = pytest.mark.parametrize("space", ["svp", "liveportrait"])


def defaults(node) -> dict:
    return {given.id: given.default for given in node.define_schema().inputs if "default" in given.as_dict()}


@SPACES
@pytest.mark.parametrize("node", [SVPMotionEdit, SVPMotionExpression])
def test_widgets_as_they_come_change_nothing_to_the_bit(node, space):
    motion = random_motion(20, space)
    assert differing(motion, node.execute(motion, **defaults(node)).args[0]) == set()


@pytest.mark.parametrize(
    "name",
    [
        given.id
        for given in SVPMotionEdit.define_schema().inputs
        if given.id.endswith(("_offset", "_amplitude", "_smoothing"))
    ],
)
def test_every_widget_of_the_head_reaches_its_channel(name):
    motion = random_motion(20)
    moved = SVPMotionEdit.execute(motion, **{**defaults(SVPMotionEdit), name: 0.5}).args[0]
    channel = name.rpartition("_")[0]
    part = "scale" if channel == "scale" else "shift" if channel.startswith("shift") else "angles"
    assert differing(motion, moved) == {part}
    if part != "scale":
        columns = (getattr(motion, part) != getattr(moved, part)).any(dim=0).nonzero().flatten().tolist()
        assert columns == [("yaw", "pitch", "roll", "shift_x", "shift_y").index(channel) % 3]


def test_keyframes_of_the_node_and_their_errors():
    motion = still_motion(51)
    given = {**defaults(SVPMotionEdit), "keyframes": "0 yaw 0\n2 yaw 20\n1 smile 0.5", "interpolation": "linear"}
    moved = SVPMotionEdit.execute(motion, **given).args[0]
    assert moved.angles[25, 0] == pytest.approx(10) and differing(motion, moved) == {"angles", "expression"}
    with pytest.raises(PortraitError, match="keyframes, line 2: 'b' is no number"):
        SVPMotionEdit.execute(motion, **{**given, "keyframes": "0 yaw 0\nb yaw 1"})


@pytest.mark.parametrize(
    "name", ["smile", "brows", "mouth_open", "mouth_width", "pout", "wink_left", "wink_right", "gaze_x", "gaze_y"]
)
def test_every_slider_of_the_face_moves_it(name):
    for space in ("svp", "liveportrait"):
        motion = random_motion(9, space)
        moved = SVPMotionExpression.execute(motion, **{**defaults(SVPMotionExpression), name: 0.5}).args[0]
        parts = differing(motion, moved)
        assert parts and parts <= {"expression", "lids", "gaze"}


def test_blink_widgets():
    motion = still_motion(1500)
    given = {**defaults(SVPMotionExpression), "blink_rate": 0.5, "seed": 3}
    moved = SVPMotionExpression.execute(motion, **given).args[0]
    assert len(find_blinks(moved)) / 60 == pytest.approx(0.5, rel=0.25)
    again = SVPMotionExpression.execute(moved, **{**given, "blink_rate": 0.0}).args[0]
    assert find_blinks(again) == []
    kept = SVPMotionExpression.execute(moved, **defaults(SVPMotionExpression)).args[0]
    assert differing(moved, kept) == set()


@SPACES
def test_a_film_gets_the_lips_of_a_voice(space):
    film, voice = random_motion(50, space, 1, fps=25.0), random_motion(50, space, 2, fps=25.0)
    redubbed = SVPMotionMix.execute(film, "first", "loop", "absolute", lips=voice).args[0]
    assert differing(film, redubbed) == {"expression"}
    columns = region_columns(space, "lips", film.expression.shape[1])
    others = [column for column in range(film.expression.shape[1]) if column not in columns]
    assert torch.equal(redubbed.expression[:, columns], voice.expression[:, columns])
    assert torch.equal(redubbed.expression[:, others], film.expression[:, others])
    assert mouth_opening(redubbed) is not None


def test_a_saved_motion_is_loaded_by_its_output_and_from_the_list(folders):
    motion = random_motion(7)
    saved = SVPMotionSave.execute(motion, "svp_motions/clip")
    assert saved.args[0] == "svp_motions/clip_00001_.safetensors"
    assert differing(motion, SVPMotionLoad.execute(FROM_INPUT, saved.args[0]).args[0]) == set()
    (combo,) = [given for given in SVPMotionLoad.define_schema().inputs if given.id == "motion"]
    assert combo.options == [FROM_INPUT, "clip_00001_.safetensors"]
    assert differing(motion, SVPMotionLoad.execute("clip_00001_.safetensors").args[0]) == set()
    assert SVPMotionLoad.fingerprint_inputs("clip_00001_.safetensors") > 0
    with pytest.raises(PortraitError, match="no motion is chosen"):
        SVPMotionLoad.execute(FROM_INPUT)


def test_templates_of_liveportrait_are_in_the_list_too(folders):
    path = folders / "output" / "svp_motions" / "laugh.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(template()))
    (combo,) = [given for given in SVPMotionLoad.define_schema().inputs if given.id == "motion"]
    assert "laugh.pkl" in combo.options
    motion = SVPMotionLoad.execute("laugh.pkl").args[0]
    assert (motion.space, len(motion), motion.fps) == ("liveportrait", 4, 30.0)


def test_curves_are_an_image(folders):
    image = SVPMotionPlot.execute(random_motion(30), 640, 480, "dark", other=random_motion(9, "liveportrait")).args[0]
    assert image.shape == (1, 480, 640, 3) and 0 <= float(image.min()) < float(image.max()) <= 1


def test_head_keypoints_follow_a_motion_from_typed_points(clip):
    """A shift alone moves all points alike, as the retargeted motion of the same head does."""
    portrait = SVPHeadKpsManual.execute(clip["portrait"], EXAMPLE_POINTS).args[0]
    motion = still_motion(3)
    motion.shift[2] = torch.tensor([0.1, -0.05])
    moved = SVPMotionToHeadKps.execute(motion, portrait, "relative").args[0]
    assert torch.equal(moved.keypoints[0], portrait.keypoints[0])
    step = (moved.keypoints[2] - moved.keypoints[0]).numpy()
    np.testing.assert_allclose(step, np.broadcast_to(step[:1], (8, 2)), atol=1e-3)
    assert step[0, 0] > 0 > step[0, 1]
    again = SVPHeadKpsRetarget.execute(moved, portrait, "offset").args[0]
    torch.testing.assert_close(again.keypoints, moved.keypoints, rtol=0, atol=1e-3)


def test_the_face_of_a_portrait_is_found_by_the_model(loaded, clip):
    moved = SVPMotionToHeadKps.execute(still_motion(4), clip["portrait"], "relative", loaded[0]).args[0]
    height, width = clip["portrait"].shape[1:3]
    assert (len(moved), moved.width, moved.height) == (4, width, height)
    with pytest.raises(PortraitError, match="connect Load Face Analyzer"):
        SVPMotionToHeadKps.execute(still_motion(4), clip["portrait"], "relative")
