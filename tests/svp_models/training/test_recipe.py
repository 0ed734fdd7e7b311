"""Recipes: the bundled ones are valid, mistakes are named, and what a run depends on is told from what it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.training.config import TrainSettings, load_recipe, resolved, same_run, scaled

RECIPES = Path(__file__).parents[3] / "recipes"


def written(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def small(tmp_path):
    text = '[data]\nfolder = "x"\n[style]\nsettings = { steps = 5 }\n[stage1]\ntrains = ["spatial"]\nsettings = { steps = 7 }\n'
    return written(tmp_path / "small.toml", 'name = "small"\n' + text)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_bundled_recipes_are_valid(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert load_recipe(path, ["seed=3"]).seed == 3


def test_the_full_recipe_freezes_what_the_paper_freezes():
    recipe = load_recipe(RECIPES / "svp.toml")
    assert recipe.phases() == ["style", "stage1", "stage2", "stage3"]
    assert recipe.stage1.trains == ("spatial", "reference", "guider") and recipe.stage1.frames == 1
    assert not (recipe.stage1.temporal or recipe.stage1.audio or recipe.stage1.style)
    assert recipe.stage2.trains == ("temporal", "audio", "audio_projection") and recipe.stage2.frames == 8
    assert recipe.stage2.audio and not recipe.stage2.style
    assert recipe.stage3.trains == ("style", "style_projection") and recipe.stage3.style
    assert recipe.stage3.cross_emotion > 0 and not recipe.stage3.deterministic


def test_overrides_reach_into_sections(small):
    recipe = load_recipe(small, ["stage1.settings.steps=99", 'data.folder="y"', "data.decoded=true", "name=other"])
    assert (recipe.stage1.settings.steps, recipe.data.folder, recipe.data.decoded, recipe.name) == (
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
        ("stage1.settings.average=1.0", "average is 1.0"),
        ("stage1.settings.betas=[2, 3]", r"stage1\.settings\.betas is 2.0: 0 to below 1 is allowed"),
        ("stage1.settings.betas=[0.9]", "betas has 1 values: 2 are allowed"),
        ("stage1.settings.weight_decay=-1", "weight_decay is -1.0: 0 to 100"),
        ("stage1.settings.workers=-3", "workers is -3: 0 to 1024"),
        ("stage1.settings.final_rate=nan", "final_rate is nan: 0 to 1"),
        ("stage1.settings.learning_rate=inf", "learning_rate is inf"),
        ("stage1.mouth_weight=nan", "mouth_weight is nan"),
        ("style.drop_audio=0.9", "drop_audio is 0.9: with drop_expression 0.2 at most 1"),
        ("seed=1e20", r"small\.toml: seed is 1e\+20: it must be a whole number"),
        ("seed=-1", "seed is -1: 0 to 9223372036854775807"),
        (f"seed={10**20}", "seed is 100000000000000000000: 0 to"),
        ("model.preset=huge", "model.preset is 'huge': it must be one of demo, sd15, vexpress"),
        ("name=../../x", r"name is '\.\./\.\./x': a folder is called so"),
        (
            "data.synthetic={ size = 65, seconds = 1.6, speakers = 1, test_speakers = 0, clips_per_speaker = 1 }",
            "size is 65: a multiple of 16",
        ),
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
    told = replace(first, style=replace(first.style, settings=replace(first.style.settings, log_steps=1, workers=8)))
    other = replace(first, style=replace(first.style, temperature=0.5))
    assert same_run(resolved(first, "style"), resolved(told, "style"))
    assert not same_run(resolved(first, "style"), resolved(other, "style"))
    assert same_run(resolved(first, "stage1"), resolved(other, "stage1"))  # another phase's business


def test_the_scaled_recipe_keeps_its_phases_and_shrinks_its_steps():
    recipe = load_recipe(RECIPES / "demo.toml")
    small = scaled(recipe, 0.01)
    assert small.phases() == recipe.phases()
    for name in small.phases():
        assert 1 <= getattr(small, name).settings.steps <= 0.02 * getattr(recipe, name).settings.steps


def test_the_rate_rises_and_falls_in_closed_form():
    settings = TrainSettings(steps=110, learning_rate=1.0, warmup=10, final_rate=0.2)
    assert settings.rate(0) == pytest.approx(0.1)
    assert settings.rate(9) == settings.rate(10) == pytest.approx(1.0)
    assert settings.rate(60) == pytest.approx(0.6)  # half way down
    assert settings.rate(110) == pytest.approx(0.2)
    assert replace(settings, final_rate=1.0).rate(80) == pytest.approx(1.0)


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_scale_is_above_zero(small, factor):
    with pytest.raises(PortraitError, match="--scale is .*: it must be above 0"):
        scaled(load_recipe(small), factor)
