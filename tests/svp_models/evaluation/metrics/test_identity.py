import numpy as np
import pytest

from svp_portrait.svp_models.evaluation.metrics.identity import COLOURS, PLACES, PROPORTIONS, identity_descriptor
from svp_portrait.svp_models.evaluation.protocols import identity_leak
from svp_portrait.svp_models.synthetic.clips import make_clip, neutral_portrait
from svp_portrait.svp_models.synthetic.speakers import speaker

PEOPLE = 5


@pytest.fixture(scope="module")
def portrait():
    return neutral_portrait(speaker(3, "test"), 128)


@pytest.fixture(scope="module")
def clips():
    """Descriptors of true clips, 5 people x happy, happy, sad: with the drawing's own landmarks, 8 frames each."""
    found = []
    for number in range(PEOPLE):
        who, acts = speaker(100 + number, "test"), (("happy", 1), ("happy", 2), ("sad", 3))
        drawn = [make_clip(who, emotion, 3, seed, 1.6, 5.0, 128) for emotion, seed in acts]
        found.append([identity_descriptor(clip.images, clip.landmarks) for clip in drawn])
    return np.array(found)


def leak_of(clips, shown):
    """identity_leak of every pair of people; shown(portrait's person, other person): the descriptor of what is shown."""
    pairs = [(own, other) for own in range(PEOPLE) for other in range(PEOPLE) if own != other]
    moved = [shown(own, other) - clips[own, 0] for own, other in pairs]
    ways = [clips[other, 0] - clips[own, 0] for own, other in pairs]
    return identity_leak(moved, ways, [(clips[own, 0], clips[own, 2]) for own, _ in pairs])


def test_a_picture_of_one_colour_has_that_colour_everywhere(portrait):
    plain = np.empty((1, 128, 128, 3), np.uint8)
    plain[:] = (51, 102, 204)
    found = identity_descriptor(plain, portrait.landmarks)
    assert len(found) == PROPORTIONS.stop
    np.testing.assert_allclose(found[COLOURS].reshape(-1, 3), [(0.2, 0.4, 0.8)] * len(PLACES))


def test_a_few_odd_frames_do_not_count(portrait):
    frames, landmarks = np.repeat(portrait.images, 5, axis=0), np.repeat(portrait.landmarks, 5, axis=0)
    expected = identity_descriptor(portrait.images, portrait.landmarks)
    frames[1], landmarks[3] = 0, landmarks[3] * (0.5, 1) + 20
    np.testing.assert_allclose(identity_descriptor(frames, landmarks), expected, atol=1e-9)


def test_places_are_where_their_names_say(portrait):
    # In a picture whose colour is the position, the colours tell where they were taken.
    ramp = np.zeros((1, 128, 128, 3), np.uint8)
    ramp[0, :, :, 0], ramp[0, :, :, 1] = np.arange(128)[None, :], np.arange(128)[:, None]
    found = identity_descriptor(ramp, portrait.landmarks)[COLOURS].reshape(-1, 3) * 255 + 0.5
    x, y = ({name: place[axis] for name, place in zip(PLACES, found, strict=True)} for axis in (0, 1))
    np.testing.assert_allclose((x["nose"], y["nose"]), portrait.landmarks[0, [28, 29]].mean(0), atol=0.1)
    assert x["left cheek"] < x["nose"] < x["right cheek"]
    heights = [y[name] for name in ("hair", "forehead", "left eye", "nose", "moustache", "upper lip", "chin")]
    assert heights == sorted(heights)


def test_a_colour_is_that_of_a_small_patch(portrait):
    """A tenth of the distance of the eyes wide: a white spot on the nose fills it."""
    points = portrait.landmarks[0]
    reach = 0.05 * np.linalg.norm(points[45] - points[36]) + 1.5  # pixels that interpolation reads
    x, y = points[[28, 29]].mean(0) - 0.5
    rows, columns = np.indices((128, 128))
    spot = np.zeros((1, 128, 128, 3), np.uint8)
    spot[0, (abs(rows - y) <= reach) & (abs(columns - x) <= reach)] = 255
    found = dict(zip(PLACES, identity_descriptor(spot, portrait.landmarks)[COLOURS].reshape(-1, 3), strict=True))
    np.testing.assert_allclose(found["nose"], 1)
    np.testing.assert_allclose(found["left cheek"], 0)


def test_proportions_do_not_change_with_size_place_and_tilt(portrait):
    turn = 1.7 * np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    moved = portrait.landmarks @ turn + (12, -7)
    found, same = (identity_descriptor(portrait.images, item)[PROPORTIONS] for item in (portrait.landmarks, moved))
    np.testing.assert_allclose(found, same, atol=1e-6)
    assert np.all(np.diff(found[:3]) < 0)  # a face is widest at the temples


def test_true_clips_of_the_portraits_person_have_not_leaked(clips):
    assert leak_of(clips, lambda own, other: clips[own, 0]) == 0
    assert leak_of(clips, lambda own, other: clips[own, 1]) == pytest.approx(0, abs=0.1)


def test_true_clips_of_the_styles_person_have_leaked_altogether(clips):
    assert leak_of(clips, lambda own, other: clips[other, 0]) == pytest.approx(1)
    assert leak_of(clips, lambda own, other: clips[other, 1]) == pytest.approx(1, abs=0.1)


def test_a_face_between_two_people_has_leaked_by_half(clips):
    assert leak_of(clips, lambda own, other: (clips[own, 0] + clips[other, 0]) / 2) == pytest.approx(0.5)


def test_colours_and_proportions_count_half_each(clips):
    def shown(own, other):
        return np.concatenate([clips[other, 0][COLOURS], clips[own, 0][PROPORTIONS]])

    assert leak_of(clips, shown) == pytest.approx(0.5)
