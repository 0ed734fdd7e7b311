"""The pipeline on the reference networks: LivePortrait's own pictures, still portraits, films, regions, closed lips."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detection import FaceTrack
from svp_portrait.svp_models.motion.keypoints import (
    EYES,
    LIPS,
    KeypointMotion,
    drive_relative,
    driving_frame,
    keypoints,
    stitch,
)
from svp_portrait.svp_models.motion.liveportrait import (
    AnimateOptions,
    Source,
    animate_still,
    animate_video,
    close_lips,
    driven_keypoints,
    motion_part,
    mouth_ratios,
    prepare_source,
    read_motion,
    render,
)

PLAIN = AnimateOptions(stitching=False)
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def stored(liveportrait_io) -> dict[str, KeypointMotion]:
    """The motions of LivePortrait's own run."""
    found = {}
    for who in ("source", "driving"):
        values = {item.name: liveportrait_io[f"{who}_info.{item.name}"] for item in fields(KeypointMotion)}
        flat = {name: values[name].flatten() for name in ("pitch", "yaw", "roll", "scale")}
        found[who] = KeypointMotion(**{**values, **flat})
    return found


@pytest.fixture(scope="module")
def source(stored, liveportrait_io) -> Source:
    """The portrait of LivePortrait's own run."""
    return Source(stored["source"], liveportrait_io["source_keypoints"], liveportrait_io["feature_3d"])


@pytest.fixture(scope="module")
def film() -> Tensor:
    return torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def motion(liveportrait_networks, film) -> KeypointMotion:
    """A motion of five frames; its expressions, small as those of faces, are the network's."""
    return read_motion(liveportrait_networks, film.roll(1, dims=0))


def joined(frames) -> Tensor:
    return torch.cat(list(frames))


def test_the_picture_of_liveportrait(liveportrait_networks, liveportrait_io, stored, source, close):
    """Key points, warp and picture of the second driving frame, by the same calls as any frame."""
    driving = stored["driving"]
    points = driven_keypoints(
        liveportrait_networks, source, driving, driving_frame(driving, 0), AnimateOptions(stitching=True)
    )
    close(points, liveportrait_io["stitched_keypoints"])
    close(render(liveportrait_networks, source, points[1:]), liveportrait_io["frame"])


@torch.no_grad()
def test_a_picture_driven_by_its_own_motion_is_reconstructed(liveportrait_networks, film):
    """The generator's picture of the portrait's own points: relative and absolute, from one frame or the first of many."""
    networks, face = liveportrait_networks, film[:1]
    own = prepare_source(networks, face)
    warped = networks.warping(networks.appearance(face), own.keypoints, own.keypoints).warped
    expected = networks.generator(warped)
    assert expected.std() > 0.01
    for relative in (True, False):
        options = AnimateOptions(relative=relative, stitching=False)
        torch.testing.assert_close(joined(animate_still(networks, face, own.motion, options)), expected, **TOLERANCE)
    neutral = KeypointMotion(
        *(torch.zeros(3) for _ in range(3)), torch.zeros(3, 3), torch.ones(3), torch.zeros(3, 21, 3)
    )
    still = joined(animate_still(networks, face, neutral, PLAIN))
    torch.testing.assert_close(still, expected.expand(3, -1, -1, -1), **TOLERANCE)


def test_a_film_driven_by_stillness_is_its_own_reconstruction(liveportrait_networks, film, motion):
    still = motion_part(motion, [2])
    frames = joined(animate_video(liveportrait_networks, film.split(2), still, PLAIN))
    own = [joined(animate_still(liveportrait_networks, face, still, PLAIN)) for face in film.split(1)]
    torch.testing.assert_close(frames, joined(own), **TOLERANCE)


def test_pieces_change_nothing(liveportrait_networks, film, motion):
    options = AnimateOptions()
    alone = joined(animate_still(liveportrait_networks, film[:1], motion, options, size=1))
    assert (alone[0] - alone[-1]).abs().max() > 1e-3
    for size in (2, 5):
        together = joined(animate_still(liveportrait_networks, film[:1], motion, options, size=size))
        torch.testing.assert_close(together, alone, **TOLERANCE)
    at_once = joined(animate_video(liveportrait_networks, [film], motion, options))
    in_pieces = joined(animate_video(liveportrait_networks, film.split(2), motion, options))
    torch.testing.assert_close(in_pieces, at_once, **TOLERANCE)


def test_a_film_ends_with_its_motion(liveportrait_networks, film, motion):
    short = motion_part(motion, slice(3))
    frames = list(animate_video(liveportrait_networks, film.split(2), short))
    assert [len(piece) for piece in frames] == [2, 1]


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("region, rows", [("lips", LIPS), ("eyes", EYES)])
def test_a_region_leaves_all_else_of_a_film_to_the_bit(liveportrait_networks, film, motion, relative, region, rows):
    own = prepare_source(liveportrait_networks, film)
    options = AnimateOptions(region, relative, stitching=False)
    points = driven_keypoints(liveportrait_networks, own, motion, driving_frame(motion, 0), options)
    rest = [row for row in range(21) if row not in rows]
    assert torch.equal(points[:, rest], own.keypoints[:, rest])
    assert not torch.isclose(points[1:, list(rows)], own.keypoints[1:, list(rows)]).all(dim=-1).any()
    if not relative:  # redubbing: lips of the motion, in the pose of the film
        posed = KeypointMotion(
            own.motion.pitch, own.motion.yaw, own.motion.roll, own.motion.t, own.motion.scale, motion.exp, own.motion.kp
        )
        torch.testing.assert_close(points[:, list(rows)], keypoints(posed)[:, list(rows)])


def test_pose_and_expression_are_parts_of_all(liveportrait_networks, film, motion):
    own = prepare_source(liveportrait_networks, film[:1])
    first = driving_frame(motion, 0)

    def points(region: str, driving: KeypointMotion) -> Tensor:
        options = AnimateOptions(region, stitching=False)
        return driven_keypoints(liveportrait_networks, own, driving, first, options)

    still = KeypointMotion(**{**vars(motion), "exp": first.exp.expand_as(motion.exp)})
    assert torch.equal(points("pose", motion), points("all", still))
    turned = {
        name: getattr(first, name).expand_as(getattr(motion, name)) for name in ("pitch", "yaw", "roll", "t", "scale")
    }
    resting = KeypointMotion(**{**vars(motion), **turned})
    torch.testing.assert_close(points("expression", motion), points("all", resting))
    with pytest.raises(PortraitError, match="region is 'nose'"):
        AnimateOptions("nose")


@torch.no_grad()
def test_open_lips_are_closed_and_closed_ones_left(liveportrait_networks, liveportrait_io, film, motion, close):
    network, own = liveportrait_networks.mouth, liveportrait_io["source_keypoints"]
    ratio = torch.tensor([0.2])
    delta = close_lips(network, own, ratio)
    close(delta, network(torch.cat([own.flatten(1), torch.tensor([[0.2, 0.0]])], dim=1)).view(1, 21, 3))
    assert not close_lips(network, own, torch.tensor([0.02])).any()
    source, first = prepare_source(liveportrait_networks, film[:1]), driving_frame(motion, 0)
    for region, relative, closes in (
        ("all", True, True),
        ("eyes", True, False),
        ("pose", True, False),
        ("all", False, False),
    ):
        options = AnimateOptions(region, relative, normalize_lips=True)
        plain = driven_keypoints(liveportrait_networks, source, motion, first, AnimateOptions(region, relative))
        found = driven_keypoints(liveportrait_networks, source, motion, first, options, ratio)
        expected = plain + close_lips(network, source.keypoints, ratio) if closes else plain
        assert torch.equal(found, expected)


def test_stitching_corrects_what_was_driven(liveportrait_networks, source, stored):
    driving = stored["driving"]
    first = driving_frame(driving, 0)
    plain = driven_keypoints(liveportrait_networks, source, driving, first, PLAIN)
    assert torch.equal(plain, drive_relative(source.motion, driving))
    with torch.no_grad():
        expected = stitch(liveportrait_networks.stitching, source.keypoints, plain)
    assert torch.equal(driven_keypoints(liveportrait_networks, source, driving, first, AnimateOptions()), expected)


def test_mouths_are_measured_on_68_landmarks():
    landmarks = np.zeros((2, 68, 2), np.float32)
    landmarks[0, 48], landmarks[0, 54] = (10, 30), (30, 30)
    landmarks[0, 62], landmarks[0, 66] = (20, 28), (20, 33)
    rows = {"boxes": np.zeros((2, 4)), "head_keypoints": np.zeros((2, 8, 2)), "five_points": np.zeros((2, 5, 2))}
    track = FaceTrack(
        **rows, landmarks=landmarks, expression=None, pose=None, present=np.array([True, False]), width=40, height=40
    )
    assert mouth_ratios(track).tolist() == [0.25, 0]
    track = FaceTrack(**{**vars(track), "landmarks": None})
    with pytest.raises(PortraitError, match="normalize_lips needs the landmarks of the lips"):
        mouth_ratios(track)
