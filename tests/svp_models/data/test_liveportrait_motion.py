"""Preparation in LivePortrait's space: motions beside the labels, read again, and learnt from by the style extractor."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.built_in_motion import load_motion_model
from svp_portrait.svp_models.checkpoints.liveportrait import load_liveportrait
from svp_portrait.svp_models.checkpoints.liveportrait_file import save_liveportrait
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.config import AudioConfig, StyleConfig
from svp_portrait.svp_models.data.liveportrait_motion import clip_motion, load_extractor
from svp_portrait.svp_models.data.manifest import open_manifest, summary
from svp_portrait.svp_models.data.motion_real import prepare_real_motion
from svp_portrait.svp_models.data.prepare import check, prepare
from svp_portrait.svp_models.data.schema import ClipMotion, OutputOptions, PrepareConfig, VideoOptions, check_motion
from svp_portrait.svp_models.data.shards import decode_motion, encode_motion, read_member
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.io.strict_config import config_from_dict
from svp_portrait.svp_models.media.frame_stream import image_stream
from svp_portrait.svp_models.motion.extract import extract_liveportrait_motion
from svp_portrait.svp_models.networks.style_extractor import StyleExtractor
from svp_portrait.svp_models.training.config import StylePhase, TrainSettings
from svp_portrait.svp_models.training.dataset import Clips, Expressions, SampleIndex, stack
from svp_portrait.svp_models.training.motion_recipe import MotionRecipe, load_motion_recipe
from svp_portrait.svp_models.training.recipe import RECIPES
from svp_portrait.svp_models.training.run_motion import MotionRun
from svp_portrait.svp_models.training.train_style import StyleTraining

from ...reference.weights import liveportrait_weights
from .conftest import write_video

OUTPUT = OutputOptions(size=128)
CONFIG = PrepareConfig(OUTPUT, VideoOptions(test_identities=("W009",), min_face=30, space="liveportrait"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A models folder with LivePortrait's small reference networks."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "liveportrait" / "base_models").mkdir(parents=True)
    for file, content in liveportrait_weights().items():
        torch.save(content, folder / "liveportrait" / "base_models" / f"{file}.pth")
    return folder


@pytest.fixture(scope="module")
def videos(people, tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for person, clip in zip(("M003", "W009"), people, strict=True):
        for emotion in ("happy", "sad"):
            images = clip.images if emotion == "happy" else clip.images[::-1]
            write_video(root / f"{person}/video/front/{emotion}/level_3/001.mp4", images, 25, clip.audio)
    return root


@pytest.fixture(scope="module")
def done(videos, models, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    prepare(videos, out, CONFIG, models=[models])
    return out


def test_motions_lie_beside_the_labels(done):
    manifest = check(done)
    assert manifest.metadata["options"]["videos"]["space"] == "liveportrait"
    assert "motions: in the space liveportrait" in summary(manifest)
    for shard, sample in manifest.samples():
        assert {"labels.npz", "motion.npz", "video.mp4"} <= set(sample.members)
        motion = decode_motion(read_member(done, shard, sample, "motion.npz"))
        assert motion.expression.shape == (sample.frames, 63) and motion.face.shape == (21, 3)
        assert np.ptp(motion.expression, axis=0).max() > 0


def test_the_command_asks_for_the_networks(videos, tmp_path, models, capsys):
    arguments = ["prepare", str(videos), "--out", str(tmp_path / "out"), "--space", "liveportrait", "--size", "128",
                 "--min-face", "30", "--jobs", "1", "--models"]  # fmt: skip
    assert main(lambda folders, progress: [], [*arguments, str(tmp_path)]) == 1
    assert "svp download liveportrait" in capsys.readouterr().err
    wrong = ["prepare", "synthetic", "--out", str(tmp_path / "other"), "--space", "liveportrait"]
    assert main(lambda folders, progress: [], wrong) == 1
    assert "--space is for videos, not for synthetic" in capsys.readouterr().err


def test_the_single_file_serves_too(models, tmp_path):
    networks = load_liveportrait(models / "liveportrait")
    (tmp_path / "liveportrait").mkdir()
    save_liveportrait(tmp_path / "liveportrait" / "liveportrait.safetensors", networks)
    found = load_extractor([tmp_path / "nothing", tmp_path])
    assert all(
        torch.equal(one, other) for one, other in zip(found.parameters(), networks.motion.parameters(), strict=True)
    )
    with pytest.raises(PortraitError, match="svp download liveportrait"):
        load_extractor([tmp_path / "nothing"])


def test_the_motion_is_that_of_the_motion_node(models):
    networks = load_liveportrait(models / "liveportrait")
    faces = np.random.default_rng(0).integers(0, 256, (19, 64, 64, 3), dtype=np.uint8)
    motion = clip_motion(networks.motion, faces, np.zeros(19, bool))
    images = torch.from_numpy(faces).float() / 255
    node = extract_liveportrait_motion(networks, image_stream(images), 25.0, None, True, None, 64)
    for name in ("angles", "shift", "scale", "expression"):
        np.testing.assert_allclose(getattr(motion, name), getattr(node, name).numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(motion.face, node.face.numpy(), rtol=1e-4, atol=1e-4)
    holes = np.array([index in (0, 7, 8) for index in range(19)])
    filled = clip_motion(networks.motion, faces, holes)
    low, high = np.sort(filled.expression[[6, 9]], axis=0)
    assert (low - 1e-5 <= filled.expression[7]).all() and (filled.expression[7] <= high + 1e-5).all()
    np.testing.assert_array_equal(filled.expression[0], filled.expression[1])


def test_wrong_motions_are_refused():
    motion = ClipMotion(*(np.zeros(size, np.float32) for size in ((4, 3), (4, 2), (4,), (4, 63), (21, 3))))
    check_motion(decode_motion(encode_motion(motion)), 4)
    for name, value in (("scale", np.zeros(3, np.float32)), ("angles", np.full((4, 3), np.nan, np.float32)),
                        ("expression", np.zeros((4, 60), np.float32)), ("face", np.zeros((21, 3)))):  # fmt: skip
        with pytest.raises(PortraitError, match=f"motion: {name} is "):
            check_motion(replace(motion, **{name: value}), 4)
    with pytest.raises(PortraitError, match="a motion member of 3 bytes cannot be read"):
        decode_motion(b"abc")


def test_the_style_extractor_learns_from_63_numbers(done):
    audio = AudioConfig(features="mel")
    train, test = (Expressions(Clips(done, split, audio, space="liveportrait")) for split in ("train", "test"))
    rng = np.random.default_rng(0)
    assert train(0, rng).shape == (56, 63)
    torch.testing.assert_close(train(0, rng), torch.from_numpy(train.clips.motion(0).expression))
    config = StyleConfig(expression_size=63, style_size=8, layers=1, heads=2, feed_forward=16, max_frames=32)
    phase = StylePhase(TrainSettings(steps=1, batch_size=4), emotions=2, takes=2)
    training = StyleTraining(StyleExtractor(config), train, test, phase)
    batch = stack([training.sample(SampleIndex(0, "style", 0, position, 4)) for position in range(4)])
    assert batch["expression"].shape == (4, 32, 63)
    loss, _ = training.module(batch)
    loss.backward()
    assert float(loss.detach()) > 0
    assert set(training.validate()) <= {"clustering_both", "clustering_expression", "clustering_audio"}


def test_data_sets_without_motions_keep_loading(videos, done, tmp_path):
    plain = PrepareConfig(OUTPUT, VideoOptions(test_identities=("W009",), min_face=30))
    prepare(videos, tmp_path / "plain", plain)
    clips = Clips(tmp_path / "plain", "train", AudioConfig(features="mel"))
    assert clips.expression(0).shape == (56, 64)
    with pytest.raises(PortraitError, match=re.escape("prepare the data with --space liveportrait")):
        Clips(tmp_path / "plain", "train", AudioConfig(features="mel"), space="liveportrait").expression(0)
    labels = [Clips(folder, "train", AudioConfig(features="mel")).labels(0) for folder in (tmp_path / "plain", done)]
    for name, array in vars(labels[0]).items():
        np.testing.assert_array_equal(array, getattr(labels[1], name))
    assert open_manifest(done).metadata["options"]["videos"]["backend"] == "built-in"


def test_pieces_of_clips_train_a_motion_generator(done, tmp_path):
    values = {
        "name": "real", "kind": "motion", "data": {"folder": str(tmp_path / "clips"), "dataset": str(done), "seconds": 1.0},
        "network": {"space": "liveportrait", "expression_size": 63, "eyes": False, "portrait_size": 63, "width": 16, "heads": 2},
        "generator": {"settings": {"steps": 2, "batch_size": 2, "validate_steps": 2}, "frames": 20},
    }  # fmt: skip
    run = MotionRun(config_from_dict(MotionRecipe, values), tmp_path / "run", report=lambda line: None)
    model = load_motion_model(run.phase("generator"))
    clips = run.clips("train")
    first = next(sample for sample in open_manifest(done).samples("train"))
    motion = decode_motion(read_member(done, *first, "motion.npz"))
    assert len(clips.info) == 4 and clips.vocabulary == ()  # two clips of 56 frames, two seconds of each
    numbers = clips.motion(1, slice(None)).numpy()
    np.testing.assert_array_equal(numbers[:, :63], motion.expression[25:50])
    np.testing.assert_array_equal(numbers[:, 63:66], motion.angles[25:50])
    np.testing.assert_array_equal(numbers[:, 68], motion.scale[25:50])
    torch.testing.assert_close(
        model.network.mean, torch.from_numpy(clips.arrays["motion"].reshape(-1, 69).mean(axis=0))
    )
    with pytest.raises(PortraitError, match="make data.seconds shorter"):
        prepare_real_motion(done, tmp_path / "long", load_model(BUILTIN_MODEL), 20.0)


def test_the_recipe_for_real_people_is_whole():
    recipe = load_motion_recipe(RECIPES / "motion_real.toml")
    assert recipe.network.channels == 69 and recipe.phases() == ["generator", "style_predictor"]
