from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from svp_portrait.svp_models.cli import data as module
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.media.video import load_video


def synthesize(*arguments: str) -> int:
    return main(lambda folders, progress: [], ["synthesize", *arguments])


def test_a_clip_with_sound_and_a_portrait_are_written(tmp_path, capsys):
    file, portrait = tmp_path / "new" / "clip.mp4", tmp_path / "face.png"
    arguments = ("--seconds", "0.4", "--size", "64", "--portrait", str(portrait))
    assert synthesize(str(file), *arguments) == 0
    video = load_video(file)
    assert video.frames.shape == (10, 64, 64, 3) and video.fps == 25
    assert video.audio.seconds == pytest.approx(0.4, abs=0.07)  # AAC has blocks of 64 ms
    assert Image.open(portrait).size == (64, 64)
    assert capsys.readouterr().out.splitlines()[:2] == [str(file), str(portrait)]


@pytest.mark.parametrize("option", [("--size", "8"), ("--seconds", "0"), ("--fps", "nan"), ("--speaker", "-1")])
def test_impossible_sizes_are_refused(tmp_path, capsys, option):
    assert synthesize(str(tmp_path / "clip.mp4"), *option) == 1
    assert capsys.readouterr().err.startswith("svp: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "portrait", "problem"),
    [
        ("clip.avi", None, "clip.avi: the ending must be one of .mp4"),
        ("clip.mp4", "face.xyz", "face.xyz: the ending must be .png"),
        ("taken/clip.mp4", None, "taken is a file, a folder is needed"),
        ("clip.mp4", "/proc/x/face.png", "nothing can be written into /proc/x"),
        ("folder", None, "folder: it is a folder: name a file"),
        (f"{'x' * 260}.mp4", None, "the name is too long"),
    ],
)
def test_where_files_go_is_checked_before_anything_is_drawn(tmp_path, capsys, monkeypatch, file, portrait, problem):
    (tmp_path / "taken").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(module, "make_clip", lambda *given: pytest.fail("it was drawn"))
    options = ["--portrait", str(tmp_path / portrait)] if portrait else []
    assert synthesize(str(tmp_path / file), *options) == 1
    assert problem in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "taken"]


def test_version_2_is_an_option(tmp_path):
    drawn, natural = tmp_path / "drawn.mp4", tmp_path / "natural.mp4"
    for file, options in ((drawn, ()), (natural, ("--synthetic-version", "2"))):
        assert synthesize(str(file), "--seconds", "0.12", "--size", "64", *options) == 0
    change = np.abs(load_video(drawn).frames.astype(float) - load_video(natural).frames)
    assert change.mean() > 5  # of 255


def test_a_benchmark_needs_no_file(capsys, monkeypatch):
    monkeypatch.setattr(module, "render_speed", lambda: iter(["version 2, 256 pixels: 99 frames/s"]))
    assert synthesize("--benchmark") == 0
    assert capsys.readouterr().out == "version 2, 256 pixels: 99 frames/s\n"
    assert synthesize() == 1
    assert "needs FILE.mp4" in capsys.readouterr().err
