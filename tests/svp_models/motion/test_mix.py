from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.coefficients import EXPRESSION_NAMES
from svp_portrait.svp_models.motion.keypoints import EYES, LIPS, keypoints_of_motion, with_rows
from svp_portrait.svp_models.motion.mix import mix_motions, region_columns, resample
from svp_portrait.svp_models.synthetic.geometry import FaceGeometry
from svp_portrait.svp_models.synthetic.identity import IDENTITY_NAMES

from .motions import differing, random_motion

SPACES = pytest.mark.parametrize("space", ["svp", "liveportrait"])


@SPACES
def test_nothing_to_mix_changes_nothing_to_the_bit(space):
    motion = random_motion(20, space)
    assert differing(motion, mix_motions(motion, {})) == set()
    assert differing(motion, mix_motions(motion, dict.fromkeys(("pose", "lips", "eyes"), motion))) == set()


@SPACES
def test_each_region_comes_from_its_motion_and_the_rest_stays_to_the_bit(space):
    first, pose, lips, eyes = (random_motion(20, space, seed) for seed in range(4))
    mixed = mix_motions(first, {"pose": pose, "lips": lips, "eyes": eyes})
    columns = {region: region_columns(space, region, first.expression.shape[1]) for region in ("lips", "eyes")}
    rest = sorted(set(range(first.expression.shape[1])) - set(columns["lips"]) - set(columns["eyes"]))
    for part, source, chosen in (("lips", lips, columns["lips"]), ("eyes", eyes, columns["eyes"]), ("", first, rest)):
        assert torch.equal(mixed.expression[:, chosen], source.expression[:, chosen]), part
    assert all(torch.equal(getattr(mixed, name), getattr(pose, name)) for name in ("angles", "shift", "scale"))
    if space == "svp":
        assert (
            mixed.lids is not first.lids and torch.equal(mixed.lids, eyes.lids) and torch.equal(mixed.gaze, eyes.gaze)
        )
    else:
        assert torch.equal(mixed.face, first.face)


def test_lips_alone_are_liveportraits_rows():
    first, other = (random_motion(9, "liveportrait", seed) for seed in range(2))
    wanted = with_rows(keypoints_of_motion(first), keypoints_of_motion(other), LIPS)
    assert torch.equal(keypoints_of_motion(mix_motions(first, {"lips": other})).exp, wanted.exp)
    wanted = with_rows(keypoints_of_motion(first), keypoints_of_motion(other), EYES)
    assert torch.equal(keypoints_of_motion(mix_motions(first, {"eyes": other})).exp, wanted.exp)


def test_lips_and_eyes_of_drawn_faces_are_the_coefficients_that_move_them():
    """Every coefficient that moves a point of the mouth (48-67) by more than 0.03, and no other, belongs to the lips; the
    wrinkled nose takes the lip along and stays with the nose. Lids (37, 38, 40, 41) likewise; cheeks push them."""
    geometry = FaceGeometry(dict.fromkeys(IDENTITY_NAMES, 0.0))
    mouth, lids = set(), set()
    for index in range(64):
        step = abs(geometry.fields[index])
        if float(step[48:68].max()) > 0.03:
            mouth.add(EXPRESSION_NAMES[index])
        if float(step[[37, 38, 40, 41, 43, 44, 46, 47]].max()) > 0.03:
            lids.add(EXPRESSION_NAMES[index])
    lips = {EXPRESSION_NAMES[index] for index in region_columns("svp", "lips", 64)}
    eyes = {EXPRESSION_NAMES[index] for index in region_columns("svp", "eyes", 64)}
    assert mouth - lips == {"nose_wrinkle_l", "nose_wrinkle_r"}
    assert lips - mouth == {"jaw_mode_1", "jaw_mode_2"}
    assert lids - eyes == {"cheek_raise_l", "cheek_raise_r"} and eyes <= lids
    assert not lips & eyes


@pytest.mark.parametrize(
    ("length", "fill", "frames", "order"),
    [
        ("first", "loop", 6, [0, 1, 2, 3, 2, 1]),
        ("first", "hold", 6, [0, 1, 2, 3, 3, 3]),
        ("longest", "loop", 6, [0, 1, 2, 3, 2, 1]),
        ("shortest", "loop", 4, [0, 1, 2, 3]),
    ],
)
def test_a_shorter_motion_loops_or_holds(length, fill, frames, order):
    first, lips = random_motion(6, seed=0, fps=25.0), random_motion(4, seed=1, fps=25.0)
    mixed = mix_motions(first, {"lips": lips}, length, fill)
    columns = region_columns("svp", "lips", 64)
    assert len(mixed) == frames
    assert torch.equal(mixed.expression[:, columns], lips.expression[order][:, columns])
    assert torch.equal(mixed.angles, first.angles[:frames])


def test_a_shorter_first_motion_goes_on_for_a_longer_voice():
    first, lips = random_motion(3, seed=0), random_motion(7, seed=1)
    mixed = mix_motions(first, {"lips": lips}, "longest", "loop")
    assert torch.equal(mixed.angles, first.angles[[0, 1, 2, 1, 0, 1, 2]])
    assert torch.equal(mixed.expression[:, 0], lips.expression[:, 0])  # jaw_open
    assert len(mix_motions(first, {"lips": lips})) == 3


def test_other_frame_rates_are_resampled_at_the_same_times():
    first, lips = random_motion(25, seed=0, fps=25.0), random_motion(51, seed=1, fps=50.0)
    mixed = mix_motions(first, {"lips": lips})
    columns = region_columns("svp", "lips", 64)
    assert mixed.fps == 25.0 and torch.equal(mixed.expression[:, columns], lips.expression[:50:2][:, columns])
    slow = replace(random_motion(5, seed=2), fps=12.5)
    moved = resample(slow, 9, 25.0)
    torch.testing.assert_close(moved.angles[1::2], (slow.angles[:-1] + slow.angles[1:]) / 2)
    assert torch.equal(moved.angles[::2], slow.angles) and moved.fps == 25.0


def test_times_of_both_count_for_the_length():
    first, lips = random_motion(50, fps=25.0), random_motion(45, fps=30.0)  # 2 s and 1.5 s
    assert len(mix_motions(first, {"lips": lips}, "shortest")) == 38  # 37.5
    assert len(mix_motions(first, {"lips": lips}, "longest")) == 50


def test_relative_moves_about_the_first_ones_mean():
    first, other = random_motion(20, seed=0), random_motion(20, seed=1)
    mixed = mix_motions(first, {"pose": other, "lips": other}, transfer="relative")
    torch.testing.assert_close(mixed.angles.mean(dim=0), first.angles.mean(dim=0), rtol=0, atol=1e-4)
    torch.testing.assert_close(mixed.angles.diff(dim=0), other.angles.diff(dim=0), rtol=0, atol=1e-4)
    torch.testing.assert_close(mixed.expression.mean(dim=0), first.expression.mean(dim=0), rtol=0, atol=1e-5)
    torch.testing.assert_close(mixed.scale / other.scale, (first.scale.mean() / other.scale.mean()).expand(20))


def test_what_cannot_be_mixed_is_said():
    first = random_motion(4)
    cases = [
        ({"lips": random_motion(4, "liveportrait")}, {}, "the first motion has 64 numbers in the space svp, the one for lips has 63"),
        ({"ears": first}, {}, "there is no region 'ears'"),
        ({}, {"fill": "stop"}, "the fill is 'stop': choose one of loop, hold"),
        ({"eyes": replace(first, lids=None, gaze=None)}, {}, "the motion for eyes has no lids and gaze"),
    ]  # fmt: skip
    for parts, options, message in cases:
        with pytest.raises(PortraitError, match=re.escape(message)):
            mix_motions(first, parts, **options)


def test_a_pose_may_come_from_the_other_space():
    first, other = random_motion(20), replace(random_motion(20, "liveportrait", 1), scale=torch.linspace(1.6, 1.8, 20))
    mixed = mix_motions(first, {"pose": other})
    assert differing(first, mixed) == {"angles", "shift", "scale"} and torch.equal(mixed.angles, other.angles)
    torch.testing.assert_close(mixed.scale.mean(), first.scale.mean())
    torch.testing.assert_close(mixed.scale / mixed.scale[0], other.scale / other.scale[0])


@pytest.mark.parametrize("transfer", ["absolute", "relative"])
def test_relative_driving_compares_each_region_with_its_own_reference(transfer):
    """What a region differs from its own reference is the same in the mixture, in every frame."""
    first = random_motion(6, "liveportrait", 1)
    lips = replace(random_motion(6, "liveportrait", 2), reference=random_motion(1, "liveportrait", 3))
    mixed = mix_motions(first, {"lips": lips, "pose": lips}, transfer=transfer)
    columns = region_columns("liveportrait", "lips", 63)
    others = [column for column in range(63) if column not in columns]

    def moved(motion, part):
        return (motion.expression - motion.compared.expression)[:, part]

    assert torch.allclose(moved(mixed, columns), moved(lips, columns), atol=1e-5)
    assert torch.allclose(moved(mixed, others), moved(first, others), atol=1e-5)
    turned = mixed.angles - mixed.compared.angles
    assert torch.allclose(turned, lips.angles - lips.compared.angles, atol=1e-4)
    assert torch.allclose(mixed.scale / mixed.compared.scale, lips.scale / lips.compared.scale, atol=1e-5)
    assert mix_motions(first, {"lips": first}).reference is None
