"""The closer look at a face: its square, and what the built-in readers see in faces of test people."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.model_file import FACE_ANALYZER, FACE_READER, PORTRAIT_MODEL
from svp_portrait.svp_models.checkpoints.portrait_reader import (
    BUILT_IN_READER,
    SCORE_READER,
    built_in_scorer,
    load_portrait_reader,
    save_portrait_reader,
)
from svp_portrait.svp_models.checkpoints.safetensors_io import read_metadata
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detectors.built_in import BATCH_SIZE, FaceAnalyzer
from svp_portrait.svp_models.face.portrait_face import read_portrait_face
from svp_portrait.svp_models.face.portrait_reader import MOUTH, PortraitReader, face_squares
from svp_portrait.svp_models.networks.face_landmarks import PortraitReaderConfig, PortraitReaderNetwork
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.renderer import renderer_for
from svp_portrait.svp_models.synthetic.speakers import speaker

PEOPLE = range(300, 306)


@pytest.fixture(scope="module")
def clips():
    return [
        make_clip(speaker(number, "test"), "happy", 3, number, seconds=0.2, size=256, version=2) for number in PEOPLE
    ]


def test_squares_are_upright_and_go_with_the_face(clips):
    landmarks = torch.from_numpy(clips[0].landmarks[:1]).double()
    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)
    moved = 3 * landmarks @ turn.T + torch.tensor([40.0, -25.0])

    def in_square(points):
        matrix = face_squares(points)[0]
        return points[0] @ matrix[:, :2].T + matrix[:, 2]

    here, there = in_square(landmarks), in_square(moved)
    assert torch.allclose(here, there, atol=1e-9)
    left, right = here[36:42].mean(0), here[42:48].mean(0)
    assert float(left[1]) == pytest.approx(float(right[1])) and left[0] < right[0] and here[MOUTH, 1].mean() > left[1]
    assert here.min() > 0.05 and here.max() < 0.95  # the face fills it, and all of it is in it


@pytest.mark.parametrize("path", [None, SCORE_READER], ids=["reader", "scorer"])
def test_it_errs_less_than_a_look_at_the_whole_portrait(clips, path):
    reader = load_portrait_reader() if path is None else load_portrait_reader(path)
    analyzer = FaceAnalyzer((FACE_ANALYZER if path is None else FACE_READER).read_bytes())
    errors = []
    for clip in clips:
        track = analyzer.analyze(clip.images)
        reading = reader.read(clip.images, track.landmarks)
        errors.append(
            [
                [
                    np.linalg.norm(found.landmarks - clip.landmarks, axis=2).mean(),
                    np.linalg.norm(found.head_keypoints - clip.head_keypoints, axis=2).mean(),
                    np.sqrt(np.square(found.expression - clip.states.expression).mean()),
                ]
                for found in (track, reading)
            ]
        )
    whole, closer = np.mean(errors, axis=0)
    assert (closer < 0.85 * whole).all(), (whole, closer)


def test_lids_are_read_and_a_portrait_with_shut_eyes_is_none_with_open_ones():
    who = speaker(301, "test")
    clip = make_clip(who, "neutral", 1, 0, seconds=0.1, size=256, version=2)
    draw = renderer_for(who.identity, 2).render
    portraits = [
        draw(clip.states.expression[0], clip.states.pose[0], np.full(2, closed), np.zeros(2), 256).image
        for closed in (0.0, 1.0)
    ]
    onnx = FACE_ANALYZER.read_bytes()
    opened, shut = (
        read_portrait_face(onnx, image[None], reader=load_portrait_reader()).expression for image in portraits
    )
    assert opened[64:66].max() < 0.4 and shut[64:66].min() > 0.6
    assert read_portrait_face(onnx, portraits[1][None]).expression[64:].abs().max() == 0  # nobody looked


def test_clips_are_read_in_order_whatever_their_length(clips):
    frames = np.concatenate([clip.images for clip in clips] * 2)[: BATCH_SIZE + 3]
    scorer = built_in_scorer()
    track, last = scorer.analyze(frames), scorer.analyze(frames[-2:])
    assert len(track) == BATCH_SIZE + 3 and track.landmarks.shape == (BATCH_SIZE + 3, 68, 2)
    for name in ("landmarks", "head_keypoints", "expression", "boxes", "five_points"):
        assert np.abs(getattr(track, name)[-2:] - getattr(last, name)).max() < 0.1, name


def test_larger_pictures_are_read_in_their_own_pixels(clips):
    clip = clips[2]
    large = np.repeat(np.repeat(clip.images[:1], 2, axis=1), 2, axis=2)
    reader = load_portrait_reader()
    small, big = (
        reader.read(images, factor * clip.landmarks[:1]) for images, factor in ((clip.images[:1], 1), (large, 2))
    )
    assert np.abs(big.landmarks - 2 * small.landmarks).mean() < 1.5
    assert np.abs(big.expression - small.expression).mean() < 0.05


def test_lids_of_a_reading_are_between_open_and_closed(clips):
    reading = load_portrait_reader().read(clips[0].images[:1], clips[0].landmarks[:1])
    track = replace(reading, eyes=np.array([[-0.2, 1.3, 0.5, -0.5]], np.float32)).track()
    assert track.shape == (1, 68) and track[0, 64:].tolist() == [0.0, 1.0, 0.5, -0.5]


def test_files_name_their_training_and_others_are_refused(tmp_path):
    seeds = [read_metadata(path)["seed"] for path in (BUILT_IN_READER, SCORE_READER)]
    first = [json.loads(read_metadata(path)["training"])["faces"]["first"] for path in (BUILT_IN_READER, SCORE_READER)]
    assert seeds == ["0", "1"] and abs(first[0] - first[1]) > 2400  # of other people
    with pytest.raises(PortraitError, match="portrait_reader"):
        load_portrait_reader(PORTRAIT_MODEL)
    torch.manual_seed(0)
    network = PortraitReaderNetwork(PortraitReaderConfig(widths=(8, 8), hidden=8))
    save_portrait_reader(tmp_path / "small.safetensors", network, {"seed": "3"})
    images, points = np.full((1, 64, 64, 3), 90, np.uint8), np.random.default_rng(0).uniform(10, 50, (1, 68, 2))
    here = PortraitReader(network).look(images, points)
    there = load_portrait_reader(tmp_path / "small.safetensors").look(images, points)
    assert np.abs(here.expression - there.expression).max() < 1e-2 * np.abs(here.expression).max()
