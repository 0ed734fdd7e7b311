from __future__ import annotations

import os
from pathlib import Path

import pytest

from svp_portrait.svp_models.data import sources as sources_module
from svp_portrait.svp_models.data.schema import VideoOptions
from svp_portrait.svp_models.data.sources import find_sources, id_of, in_test, newest_change, outside_share
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.crop import Square


def tree(root: Path, *paths: str) -> Path:
    for each in paths:
        (root / each).parent.mkdir(parents=True, exist_ok=True)
        (root / each).touch()
    return root


def found(root: Path, **options) -> dict[str, tuple]:
    sources, _ = find_sources(root, VideoOptions(**options))
    return {each.path: (each.identity, each.emotion, each.intensity, each.split) for each in sources}


def test_mead(tmp_path):
    root = tree(
        tmp_path,
        "M003/video/front/angry/level_1/001.mp4",
        "M003/audio/angry/level_1/001.m4a",
        "M003/video/left_30/angry/level_1/001.mp4",
        "MEAD/W009/video/front/neutral/level_1/012.mp4",
        "W009/video/front/joyful/level_1/001.mp4",
        "notes/read.txt",
    )
    sources, skipped = find_sources(root, VideoOptions(test_identities=("W009",)))
    assert [vars(each) for each in sources] == [
        {**vars(sources[0]), "path": "M003/video/front/angry/level_1/001.mp4", "identity": "M003", "emotion": "angry",
         "intensity": 1, "split": "train", "audio_file": "M003/audio/angry/level_1/001.m4a"},
        {**vars(sources[1]), "path": "MEAD/W009/video/front/neutral/level_1/012.mp4", "identity": "W009",
         "emotion": "neutral", "intensity": 1, "split": "test", "audio_file": ""},
    ]  # fmt: skip
    assert [(each.source, each.reason) for each in skipped] == [
        ("W009/video/front/joyful/level_1/001.mp4", "outside the layout")
    ]
    assert list(found(root, views=("left_30",))) == ["M003/video/left_30/angry/level_1/001.mp4"]


def test_hdtf(tmp_path):
    root = tree(
        tmp_path,
        "WDA_JimMcGovern1_000.mp4",
        "WDA_JimMcGovern1_001_cfr25.mp4",
        "WRA_LucilleRoybal-Allard_000.mp4",
        "RD/Radio10_0.mp4",
        "RD/Radio11_0.mp4",
    )
    sources, _ = find_sources(root, VideoOptions(test_identities=("Radio10",)))
    assert {each.path: (each.identity, each.group, each.split) for each in sources} == {
        "RD/Radio10_0.mp4": ("Radio10", "Radio10", "test"),
        "RD/Radio11_0.mp4": ("Radio11", "Radio11", "test"),  # nobody knows whether the two show one person
        "WDA_JimMcGovern1_000.mp4": ("JimMcGovern", "JimMcGovern1", "train"),
        "WDA_JimMcGovern1_001_cfr25.mp4": ("JimMcGovern", "JimMcGovern1", "train"),
        "WRA_LucilleRoybal-Allard_000.mp4": ("LucilleRoybal-Allard", "LucilleRoybal-Allard", "train"),
    }


def test_plain_folders_and_flat_ones(tmp_path):
    people = tree(tmp_path / "people", "anna/a.mp4", "anna/more/b.MOV", "ben/c.mkv", ".hidden/d.mp4", "ben/.e.mp4")
    assert {path: each[0] for path, each in found(people).items()} == {
        "anna/a.mp4": "anna",
        "anna/more/b.MOV": "anna",
        "ben/c.mkv": "ben",
    }
    (people / "zoe").symlink_to(tree(tmp_path / "elsewhere", "f.mp4"), target_is_directory=True)
    (people / "zoe" / "back").symlink_to(people, target_is_directory=True)
    assert found(people)["zoe/f.mp4"][0] == "zoe" and len(found(people)) == 4
    flat = tree(tmp_path / "flat", "anna.mp4", "ben_1.mp4")
    assert [each[0] for each in found(flat).values()] == ["anna", "ben_1"]


def test_the_split_is_by_person_and_by_name_alone(tmp_path):
    names = [f"p{number:03}/{film}.mp4" for number in range(200) for film in range(2)]
    all_of_them = found(tree(tmp_path / "all", *names), test_share=0.25)
    fewer = found(tree(tmp_path / "some", *names[:100]), test_share=0.25)
    assert fewer == {path: each for path, each in all_of_them.items() if path in fewer}
    splits = {
        identity: {each[3] for each in all_of_them.values() if each[0] == identity}
        for identity, *_ in all_of_them.values()
    }
    assert all(len(each) == 1 for each in splits.values())
    share = sum(each == {"test"} for each in splits.values()) / 200
    assert 0.17 < share < 0.33
    assert not in_test("anna", 0) and in_test("anna", 1)


def test_what_cannot_be_read_is_left_out_with_its_reason(tmp_path):
    root = tree(tmp_path, "anna/a.mp4")
    (root / "anna/gone.mp4").symlink_to(root / "nowhere")
    (root / "folder.mp4").mkdir()
    os.mkfifo(root / "anna/pipe.mp4")  # would be waited for for ever
    sources, skipped = find_sources(root, VideoOptions(test_share=0))
    assert [each.path for each in sources] == ["anna/a.mp4"]
    assert [(each.source, each.reason) for each in skipped] == [
        ("anna/gone.mp4", "unreadable"),
        ("anna/pipe.mp4", "unreadable"),
    ]
    assert "a link to nothing" in skipped[0].detail and skipped[1].detail == "not a file"
    (root / "anna/a.mp4").unlink()
    with pytest.raises(PortraitError, match="holds no video .*anna/gone.mp4: a link to nothing"):
        find_sources(root, VideoOptions())


def test_names_that_are_no_text_are_told_as_text(tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    source = find_sources(tree(tmp_path, name), VideoOptions(test_share=0))[0][0]
    assert (source.path, source.title, source.identity) == (name, r"caf\xe9.mp4", r"caf\xe9")
    assert source.id == id_of(name) != id_of(r"caf\xe9.mp4")


def test_looking_for_changes_stops_somewhere(tmp_path, monkeypatch):
    tree(tmp_path, "a/b/c/film.mp4", ".hidden/film.mp4")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    os.utime(tmp_path / "a/b", (2e9, 2e9))
    os.utime(tmp_path / ".hidden", (3e9, 3e9))
    assert newest_change(tmp_path) == 2e9
    monkeypatch.setattr(sources_module, "MAX_FOLDERS", 2)
    assert newest_change(tmp_path) < 2e9
    assert newest_change(tmp_path / "none") == 0


def test_the_walk_can_be_stopped(tmp_path):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_sources(tree(tmp_path, "a/b.mp4"), VideoOptions(), stop)


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(PortraitError, match="no such folder"):
        find_sources(tmp_path / "nowhere", VideoOptions())
    with pytest.raises(PortraitError, match="holds no video"):
        find_sources(tmp_path, VideoOptions())
    root = tree(tmp_path, "anna/a.mp4")
    with pytest.raises(PortraitError, match="names zoe, who is not among the 1 identities"):
        find_sources(root, VideoOptions(test_identities=("zoe",)))
    with pytest.raises(PortraitError, match="none of its 1 videos is named as those of layout mead"):
        find_sources(root, VideoOptions(layout="mead"))
    with pytest.raises(PortraitError, match="--layout is 'other'"):
        VideoOptions(layout="other")


@pytest.mark.parametrize(
    "square, share",
    [
        (Square(0, 0, 200), 0),
        (Square(-40, 40, 200), 0.2),
        (Square(412, 412, 200), 0.75),
        (Square(600, 0, 100), 1),
    ],
)
def test_the_share_of_the_square_that_is_outside(square, share):
    assert outside_share(square, 512, 512) == pytest.approx(share)
