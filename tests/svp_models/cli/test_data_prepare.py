from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.data.manifest import open_manifest
from svp_portrait.svp_models.media.writer import VideoWriter


def prepare(*arguments: str) -> int:
    return main(lambda folders, progress: [], ["prepare", *arguments])


def test_drawn_data_is_written_and_checked(tmp_path, capsys):
    out = str(tmp_path / "out")
    size = ("--size", "64", "--seconds", "1.6", "--clips-per-speaker", "1", "--jobs", "1")
    assert prepare("synthetic", "--out", out, "--speakers", "1", "--test-speakers", "0", *size) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "1 clips, 0.00 h, 1 shards" and f"{out}/manifest.json" in printed.out
    assert "the test split is empty" in printed.err
    assert prepare("--check", out) == 0
    assert "1 shards match their manifest" in capsys.readouterr().out
    shard = tmp_path / "out" / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert prepare("--check", out) == 1
    assert f"{shard.stat().st_size} bytes, the manifest says {shard.stat().st_size + 1}" in capsys.readouterr().err
    assert len(open_manifest(out).samples()) == 1


def test_films_that_give_nothing_are_told(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    with VideoWriter(tmp_path / "in" / "a.mp4", 64, 64, 25) as writer:
        writer.write(np.zeros((50, 64, 64, 3), np.uint8))
    assert prepare(str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--jobs", "1") == 1
    assert "none of the 1 jobs gave a clip (skipped: no sound 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--out", "x"), "needs SOURCE"),
        (("synthetic",), "needs SOURCE"),
        (("--check", "x", "--out", "y"), "neither SOURCE nor --out"),
        (("synthetic", "--out", "x", "--backend", "insightface"), "--backend is for videos"),
        (("films", "--out", "x", "--speakers", "3"), "--speakers is for synthetic"),
        (("films", "--out", "x", "--size", "100"), "multiple of 16"),
        (("films", "--out", "x", "--seconds", "1"), "--seconds is 1: it must be from 1.6 to 60"),
        (("films", "--out", "x", "--jobs", "0"), "--jobs is 0"),
        (("nowhere", "--out", "x"), "there is no such folder"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert prepare(*arguments) == 1
    assert message in capsys.readouterr().err and list(tmp_path.iterdir()) == []
