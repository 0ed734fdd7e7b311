from __future__ import annotations

import pytest

from svp_portrait.svp_models.cli.folders import Folders
from svp_portrait.svp_models.errors import PortraitError


@pytest.fixture
def folders(tmp_path):
    for name in ("in", "out", "tmp"):
        (tmp_path / name).mkdir()
    return Folders(tmp_path / "in", tmp_path / "out", tmp_path / "tmp")


def test_names_are_numbered_on(folders):
    first = folders.save_target("clips/take", 10, 20)
    with first.reserved("png") as path, first.reserved("png", 4) as fifth, first.reserved("png") as second:
        assert path == folders.output / "clips" / "take_00001_.png"
        assert fifth.name == "take_00005_.png" and second.name == "take_00002_.png"
    assert first.saved(path) == {"filename": "take_00001_.png", "subfolder": "clips", "type": "output"}
    (folders.output / "clips" / "take_00041_.mp4").touch()
    (folders.output / "clips" / "take_other_00099_.mp4").touch()
    assert folders.save_target("clips/take", 10, 20).counter == 42
    assert folders.save_target("plain", 10, 20).subfolder == ""


def test_fields_are_filled(folders):
    stem = folders.save_target("%width%x%height%_%year%", 10, 20).stem
    assert stem.startswith("10x20_2") and "%" not in stem


@pytest.mark.parametrize("prefix", ["../out2/x", "/etc/x", "..", ".", "a/../../x"])
def test_names_stay_in_the_folder(folders, prefix, tmp_path):
    with pytest.raises(PortraitError, match="leads outside the output folder"):
        folders.save_target(prefix, 1, 1)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in", "out", "tmp"]


def test_a_link_out_of_the_folder_is_followed_and_refused(folders, tmp_path):
    (folders.output / "away").symlink_to(tmp_path / "in")
    with pytest.raises(PortraitError, match="leads outside"):
        folders.save_target("away/x", 1, 1)


def test_files_are_found(folders, tmp_path, monkeypatch):
    (folders.input / "a.png").touch()
    (folders.output / "b.png").touch()
    (tmp_path / "c.png").touch()
    monkeypatch.chdir(tmp_path)
    assert folders.find("a.png") == folders.input / "a.png"
    assert folders.find("b.png [output]") == folders.output / "b.png"
    assert folders.has("c.png") and folders.has(str(tmp_path / "c.png"))
    assert not folders.has("b.png") and not folders.has("")
