from __future__ import annotations

import io
import json
from dataclasses import replace

import av
import numpy as np
import pytest

from svp_portrait.svp_models.data.schema import ClipInfo, check_labels
from svp_portrait.svp_models.data.shards import (
    decode_audio,
    decode_features,
    decode_frames,
    decode_info,
    decode_labels,
    encode_audio,
    encode_features,
    encode_info,
    encode_labels,
    encode_video,
)
from svp_portrait.svp_models.data.synthetic_clips import drawn_labels
from svp_portrait.svp_models.errors import PortraitError

INFO = ClipInfo("anna", "happy", 2, "anna/a.mp4", 1.6, 56, 128, "train", "abc", text="Grüße.")


@pytest.fixture(scope="module")
def video(people, tmp_path_factory) -> bytes:
    return encode_video(people[0].images, 12, tmp_path_factory.mktemp("scratch"))


def psnr(frames: np.ndarray, true: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((frames.astype(float) - true) ** 2)))


def test_video_comes_back_frame_by_frame(video, people):
    frames = decode_frames(video)
    assert frames.shape == people[0].images.shape and psnr(frames, people[0].images) > 38
    right = psnr(frames[20], people[0].images[20])
    assert right > psnr(frames[20], people[0].images[19]) + 1 and right > psnr(frames[20], people[0].images[21]) + 1


def test_any_few_frames_are_those_of_the_whole(video):
    whole = decode_frames(video)
    for start in range(56):
        count = min(3, 56 - start)
        assert np.array_equal(decode_frames(video, start, count), whole[start : start + count])
    assert np.array_equal(decode_frames(video, 30), whole[30:])


def test_key_frames_come_every_12_frames_and_the_colours_are_tagged(video):
    with av.open(io.BytesIO(video)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.frames) == ("h264", "yuv420p", 56)
        assert not container.streams.audio and stream.average_rate == 25
        keys = [round(packet.pts * packet.time_base * 25) for packet in container.demux(stream) if packet.is_keyframe]
    assert [each for each in keys if each < 56] == [0, 12, 24, 36, 48]


def test_the_same_frames_give_the_same_bytes_and_leave_nothing_behind(video, people, tmp_path):
    assert encode_video(people[0].images, 12, tmp_path) == video
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("start, count", [(-1, 2), (55, 2), (0, 0), (56, None)])
def test_frames_that_are_not_there_are_named(video, start, count):
    with pytest.raises(PortraitError, match="of a clip of 56 frames"):
        decode_frames(video, start, count)


def test_sound_comes_back_to_the_sample():
    samples = np.random.default_rng(0).normal(0, 0.4, 56 * 640).astype(np.float32)
    audio = decode_audio(encode_audio(samples))
    assert audio.sample_rate == 16000 and audio.waveform.shape == (1, 56 * 640)
    assert np.abs(audio.waveform[0].numpy() - np.clip(samples, -1, 1)).max() < 1 / 32767


def test_labels_come_back_and_are_checked(people):
    labels = drawn_labels(people[0])
    data = encode_labels(labels)
    found = decode_labels(data)
    assert all(np.array_equal(value, vars(found)[name]) for name, value in vars(labels).items())
    assert encode_labels(labels) == data
    check_labels(found, 56, 128)
    with pytest.raises(PortraitError, match=r"pose is float32 \(56, 2\), float32 \(56, 3\) is needed"):
        check_labels(replace(found, pose=found.pose[:, :2]), 56, 128)
    with pytest.raises(PortraitError, match="labels member of 30 bytes"):
        decode_labels(data[:30])


def test_descriptions_come_back_and_strange_ones_are_refused():
    assert decode_info(encode_info(INFO)) == INFO
    with pytest.raises(PortraitError, match="unknown key mood"):
        decode_info(json.dumps({"mood": 1}).encode())
    with pytest.raises(PortraitError, match="cannot be read"):
        decode_info(b"{")
    with pytest.raises(PortraitError, match="emotion 'joy'"):
        replace(INFO, emotion="joy")


def test_features_come_back_at_half_precision():
    features = np.random.default_rng(0).normal(size=(10, 7)).astype(np.float32)
    found = decode_features(encode_features(features))
    assert found.dtype == np.float16 and np.array_equal(found, features.astype(np.float16))


def test_damaged_members_are_named(video):
    with pytest.raises(PortraitError, match="video member of 1000 bytes"):
        decode_frames(video[:1000])
    with pytest.raises(PortraitError, match="audio member"):
        decode_audio(b"x" * 50)
    with pytest.raises(PortraitError, match="features member"):
        decode_features(b"x" * 50)


@pytest.mark.parametrize("data", [b"[]", b"null", b"[" * 50_000 + b"]" * 50_000, b'{"frames": -1}'])
def test_a_description_that_is_none_is_one_line(data):
    with pytest.raises(PortraitError, match=f"a json member of {len(data)} bytes cannot be read"):
        decode_info(data)
