"""`svp generate`: one call from a picture and a voice to a video."""

from __future__ import annotations

import shutil
import wave
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svp_portrait.nodes import command, head_motion
from svp_portrait.nodes.host import ProgressBar, folder_paths
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, DEMO_NAME, PORTRAIT_MODEL, load_model
from svp_portrait.svp_models.checkpoints.safetensors_io import write_safetensors
from svp_portrait.svp_models.cli.generate import BACKENDS, add_generate_arguments, graph
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.config import config_to_json
from svp_portrait.svp_models.face.detectors.built_in import FaceAnalyzer
from svp_portrait.svp_models.media.audio import frame_count, load_audio
from svp_portrait.svp_models.media.video import load_video
from svp_portrait.svp_models.presets import PRESETS

ASSETS = Path(__file__).resolve().parents[3] / "workflows" / "assets"
PORTRAIT = ASSETS / "portrait.png"
SECONDS = 0.62  # 15.5 frames at 25 fps: the number of frames is rounded
AAC_FRAME = 1024  # samples


@pytest.fixture(autouse=True)
def folders(monkeypatch) -> Iterator[None]:
    """The command line's own folders, put back afterwards."""
    before = dict(vars(folder_paths))
    monkeypatch.setattr(ProgressBar, "show", None)
    yield
    vars(folder_paths).clear()
    vars(folder_paths).update(before)


@pytest.fixture
def speech(tmp_path) -> Path:
    """The beginning of the example's speech."""
    path = tmp_path / "voice of mine.wav"
    with wave.open(str(ASSETS / "speech.wav")) as whole, wave.open(str(path), "wb") as part:
        part.setparams(whole.getparams())
        part.writeframes(whole.readframes(round(SECONDS * whole.getframerate())))
    return path


def generate(portrait: Path, audio: Path, out: Path, *more: str) -> int:
    arguments = ["generate", "--portrait", str(portrait), "--audio", str(audio), "--out", str(out), *more]
    return main(command.open_nodes, arguments)


def error_of(capsys) -> str:
    """The one line that was said."""
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("svp: ")]
    return line


def test_a_portrait_and_a_voice_become_a_video(tmp_path, speech, capsys):
    out = tmp_path / "new" / "talk.mp4"
    assert generate(PORTRAIT, speech, out) == 0
    video = load_video(out)
    assert video.fps == 25.0 and len(video) == frame_count(load_audio(speech).seconds, 25.0) == 16
    assert abs(video.audio.seconds - len(video) / 25) <= AAC_FRAME / video.audio.sample_rate
    assert capsys.readouterr().out.strip() == str(out)
    assert [each.name for each in out.parent.iterdir()] == ["talk.mp4"]  # nothing else was left


def test_style_motion_rate_and_faces_are_taken(tmp_path, speech):
    """Each of them changes the video, and a moving head moves."""
    still, moving = tmp_path / "still.mp4", tmp_path / "moving.mp4"
    demo = ["--model", DEMO_NAME, "--fps", "12.5"]  # its mouth leaves the face's edges where they are
    assert generate(PORTRAIT, speech, still, *demo) == 0
    more = ["--style", str(ASSETS / "style_sad.mp4"), "--motion", str(ASSETS / "driving.mp4"), "--backend", "built-in"]
    assert generate(PORTRAIT, speech, moving, *demo, *more) == 0
    clips = [load_video(each) for each in (still, moving)]
    assert [(len(each), each.fps) for each in clips] == [(8, 12.5), (8, 12.5)]
    analyzer = FaceAnalyzer(load_model(BUILTIN_MODEL).face_analyzer)
    ways = [analyzer.analyze(each.frames).head_keypoints.std(axis=0).mean() for each in clips]  # pixels
    assert ways[1] > 3 * ways[0], ways


def test_a_video_that_is_there_stays_unless_forced(tmp_path, speech, capsys):
    out = tmp_path / "talk.mp4"
    out.write_bytes(b"mine")
    assert generate(PORTRAIT, speech, out) == 1
    assert "talk.mp4 is already there" in (line := error_of(capsys)) and "--force" in line
    assert out.read_bytes() == b"mine"
    assert generate(PORTRAIT, speech, out, "--force") == 0
    assert len(load_video(out)) == 16


@pytest.mark.parametrize("place", ["models/svp/mine.safetensors", "output/svp/trained/mine.safetensors"])
def test_models_are_found_where_the_node_lists_them(tmp_path, speech, monkeypatch, place, capsys):
    """Those in ./models and those that training left in ./output/svp, wherever the video goes."""
    monkeypatch.chdir(tmp_path)
    folder_paths.use(tmp_path, tmp_path / "models")
    model = tmp_path / place
    model.parent.mkdir(parents=True)
    shutil.copy(PORTRAIT_MODEL, model)
    name = model.relative_to(tmp_path / place.split("/")[0] / "svp").as_posix()
    out = tmp_path / "films" / "talk.mp4"
    assert generate(PORTRAIT, speech, out, "--model", name) == 0, capsys.readouterr().err
    assert generate(PORTRAIT, speech, tmp_path / "built-in.mp4") == 0
    assert np.array_equal(load_video(out).frames, load_video(tmp_path / "built-in.mp4").frames)
    assert [each.name for each in out.parent.iterdir()] == ["talk.mp4"]


def test_the_help_names_the_ways_to_find_faces(capsys):
    assert BACKENDS == tuple(head_motion.BACKENDS)
    with pytest.raises(SystemExit):
        main(command.open_nodes, ["generate", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "face detection: auto, built-in, insightface, mediapipe, yunet, classical (default: the model's own" in words


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"out": "talk.mov"}, "talk.mov: the name of a video ends in .mp4"),
        ({"portrait": "none.png"}, "none.png: there is no such file"),
        ({"audio": "none.wav"}, "none.wav: there is no such file"),
        ({"model": "none.safetensors"}, "there is no file 'none.safetensors'"),
        ({"backend": "magic"}, "'magic', choose one of: auto, built-in"),
        ({"style": "none.mp4"}, "--style"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, speech, capsys, changes, said):
    paths = {name: tmp_path / file for name, file in changes.items() if name in ("out", "portrait", "audio")}
    more = [part for name, value in changes.items() if name not in paths for part in (f"--{name}", value)]
    code = generate(
        paths.get("portrait", PORTRAIT), paths.get("audio", speech), paths.get("out", tmp_path / "o.mp4"), *more
    )
    assert code == 1 and said in error_of(capsys)
    assert not list(tmp_path.glob("*.mp4")) and not list(tmp_path.glob(".*"))


def test_a_portrait_without_a_face_is_named_with_the_cure(tmp_path, speech, capsys):
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    assert generate(tmp_path / "black.png", speech, tmp_path / "o.mp4") == 1
    line = error_of(capsys)
    assert "no face found in the portrait (64 x 64 pixels" in line and "type the 8 keypoints" in line
    assert not list(tmp_path.glob("*.mp4"))


def test_a_voice_alone_moves_the_head(tmp_path, speech, capsys):
    still, moving = tmp_path / "still.mp4", tmp_path / "moving.mp4"
    demo = ["--model", DEMO_NAME, "--fps", "12.5"]  # its mouth leaves the face's edges where they are
    assert generate(PORTRAIT, speech, still, *demo) == 0
    more = ["--head-from-voice", "--prompt", "from 0 to 0.6 s shakes large quickly"]
    assert generate(PORTRAIT, speech, moving, *demo, *more) == 0
    analyzer = FaceAnalyzer(load_model(BUILTIN_MODEL).face_analyzer)
    ways = [
        analyzer.analyze(load_video(path).frames).head_keypoints.std(axis=0).mean() for path in (still, moving)
    ]  # pixels
    assert ways[1] > 2 * ways[0], ways
    capsys.readouterr()
    clip = str(ASSETS / "driving.mp4")
    assert generate(PORTRAIT, speech, tmp_path / "a.mp4", "--head-from-voice", "--motion", clip) == 1
    assert "--motion and --head-from-voice both move the head" in error_of(capsys)


def test_a_model_that_reads_expressions_gets_them_from_the_voice(tmp_path, monkeypatch):
    """From the motion that moves the head, else in the sampler; the demo model, which reads none, does without."""
    config = PRESETS["demo256"]
    folder = tmp_path / "models" / "svp"
    folder.mkdir(parents=True)
    write_safetensors(folder / "small.safetensors", "model", {}, {"config": config_to_json(config)})
    monkeypatch.chdir(tmp_path)
    given = {"portrait": PORTRAIT, "audio": ASSETS / "speech.wav", "style": None, "motion": None, "prompt": None}
    given |= dict.fromkeys(("emotion", "strength", "second_emotion", "share", "cfg", "audio_cfg", "style_cfg"))
    given |= {"audio_encoder": None, "backend": None, "seed": 0, "steps": 0, "fps": 0.0}
    found = {
        (model, head): graph(Namespace(model=model, head_from_voice=head, **given))
        for model in ("small.safetensors", DEMO_NAME)
        for head in (False, True)
    }
    inputs = {key: nodes["sampler"]["inputs"] for key, nodes in found.items()}
    assert inputs["small.safetensors", True]["motion"] == ["motion", 0] and "head" in found["small.safetensors", True]
    assert not {"motion", "head_motion"} & set(inputs["small.safetensors", False])  # the sampler makes the expression
    assert "motion" not in inputs[DEMO_NAME, False] and "motion" not in found[DEMO_NAME, False]
    assert "motion" not in inputs[DEMO_NAME, True] and "head_motion" in inputs[DEMO_NAME, True]


def options(*more: str) -> Namespace:
    """As the parser gives them."""
    parser = ArgumentParser()
    add_generate_arguments(parser)
    return parser.parse_args(["--portrait", str(PORTRAIT), "--audio", "a.wav", "--out", "a.mp4", *more])


def test_an_emotion_by_name_is_the_style():
    nodes = graph(options("--emotion", "happy", "--strength", "0.8", "--seed", "3"))
    assert nodes["style prior"]["inputs"] == {"model": ["model", 0], "emotion": "happy", "strength": 0.8}
    assert nodes["style"]["inputs"] == {"style_prior": ["style prior", 0], "seed": 3}
    assert nodes["sampler"]["inputs"]["style"] == ["style", 0]
    mixed = graph(options("--emotion", "happy", "--second-emotion", "surprised", "--head-from-voice"))
    assert mixed["style prior"]["inputs"]["share"] == 0.5 and mixed["motion"]["inputs"]["style"] == ["style", 0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--style", str(ASSETS / "style_happy.mp4"), "--emotion", "sad"), "--style and --emotion both give"),
        (("--strength", "0.5"), "--strength goes with --emotion"),
        (("--emotion", "sad", "--share", "0.5"), "--share goes with --second-emotion"),
    ],
)
def test_options_of_emotions_that_do_not_go_together(tmp_path, speech, capsys, more, message):
    assert generate(PORTRAIT, speech, tmp_path / "a.mp4", *more) == 1
    assert message in error_of(capsys)


def test_an_emotion_changes_the_video(tmp_path, speech):
    for name in ("happy", "sad"):
        assert generate(PORTRAIT, speech, tmp_path / f"{name}.mp4", "--emotion", name, "--strength", "1") == 0
    happy, sad = (load_video(tmp_path / f"{name}.mp4").frames.astype(float) for name in ("happy", "sad"))
    assert np.abs(happy - sad).mean() > 0.3
