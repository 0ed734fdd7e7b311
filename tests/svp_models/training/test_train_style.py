"""Training of the style extractor: what a batch holds, what it learns from it, and how that is measured."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.style_extractor import StyleExtractor
from svp_portrait.svp_models.training import train_style
from svp_portrait.svp_models.training.config import StylePhase, TrainSettings
from svp_portrait.svp_models.training.dataset import Expressions, PredictionError, SampleIndex, stack
from svp_portrait.svp_models.training.train_style import (
    Priors,
    StyleTraining,
    choose_takes,
    clustering,
    neutral_face_emotion_accuracy,
    sigma_figures,
    style_classes,
    style_priors,
)
from svp_portrait.svp_models.training.trainer import train

CONFIG = StylePhase(TrainSettings(steps=2, batch_size=8, warmup_steps=1), emotions=2, takes=2, min_frames=10)
PEOPLE = [[[who * 100 + mood * 10 + take for take in range(3)] for mood in range(4)] for who in range(6)]


def batch_of(phase, step=0, places=8):
    return stack([phase.sample(SampleIndex(0, "style", step, place, places)) for place in range(places)])


def test_a_batch_holds_positives_and_both_kinds_of_hard_negatives():
    batch = choose_takes(PEOPLE, 48, 4, 2, np.random.default_rng(0))
    assert len(batch) == 48 and len({take.label for take in batch}) == 24
    for first, second in zip(batch[::2], batch[1::2], strict=True):
        assert first.label == second.label and first.clip != second.clip and not first.alone
        assert first.clip // 10 == second.clip // 10  # same person, same emotion
    people = [take.clip // 100 for take in batch[::2]]
    assert all(people.count(who) == 4 for who in set(people))  # the same person in other emotions
    moods = [take.clip // 10 % 10 for take in batch[::2]]
    assert all(moods.count(mood) == 6 for mood in range(4))  # other people in the same emotion


def test_a_class_with_one_clip_is_cut_into_stretches_that_do_not_overlap(config, train_clips, test_clips):
    phase = StyleTraining(StyleExtractor(config.style), train_clips, test_clips, CONFIG)
    clips = style_classes(train_clips.clips)
    assert all(len(each) == 1 for classes in clips for each in classes)  # three clips in three emotions each
    batch = batch_of(phase)
    assert batch["mask"].sum(1).min() >= 10 and batch["mask"].sum(1).max() <= 20  # halves of 40 frames
    assert torch.equal(batch["label"][::2], batch["label"][1::2])


def test_never_both_inputs_are_dropped(config, train_clips, test_clips):
    dropping = StylePhase(CONFIG.settings, 2, 2, audio_drop_prob=0.5, expression_drop_prob=0.5, min_frames=10)
    phase = StyleTraining(StyleExtractor(config.style), train_clips, test_clips, dropping)
    heard, seen = [], []
    for step in range(6):
        batch = batch_of(phase, step)
        heard += batch["audio"].flatten(1).any(1).tolist()
        seen += batch["expression"].flatten(1).any(1).tolist()
    assert all(one != other for one, other in zip(heard, seen, strict=True))
    assert any(heard) and any(seen)


def test_a_mixed_voice_keeps_its_changes_and_takes_the_mean_of_another_clip_of_that_emotion(
    config, train_clips, test_clips
):
    mixing = StylePhase(
        CONFIG.settings, 2, 2, audio_drop_prob=0.0, expression_drop_prob=0.0, voice_mix_prob=1.0, min_frames=20
    )
    phase = StyleTraining(StyleExtractor(config.style), train_clips, test_clips, mixing)
    clips = train_clips.clips
    batch = batch_of(phase, places=4)
    for place in range(4):
        take = choose_takes(phase.by_identity, 4, 2, 2, SampleIndex(0, "style", 0, place, 4).shared_rng())[place]
        rows = batch["audio"][place][batch["mask"][place]]
        sound = clips.features(take.clip)
        cut = [index for index in range(len(sound) - len(rows) + 1)
               if torch.allclose(rows - rows[0], sound[index : index + len(rows)] - sound[index], atol=1e-5)]  # fmt: skip
        moved = (rows - sound[cut[0] : cut[0] + len(rows)])[0] + sound.mean(0)
        means = {other: clips.features(other).mean(0) for other in range(len(clips.info))}
        lenders = [other for other, mean in means.items() if torch.allclose(moved, mean, atol=1e-5)]
        assert len(lenders) == 1 and clips.info[lenders[0]].emotion == clips.info[take.clip].emotion


class Labelled:
    """Two people with a neutral and a happy clip each: voices are all 1 and 2, faces 10 and 20, and 1 more of the second person."""

    def __init__(self, emotions=("neutral", "happy")):
        named = [(who, emotion) for who in "ab" for emotion in emotions]
        self.info = [SimpleNamespace(identity=who, emotion=emotion, frames=20, group=who) for who, emotion in named]
        self.fps = 25.0

    def features(self, clip):
        return torch.full((20, 1920), 1.0 + (self.info[clip].emotion == "happy"))

    def expression(self, clip):
        neutral, second = clip % 2 == 0, clip >= 2
        return np.full((15 if neutral else 20, 64), (10.0 if neutral else 20.0) + second, np.float32)


def test_a_neutral_face_says_an_emotion_only_by_its_voice(config):
    settings = replace(CONFIG, audio_drop_prob=0.0, expression_drop_prob=0.3, neutral_face_prob=1.0)
    clips = Expressions(Labelled())
    batch = batch_of(StyleTraining(StyleExtractor(config.style), clips, clips, settings))
    for audio, expression, mask in zip(*(batch[key] for key in ("audio", "expression", "mask")), strict=True):
        assert len(audio[mask].unique()) == 1
        face = expression[mask].unique().tolist()
        assert face in ([0.0], [10.0], [11.0])  # missing, or the neutral one of a person, whose clip is shorter
    assert {1.0, 2.0} == set(batch["audio"][:, 0, 0].tolist())


def test_a_code_need_not_rebuild_the_statistics_that_a_neutral_face_hides(config, train_clips, test_clips, monkeypatch):
    settings = replace(
        CONFIG, audio_drop_prob=0.5, neutral_face_prob=1.0, expression_drop_prob=0.0, statistics_weight=1.0
    )
    neutral = {info.identity: [number] for number, info in enumerate(train_clips.clips.info)}
    monkeypatch.setattr(train_style, "neutral_clips", lambda clips: neutral)
    batch = batch_of(StyleTraining(StyleExtractor(config.style), train_clips, test_clips, settings))
    audible = batch["audio"].flatten(1).any(1)  # only with both inputs another face stands in
    assert torch.equal(batch["statistics"][:, 0].isnan(), audible) and 0 < audible.sum() < len(audible)


def test_neutral_faces_need_neutral_clips(config):
    clips = Expressions(Labelled(("sad", "happy")))
    with pytest.raises(
        PortraitError, match="neutral_face_prob is 0.5: no clip of the data is labelled neutral: set it to 0"
    ):
        StyleTraining(StyleExtractor(config.style), clips, clips, replace(CONFIG, neutral_face_prob=0.5))


class OneInput(torch.nn.Module):
    """A style extractor that takes the mean of one of its inputs for the style."""

    max_frames = 20

    def __init__(self, of: str):
        super().__init__()
        self.of, self.unused = of, torch.nn.Parameter(torch.zeros(1))

    def forward(self, audio, expression, mask):
        rows = audio if self.of == "voice" else expression
        mean = (rows * mask[..., None]).sum(1) / mask.sum(1)[:, None]
        return mean[:, :1], torch.ones(len(mean), 1)


def test_emotions_under_a_neutral_face_are_recognised_by_an_extractor_that_uses_the_voice():
    clips = Expressions(Labelled())
    assert (
        neutral_face_emotion_accuracy(OneInput("voice"), clips) == 1
        and neutral_face_emotion_accuracy(OneInput("face"), clips) == 0
    )
    assert np.isnan(neutral_face_emotion_accuracy(OneInput("voice"), Expressions(Labelled(("sad", "happy")))))


def test_training_lowers_the_loss_and_touches_only_the_extractor(model, train_clips, test_clips, tmp_path):
    before = {name: value.clone() for name, value in model.networks.state_dict().items()}
    settings = TrainSettings(steps=80, batch_size=8, learning_rate=5e-3, warmup_steps=1, ema_decay=0.0)
    phase = StyleTraining(model.networks.style_extractor, train_clips, test_clips, CONFIG)
    first = phase.module(batch_of(phase, 1000))[0].item()
    train(phase, settings, tmp_path, 0, "{}", lambda line: None)
    assert phase.module(batch_of(phase, 1000))[0].item() < 0.8 * first
    moved = {name.split(".")[0] for name, value in model.networks.state_dict().items() if not value.equal(before[name])}
    assert moved == {"style_extractor"}


def test_validation_prints_the_clustering_of_every_input(config, train_clips, test_clips):
    two = Expressions(test_clips.clips)  # with one clip an emotion nothing can be said
    phase = StyleTraining(StyleExtractor(config.style), train_clips, two, CONFIG)
    assert phase.validate() == {}

    class Doubled:
        """Every clip twice, the second time with a little noise."""

        def __init__(self, clips):
            self.clips, self.info = clips, [*clips.info, *clips.info]

        def features(self, clip):
            return self.clips.features(clip % len(self.clips.info))

        def expression(self, clip):
            noise = np.random.default_rng(clip).normal(0, 0.01, (40, 64))
            return (self.clips.expression(clip % len(self.clips.info)) + noise).astype(np.float32)

    figures = StyleTraining(StyleExtractor(config.style), train_clips, Expressions(Doubled(test_clips.clips)), CONFIG)
    found = figures.validate()
    assert set(found) == {"clustering_both", "clustering_expression"}  # heard alone the doubles are one point each
    assert all(value > 1 for value in found.values())
    assert set(clustering(figures.module.extractor, figures.test)["both"]) <= {
        info.emotion for info in test_clips.clips.info
    }


def test_without_their_weights_nothing_of_statistics_and_anchor_is_there(config, train_clips, test_clips):
    torch.manual_seed(0)
    extractor = StyleExtractor(config.style)
    plain = StyleTraining(copy.deepcopy(extractor), train_clips, test_clips, CONFIG)
    weighted = replace(CONFIG, statistics_weight=1.0, anchor_weight=1.0)
    with_all = StyleTraining(copy.deepcopy(extractor), train_clips, test_clips, weighted)
    assert {name.split(".")[0] for name in plain.module.state_dict()} == {"extractor"}
    batch, larger = batch_of(plain), batch_of(with_all)
    assert set(larger) - set(batch) == {"statistics"}
    assert all(larger[name].equal(value) for name, value in batch.items())  # the same samples in both
    loss, values = plain.module(batch)
    assert set(values) == {"sigma", "spread"}
    full, others = with_all.module(larger)
    torch.testing.assert_close(full, loss + others["statistics"])
    assert others["anchor"] < 1e-10  # nothing has moved yet


def test_codes_learn_the_statistics_of_their_clips(config, train_clips, test_clips, tmp_path):
    torch.manual_seed(0)
    settings = TrainSettings(steps=150, batch_size=8, learning_rate=2e-3, warmup_steps=1, ema_decay=0.0)
    weighted = replace(CONFIG, statistics_weight=10.0, audio_drop_prob=0.0, expression_drop_prob=0.0)
    phase = StyleTraining(StyleExtractor(config.style), train_clips, test_clips, weighted)
    batch = batch_of(phase, 1000)
    first = phase.module(batch)[1]["statistics"].item()
    train(phase, settings, tmp_path, 0, "{}", lambda line: None)
    assert phase.module(batch)[1]["statistics"].item() < 0.8 * first
    figures = phase.validate()
    assert {"expression_mean_r2_both", "blink_rate_r2_audio", "head_speed_r2_expression", "sigma_error_short"} <= set(
        figures
    )
    assert all(np.isfinite(value) for value in figures.values())


def test_the_anchor_keeps_the_codes_where_they_were(config, train_clips, test_clips, tmp_path):
    def moved(weight):
        torch.manual_seed(0)
        extractor = StyleExtractor(config.style)
        before = style_priors(extractor, test_clips, range(6)).mu
        settings = TrainSettings(steps=40, batch_size=8, learning_rate=3e-3, warmup_steps=1, ema_decay=0.0)
        phase = replace(CONFIG, statistics_weight=1.0, anchor_weight=weight)
        training = StyleTraining(extractor, train_clips, test_clips, phase)
        first = None if training.module.start is None else copy.deepcopy(training.module.start.state_dict())
        train(training, settings, tmp_path / f"{weight}", 0, "{}", lambda line: None)
        if first is not None:
            kept = training.module.start.state_dict()
            assert all(kept[name].equal(value) for name, value in first.items()) and not training.module.start.training
        return np.linalg.norm(style_priors(extractor, test_clips, range(6)).mu - before)

    assert moved(100.0) < 0.3 * moved(0.0)


def test_priors_read_the_first_frames_of_the_inputs_that_are_named(config, train_clips, test_clips):
    extractor = StyleExtractor(config.style).eval()
    rows, limit = slice(0, 10), config.style.max_frames
    sound, face = (torch.zeros(1, limit, size) for size in (config.style.audio_size, 64))
    sound[0, rows] = test_clips.clips.features(2)[rows]
    with torch.no_grad():
        mu, sigma = extractor(sound, face, torch.arange(limit)[None] < 10)
    found = style_priors(extractor, test_clips, [2], "audio", 10)
    np.testing.assert_allclose(found.mu, mu.numpy(), atol=1e-6)
    np.testing.assert_allclose(found.sigma, sigma.numpy(), atol=1e-6)


def test_sigma_is_right_where_it_is_large_for_means_that_are_far_off():
    far = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    whole = Priors(np.zeros((3, 2)), np.full((3, 2), 0.1))
    honest, blind = Priors(far, np.abs(far)), Priors(far, np.abs(far[::-1]))
    found = sigma_figures(whole, honest, blind)
    assert found["sigma"] == pytest.approx(0.1) and found["sigma_audio"] == pytest.approx(1.0)
    assert found["sigma_error_audio"] == pytest.approx(1.0) and found["sigma_error_short"] < 0


def test_the_reading_error_is_measured_and_given_back():
    rng = np.random.default_rng(0)
    true = [rng.standard_normal((30, 64)) for _ in range(400)]
    known = PredictionError(np.linspace(0.02, 0.2, 64), np.linspace(0.1, 0.05, 64))
    measured = PredictionError.between([known.add_to(each, rng) for each in true], true)
    np.testing.assert_allclose(measured.noise, known.noise, rtol=0.1)
    # the mean of 30 frames' noise counts as bias too
    np.testing.assert_allclose(measured.bias, np.hypot(known.bias, known.noise / np.sqrt(30)), rtol=0.15)


SCRIPT = """
import sys
from pathlib import Path

import torch

from svp_portrait.svp_models.networks.style_extractor import StyleExtractor
from svp_portrait.svp_models.config import StyleConfig
from svp_portrait.svp_models.training.trainer import train
from svp_portrait.svp_models.training.config import TrainSettings
from svp_portrait.svp_models.training.train_style import StyleModule


class Codes:
    name = "style"

    def __init__(self):
        torch.manual_seed(0)
        config = StyleConfig(audio_size=4, expression_size=4, style_size=8, layers=1, heads=2, feed_forward=8, dropout=0.0)
        self.module = StyleModule(StyleExtractor(config), 0.1)

    def sample(self, index):
        rng = index.rng()
        rows = [torch.from_numpy(rng.standard_normal((6, 4))).float() for _ in range(2)]
        mask, seed = torch.ones(6, dtype=torch.bool), torch.tensor(int(rng.integers(2**40)))
        return {"audio": rows[0], "expression": rows[1], "mask": mask, "label": torch.tensor(index.position // 2), "seed": seed}


settings = TrainSettings(steps=4, batch_size=8, learning_rate=0.01, warmup_steps=1, ema_decay=0.0, log_steps=1)
train(Codes(), settings, Path(sys.argv[1]), 0, "{}", lambda line: None)
"""


@pytest.mark.slow
def test_processes_see_the_negatives_of_one_another(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    alone = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, str(script), str(tmp_path / "two")], check=True, timeout=200, env=alone)
    subprocess.run([sys.executable, str(script), str(tmp_path / "one")], check=True, timeout=100, env=alone)
    one, two = ([json.loads(line) for line in (tmp_path / name / "log.jsonl").open()] for name in ("one", "two"))
    for alone, shared in zip(one, two, strict=True):
        assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert shared["gradient"] == pytest.approx(alone["gradient"], rel=1e-4)
