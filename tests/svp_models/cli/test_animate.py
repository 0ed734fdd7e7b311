"""`svp animate` with the small reference networks: a voice, a style and a picture or video in, a video out."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svp_portrait.nodes import command, liveportrait, motion_generate
from svp_portrait.nodes.host import ProgressBar, folder_paths
from svp_portrait.svp_models.cli import animate
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.media.video import load_video
from svp_portrait.svp_models.media.writer import VideoWriter
from svp_portrait.svp_models.motion.animation import Framing
from svp_portrait.svp_models.motion.extract import extract_liveportrait_motion
from svp_portrait.svp_models.motion.keypoints import REGIONS

from ...reference.published import JOYVASA_FILE, write_generators, write_liveportrait

ASSETS = Path(__file__).resolve().parents[3] / "workflows" / "assets"
PORTRAIT = ASSETS / "portrait.png"
SECONDS = 0.2  # 5 frames
SIDE = 64  # pixels


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder of models that holds the reference networks; the command line's own folders are put back afterwards."""
    before = dict(vars(folder_paths))
    monkeypatch.setattr(ProgressBar, "show", None)
    # The reference networks see smaller pictures than the published ones.
    monkeypatch.setattr(liveportrait, "Framing", partial(Framing, side=SIDE))
    monkeypatch.setattr(liveportrait, "extract_liveportrait_motion", partial(extract_liveportrait_motion, side=SIDE))
    monkeypatch.setattr(motion_generate, "PORTRAIT_SIDE", SIDE)
    folder_paths.use(tmp_path, tmp_path / "models")
    write_liveportrait(tmp_path / "models" / "liveportrait")
    write_generators(tmp_path / "models")
    yield tmp_path / "models"
    vars(folder_paths).clear()
    vars(folder_paths).update(before)


def beginning(name: str, tmp_path: Path) -> Path:
    """The first four frames of an example's video."""
    video, path = load_video(ASSETS / name), tmp_path / name
    height, width = video.frames.shape[1:3]
    with VideoWriter(path, width, height, video.fps) as writer:
        writer.write(video.frames[:4])
    return path


@pytest.fixture
def speech(tmp_path) -> Path:
    """The beginning of the example's speech."""
    path = tmp_path / "voice.wav"
    with wave.open(str(ASSETS / "speech.wav")) as whole, wave.open(str(path), "wb") as part:
        part.setparams(whole.getparams())
        part.writeframes(whole.readframes(round(SECONDS * whole.getframerate())))
    return path


def run(out: Path, *arguments: object) -> int:
    return main(command.open_nodes, ["animate", "--out", str(out), "--steps", "2", *map(str, arguments)])


def test_a_photograph_talks_and_styles_change_it(tmp_path, speech):
    clips = {}
    for name, more in {
        "plain": (),
        "emotion": ("--emotion", "happy"),
        "style": ("--style", beginning("style_sad.mp4", tmp_path)),
    }.items():
        out = tmp_path / f"{name}.mp4"
        generator = ("--generator", JOYVASA_FILE)
        assert run(out, "--portrait", PORTRAIT, "--audio", speech, *generator, *more) == 0
        clips[name] = load_video(out)
    width, height = Image.open(PORTRAIT).size
    for clip in clips.values():
        assert clip.frames.shape == (5, height, width, 3) and clip.fps == 25.0 and clip.audio is not None
    assert not np.array_equal(clips["plain"].frames, clips["emotion"].frames)
    assert not np.array_equal(clips["plain"].frames, clips["style"].frames)


def test_a_driving_video_moves_a_photograph_without_a_voice(tmp_path):
    out = tmp_path / "driven.mp4"
    driving = beginning("driving.mp4", tmp_path)
    assert run(out, "--portrait", PORTRAIT, "--motion", driving, "--backend", "built-in") == 0
    clip = load_video(out)
    assert (len(clip), clip.fps) == (4, load_video(driving).fps) and clip.audio is None


def test_of_a_video_the_lips_are_moved():
    arguments = {"portrait": Path("film.MOV"), "audio": Path("a.wav"), "motion": None, "style": None, "emotion": None}
    names = {"style_weight": 1.0, "region": None, "liveportrait": None, "generator": None, "backend": None}
    args = type("Args", (), {**arguments, **names, "seed": 3, "steps": 0})
    nodes = animate.graph(args)
    assert nodes["portrait"]["class_type"] == "LoadVideo"
    assert (nodes["animate"]["inputs"]["region"], nodes["animate"]["inputs"]["mode"]) == ("lips", "absolute")
    assert nodes["motion"]["inputs"]["seed"] == 3
    assert animate.REGIONS == tuple(REGIONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--portrait", PORTRAIT), "nothing moves the portrait: give a voice with --audio"),
        (("--portrait", PORTRAIT, "--audio", "none.wav"), "none.wav: there is no such file"),
        (
            (
                "--portrait",
                PORTRAIT,
                "--motion",
                ASSETS / "driving.mp4",
                "--style",
                ASSETS / "driving.mp4",
                "--emotion",
                "sad",
            ),
            "give one of them",
        ),
        (("--portrait", PORTRAIT, "--motion", ASSETS / "driving.mp4", "--emotion", "glad"), "unknown emotion 'glad'"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, capsys, arguments, message):
    assert run(tmp_path / "o.mp4", *arguments) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("svp: ")]
    assert message in line and not (tmp_path / "o.mp4").exists()


def test_missing_weights_are_named_with_their_command(tmp_path, speech, models, capsys):
    for file in (models / "joyvasa").rglob("*"):
        if file.is_file():
            file.unlink()
    for file in (models / "kdtalker").iterdir():
        file.unlink()
    assert run(tmp_path / "o.mp4", "--portrait", PORTRAIT, "--audio", speech) == 1
    assert "svp download joyvasa" in capsys.readouterr().err
