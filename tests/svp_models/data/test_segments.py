from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from svp_portrait.svp_models.data.schema import ClipLimits, Skipped
from svp_portrait.svp_models.data.segments import Shot, detect_shots, face_size, iter_shots, present_runs, segments_of
from svp_portrait.svp_models.media.video import iter_frames

from .conftest import MarkerBackend, face_at, marked, recipe_for


def stretch(*faces: list[tuple[float, float, float]], start: int = 100) -> Shot:
    return Shot(start, [[face_at(*each) for each in frame] for frame in faces], 640, 480)


def told(found) -> list:
    return [(each.reason, each.start) if isinstance(each, Skipped) else (each.start, len(each.track)) for each in found]


def test_shots_are_cut_to_length_and_read_in_small_batches(people):
    film = np.concatenate([marked(np.full((70, 2), 100.0)), marked(np.full((75, 2), 150.0), seed=1)])
    backend = MarkerBackend()
    found = list(iter_shots(film, backend, 50, ClipLimits()))
    assert [(each.start, len(each.faces)) for each in found] == [(0, 50), (50, 20), (70, 50), (120, 25)]
    assert max(backend.batches) <= 32 and sum(backend.batches) == 145
    assert all(len(faces) == 1 for each in found for faces in each.faces)


def test_a_long_film_is_never_held():
    alive = peak = 0

    class Frame(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= self.base is None

    def film():
        nonlocal alive, peak
        for index in range(600):
            alive += 1
            peak = max(peak, alive)
            frame = Frame((24, 32, 3), np.uint8)
            frame[:] = index % 2
            yield frame

    assert [len(each.faces) for each in iter_shots(film(), MarkerBackend(), 250, ClipLimits())] == [250, 250, 100]
    assert 32 < peak < 45 and alive <= 1


def test_gaps_are_bridged_and_long_ones_part():
    present = np.ones(100, bool)
    present[[0, 1, 40, 99]] = False
    present[60:72] = False
    assert present_runs(present, 12) == [(2, 99)]
    present[72] = False
    assert present_runs(present, 12) == [(2, 60), (73, 99)]
    assert present_runs(np.zeros(5, bool), 12) == []


def test_a_piece_has_the_face_in_every_frame():
    frames = [[] if index in (0, 20, 21) else [(200 + index, 240, 80)] for index in range(60)]
    (piece,) = segments_of(stretch(*frames), "a.mp4", recipe_for())
    assert (piece.start, len(piece.track)) == (101, 59)
    assert np.flatnonzero(piece.interpolated).tolist() == [19, 20]
    assert np.allclose(piece.track.pose[:, 0], 201 + np.arange(59)) and piece.track.present.all()
    assert face_size(piece.track) == pytest.approx(160, rel=0.07)


def test_what_gives_no_piece_is_told():
    face, far, none = [(320, 240, 80)], [(320, 240, 6)], []

    def of(*faces, **options):
        return told(segments_of(stretch(*faces), "a.mp4", recipe_for(**options)))

    assert of(*[face] * 39) == [("too short", 4.0)]
    assert of(*[none] * 50) == [("no face", 4.0)]
    assert of(*[face] * 20, *[none] * 20, *[face] * 20) == [("no face", 4.0)]
    assert of(*[face] * 45, *[none] * 20, *[face] * 20) == [(100, 45), ("too short", 4 + 65 / 25)]
    assert of(*[far] * 50) == [("face too small", 4.0)]  # 12 pixels; a quarter of 64 is 16
    assert of(*[far] * 50, min_face=10) == [(100, 50)]


def test_of_several_faces_one_is_chosen_or_all_are_refused():
    pair = [(150, 240, 60), (450, 240, 70)]
    behind = [(150, 240, 80), (450, 240, 30)]

    def of(*faces, **options):
        found = list(segments_of(stretch(*faces), "a.mp4", recipe_for(**options)))
        return [each.reason if isinstance(each, Skipped) else float(each.track.pose[0, 0]) for each in found]

    assert of(*[pair] * 50, face="largest") == [450]
    assert of(*[pair] * 30, *[pair[:1]] * 30, face="stays") == [150]
    assert of(*[pair] * 50, face="left to right") == [150]
    assert of(*[pair] * 50, face="left to right", face_index=1) == [450]
    assert of(*[pair] * 50, face="left to right", face_index=2) == ["no face"]
    assert of(*[pair] * 50, face="one") == ["several faces"]
    assert of(*[pair] * 4, *[pair[:1]] * 46, face="one") == [150]  # a detector may err
    assert of(*[behind] * 50, face="one") == [150]


CLIPS = Path(__file__).parents[4] / "shared/clips"


def cuts(frames) -> list[int]:
    marked = list(detect_shots(frames, ClipLimits()))
    assert all(np.array_equal(frame, given) for (frame, _), given in zip(marked, frames, strict=True))
    return [index for index, (_, cut) in enumerate(marked) if cut]


@pytest.mark.parametrize("at", [1, 2, 17, 40, 55])
def test_the_cut_between_two_people_is_found_to_the_frame(people, at):
    spliced = np.concatenate([people[0].images[:at], people[1].images[: 56 - at]])
    assert cuts(spliced) == [at]


def test_several_cuts_in_a_row(people):
    parts = [people[index % 2].images[start : start + 9] for index, start in enumerate((0, 0, 20, 20, 40))]
    assert cuts(np.concatenate(parts)) == [9, 18, 27, 36]


def test_frames_shown_twice_are_no_cuts(people):
    slow = people[0].images[::4].repeat(4, axis=0)  # a film of 6.25 fps
    assert cuts(slow) == []
    assert cuts(np.concatenate([slow, people[1].images])) == [len(slow)]


def test_talking_and_standing_still_are_no_cuts(people):
    assert [cuts(each.images) for each in people] == [[], []]
    assert cuts(people[0].images[:1].repeat(30, axis=0)) == []
    assert cuts(people[0].images[:1]) == []


@pytest.mark.parametrize("name", ["vasa_10", "vasa_15", "vasa_l2"])
def test_real_films_of_one_shot_have_no_cuts_and_a_splice_of_two_has_one(name):
    if not CLIPS.is_dir():
        pytest.skip("the real clips are not at hand")
    frames = list(iter_frames(CLIPS / name / "video.mp4", 25, 200))
    assert cuts(frames) == []
    other = list(iter_frames(CLIPS / "vasa_7" / "video.mp4", 25, 20))
    assert cuts(frames[100:160] + other) == [60]
