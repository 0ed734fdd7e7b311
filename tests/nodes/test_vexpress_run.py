"""The way of someone who has put V-Express' public weights into the models folder, with small files of the same layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from svp_portrait.nodes import command
from svp_portrait.nodes.host import ProgressBar, folder_paths
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.media.audio import frame_count, load_audio
from svp_portrait.svp_models.media.video import load_video

from .conftest import ENCODER, wav2vec2_folder

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
ASSETS = WORKFLOWS / "assets"
AAC_FRAME = 1024  # samples: the last frame of a decoded track is filled up with silence


@pytest.fixture
def models(folders, monkeypatch) -> Path:
    """An empty models folder that is the command line's."""
    folder_paths.use(folders, folders / "models")
    monkeypatch.setattr(ProgressBar, "show", None)
    return folders / "models"


def run(out: Path, *changes: str) -> int:
    """`svp run` of the bundled graph, small and with the built-in face analyser, which knows the drawn faces of the assets."""
    settings = ["Faces.backend=built-in", "Sampler.steps=2", "Sampler.width=64", "Sampler.height=64", *changes]
    arguments = ["run", str(WORKFLOWS / "api/vexpress_portrait.json"), "--input", str(ASSETS), "--out", str(out)]
    return main(command.open_nodes, arguments + [part for each in settings for part in ("--set", each)])


def test_the_graph_makes_a_video_of_downloaded_files(models, folders, write_vexpress, write_vae):
    write_vexpress(models / "svp" / "vexpress", ENCODER.hidden_size)
    write_vae(models / "vae")
    wav2vec2_folder(models / "audio_encoders")
    assert run(folders / "out") == 0
    (path,) = (folders / "out").rglob("*.mp4")
    video, speech = load_video(path), load_audio(ASSETS / "speech.wav")
    assert path.name == "vexpress_00001_.mp4"
    assert video.fps == 30.0 and video.frames.shape == (frame_count(speech.seconds, 30.0), 64, 64, 3)
    assert video.audio is not None
    assert abs(video.audio.seconds - speech.seconds) <= AAC_FRAME / video.audio.sample_rate
    heard = np.corrcoef(envelope(video.audio), envelope(speech))[0, 1]
    assert heard > 0.98  # the sound is the speech, in its place
    assert video.frames.std() > 1  # a picture of random weights, but a picture


def envelope(audio) -> np.ndarray:
    """Loudness of the first three seconds in pieces of 20 ms."""
    samples = audio.waveform.mean(0).numpy()[: 3 * audio.sample_rate]
    return np.sqrt((samples.reshape(150, -1) ** 2).mean(1))


def test_without_the_files_the_command_says_how_to_get_them(models, folders, capsys):
    assert run(folders / "out") == 1
    told = capsys.readouterr().err
    assert "cannot run (2 problems)" in told
    for name in ("vexpress", "wav2vec2-base-960h"):
        assert f'svp download {name} --models "{models}"' in told
    assert not (folders / "out").exists()


def test_a_choice_that_is_in_no_list_is_still_refused(models, folders, capsys):
    assert run(folders / "out", "Sampler.scheduler=magic") == 1
    assert "'magic', choose one of: euler, ddim, dpmpp_2m" in capsys.readouterr().err
