from __future__ import annotations

import errno
import hashlib
import io
import tarfile

import pytest

from svp_portrait.svp_models.data.manifest import SampleEntry
from svp_portrait.svp_models.data.schema import OutputOptions
from svp_portrait.svp_models.data.shards import TarWriter, packed, write_shards
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
