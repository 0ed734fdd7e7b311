from __future__ import annotations

import tarfile
from dataclasses import replace

import numpy as np
import pytest

from svp_portrait.svp_models.data.manifest import open_manifest
from svp_portrait.svp_models.data.prepare import check, prepare
from svp_portrait.svp_models.data.schema import OutputOptions, PrepareConfig, SyntheticOptions
from svp_portrait.svp_models.data.shards import decode_frames, decode_info, read_member
from svp_portrait.svp_models.errors import PortraitError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two people, two clips each, a shard for every clip of the train split."""
    out = tmp_path_factory.mktemp("drawn") / "out"
    prepare(
        None,
        out,
        PrepareConfig(OutputOptions(size=64, seconds=1.6, shard_clips=1), synthetic=SyntheticOptions(1, 1, 2)),
    )
    return out


@pytest.fixture
def damaged(folder, tmp_path):
    """A copy, its first shard's path, and a function that changes its bytes."""
    for each in folder.iterdir():
        (tmp_path / each.name).write_bytes(each.read_bytes())
    path = tmp_path / open_manifest(folder).shards[0].name

    def change(how) -> None:
        path.write_bytes(how(path.read_bytes()))

    return tmp_path, change


def test_members_read_by_place_are_those_of_a_walk_through_the_tar(folder):
    manifest = open_manifest(folder)
    walked = {}
    for shard in manifest.shards:
        with tarfile.open(folder / shard.name) as tar:
            walked |= {each.name: tar.extractfile(each).read() for each in tar}
    read = {
        f"{sample.key}.{ending}": read_member(folder, shard, sample, ending)
        for shard, sample in manifest.samples()
        for ending in sample.members
    }
    assert read == walked and len(read) == 16


def test_webdataset_opens_the_shards(folder):
    webdataset = pytest.importorskip("webdataset")
    manifest = open_manifest(folder)
    urls = [str(folder / shard.name) for shard in manifest.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert [each["__key__"] for each in samples] == [sample.key for _, sample in manifest.samples()]
    for found, (_, sample) in zip(samples, manifest.samples(), strict=True):
        assert {"video.mp4", "audio.flac", "labels.npz", "json"} <= set(found)
        assert decode_info(found["json"]).identity == sample.identity
        assert decode_frames(found["video.mp4"], 20, 2).shape == (2, 64, 64, 3)


def test_samples_can_be_taken_by_split(folder):
    manifest = open_manifest(folder)
    assert {sample.identity for _, sample in manifest.samples("test")} == {"test-00000"}
    assert len(manifest.samples()) == len(manifest.samples("train")) + len(manifest.samples("test")) == 4


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(PortraitError, match="there is no such file"):
        open_manifest(tmp_path)
    manifest = open_manifest(folder)
    shard, sample = manifest.samples()[0]
    with pytest.raises(PortraitError, match="has no features.npy, only video.mp4, audio.flac"):
        read_member(folder, shard, sample, "features.npy")
    with pytest.raises(PortraitError, match="the shard is missing"):
        read_member(tmp_path, shard, sample, "json")
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    with pytest.raises(PortraitError, match="format 99, this version reads 1"):
        open_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(PortraitError, match="'shards' is missing"):
        open_manifest(tmp_path)


def test_a_shard_that_is_cut_off_or_another_is_noticed_when_read(damaged):
    folder, change = damaged
    shard, sample = open_manifest(folder).samples()[0]
    start, size = sample.members["json"]
    change(lambda data: data[: start + size - 1])
    with pytest.raises(PortraitError, match=rf"cut off, {start + size - 1} of {shard.bytes} bytes"):
        read_member(folder, shard, sample, "json")
    assert np.array_equal(decode_frames(read_member(folder, shard, sample, "video.mp4")).shape, (40, 64, 64, 3))
    other = open_manifest(folder).samples()[1][1]
    with pytest.raises(PortraitError, match=f"not {other.key}.video.mp4"):
        read_member(folder, shard, other, "video.mp4")


def test_no_memory_is_taken_for_what_is_not_there(damaged):
    """A manifest may say that its shards are of any size."""
    folder, _ = damaged
    shard, sample = open_manifest(folder).samples()[0]
    huge = replace(sample, members={"json": (512, 10**15)})
    with pytest.raises(PortraitError, match=f"cut off, {shard.bytes} of {10**15 * 2} bytes are there"):
        read_member(folder, replace(shard, bytes=10**15 * 2), huge, "json")


@pytest.mark.parametrize(
    "how, message",
    [
        (lambda data: data[:-512], "bytes, the manifest says"),
        (lambda data: data[:700] + bytes([data[700] ^ 1]) + data[701:], "SHA-256 .* damaged"),
    ],
)
def test_checking_finds_damage(damaged, how, message):
    folder, change = damaged
    check(folder)
    change(how)
    with pytest.raises(PortraitError, match=message):
        check(folder)


def test_checking_finds_a_person_in_both_splits_and_wrong_entries(folder, tmp_path, monkeypatch):
    from svp_portrait.svp_models.data import prepare

    manifest = open_manifest(folder)

    def changed(**values):
        def one(shard):
            return replace(shard, samples=tuple(replace(each, **values) for each in shard.samples))

        return replace(manifest, shards=tuple(map(one, manifest.shards)))

    for values, message in (({"identity": "anna"}, "says"), ({"frames": 41}, "says .* 40")):
        monkeypatch.setattr(prepare, "open_manifest", lambda _, values=values: changed(**values))
        with pytest.raises(PortraitError, match=message):
            check(folder)
    monkeypatch.setattr(prepare, "check_sample", lambda *_: None)
    monkeypatch.setattr(prepare, "open_manifest", lambda _: changed(identity="anna"))
    with pytest.raises(PortraitError, match="anna is in both splits"):
        check(folder)
