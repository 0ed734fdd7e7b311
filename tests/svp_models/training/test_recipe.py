"""Recipes: the bundled ones are valid, mistakes are named, and what a run depends on is told from what it does not."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL
from svp_portrait.svp_models.checkpoints.safetensors_io import read_metadata
from svp_portrait.svp_models.diffusion.noise_schedule import alphas_cumprod
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.presets import PRESETS
from svp_portrait.svp_models.training.analyzer_run import load_reading_recipe as load_analyzer_recipe
from svp_portrait.svp_models.training.config import StartModel, TrainSettings
from svp_portrait.svp_models.training.face_config import load_face_recipe
from svp_portrait.svp_models.training.motion_recipe import load_motion_recipe
from svp_portrait.svp_models.training.portrait_reader_run import load_reading_recipe
from svp_portrait.svp_models.training.recipe import ALIASES, load_recipe, run_config, same_run, scaled
from svp_portrait.svp_models.training.train_emotion_bank import load_bank_recipe

RECIPES = Path(__file__).parents[3] / "recipes"
LOADERS = {
    "demo256": load_face_recipe,
    "emotion_bank": load_bank_recipe,
    "face_analyzer": load_analyzer_recipe,
    "portrait_reader": load_reading_recipe,
    "motion_drawn": load_motion_recipe,
    "motion_real": load_motion_recipe,
}  # recipes of their own kinds
OLD_RECIPES = Path(__file__).parent / "recipes_0.1.0"


def written(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def small(tmp_path):
    text = '[data]\nfolder = "x"\n[style]\nsettings = { steps = 5 }\n[stage1]\ntrainable = ["spatial"]\nsettings = { steps = 7 }\n'
    return written(tmp_path / "small.toml", 'name = "small"\n' + text)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_bundled_recipes_are_valid(path):
    load = LOADERS.get(path.stem, load_recipe)
    recipe = load(path)
    assert recipe.name == path.stem
    assert load(path, ["seed=3"]).seed == 3
    with pytest.raises(PortraitError, match=r"name is '\.\./x': it names a folder"):
        load(path, ["name=../x"])


@pytest.mark.parametrize("name", ["svp", "svp_paper"])
def test_the_full_recipes_freeze_what_the_paper_freezes(name):
    recipe = load_recipe(RECIPES / f"{name}.toml")
    assert recipe.phases() == ["style", "stage1", "stage2", "stage3"]
    assert recipe.stage1.trainable == ("spatial", "reference", "guider") and recipe.stage1.frames == 1
    assert not (recipe.stage1.temporal or recipe.stage1.audio or recipe.stage1.style)
    assert recipe.stage2.trainable == ("temporal", "audio", "audio_projection") and recipe.stage2.frames == 8
    assert recipe.stage2.audio and not recipe.stage2.style
    assert recipe.stage3.trainable == ("style", "style_projection") and recipe.stage3.style
    assert recipe.stage3.cross_emotion_prob > 0 and not recipe.stage3.deterministic


def test_the_recipe_of_the_paper_has_its_loss_and_optimizer():
    """Eq. 1: the mean square of the noise's error, unweighted; sec. 4.1: Adam."""
    recipe = load_recipe(RECIPES / "svp_paper.toml")
    stages = [recipe.stage1, recipe.stage2, recipe.stage3]
    assert recipe.model.prediction == "epsilon"
    for stage in stages:
        assert (stage.noise_offset, stage.snr_gamma, stage.mouth_weight, stage.face_weight) == (0, 0, 0, 0)
        assert (stage.settings.optimizer, stage.settings.weight_decay) == ("adam", 0)


def test_a_recipe_chooses_what_the_denoiser_predicts():
    """The formulas need signal at the last timestep for epsilon, and for nothing else."""
    schedule = PRESETS["vexpress"].scheduler
    assert StartModel().schedule(schedule) == schedule
    epsilon = StartModel(prediction="epsilon").schedule(schedule)
    assert epsilon == replace(schedule, prediction="epsilon", zero_terminal_snr=False, exact_terminal=False)
    assert float(alphas_cumprod(epsilon)[-1]) > 1e-3 > float(alphas_cumprod(schedule)[-1])
    assert StartModel(prediction="sample").schedule(schedule) == replace(schedule, prediction="sample")


def test_overrides_reach_into_sections(small):
    recipe = load_recipe(small, ["stage1.settings.steps=99", 'data.folder="y"', "data.cache_frames=true", "name=other"])
    assert (recipe.stage1.settings.steps, recipe.data.folder, recipe.data.cache_frames, recipe.name) == (
        99,
        "y",
        True,
        "other",
    )
    assert recipe.phases() == ["style", "stage1"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stage1.settings.stepps=3", r"stage1\.settings: unknown key stepps; known are .*steps"),
        ("stage4.frames=3", "unknown key stage4"),
        ("stage1.settings.steps=many", r"stage1\.settings\.steps is 'many': it must be a whole number"),
        ("stage1.settings.steps=0", r"small\.toml: stage1\.settings\.steps is 0: 1 to 1000000000 is allowed"),
        ("stage1.settings.precision=fp8", "precision is 'fp8': it must be one of no, fp16, bf16"),
        ("stage1.settings.optimizer=sgd", "optimizer is 'sgd': it must be one of adam, adamw, adamw8bit"),
        ("stage1.settings.ema_decay=1.0", "ema_decay is 1.0"),
        ("stage1.settings.betas=[2, 3]", r"stage1\.settings\.betas is 2.0: 0 to below 1 is allowed"),
        ("stage1.settings.betas=[0.9]", "betas has 1 values: 2 are allowed"),
        ("stage1.settings.weight_decay=-1", "weight_decay is -1.0: 0 to 100"),
        ("stage1.settings.num_workers=-3", "num_workers is -3: 0 to 1024"),
        ("stage1.settings.final_lr_ratio=nan", "final_lr_ratio is nan: 0 to 1"),
        ("stage1.settings.learning_rate=inf", "learning_rate is inf"),
        ("stage1.mouth_weight=nan", "mouth_weight is nan"),
        ("style.audio_drop_prob=0.9", "audio_drop_prob is 0.9: with expression_drop_prob 0.2 at most 1"),
        ("seed=1e20", r"small\.toml: seed is 1e\+20: it must be a whole number"),
        ("seed=-1", "seed is -1: 0 to 9223372036854775807"),
        (f"seed={10**20}", "seed is 100000000000000000000: 0 to"),
        ("model.preset=huge", "model.preset is 'huge': it must be one of demo, demo256, sd15, vexpress"),
        ("name=../../x", r"name is '\.\./\.\./x': it names a folder"),
        (
            "data.synthetic={ size = 65, seconds = 1.6, speakers = 1, test_speakers = 0, clips_per_speaker = 1 }",
            "size is 65: a multiple of 16",
        ),
        ("stage1.style_input_probs=[0.5, 0.2, 0.2]", "style_input_probs sums to 0.9: 1 is needed"),
        ("data=[]", r"data is \[\]: names and values are needed"),
        ("stage1.settings", "is no override: write section.key=value"),
        ("name.first=3", "name is a value, not a section"),
    ],
)
def test_mistakes_are_named(small, override, message):
    with pytest.raises(PortraitError, match=message):
        load_recipe(small, [override])


def test_files_that_are_no_recipe_are_named(tmp_path):
    with pytest.raises(PortraitError, match=r"none\.toml: no such recipe .* recipes/"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(PortraitError, match="bad.toml: not TOML"):
        load_recipe(written(tmp_path / "bad.toml", "steps = ["))
    (tmp_path / "bytes.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(PortraitError, match="bytes.toml: not TOML"):
        load_recipe(tmp_path / "bytes.toml")
    with pytest.raises(PortraitError, match="deep.toml: not TOML"):
        load_recipe(written(tmp_path / "deep.toml", "a = " + "[" * 10_000 + "]" * 10_000))
    with pytest.raises(PortraitError, match="missing 1 required: 'data'"):
        load_recipe(written(tmp_path / "empty.toml", 'name = "empty"'))


def test_a_run_may_go_on_with_other_reports_but_not_with_other_learning(small):
    first = load_recipe(small)
    told = replace(
        first, style=replace(first.style, settings=replace(first.style.settings, log_steps=1, num_workers=8))
    )
    other = replace(first, style=replace(first.style, temperature=0.5))
    assert same_run(run_config(first, "style"), run_config(told, "style"))
    assert not same_run(run_config(first, "style"), run_config(other, "style"))
    assert same_run(run_config(first, "stage1"), run_config(other, "stage1"))  # another phase's business


def test_the_scaled_recipe_keeps_its_phases_and_shrinks_its_steps():
    recipe = load_recipe(RECIPES / "demo.toml")
    small = scaled(recipe, 0.01)
    assert small.phases() == recipe.phases()
    for name in small.phases():
        assert 1 <= getattr(small, name).settings.steps <= 0.02 * getattr(recipe, name).settings.steps


def test_the_rate_rises_and_falls_in_closed_form():
    settings = TrainSettings(steps=110, learning_rate=1.0, warmup_steps=10, final_lr_ratio=0.2)
    assert settings.lr_at(0) == pytest.approx(0.1)
    assert settings.lr_at(9) == settings.lr_at(10) == pytest.approx(1.0)
    assert settings.lr_at(60) == pytest.approx(0.6)  # half way down
    assert settings.lr_at(110) == pytest.approx(0.2)
    assert replace(settings, final_lr_ratio=1.0).lr_at(80) == pytest.approx(1.0)


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_scale_is_above_zero(small, factor):
    with pytest.raises(PortraitError, match="--scale is .*: it must be above 0"):
        scaled(load_recipe(small), factor)


@pytest.mark.parametrize("path", sorted(OLD_RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_of_version_0_1_0_are_read_as_before(path):
    """With the earlier names of the keys; the bundled recipes are the same ones under the present names."""
    assert load_recipe(path) == load_recipe(RECIPES / path.name)
    assert not set(ALIASES) & set(re.findall(r"\w+(?= = )", (RECIPES / path.name).read_text()))


def test_overrides_with_earlier_names_are_read_too(small):
    recipe = load_recipe(small, ["stage1.settings.batch=3", "stage1.unconditional=0.3", "show.frames=7"])
    assert (recipe.stage1.settings.batch_size, recipe.stage1.cond_drop_prob, recipe.sample_video.frames) == (3, 0.3, 7)
    small.write_text(small.read_text().replace("steps = 5", "steps = 5, batch = 2, batch_size = 3"))
    with pytest.raises(PortraitError, match="style.settings: batch_size is given twice, once under an earlier name"):
        load_recipe(small)


def test_the_built_in_model_was_trained_by_the_bundled_recipe_under_its_earlier_names():
    saved = read_metadata(BUILTIN_MODEL)["training"]
    assert {"unconditional", "shake", "singles"} < json.loads(saved)["phase"].keys()
    recipe = load_recipe(RECIPES / "demo.toml")
    assert same_run(saved, run_config(recipe, "stage3")) and not same_run(saved, run_config(recipe, "stage2"))
    other = replace(recipe, stage3=replace(recipe.stage3, keypoint_jitter=0.002))
    assert not same_run(saved, run_config(other, "stage3"))
    later = replace(recipe, stage3=replace(recipe.stage3, region_margin=0.1))  # a key that the saved one does not have
    assert not same_run(saved, run_config(later, "stage3"))


def test_the_moving_average_is_short_at_the_start():
    settings = TrainSettings(steps=100, ema_decay=0.9)
    assert [settings.ema_decay_at(step) for step in (0, 8, 10**6)] == [pytest.approx(0.1), 0.5, 0.9]
