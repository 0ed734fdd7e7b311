from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.keypoints import (
    EYES,
    LIPS,
    KeypointMotion,
    degrees_from_bins,
    drive_absolute,
    drive_relative,
    driving_frame,
    keypoints,
    keypoints_of_motion,
    motion_from_network,
    motion_of_keypoints,
    retarget,
    rotation_matrices,
    stitch,
    with_rows,
)
from svp_portrait.svp_models.types import Motion


@pytest.fixture
def motions(liveportrait_io) -> tuple[KeypointMotion, KeypointMotion]:
    """The source's and the driving motion of the reference data."""
    found = []
    for who in ("source", "driving"):
        info = {
            name: liveportrait_io[f"{who}_info.{name}"] for name in ("pitch", "yaw", "roll", "t", "scale", "exp", "kp")
        }
        info |= {name: info[name].flatten() for name in ("pitch", "yaw", "roll", "scale")}
        found.append(KeypointMotion(**info))
    return found[0], found[1]


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_numbers_of_liveportrait(motions, liveportrait_io, liveportrait_networks):
    source, driving = motions
    io = liveportrait_io
    close(rotation_matrices(*io["pose_degrees"].T), io["pose_rotation"])
    close(source.rotation, io["source_rotation"])
    close(keypoints(source), io["source_keypoints"])
    close(keypoints(driving), io["driving_keypoints"])
    close(drive_relative(source, driving), io["relative_keypoints"])
    with torch.no_grad():
        ours = stitch(liveportrait_networks.stitching, io["source_keypoints"], io["relative_keypoints"])
        close(ours, io["stitched_keypoints"])
        close(retarget(liveportrait_networks.mouth, io["source_keypoints"], io["lip_ratio"]), io["lip_delta"])
        close(retarget(liveportrait_networks.eyes, io["source_keypoints"], io["eye_ratio"]), io["eye_delta"])


def test_motions_are_read_from_the_network(liveportrait_networks, liveportrait_io):
    with torch.no_grad():
        outputs = liveportrait_networks.motion(liveportrait_io["driving"])
    motion = motion_from_network(outputs)
    assert len(motion) == 2
    for name in ("pitch", "yaw", "roll"):
        torch.testing.assert_close(
            getattr(motion, name), liveportrait_io[f"driving_info.{name}"].flatten(), rtol=1e-4, atol=1e-4
        )
    close(motion.exp[1, 2], outputs["exp"][1, 6:9])
    close(motion.scale, outputs["scale"][:, 0])


def test_bins_are_three_degrees_wide_around_zero():
    logits = torch.full((3, 66), -1e4)
    logits[0, 0] = logits[1, 65] = logits[2, 32] = logits[2, 33] = 0
    close(degrees_from_bins(logits), torch.tensor([-97.5, 97.5, 0.0]))


def test_a_turned_head_carries_its_nose_along():
    angles = torch.tensor([0.0, 90.0])
    nose = torch.tensor([0.0, 0.0, -1.0])  # out of the picture
    turned = nose @ rotation_matrices(torch.zeros(2), angles, torch.zeros(2))
    close(turned, torch.tensor([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]]))


def test_a_portrait_driven_by_its_own_motion_stays(motions):
    source, driving = motions
    still = driving_frame(driving, 0)
    close(drive_relative(source, still), keypoints(source))
    close(drive_relative(source, source), keypoints(source))
    close(drive_absolute(source, source), keypoints(source))


def test_later_parts_of_a_motion_start_from_its_first_frame(motions):
    source, driving = motions
    whole = drive_relative(source, driving)
    later = drive_relative(source, driving_frame(driving, 1), first=driving_frame(driving, 0))
    assert torch.equal(later, whole[1:])


def test_absolute_motion_has_the_pose_of_the_driving_face_and_the_size_of_the_source(motions):
    source, driving = motions
    larger = replace(driving, scale=2 * driving.scale)
    assert torch.equal(drive_absolute(source, larger), drive_absolute(source, driving))
    turned = replace(driving, kp=source.kp.expand(2, -1, -1), scale=source.scale.expand(2))
    close(drive_absolute(source, driving), keypoints(turned))


def test_mixed_regions_leave_all_other_rows_alone(motions):
    _, driving = motions
    other = replace(driving, exp=driving.exp + 1)
    mixed = with_rows(driving, other, LIPS)
    assert torch.equal(mixed.exp[:, list(LIPS)], other.exp[:, list(LIPS)])
    rest = [row for row in range(21) if row not in LIPS]
    assert torch.equal(mixed.exp[:, rest], driving.exp[:, rest]) and set(EYES) <= set(rest)
    assert torch.equal(mixed.pitch, driving.pitch)


def test_movements_alone_have_no_points(motions):
    source, driving = motions
    with pytest.raises(PortraitError, match="the motion has no face of its own"):
        keypoints(replace(driving, kp=None))
    with pytest.raises(PortraitError, match="the portrait has 2 frames, the motion 1"):
        drive_relative(driving, source)


def test_a_motion_travels_and_comes_back(motions):
    """To the bit, but for t's z; the nose, at negative z, goes to the right with positive yaw and down with positive pitch."""
    _, driving = motions
    motion = motion_of_keypoints(driving, 24.0)
    assert (motion.fps, motion.space, len(motion)) == (24.0, "liveportrait", len(driving))
    back = keypoints_of_motion(motion)
    for name in ("pitch", "yaw", "roll", "scale", "exp"):
        assert torch.equal(getattr(back, name), getattr(driving, name).float()), name
    assert torch.equal(back.t[:, :2], driving.t[:, :2])
    assert torch.equal(keypoints(replace(driving, kp=driving.kp[:1].expand_as(driving.kp))), keypoints(back))
    nose = torch.tensor([[0.0, 0.0, -1.0]])
    turned = keypoints_of_motion(
        replace(motion, angles=torch.tensor([[20.0, 10.0, 0.0]]).expand(len(motion), 3))
    ).rotation
    assert ((nose @ turned)[:, 0, :2] > 0.1).all()


def test_motions_of_other_spaces_are_refused():
    still = Motion(torch.zeros(1, 3), torch.zeros(1, 2), torch.ones(1), torch.zeros(1, 64), 25.0, "svp")
    with pytest.raises(PortraitError, match="in the space svp"):
        keypoints_of_motion(still)
    with pytest.raises(PortraitError, match=r"lids of a motion has shape \(2, 2\), \(1, 2\) is needed"):
        replace(still, lids=torch.zeros(2, 2))
    with pytest.raises(PortraitError, match="not 'flame'"):
        replace(still, space="flame")
