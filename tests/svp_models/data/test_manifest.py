"""What a data set says of its making."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from svp_portrait.svp_models.data import manifest
from svp_portrait.svp_models.data.schema import ClipLimits, Skipped
from svp_portrait.svp_models.errors import PortraitError

OLD = Path(__file__).parent / "manifest_0.1.0.json"
SAMPLE = {
    "key": "anna-0", "identity": "anna", "emotion": "", "intensity": 0, "frames": 40, "group": "g",
    "members": {"json": [512, 100]},
}  # fmt: skip
SHARD = {"name": "train-000000.tar", "split": "train", "bytes": 2048, "sha256": "0" * 64, "samples": [SAMPLE]}
CONTENT = {
    "format": 1, "svp-portrait": "1", "synthetic": "1", "options": {"output": {"size": 64}, "videos": None, "synthetic": {}},
    "sources": {"count": 1, "digest": "x"}, "totals": {}, "shards": [SHARD],
    "skipped": [{"source": "a", "start": 0, "reason": "r", "detail": ""}],
}  # fmt: skip


def opened(folder, **changes):
    (folder / "manifest.json").write_text(json.dumps({**CONTENT, **changes}))
    return manifest.open_manifest(folder)


def test_a_manifest_is_read_as_it_is_written(tmp_path):
    found = opened(tmp_path)
    assert found.samples()[0][1].members == {"json": (512, 100)} and found.shards[0].bytes == 2048
    manifest.write_manifest(found)
    assert manifest.open_manifest(tmp_path) == found


def test_a_manifest_of_version_0_1_0_is_read(tmp_path):
    """With the earlier names of its keys, and without the limits that came later."""
    old = json.loads(OLD.read_text())
    assert "rejects" in old and {"films", "drawn"} < old["options"].keys()
    (tmp_path / "manifest.json").write_text(OLD.read_text())
    found = manifest.open_manifest(tmp_path)
    assert [sample.identity for _, sample in found.samples()] == ["ben", "anna", "ben", "ben"]
    assert found.metadata["options"]["videos"] == {
        **old["options"]["films"],
        "limits": asdict(ClipLimits()),
        "space": "svp",
    }
    assert found.metadata["options"]["synthetic"] is None
    assert found.skipped == tuple(Skipped(**values) for values in old["rejects"])
    manifest.write_manifest(found)
    assert manifest.open_manifest(tmp_path) == found and "rejects" not in json.loads(
        (tmp_path / "manifest.json").read_text()
    )


@pytest.mark.parametrize("name", ["../x.tar", "/etc/x.tar", "a/b.tar", "..tar", "x.tar\0", "x", 3, None])
def test_shards_lie_in_the_folder(tmp_path, name):
    with pytest.raises(PortraitError, match=r"manifest.json: shard .*: a plain name that ends in .tar is needed"):
        opened(tmp_path, shards=[{**SHARD, "name": name}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": {"json": [512, 10**12]}}, "anna-0.'json' has 1000000000000 bytes from 512 on, the tar has 2048"),
        ({"members": {"json": [512, -1]}}, "has -1 bytes"),
        ({"members": {"json": [0, 1]}}, "bytes from 0 on"),
        ({"members": {"json": [512.0, 1e3]}}, "has 1000.0 bytes from 512.0 on"),
        ({"members": []}, "missing or of another kind"),
        ({"frames": -1}, "anna-0 has -1 frames: 1 to 100000 are allowed"),
        ({"frames": True}, "has True frames"),
        ({"key": "../a"}, "sample '../a': letters, digits, - and _ are needed"),
        ({"emotion": "joy"}, "emotion 'joy' and intensity 0, which are not valid"),
        ({"identity": 5}, "is of identity 5"),
        ({"more": 1}, "missing or of another kind"),
    ],
)
def test_samples_that_cannot_be_are_named(tmp_path, change, message):
    with pytest.raises(PortraitError, match=f"manifest.json: .*{message}"):
        opened(tmp_path, shards=[{**SHARD, "samples": [{**SAMPLE, **change}]}])


@pytest.mark.parametrize(
    "changes",
    [
        {"shards": None}, {"shards": [1]}, {"shards": [{**SHARD, "split": "dev"}]}, {"shards": [{**SHARD, "sha256": "x"}]},
        {"skipped": [[]]}, {"skipped": [{"source": 1, "start": 0, "reason": "r"}]}, {"options": []},
        {"options": {"output": {"size": 10**12}, "synthetic": None}}, {"options": {"output": {"size": 64}}}, {"sources": 3},
        {"format": [1]},
    ],
)  # fmt: skip
def test_parts_of_another_kind_are_one_line(tmp_path, changes):
    with pytest.raises(PortraitError, match="manifest.json: .*prepare the data again"):
        opened(tmp_path, **changes)


@pytest.mark.parametrize("text", ["[" * 50_000 + "]" * 50_000, "[]", "{", "\xff"])
def test_a_manifest_that_is_no_object_is_one_line(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(PortraitError, match="manifest.json: "):
        manifest.open_manifest(tmp_path)


def test_a_pack_that_is_not_installed_knows_its_version(monkeypatch):
    """As a folder among the host's custom nodes."""

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    installed = version("svp-portrait")
    monkeypatch.setattr(manifest, "version", missing)
    assert manifest.own_version() == installed
    assert manifest.make_metadata({}, "digest", 1)["svp-portrait"] == installed
