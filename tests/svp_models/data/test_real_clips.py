"""Real films through a whole preparation, with the points that a face mesh found in them; skipped where they are absent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from svp_portrait.svp_models.data.extract import Preprocessors, video_clips
from svp_portrait.svp_models.data.schema import OutputOptions, PrepareConfig, Sample, VideoOptions
from svp_portrait.svp_models.data.shards import decode_audio, decode_frames, decode_labels
from svp_portrait.svp_models.data.sources import find_sources
from svp_portrait.svp_models.face.detection import build_track, face_boxes
from svp_portrait.svp_models.face.detectors.mediapipe import face_from_mesh
from svp_portrait.svp_models.media.audio import load_audio, to_mono
from svp_portrait.svp_models.media.video import iter_frames

CLIPS = Path(__file__).parents[4] / "shared/clips"


class StoredMesh:
    """Gives the faces that were found in the frames of a film, in order."""

    name = "stored"

    def __init__(self, path: Path) -> None:
        with np.load(path) as stored:
            self._mesh = iter(stored["mesh"] * (1, 1, stored["width"]))

    def detect(self, frames):
        for _ in frames:
            yield [face_from_mesh(next(self._mesh))]


@pytest.mark.parametrize("name", ["vasa_10", "vasa_17", "vasa_7", "vasa_l4"])
def test_boxes_without_landmarks_are_near_those_with_them(name):
    if not CLIPS.is_dir():
        pytest.skip("the real clips are not at hand")
    with np.load(CLIPS / name / "landmarks.npz") as stored:
        faces = [face_from_mesh(each) for each in (stored["mesh"] * (1, 1, stored["width"]))[::25]]
    boxes, rough = (
        face_boxes(build_track(each, 512, 512)) for each in (faces, [replace(face, landmarks=None) for face in faces])
    )
    assert np.abs((rough - boxes).mean(axis=0)).max() / np.ptp(boxes[:, [0, 2]], axis=1).mean() < 0.1


@pytest.mark.parametrize("name", ["vasa_17", "vasa_7"])
def test_a_real_film(name, tmp_path):
    if not CLIPS.is_dir():
        pytest.skip("the real clips are not at hand")
    recipe = PrepareConfig(OutputOptions(size=256, seconds=4.0), VideoOptions())
    sources, _ = find_sources(CLIPS, recipe.videos)
    source = next(each for each in sources if each.path == f"{name}/video.mp4")
    assert source.identity == name
    preprocessors = Preprocessors(StoredMesh(CLIPS / name / "landmarks.npz"))
    first = next(video_clips(CLIPS, source, recipe, preprocessors, tmp_path))
    assert isinstance(first, Sample) and first.info.frames == 100 and first.info.unknown == ("expression",)
    pictures, labels = decode_frames(first.members["video.mp4"]), decode_labels(first.members["labels.npz"])
    with np.load(CLIPS / name / "landmarks.npz") as stored:
        true = stored["head_kps"][:100]
    # One scale and one shift for the whole clip bring the film's points onto the crop's.
    scale = float(
        (labels.head_keypoints.max(axis=(0, 1)) - labels.head_keypoints.min(axis=(0, 1)))[0] / np.ptp(true[..., 0])
    )
    shift = labels.head_keypoints[0, 0] - scale * true[0, 0]
    assert np.abs(scale * true + shift - labels.head_keypoints).max() < 0.1
    assert (labels.landmarks > 0).all() and (labels.landmarks < 256).all()
    film = next(iter_frames(CLIPS / name / "video.mp4", 25))
    x, y = (labels.head_keypoints[0, 7]).astype(int)  # the nose tip
    left, top = true[0, 7].astype(int)
    assert np.abs(pictures[0, y - 6 : y + 7, x - 6 : x + 7].mean((0, 1)) - film[top - 12 : top + 13, left - 12 : left + 13].mean((0, 1))).max() < 6  # fmt: skip
    mouth = labels.mouth_mask.sum(axis=(1, 2)) / labels.face_mask.sum(axis=(1, 2))
    assert 0.015 < mouth.min() and mouth.max() < 0.2
    heard = decode_audio(first.members["audio.flac"]).waveform[0].numpy()
    spoken = to_mono(load_audio(CLIPS / name / "video.mp4"), 16000).numpy()[: len(heard)]
    assert len(heard) == 64000 and np.corrcoef(heard, np.clip(spoken, -1, 1))[0, 1] > 0.999
