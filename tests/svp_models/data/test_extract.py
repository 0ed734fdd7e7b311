from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from svp_portrait.svp_models.data.extract import AudioReader, Preprocessors, key_name, video_clips
from svp_portrait.svp_models.data.schema import Sample, Skipped, VideoOptions, check_labels
from svp_portrait.svp_models.data.shards import decode_audio, decode_features, decode_frames, decode_info, decode_labels
from svp_portrait.svp_models.data.sources import find_sources
from svp_portrait.svp_models.media.audio import load_audio, to_mono
from svp_portrait.svp_models.media.video import rate_and_origin
from svp_portrait.svp_models.media.writer import VideoWriter
from svp_portrait.svp_models.types import Audio

from .conftest import face_at, marked, marker_of, noise, recipe_for, write_video

MIDDLE = [27, 35, 36, 44]  # landmarks of a marker whose mean is its middle


def clips(root, recipe, preprocessors, path: str | None = None) -> list:
    sources, _ = find_sources(root, recipe.videos or VideoOptions())
    source = next(each for each in sources if path in (None, each.path))
    scratch = root.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    found = list(video_clips(root, source, recipe, preprocessors, scratch))
    assert list(scratch.iterdir()) == []
    return found


def told(found) -> list:
    return [
        (each.reason, round(each.start, 2)) if isinstance(each, Skipped) else each.info.start_seconds for each in found
    ]


def moving(count: int, fps: float = 25) -> np.ndarray:
    """Places of a marker that goes round once in two seconds."""
    turn = np.pi * np.arange(count) / fps
    return np.stack([160 + 25 * np.cos(turn), 120 + 15 * np.sin(turn)], axis=1)


def lag(heard: np.ndarray, sent: np.ndarray) -> int:
    size = 1 << (2 * len(sent)).bit_length()
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(sent, size)))
    best = int(product.argmax())
    return best if best < size // 2 else best - size


@pytest.mark.parametrize("fps", [25, 30, 50])
def test_labels_lie_on_what_the_pictures_show_and_the_sound_is_in_time(tmp_path, preprocessors, fps):
    count = round(4.4 * fps)
    write_video(tmp_path / "in/anna/a.mp4", marked(moving(count, fps)), fps, noise(110))
    first, second = clips(tmp_path / "in", recipe_for(seconds=2.4), preprocessors)
    assert told([first, second]) == [0.0, 2.4]
    whole = noise(110)
    for clip, frames in ((first, 60), (second, 50)):
        pictures, labels = decode_frames(clip.members["video.mp4"]), decode_labels(clip.members["labels.npz"])
        assert pictures.shape == (frames, 64, 64, 3)
        check_labels(labels, frames, 64)
        seen = np.array([marker_of(each) for each in pictures])  # n 3
        assert np.abs(labels.landmarks[:, MIDDLE].mean(axis=1) - seen[:, :2]).max() < 0.6
        shown = np.floor((np.arange(frames) + 0.5) * fps / 25 + clip.info.start_seconds * fps + 1e-6).astype(int)
        assert np.abs(labels.pose[:, :2] - moving(count, fps)[shown]).max() < 0.3  # the film's pixels, in this backend
        cell = labels.face_mask[10].astype(float)
        rows, columns = (np.indices(cell.shape) + 0.5) * 8
        mass = np.array([(columns * cell).sum(), (rows * cell).sum()]) / cell.sum()
        assert np.abs(mass - seen[10, :2]).max() < 10
        start = round(clip.info.start_seconds * 16000)
        heard = decode_audio(clip.members["audio.flac"]).waveform[0].numpy()
        assert len(heard) == frames * 640 and lag(heard, whole[start : start + len(heard)]) == 0
        assert decode_info(clip.members["json"]) == clip.info
    info = first.info
    assert (info.identity, info.source, info.frames, info.size, info.fps) == ("anna", "anna/a.mp4", 60, 64, 25)
    assert info.unknown == () and info.group == second.info.group and first.key != second.key


def test_every_shot_is_a_clip_of_its_own_and_parts_without_a_face_are_left_out(tmp_path, preprocessors):
    away = np.full((30, 2), -500.0)
    film = np.concatenate(
        [
            marked(moving(50)),
            marked(moving(45), seed=1),
            marked(away, seed=1),
            marked(moving(50), seed=2),
            marked(away, seed=3),
        ]
    )
    write_video(tmp_path / "in/anna/a.mp4", film, 25, noise(205))
    found = clips(tmp_path / "in", recipe_for(), preprocessors)
    assert told(found) == [0.0, 2.0, ("too short", 3.8), 5.0, ("too short", 7.0)]
    assert [each.info.frames for each in found if isinstance(each, Sample)] == [50, 45, 50]
    whole = marked(moving(50), seed=2).mean(axis=(0, 1, 2))
    cut = decode_frames(found[3].members["video.mp4"]).mean(axis=(0, 1, 2))
    assert np.abs(cut - whole).max() < 25 and told(found)[3] == 5.0


def test_a_film_that_shrinks_into_the_crop_keeps_its_points(tmp_path, preprocessors):
    write_video(tmp_path / "in/a.mp4", marked(3 * moving(45), 960, 720, 120), 25, noise(45))
    (clip,) = clips(tmp_path / "in", recipe_for(), preprocessors)
    seen = np.array([marker_of(each) for each in decode_frames(clip.members["video.mp4"])])
    labels = decode_labels(clip.members["labels.npz"])
    assert np.abs(labels.landmarks[:, MIDDLE].mean(axis=1) - seen[:, :2]).max() < 0.6


def test_the_sound_beside_a_silent_film_is_taken(tmp_path, preprocessors):
    root = tmp_path / "in"
    film = "M003/video/front/sad/level_2/004.mp4"
    write_video(root / film, marked(moving(50)), 25)
    assert told(clips(root, recipe_for(), preprocessors)) == [("no sound", 0.0)]
    write_video(root / "M003/audio/sad/level_2/004.mp4", np.zeros((50, 32, 32, 3), np.uint8), 25, noise(50))
    (root / "M003/audio/sad/level_2/004.mp4").rename(root / "M003/audio/sad/level_2/004.m4a")
    (clip,) = clips(root, recipe_for(), preprocessors, film)
    assert (clip.info.emotion, clip.info.intensity, clip.info.identity) == ("sad", 2, "M003")
    assert lag(decode_audio(clip.members["audio.flac"]).waveform[0].numpy(), noise(50)) == 0


def test_films_that_cannot_be_used_are_told(tmp_path, preprocessors):
    root = tmp_path / "in"
    write_video(root / "still.mp4", marked(np.full((60, 2), 120.0)), 25, noise(60))
    write_video(root / "silent.mp4", marked(moving(60)), 25, 0 * noise(60))
    write_video(root / "empty.mp4", marked(np.full((60, 2), -500.0)), 25, noise(60))
    film = write_video(root / "cut_off.mp4", marked(moving(60)), 25, noise(60)).read_bytes()
    (root / "cut_off.mp4").write_bytes(film[: len(film) * 2 // 3])
    (root / "text.mp4").write_text("no film")
    small = [
        ("still", "frozen"),
        ("silent", "no sound"),
        ("empty", "no face"),
        ("cut_off", "unreadable"),
        ("text", "unreadable"),
    ]
    for name, reason in small:
        found = clips(root, recipe_for(), preprocessors, f"{name}.mp4")
        assert [each.reason for each in found] == [reason], name


def test_a_face_that_the_picture_cuts_off_is_left_out(tmp_path):
    class Beside:
        name = "beside"

        def detect(self, frames):
            return ([face_at(0, 50, 45)] for _ in frames)

    write_video(tmp_path / "in/a.mp4", marked(moving(45), 100, 100), 25, noise(45))
    (found,) = clips(tmp_path / "in", recipe_for(), Preprocessors(Beside()))
    assert (found.reason, found.detail) == ("face at the edge", "45% of the crop is outside")


def test_deep3d_reads_the_crops(tmp_path, preprocessors):
    class Brightness(nn.Module):
        """Says how red a crop is, in all 64 coefficients."""

        def __init__(self):
            super().__init__()
            self.nothing = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            assert images.shape[1:] == (3, 224, 224) and 0 <= images.min() and images.max() <= 1
            red = images[:, 0].mean((1, 2))
            return {"expression": red[:, None].expand(-1, 64), "angle": torch.zeros(len(images), 3)}

    write_video(tmp_path / "in/a.mp4", marked(moving(45)), 25, noise(45))
    (clip,) = clips(tmp_path / "in", recipe_for(), replace(preprocessors, deep3d=Brightness()))
    labels = decode_labels(clip.members["labels.npz"])
    assert ((0.4 < labels.expression) & (labels.expression < 0.8)).all()
    assert labels.pose[:, 2].max() > 20  # still the backend's


def test_what_a_backend_does_not_know_is_nan_and_named(tmp_path, preprocessors):
    class Plain:
        name = "key_name"

        def detect(self, frames):
            for faces in preprocessors.backend.detect(frames):
                yield [replace(each, landmarks=None, pose=None, expression=None) for each in faces]

    write_video(tmp_path / "in/a.mp4", marked(moving(45)), 25, noise(45))
    (clip,) = clips(tmp_path / "in", recipe_for(min_face=8), Preprocessors(Plain()))
    labels = decode_labels(clip.members["labels.npz"])
    assert clip.info.unknown == ("landmarks", "expression", "pose")
    assert all(np.isnan(getattr(labels, name)).all() for name in clip.info.unknown)
    assert np.isfinite(labels.head_keypoints).all() and labels.face_mask.max() == 255


def test_features_are_those_of_the_clips_sound(tmp_path, preprocessors):
    class Encoder(nn.Module):
        kind, feature_size = "wav2vec2", 3

        def features(self, audio, frames, fps, rows):
            assert audio.waveform.shape == (1, frames * 640)
            return audio.waveform[0].reshape(frames * rows, -1).square().mean(1, keepdim=True).expand(-1, 3)

    write_video(tmp_path / "in/a.mp4", marked(moving(45)), 25, noise(45))
    (clip,) = clips(tmp_path / "in", recipe_for(), replace(preprocessors, encoder=Encoder()))
    features = decode_features(clip.members["features.npy"])
    sound = decode_audio(clip.members["audio.flac"]).waveform[0].numpy()
    assert features.shape == (90, 3) and clip.info.feature_rows == 2
    assert np.allclose(features[:, 0], np.square(sound.reshape(90, -1)).mean(1), rtol=0.02)


def test_names_in_keys_are_plain():
    assert key_name("Jörg.B /x_1-") == "J-rg-B--x_1-" and len(key_name("a" * 99)) == 40


@pytest.fixture(params=[16000, 44100, 48000])
def film(request, tmp_path):
    """Three seconds of grey with stereo noise."""
    generator = torch.Generator().manual_seed(0)
    path, rate = tmp_path / "a.mp4", request.param
    with VideoWriter(path, 32, 32, 25, Audio(0.1 * torch.randn(2, 3 * rate, generator=generator), rate)) as writer:
        writer.write(np.full((75, 32, 32, 3), 90, np.uint8))
    return path


def test_pieces_are_those_of_the_whole_sound(film):
    whole = to_mono(load_audio(film), 16000).numpy()
    reader = AudioReader(film, rate_and_origin(film)[1])
    for first, count in ((0, 640), (0, 6400), (7000, 16000), (30000, 100)):
        assert np.allclose(reader.read(first, count), whole[first : first + count], atol=2e-4)
    rest = reader.read(40000, 16000)
    assert reader.end == len(rest) + 40000 and abs(reader.end - len(whole)) <= 1
    assert np.allclose(rest[:8000], whole[40000:48000], atol=2e-4)


def test_little_is_held_and_there_is_no_way_back(film):
    reader = AudioReader(film, 0.0)
    reader.read(32000, 640)
    assert len(reader._buffer) < 8000
    with pytest.raises(ValueError, match="those before 32000 are gone"):
        reader.read(0, 640)
