from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.built_in_motion import load_motion_model
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.data.motion_clips import (
    MotionDataOptions,
    mel_track,
    motion_numbers,
    open_motion_clips,
    perform_clip,
    performances,
    prepare_synthetic_motion,
    states_of_numbers,
)
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.io.strict_config import config_from_dict
from svp_portrait.svp_models.media.prosody import prosody
from svp_portrait.svp_models.networks.audio_encoder import mel_rows
from svp_portrait.svp_models.networks.motion_generator import MotionGeneratorNetwork
from svp_portrait.svp_models.training.dataset import SampleIndex, stack
from svp_portrait.svp_models.training.motion_recipe import MotionRecipe, load_motion_recipe
from svp_portrait.svp_models.training.recipe import RECIPES
from svp_portrait.svp_models.training.run_motion import MotionRun
from svp_portrait.svp_models.training.train_motion import GeneratorModule, GeneratorTraining, WordsTraining

OPTIONS = MotionDataOptions(speakers=2, groups=2, takes=2, seconds=3.0, moved=1.0)
SETTINGS = {"steps": 4, "batch_size": 4, "warmup_steps": 1, "checkpoint_steps": 2, "log_steps": 2}
RECIPE = {
    "name": "tiny",
    "kind": "motion",
    "network": {"width": 16, "heads": 2, "joint_layers": 1, "condition_width": 8, "pose_layers": 1, "pose_width": 16},
    "generator": {"settings": {**SETTINGS, "validate_steps": 4}, "frames": 40, "validation_clips": 4},
    "words": {"settings": SETTINGS, "frames": 40, "phrase_prob": 1.0, "words_drop_prob": 0.0},
    "style_predictor": {"settings": SETTINGS, "network": {"inner": 16}},
    "lip_expert": {"settings": SETTINGS, "width": 8},
    "movement_detector": {"settings": SETTINGS},
    "kdtalker": {"settings": SETTINGS, "dim": 16, "layers": 1, "heads": 2, "frames": 32},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    model = load_model(BUILTIN_MODEL)
    for split in ("train", "test"):
        prepare_synthetic_motion(folder / split, OPTIONS, model, split, report=lambda line: None)
    return folder


def recipe(folder, **changes) -> MotionRecipe:
    values = {**RECIPE, "data": {"folder": str(folder)}, **changes}
    return config_from_dict(MotionRecipe, values)


def fresh(folder, clips) -> MotionGeneratorNetwork:
    return MotionGeneratorNetwork(replace(recipe(folder).network, vocabulary=clips.vocabulary))


def test_prepared_clips_are_the_performances(folder):
    clips = open_motion_clips(folder / "train")
    assert len(clips.info) == 8 and [len(group) for group in clips.groups.values()] == [2, 2, 2, 2]
    who, emotion, intensity, seed, group = performances(OPTIONS)[5]
    done = perform_clip(who, emotion, intensity, seed, group, 3.0, 1.0)
    np.testing.assert_allclose(clips.motion(5, slice(None)).numpy(), motion_numbers(done.states))
    expected = mel_rows(done.waveform, 10, 30, 25.0)
    torch.testing.assert_close(clips.voice(5, 10, 20), expected, rtol=0, atol=2e-3)  # stored in half precision
    np.testing.assert_array_equal(clips.row("prosody", 5).numpy(), prosody(done.waveform))
    assert clips.info[5].phrases == done.info.phrases
    assert any(info.phrases for info in clips.info)


def test_rows_of_a_spectrogram_and_numbers_of_a_motion_go_both_ways():
    windows = mel_rows(np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32), 0, 25, 25.0).numpy()
    track = mel_track(windows)
    assert track.shape == (24 * 4 + 24, 80)
    np.testing.assert_array_equal(track[40 : 40 + 24].reshape(-1), windows[10])
    states = perform_clip(*performances(OPTIONS)[0], 3.0, 0.0).states
    back = states_of_numbers(motion_numbers(states))
    np.testing.assert_array_equal(back.pose, states.pose)
    np.testing.assert_array_equal(back.expression, states.expression)


def test_given_numbers_are_no_part_of_the_loss(folder):
    clips, config = open_motion_clips(folder / "train"), recipe(folder).generator
    training = GeneratorTraining(fresh(folder, clips), clips, clips, config)
    batch = stack([training.sample(SampleIndex(0, "generator", step, 0, 1)) for step in range(6)])
    batch["causal"][:] = False
    loss, _ = training.module(batch)
    fixed = batch["known"].repeat_interleave(torch.tensor([64, 2, 2, 3, 2, 1]), dim=-1).bool()
    assert bool(fixed.any())
    changed = {**batch, "noise": torch.where(fixed, batch["noise"] + 3, batch["noise"])}
    torch.testing.assert_close(training.module(changed)[0], loss)
    moved, _ = training.module({**batch, "noise": batch["noise"] + 3})
    assert float((moved - loss).detach().abs()) > 0.1


def test_samples_around_phrases_contain_them_and_train_the_pose_of_words_alone(folder):
    clips, config = open_motion_clips(folder / "train"), recipe(folder).words
    training = WordsTraining(fresh(folder, clips), clips, clips, config)
    batch = stack([training.sample(SampleIndex(0, "words", step, 0, 1)) for step in range(16)])
    assert bool((batch["phrase"] > 0).any(dim=1).all())
    training.module(batch)[0].backward()
    touched = {name for name, value in training.module.network.named_parameters() if value.grad is not None}
    assert touched and all(name.startswith("phrase_pose.") for name in touched)
    loss, outside = training.module(batch)[0], batch["phrase"] == 0
    motion = batch["motion"].clone()
    motion[..., :68] += 1
    torch.testing.assert_close(training.module({**batch, "motion": motion})[0], loss)  # no number but the pose counts
    assert bool(outside.any())


def test_words_without_layers_are_refused(folder):
    clips, config = open_motion_clips(folder / "train"), recipe(folder).words
    bare = MotionGeneratorNetwork(replace(recipe(folder).network, vocabulary=clips.vocabulary, pose_layers=0))
    with pytest.raises(PortraitError, match="pose_layers"):
        WordsTraining(bare, clips, clips, config)


def test_an_untrained_generator_has_the_loss_of_its_targets(folder):
    """It predicts 0, and the targets have variance 1 on the scale of the clips."""
    clips, config = open_motion_clips(folder / "train"), replace(recipe(folder).generator, known_prob=0.0)
    training = GeneratorTraining(fresh(folder, clips), clips, clips, config)
    batch = stack([training.sample(SampleIndex(0, "generator", step, 0, 1)) for step in range(64)])
    loss, _ = GeneratorModule(training.module.network, config)({**batch, "causal": torch.zeros(64, dtype=torch.bool)})
    assert float(loss.detach()) == pytest.approx(1.0, abs=0.25)


def test_every_phase_trains_resumes_to_the_bit_and_ends_in_one_file(folder, tmp_path):
    run = MotionRun(recipe(folder), tmp_path / "run", report=lambda line: None)

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    interrupted = MotionRun(recipe(folder), tmp_path / "other", report=lambda line: None, progress=stop)
    for name in run.recipe.phases():
        run.phase(name)
    with pytest.raises(KeyboardInterrupt):
        interrupted.phase("generator")
    resumed = replace(interrupted, progress=None)
    resumed.phase("generator")
    first, again = (load_motion_model(tmp_path / part / "generator" / "model.safetensors") for part in ("run", "other"))
    for key, value in first.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[key], value, rtol=0, atol=0)
    run.export(tmp_path, tmp_path / "whole.safetensors")
    whole = load_motion_model(tmp_path / "whole.safetensors")
    for (
        key,
        value,
    ) in first.network.state_dict().items():  # words leave all else as it was, but for the file's precision
        torch.testing.assert_close(whole.network.state_dict()[key], value, rtol=1e-3, atol=1e-3)
    assert whole.network.phrase_pose is not None and first.network.phrase_pose is None
    assert {"words_seed", "words_step", "words_training"} <= set(whole.metadata)
    assert None not in (whole.style_predictor, whole.lip_expert, whole.movement_detector)
    assert whole.metadata["step"] == "4" and whole.style_space == open_motion_clips(folder / "train").style_space
    assert "trained" in "\n".join(run.describe("generator"))


def test_training_goes_on_from_a_file_of_the_same_sizes(folder, tmp_path):
    run = MotionRun(recipe(folder), tmp_path / "run", report=lambda line: None)
    file = run.phase("generator")
    phase = {**RECIPE["generator"], "start": str(file)}
    on = MotionRun(recipe(folder, generator=phase, words={**RECIPE["words"], "start": str(file)}), tmp_path / "on")
    for name in ("generator", "words"):
        network = on.build(name).module.network
        torch.testing.assert_close(network.voice_in.weight, load_motion_model(file).network.voice_in.weight)
    other = recipe(folder, generator=phase, network={"width": 32, "heads": 2})
    with pytest.raises(PortraitError, match="other sizes"):
        MotionRun(other, tmp_path / "wrong").build("generator")


def test_the_bundled_recipe_is_whole_and_others_are_refused():
    found = load_motion_recipe(RECIPES / "motion_drawn.toml", ["generator.settings.steps=5"])
    assert found.generator.settings.steps == 5
    assert found.phases() == ["lip_expert", "generator", "words", "style_predictor", "movement_detector", "kdtalker"]
    with pytest.raises(PortraitError, match="no recipe of a motion generator"):
        load_motion_recipe(RECIPES / "demo.toml")
