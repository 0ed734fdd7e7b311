"""The built-in model for portraits of 256 pixels: what is in the file, and that it is nearer to true frames than a warp."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from svp_portrait.svp_models.checkpoints.model_file import PORTRAIT_MODEL, load_model
from svp_portrait.svp_models.checkpoints.portrait_reader import built_in_scorer
from svp_portrait.svp_models.diffusion.style import sample_style
from svp_portrait.svp_models.evaluation.baselines import warped_expression, warped_portrait
from svp_portrait.svp_models.evaluation.evaluator import Evaluator, audio_of, true_track
from svp_portrait.svp_models.evaluation.measure import measure_clip
from svp_portrait.svp_models.evaluation.protocols import AS_SHIPPED
from svp_portrait.svp_models.presets import PRESETS
from svp_portrait.svp_models.synthetic.clips import DATA_VERSIONS, neutral_portrait
from svp_portrait.svp_models.synthetic.performance import classify_emotion
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.training.face_config import load_face_recipe

RECIPE = Path(__file__).parents[3] / "recipes" / "demo256.toml"
FRAMES, FPS = 30, 25.0


def test_the_file_is_small_and_says_how_it_was_made():
    model, recipe = load_model(PORTRAIT_MODEL), load_face_recipe(RECIPE)
    assert PORTRAIT_MODEL.stat().st_size <= 60e6
    assert asdict(model.config) == asdict(replace(PRESETS["demo256"], steps=recipe.steps))
    assert model.metadata["data_version"] == DATA_VERSIONS[recipe.data.version]
    trained = json.loads(model.metadata["training"])
    assert trained == json.loads(json.dumps(asdict(replace(recipe, start=trained["start"]))))
    assert int(model.metadata["step"]) > 0 and model.metadata["seed"] == str(recipe.seed)


@pytest.fixture(scope="module")
def evaluator():
    return Evaluator(load_model(PORTRAIT_MODEL), AS_SHIPPED, lambda: None, built_in_scorer(), version=2)


@pytest.mark.slow
def test_by_voice_and_style_it_is_nearer_to_truth_than_the_warped_portrait(evaluator):
    found = []
    for number, emotion in enumerate(("happy", "angry", "sad")):
        who = speaker(200 + number, "test")
        clip = evaluator.make(who, emotion, 5, FRAMES / FPS, FPS)
        style = sample_style(evaluator.prior_of(evaluator.make(who, emotion, 6, 1.6, FPS)), 0)
        made = evaluator.generate(clip, clip, audio_of(clip), style, FRAMES, 0)
        warped = warped_portrait(clip.images[0], clip.head_keypoints[0], clip.head_keypoints)
        assert (
            np.abs(made[:, :40, :40].astype(int) - clip.images[0, :40, :40]).mean() < 1
        )  # the portrait's own pixels stay
        truth = replace(evaluator.read(clip.images), landmarks=clip.landmarks.astype(np.float32))
        tracks = [evaluator.read(frames) for frames in (warped, made)]
        figures = [
            measure_clip(frames, clip.images, track, truth, FPS).figures
            for frames, track in zip((warped, made), tracks, strict=True)
        ]
        found.append([[row[name] for name in ("mouth_psnr", "mouth_corr", "psnr", "ssim")] for row in figures])
    means = np.mean(found, axis=0)
    assert means[1, 0] > means[0, 0] + 1, means
    assert means[1, 1] > max(0.8, means[0, 1] + 0.2), means
    assert means[1, 2] > means[0, 2] + 0.5 and means[1, 3] > means[0, 3] + 0.015, means


@pytest.mark.slow
def test_with_the_expression_given_lids_follow_and_the_background_stays(evaluator):
    """Beside the portrait that is warped to the same expression."""
    clip = evaluator.make(speaker(202, "test"), "happy", 5, FRAMES / FPS, FPS)
    assert clip.states.blink.std(0).max() > 0.1  # somebody blinks
    track, first = true_track(clip, FRAMES), clip.head_keypoints[0]
    made = evaluator.generate(clip, clip, audio_of(clip), None, FRAMES, 0, track)
    warped = warped_expression(evaluator.model.face_analyzer, clip.images[0], first, clip.head_keypoints, track)
    truth = evaluator.read(clip.images)
    model, baseline = (
        measure_clip(frames, clip.images, evaluator.read(frames), truth, FPS).figures for frames in (made, warped)
    )
    assert model["lid_corr"] > 0.9
    assert model["eyes_psnr"] > baseline["eyes_psnr"]
    assert model["mouth_psnr"] > baseline["mouth_psnr"] + 1
    assert model["still_flicker"] < 0.5 * baseline["still_flicker"]


@pytest.mark.slow
def test_a_strangers_style_brings_its_emotion(evaluator):
    """Onto a relaxed portrait; the style of another emotion does not."""
    found = []
    for number, emotion in enumerate(("happy", "angry", "disgusted", "surprised")):
        who, stranger = speaker(300 + number, "test"), speaker(400 + number, "test")
        clip = evaluator.make(who, emotion, 5, 0.5, FPS)
        for shown in (emotion, "sad"):
            style = sample_style(evaluator.prior_of(evaluator.make(stranger, shown, 6, 1.6, FPS)), 0)
            portrait = neutral_portrait(who, evaluator.size, evaluator.version)
            made = evaluator.generate(portrait, clip, audio_of(clip), style, len(clip.images), 0)
            found.append(classify_emotion(evaluator.expression(made))[0] == emotion)
    assert sum(found[::2]) >= 3 and sum(found[1::2]) == 0, found
