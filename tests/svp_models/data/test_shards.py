from __future__ import annotations

import errno
import hashlib
import io
import json
import tarfile
from dataclasses import replace

import av
import numpy as np
import pytest

from svp_portrait.svp_models.data.manifest import SampleEntry
from svp_portrait.svp_models.data.schema import ClipInfo, OutputOptions, check_labels
from svp_portrait.svp_models.data.shards import (
    TarWriter,
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
    packed,
    write_shards,
)
from svp_portrait.svp_models.data.synthetic_clips import synthetic_labels
from svp_portrait.svp_models.errors import PortraitError


def entry(number: int, size: int) -> SampleEntry:
    return SampleEntry(f"a-{number:06}", "anna", "", 0, 50, "g", {"json": (512, size)})


def test_a_tar_is_what_others_read_and_the_same_every_time(tmp_path):
    contents = {"a.json": b"{}", "a.video.mp4": bytes(range(256)) * 5, "b.json": b""}
    for name in ("one.tar", "two.tar"):
        with TarWriter(tmp_path / name) as tar:
            places = {each: tar.add(each, data) for each, data in contents.items()}
    data = (tmp_path / "one.tar").read_bytes()
    assert data == (tmp_path / "two.tar").read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (tar.bytes, tar.sha256)
    assert {name: data[start : start + size] for name, (start, size) in places.items()} == contents
    with tarfile.open(tmp_path / "one.tar", "r:") as read:
        assert {each.name: read.extractfile(each).read() for each in read} == contents


def test_shards_are_full_but_not_fuller(tmp_path):
    samples = [entry(number, 300_000) for number in range(25)]
    by_size = list(packed(samples, OutputOptions(shard_mb=1)))
    assert [len(each) for each in by_size] == [3] * 8 + [1]
    by_count = list(packed(samples, OutputOptions(shard_clips=10)))
    assert [len(each) for each in by_count] == [10, 10, 5]
    assert list(packed(samples[::-1], OutputOptions(shard_clips=10))) == by_count
    assert [each.key for group in by_count for each in group] != sorted(each.key for each in samples)  # mixed
    large = [entry(0, 3_000_000), entry(1, 10), entry(2, 10)]
    assert sorted(len(each) for each in packed(large, OutputOptions(shard_mb=1))) in ([1, 2], [1, 1, 1])


def test_samples_of_a_split_are_copied_into_its_shards(tmp_path):
    samples = []
    for number, split in enumerate(("train", "train", "test")):
        path = tmp_path / f"{number}.tar"
        with TarWriter(path) as tar:
            members = tar.add_sample(f"k-{number}", [("json", b"x" * number), ("labels.npz", bytes([number]))])
        samples.append((split, path, SampleEntry(f"k-{number}", "anna", "", 0, 50, "g", members)))
    shards = write_shards(tmp_path, samples, OutputOptions())
    assert [(each.name, len(each.samples)) for each in shards] == [("train-000000.tar", 2), ("test-000000.tar", 1)]
    for shard in shards:
        data = (tmp_path / shard.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.bytes, shard.sha256)
        for sample in shard.samples:
            start, size = sample.members["labels.npz"]
            assert data[start : start + size] == bytes([int(sample.key[-1])])


def test_a_full_disk_is_told_and_nothing_is_left(tmp_path):
    class Full(io.BytesIO):
        def write(self, data):
            if self.tell() + len(data) > 3_000_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    with pytest.raises(PortraitError, match=r"a\.tar: the disk is full after 2\.0 MB"):
        with TarWriter(tmp_path / "a.tar") as tar:
            tar._file.close()
            tar._file = Full()
            for number in range(5):
                tar.add(f"a.{number}", bytes(1_000_000))
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with TarWriter(tmp_path / "a.tar") as tar:
            tar.add("a.json", b"{}")
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


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
    labels = synthetic_labels(people[0])
    data = encode_labels(labels)
    found = decode_labels(data)
    assert all(np.array_equal(value, vars(found)[name]) for name, value in vars(labels).items())
    assert encode_labels(labels) == data
    check_labels(found, 56, 128)
    with pytest.raises(PortraitError, match=r"pose is float32 \(56, 2\), float32 \(56, 3\) is needed"):
        check_labels(replace(found, pose=found.pose[:, :2]), 56, 128)
    with pytest.raises(PortraitError, match="labels member of 30 bytes"):
        decode_labels(data[:30])


def test_lids_and_gaze_are_labels_of_synthetic_people_and_may_be_missing(people):
    labels = synthetic_labels(people[0])
    found = decode_labels(encode_labels(labels))
    np.testing.assert_array_equal(found.lids, people[0].states.blink)
    np.testing.assert_array_equal(found.gaze, people[0].states.gaze)
    old = decode_labels(encode_labels(replace(labels, lids=None, gaze=None)))  # as data sets had them before
    assert old.lids is None and old.gaze is None
    check_labels(old, 56, 128)
    with pytest.raises(PortraitError, match=r"lids is float32 \(55, 2\), float32 \(56, 2\) is needed"):
        check_labels(replace(labels, lids=labels.lids[1:]), 56, 128)


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
