"""All drawn faces of a image, wherever they are; nothing where there is none; turned ones are refused."""

from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.errors import Cancelled, PortraitError
from svp_portrait.svp_models.face.detection import box_iou
from svp_portrait.svp_models.face.detectors.built_in import (
    MAX_TILES,
    MIN_TILE,
    SEARCH_SIDES,
    BuiltInBackend,
    PortraitSearch,
    face_box,
    rotate_image,
    search_tiles,
)
from svp_portrait.svp_models.face.tracking import FaceTracker, find_face_boxes, track_face, track_face_if_any
from svp_portrait.svp_models.synthetic.clips import neutral_portrait
from svp_portrait.svp_models.synthetic.speakers import speaker


@pytest.fixture(scope="module")
def backend() -> BuiltInBackend:
    if not BUILTIN_MODEL.is_file():
        pytest.skip(f"the built-in model {BUILTIN_MODEL} is not there")
    return BuiltInBackend(load_model(BUILTIN_MODEL).face_analyzer)


def scene(width: int, height: int, *people: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A image of drawn people (speaker, left, top, side) on grey, and their boxes from the brows to the chin, n 4."""
    image, boxes = np.full((height, width, 3), (200, 209, 219), np.uint8), []
    for who, left, top, side in people:
        drawn = neutral_portrait(speaker(who, "test"), side)
        image[top : top + side, left : left + side] = drawn.images[0]
        points = drawn.landmarks[0] + (left, top)
        boxes.append(np.concatenate([points.min(axis=0), points.max(axis=0)]))
    return image, np.array(boxes).reshape(-1, 4)


TWO = [
    ((4, 25, 50, 200), (4, 350, 50, 200)),  # the same person twice, as far apart as they are wide
    ((7, 10, 60, 220), (9, 300, 120, 130)),
    ((11, 30, 100, 140), (2, 330, 20, 240)),
    ((3, 0, 0, 200), (5, 200, 0, 200), (6, 400, 0, 200)),  # three, one beside the other
]


@pytest.mark.parametrize("people", TWO)
def test_every_person_of_a_picture_is_found(backend, people):
    image, truth = scene(600, 300, *people)
    found = np.stack([face_box(face) for face in PortraitSearch(backend).find(image)])
    shared = box_iou(truth, found)
    assert len(found) == len(truth) and (shared.max(axis=1) > 0.85).all(), shared.round(2)


@pytest.mark.parametrize("people", TWO)
def test_the_choice_of_face_holds_for_drawn_people(backend, people):
    image, truth = scene(600, 300, *people)
    for index, expected in enumerate(truth):  # listed from left to right
        ((box,), present) = find_face_boxes(FaceTracker(backend, "left to right", index), image[None], "the image")
        assert box_iou(box, expected)[0, 0] > 0.85 and present.all()
    ((box,), _) = find_face_boxes(FaceTracker(backend), image[None], "the image")
    areas = np.prod(truth[:, 2:] - truth[:, :2], axis=1)
    assert box_iou(box, truth)[0].max() > 0.85
    if areas.max() > 1.3 * np.sort(areas)[-2]:
        assert box_iou(box, truth)[0].argmax() == areas.argmax()
    with pytest.raises(PortraitError, match=f"no frame has more than {len(people)}"):
        find_face_boxes(FaceTracker(backend, "left to right", len(people)), image[None], "the image")


def test_the_points_of_one_of_two_people_are_theirs(backend):
    image, _ = scene(600, 300, (7, 10, 60, 220), (9, 300, 120, 130))
    for index, (who, left, top, side) in enumerate([(7, 10, 60, 220), (9, 300, 120, 130)]):
        track = track_face(FaceTracker(backend, "left to right", index), image[None], "the clip")
        truth = neutral_portrait(speaker(who, "test"), side).head_keypoints[0] + (left, top)
        assert np.abs(track.head_keypoints[0] - truth).max() < 0.03 * side


def test_people_are_followed_through_a_clip_and_found_again(backend):
    places = [(30 + 4 * step, 300 - 3 * step) for step in range(6)]
    frames = [scene(600, 240, (4, left, 20, 180), (9, right, 40, 140)) for left, right in places]
    clip = np.stack([image for image, _ in frames])
    clip[3] = 128  # nobody for a moment
    boxes, present = find_face_boxes(FaceTracker(backend, "left to right", 1), clip, "the clip")
    assert present.tolist() == [True, True, True, False, False, False] or present[4:].all()
    for row in np.flatnonzero(present):
        assert box_iou(boxes[row], frames[row][1][1])[0, 0] > 0.85


def test_between_people_and_on_backdrops_there_is_nobody(backend):
    image, _ = scene(600, 300, (4, 25, 50, 200), (4, 350, 50, 200))
    search = PortraitSearch(backend)
    assert search.find(image[:, 150:450][:, 60:240]) == []  # half a face on either side
    assert search.find(np.full((200, 300, 3), 120, np.uint8)) == []
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    assert search.find(noise) == []


@pytest.mark.parametrize("degrees", [-25, 12, 40])
def test_a_tilted_head_is_found_with_its_points(backend, degrees):
    drawn = neutral_portrait(speaker(4, "test"), 200)
    image, matrix = rotate_image(drawn.images[0], -degrees)
    (face,) = PortraitSearch(backend).find(image)
    truth = drawn.head_keypoints[0] @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(face.head_keypoints - truth).max() < 10  # pixels, of a face of 95
    across = face.head_keypoints[5] - face.head_keypoints[4]
    assert np.degrees(np.arctan2(across[1], across[0])) == pytest.approx(degrees, abs=8)


@pytest.mark.parametrize(
    "degrees, message", [(180, "clockwise by about 180"), (90, "by about 90"), (-90, "counterclockwise by about 90")]
)
def test_a_turned_portrait_is_refused_with_its_cure(backend, degrees, message):
    image, _ = rotate_image(neutral_portrait(speaker(7, "test"), 160).images[0], -degrees)
    for look in (track_face, track_face_if_any, find_face_boxes):
        with pytest.raises(PortraitError, match=f"the face in the portrait is turned .*{message} degrees: rotate"):
            look(FaceTracker(backend), image[None], "the portrait")


def test_tiles_are_bounded_and_cover_the_picture():
    for width, height in ((1920, 1080), (600, 300), (16, 20_000), (4000, 40), (100, 100)):
        tiles = search_tiles(width, height)
        assert len(tiles) <= MAX_TILES * len(SEARCH_SIDES)
        assert min(tile.side for tile in tiles) >= MIN_TILE
        assert min(tile.left for tile in tiles) == 0 == min(tile.top for tile in tiles)
        assert max(tile.left + tile.side for tile in tiles) >= width
        assert max(tile.top + tile.side for tile in tiles) >= height


def test_a_picture_too_narrow_for_a_face_is_refused_at_once(backend):
    with pytest.raises(PortraitError, match="the images are 1000 x 1 pixels: no face fits in less than 8"):
        find_face_boxes(FaceTracker(backend), np.zeros((1, 1, 1000, 3), np.uint8), "the images")


def test_the_search_can_be_cancelled_between_two_calls_of_the_network(backend):
    calls = 0

    def cancel(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        find_face_boxes(FaceTracker(backend), np.full((1, 40, 3000, 3), 99, np.uint8), "the images", cancel)
    assert calls == 3
