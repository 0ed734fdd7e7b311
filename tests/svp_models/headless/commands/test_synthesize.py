from __future__ import annotations

import pytest
from PIL import Image

from svp_portrait.svp_models.headless.cli import main
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
