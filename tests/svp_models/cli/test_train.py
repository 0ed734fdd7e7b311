"""svp train from outside: what ends it, who may work in its folder, what a dry run leaves."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from svp_portrait.svp_models.checkpoints.expression_basis import load_expression_basis
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.cli.train import duration, stoppable
from svp_portrait.svp_models.config import AudioConfig
from svp_portrait.svp_models.data.prepare import prepare
from svp_portrait.svp_models.data.schema import OutputOptions, PrepareConfig, SyntheticOptions
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.io.files import locked_folder
from svp_portrait.svp_models.signals import Interrupted
from svp_portrait.svp_models.training.dataset import Clips

CODE = "import sys; from svp_portrait.nodes.command import main; sys.exit(main())"
RECIPE = """
name = "small"
[model]
preset = "demo"
[data]
folder = "{folder}"
cache_frames = true
{synthetic}
[autoencoder]
settings = {{ steps = 400, batch_size = 2 }}
"""
PEOPLE = "synthetic = { size = 256, seconds = 8.0, speakers = 4, test_speakers = 0, clips_per_speaker = 2 }"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shards"
    prepare(None, folder, PrepareConfig(OutputOptions(size=64, seconds=1.6), synthetic=SyntheticOptions(1, 1, 1)))
    return folder


def recipe_file(tmp_path: Path, folder: Path, synthetic: str = "") -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(folder=folder, synthetic=synthetic))
    return path


def listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def train(*arguments: str) -> int:
    return main(lambda folders, progress: [], ["train", *arguments])


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_signal_ends_it_while_data_is_rendered(tmp_path, jobs):
    data = tmp_path / "data"
    recipe = recipe_file(tmp_path, data, PEOPLE)
    arguments = ["train", "autoencoder", "--recipe", str(recipe), "--run", str(tmp_path / "run"), "--jobs", jobs]
    process = subprocess.Popen([sys.executable, "-c", CODE, *arguments], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(data.glob("work/.*.part")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    message = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM and message.splitlines()[-1].startswith("svp: interrupted")
    assert not [name for name in listing(tmp_path) if name.endswith(".part")]


def test_a_signal_waits_for_the_step_and_no_longer():
    with stoppable() as progress:
        with pytest.raises(Interrupted):  # nothing to finish yet
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    with stoppable() as progress:
        progress(1, 3)
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.01)
        with pytest.raises(Interrupted) as stopped:
            progress(2, 3)
        assert stopped.value.number == signal.SIGHUP
        with pytest.raises(Interrupted):  # a second one does not wait
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    with stoppable() as progress:
        progress(3, 3)  # the last step is done: data of the next phase are drawn, say
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    with stoppable() as progress:
        with suppress(Interrupted):  # code that lets no exception through
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        with pytest.raises(Interrupted) as stopped:
            progress(3, 3)
        assert stopped.value.number == signal.SIGTERM


def test_two_do_not_train_in_one_folder(tmp_path, dataset, capsys):
    recipe, run = recipe_file(tmp_path, dataset), tmp_path / "run"
    with locked_folder(run, "training other"):
        assert train("autoencoder", "--recipe", str(recipe), "--run", str(run), "--jobs", "1") == 1
    message = capsys.readouterr().err
    assert message.startswith(f"svp: {run}: training other (process {os.getpid()} on ") and message.count("\n") == 1
    assert listing(run) == set()


def test_a_dry_run_writes_nothing(tmp_path, dataset, capsys):
    recipe, before = recipe_file(tmp_path, dataset), listing(dataset)
    run = tmp_path / "run"
    assert train("autoencoder", "--recipe", str(recipe), "--run", str(run), "--dry-run") == 0
    assert "400 steps of 2 samples" in capsys.readouterr().out
    assert not run.exists() and listing(dataset) == before
    recipe = recipe_file(tmp_path, tmp_path / "data", PEOPLE)
    assert train("autoencoder", "--recipe", str(recipe), "--run", str(run), "--dry-run") == 1
    assert "there is no prepared data yet, and a dry run makes none" in capsys.readouterr().err
    assert not run.exists() and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stage2"], "recipe 'small' has no phase 'stage2'; it has autoencoder"),
        (["all", "--workers", "0"], "--jobs is 0: 1 to 1024 are allowed"),
        (["all", "--scale", "nan"], "--scale is nan: it must be above 0"),
        (["all", "--set", "autoencoder.settings.betas=[2,3]"], "autoencoder.settings.betas is 2.0: 0 to below 1"),
        (["all", "--set", "model.file=/dev/null"], "/dev/null: there is no such file"),
        (["all", "--set", "stage1={trainable=['spatial'],frames=41,settings={steps=1}}"], "starts from"),
        (["all", "--set", "data.folder=/dev/null"], "/dev/null: there is no prepared data"),
    ],
)
def test_mistakes_are_one_line(tmp_path, dataset, capsys, arguments, message):
    recipe = recipe_file(tmp_path, dataset)
    assert train(*arguments, "--recipe", str(recipe), "--run", str(tmp_path / "run"), "--dry-run") == 1
    error = capsys.readouterr().err
    assert error.startswith("svp: ") and message in error and error.count("\n") == 1


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, dataset):
    """Decoded frames are as large as all pictures together. Here the largest file, not the disk, is limited."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(PortraitError, match=r"train-64.npy: no space left on the disk: free some"):
            Clips(dataset, "train", AudioConfig(features="mel"), tmp_path / "decoded")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert listing(tmp_path) == {"decoded"}
    clips = Clips(dataset, "train", AudioConfig(features="mel"), tmp_path / "decoded")
    key_name = Clips(dataset, "train", AudioConfig(features="mel"))
    assert np.array_equal(clips.pixels(0, range(40)), key_name.pixels(0, range(40)))
    path = tmp_path / "decoded/train-64.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PortraitError, match="train-64.npy: not the frames of the data"):
        Clips(dataset, "train", AudioConfig(features="mel"), tmp_path / "decoded")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("9m", 540), ("1.5h", 5400), ("30", 30)])
def test_a_budget_is_a_time(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-3m", "nan", "9d", "1e9h"])
def test_what_is_no_time_is_named(text):
    with pytest.raises(argparse.ArgumentTypeError, match="write 90s, 9m or 1.5h"):
        duration(text)


def test_a_budget_is_for_the_demo_alone(tmp_path, capsys):
    assert train("style", "--budget", "9m") == 1
    assert "--budget is for demo alone" in capsys.readouterr().err


def test_a_dry_run_of_a_budget_tells_its_shares(tmp_path, capsys):
    assert train("demo", "--budget", "9m", "--dry-run", "--run", str(tmp_path / "run")) == 0
    assert "shares of the budget: vae 0.25, dense_motion 0.2, denoiser 0.45, mask 0.1" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_the_expression_basis_needs_a_file_to_write(capsys):
    assert train("expression-basis") != 0
    assert "--output FILE.safetensors" in capsys.readouterr().err


@pytest.mark.slow
def test_the_expression_basis_is_made_again(tmp_path):
    path = tmp_path / "basis.safetensors"
    assert train("expression-basis", "--output", str(path)) == 0
    made, shipped = load_expression_basis(path), load_expression_basis()
    np.testing.assert_allclose(made.movement, shipped.movement, atol=2e-3)
    np.testing.assert_allclose(made.depth, shipped.depth, atol=2e-3)


@pytest.mark.parametrize("phase", ["face-analyzer", "portrait-reader"])
def test_networks_that_read_faces_need_a_time_and_a_file(phase, capsys):
    assert train(phase, "--budget", "1m") == 1
    assert f"svp train {phase} needs --budget TIME and --output FILE" in capsys.readouterr().err
