from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.emotion_bank import find_emotion_bank
from svp_portrait.svp_models.checkpoints.model_file import save_model
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.diffusion.style import emotion_prior
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.training.recipe import RECIPES
from svp_portrait.svp_models.training.train_emotion_bank import (
    BankSettings,
    CodeSampler,
    LabelledPriors,
    fit_emotion_bank,
    labelled_priors,
    load_bank_recipe,
    named_share,
)

HAPPY, SAD, SIZE = 5, 6, 6


def priors(people: int = 40, seed: int = 0) -> LabelledPriors:
    """Happy ones go along the first axis, sad ones along the second; people differ along the third."""
    generator = torch.Generator().manual_seed(seed)
    mus, emotions, strengths = [], [], []
    for _ in range(people):
        own = torch.zeros(SIZE)
        own[2] = torch.randn(1, generator=generator)[0]
        for emotion, axis in ((0, 0), (HAPPY, 0), (SAD, 1)):
            for strength in (0.5, 1.0) if emotion else (0.0,):
                mu = own.clone()
                mu[axis] += 10 * strength
                mus.append(mu)
                emotions.append(emotion)
                strengths.append(strength)
    mu = torch.stack(mus)
    return LabelledPriors(mu, torch.full_like(mu, 0.3), torch.tensor(emotions), torch.tensor(strengths))


@pytest.fixture(scope="module")
def bank():
    settings = BankSettings(steps=1000, batch_size=128, entries=24, query_size=16)
    return fit_emotion_bank(priors(), settings, 0, lambda line: None)


def test_means_and_deviations_are_those_of_the_data(bank):
    prior = emotion_prior(bank, "space", {"happy": 1.0}, 1.0)
    assert prior.mu[:2].tolist() == pytest.approx([10, 0], abs=0.6)
    # 0.3 within clips; the third number also differs between people by 1.
    assert prior.sigma[3:].tolist() == pytest.approx([0.3] * 3, rel=0.4)
    assert float(prior.sigma[2]) == pytest.approx((1 + 0.3**2) ** 0.5, rel=0.3)
    rest = emotion_prior(bank, "space", {"sad": 1.0}, 0.0)
    assert rest.mu[:2].tolist() == pytest.approx([0, 0], abs=0.5)
    assert named_share(bank, priors(seed=1)) > 0.99


def test_it_knows_the_emotions_of_the_data(bank):
    assert bank.config.emotions == ("neutral", "happy", "sad")
    with pytest.raises(PortraitError, match="has no emotion 'fear': choose one of neutral, happy, sad"):
        emotion_prior(bank, "space", {"fear": 1.0}, 1.0)


def test_strength_rises_between_the_labels_and_beyond(bank):
    along = [float(emotion_prior(bank, "s", {"happy": 1.0}, value).mu[0]) for value in np.linspace(0, 1.5, 13)]
    assert (np.diff(along) > 0).all()
    assert along[2] == pytest.approx(2.5, abs=1) and along[4] == pytest.approx(5, abs=1)


def test_the_same_seed_gives_the_same_bank():
    settings = BankSettings(steps=5, entries=8)
    one, other, third = (fit_emotion_bank(priors(), settings, seed, lambda line: None) for seed in (1, 1, 2))
    assert torch.equal(one.entries, other.entries) and torch.equal(one.log_deviation, other.log_deviation)
    assert not torch.equal(one.entries, third.entries)


def test_emotions_are_equally_frequent_and_strengths_lie_between_the_labels():
    sampler = CodeSampler(priors(), between=0.5)
    codes, emotions, strengths = sampler.batch(3000, np.random.default_rng(0), torch.Generator().manual_seed(0))
    assert codes.shape == (3000, SIZE)
    for emotion in (0, HAPPY, SAD):
        assert (emotions == emotion).float().mean() == pytest.approx(1 / 3, abs=0.05)
    happy = strengths[emotions == HAPPY]
    assert float(strengths[emotions == 0].max()) == 0
    assert ((happy == 0.5) | (happy == 1)).float().mean() == pytest.approx(0.5, abs=0.06)
    torch.testing.assert_close(codes[emotions == HAPPY][:, 0], 10 * happy, atol=2.0, rtol=0)


@pytest.mark.parametrize(
    ("kept", "message"), [((HAPPY, SAD), "no clip of the data set is neutral"), ((0,), "all clips")]
)
def test_what_the_data_lacks_is_said(kept, message):
    whole = priors(4)
    rows = torch.isin(whole.emotion, torch.tensor(kept))
    part = LabelledPriors(*(getattr(whole, name)[rows] for name in ("mu", "sigma", "emotion", "strength")))
    with pytest.raises(PortraitError, match=message):
        CodeSampler(part, 0.5)


def test_priors_are_those_of_the_model(model, train_clips):
    settings = BankSettings(segments=3, min_frames=10)
    found = labelled_priors(model, train_clips, settings, np.random.default_rng(0))
    assert found.mu.shape == found.sigma.shape == (3 * len(train_clips.clips.info), 8)
    first = train_clips.clips.info[0]
    assert found.emotion[:3].unique().numel() == 1
    expected = 0.0 if first.emotion == "neutral" else settings.strengths[first.intensity - 1]
    assert found.strength[:3].tolist() == pytest.approx([expected] * 3)


def test_strengths_rise_to_1():
    for strengths in ((0.7, 0.5, 1.0), (0.2, 0.5, 0.9)):
        with pytest.raises(PortraitError, match="rising ones that end with 1"):
            BankSettings(strengths=strengths)


def test_the_command_writes_a_bank_that_belongs_to_the_model(tmp_path, model, dataset, capsys):
    save_model(tmp_path / "model.safetensors", model, {})
    changes = ["data.synthetic.speakers=3", "data.predict_expressions=false", "bank.steps=20", "bank.entries=8"]
    changes += [f"model.file={tmp_path / 'model.safetensors'}", f"data.folder={dataset}"]
    output = tmp_path / "bank.safetensors"
    arguments = ["train", "emotion-bank", "--run", str(tmp_path / "run")]
    assert main(lambda folders, progress: [], arguments) == 1
    assert "svp train emotion-bank needs --output" in capsys.readouterr().err
    sets = [part for change in changes for part in ("--set", change)]
    assert main(lambda folders, progress: [], [*arguments, "--output", str(output), *sets]) == 0
    assert find_emotion_bank(model.style_space, [output]) is not None


def test_the_bundled_recipe_is_of_the_built_in_model():
    recipe = load_bank_recipe(RECIPES / "emotion_bank.toml")
    assert recipe.model.file == "built-in" and recipe.data.synthetic.takes > 0
