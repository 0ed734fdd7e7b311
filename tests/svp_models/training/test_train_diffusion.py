"""The stages: who learns, what a batch shows, and how an error counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.config import SchedulerConfig
from svp_portrait.svp_models.diffusion.noise_schedule import alphas_cumprod
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.model import parameter_group
from svp_portrait.svp_models.training.config import StagePhase, TrainSettings
from svp_portrait.svp_models.training.dataset import SampleIndex, stack
from svp_portrait.svp_models.training.train_diffusion import StageTraining, clip_noise, snr_weight
from svp_portrait.svp_models.training.trainer import train

SETTINGS = TrainSettings(steps=2, batch_size=2, learning_rate=0.05, warmup_steps=1, ema_decay=0.0)
STAGE = StagePhase(SETTINGS, ("spatial",), frames=4, audio=True, style=True, cond_drop_prob=0.0, reference_margin=0)


def stage(model, clips, test, config=STAGE, show=None) -> StageTraining:
    return StageTraining("stage", model, clips, test, config, 0, show)


def batch_of(phase: StageTraining, step: int = 0, places: int = 2):
    return stack([phase.sample(SampleIndex(0, "stage", step, place, places)) for place in range(places)])


def awake(model) -> None:
    """Layers that start at zero moved away from it, so that gradients reach what lies before them."""
    for parameter in model.networks.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)


@pytest.mark.parametrize(
    "settings",
    [
        {
            "trainable": ("spatial", "reference", "guider"),
            "frames": 1,
            "audio": False,
            "style": False,
            "temporal": False,
        },
        {"trainable": ("temporal", "audio", "audio_projection"), "frames": 4, "style": False},
        {"trainable": ("style", "style_projection")},
    ],
    ids=["stage1", "stage2", "stage3"],
)
def test_a_stage_moves_its_parameters_and_no_other(model, train_clips, test_clips, tmp_path, settings):
    awake(model)
    phase = stage(model, train_clips, test_clips, replace(STAGE, **settings))
    before = {name: value.clone() for name, value in model.networks.state_dict().items()}
    of_vae = {name: value.clone() for name, value in model.vae.state_dict().items()}
    train(phase, SETTINGS, tmp_path, 0, "{}", lambda line: None)
    after = model.networks.state_dict()
    moved = {parameter_group(name) for name, value in after.items() if not torch.equal(value, before[name])}
    # of the ReferenceNet nothing behind its last bank entry is read, and its attention sees no tokens
    read = [
        name for name in after if parameter_group(name) in settings["trainable"] and not name.startswith("reference.")
    ]
    assert moved == set(settings["trainable"])
    assert not [name for name in read if torch.equal(after[name], before[name])]
    assert all(torch.equal(value, of_vae[name]) for name, value in model.vae.state_dict().items())


def test_an_unknown_group_is_refused(model, train_clips, test_clips):
    with pytest.raises(PortraitError, match="there is no group mouth; known are audio, audio_projection, guider"):
        stage(model, train_clips, test_clips, replace(STAGE, trainable=("mouth",)))


def test_untrained_style_layers_leave_the_loss_as_it_is(model, train_clips, test_clips):
    phase = stage(model, train_clips, test_clips)
    batch = batch_of(phase)
    key_name = {key: value for key, value in batch.items() if not key.startswith("style_")}
    phase.module.stage = replace(STAGE, deterministic=True)  # a draw of the code would move the other draws
    assert torch.equal(phase.module(batch)[0], phase.module(key_name)[0])
    awake(model)
    assert not torch.equal(phase.module(batch)[0], phase.module(key_name)[0])


def test_without_temporal_layers_every_frame_is_by_itself(model, train_clips, test_clips):
    awake(model)
    losses = []
    for temporal in (False, True):
        phase = stage(model, train_clips, test_clips, replace(STAGE, temporal=temporal))
        losses.append(phase.module(batch_of(phase))[0])
        for name, parameter in model.networks.named_parameters():
            if parameter_group(name) == "temporal":
                torch.nn.init.zeros_(parameter)  # trained or not, they must not show without `temporal`
        assert torch.equal(phase.module(batch_of(phase))[0], losses[-1]) == (not temporal)
        awake(model)


def test_temporal_layers_learn_from_neighbours_alone(model, train_clips, test_clips):
    awake(model)
    for singles, learnt in ((1.0, False), (0.0, True)):
        phase = stage(
            model, train_clips, test_clips, replace(STAGE, trainable=("spatial", "temporal"), single_frame_prob=singles)
        )
        phase.module.zero_grad()
        phase.module(batch_of(phase))[0].backward()
        moved = {parameter_group(name) for name, each in model.networks.named_parameters() if each.grad is not None}
        assert ("temporal" in moved) == learnt and "spatial" in moved


def test_what_a_batch_holds(model, train_clips, test_clips, config):
    for singles, (clips, frames) in ((0.0, (1, 4)), (1.0, (4, 1))):
        batch = batch_of(stage(model, train_clips, test_clips, replace(STAGE, single_frame_prob=singles)))
        assert {key: tuple(value.shape[1:]) for key, value in batch.items()} == {
            "target": (clips, frames, 3, 64, 64),
            "portrait": (clips, 3, 64, 64),
            "kps": (clips, frames, 3, 64, 64),
            "warped": (clips, frames, 3, 64, 64),
            "audio": (clips, frames, config.audio.window, 1920),
            "weight": (clips, frames, 1, 8, 8),
            "style_audio": (clips, 40, 1920),
            "style_expression": (clips, 40, 64),
            "style_mask": (clips, 40),
            "seed": (clips,),
        }


def test_a_draw_depends_on_its_spot_alone(model, train_clips, test_clips):
    phase = stage(model, train_clips, test_clips, replace(STAGE, single_frame_prob=0.5, cross_emotion_prob=0.5))
    first = [batch_of(phase, step) for step in (5, 2, 9)]
    again = [batch_of(phase, step) for step in (2, 9, 5)]
    for one, other in zip(first, (again[2], again[0], again[1]), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


class Told:
    """Clips that remember which frames of which clip were asked for."""

    def __init__(self, clips):
        self.clips, self.asked = clips, []

    def __getattr__(self, name):
        return getattr(self.clips, name)

    def frames(self, clip, frames):
        self.asked.append((clip, list(frames)))
        return self.clips.frames(clip, frames)


@pytest.fixture
def asked(model, train_clips, test_clips):
    """(clip, frame) of portrait and target of many draws with some settings."""

    def draws(**settings):
        phase = stage(model, train_clips, test_clips, replace(STAGE, **settings))
        phase.clips = told = Told(train_clips.clips)
        pairs = []
        for step in range(30):
            phase.sample(SampleIndex(0, "stage", step, 0, 2))
            portrait, target = told.asked[-2:]
            pairs.append((portrait[0], portrait[1][0], target[0], target[1]))
        return pairs

    return draws


def test_portraits_are_of_the_same_person_in_another_emotion_if_asked_for(asked, train_clips):
    info = train_clips.clips.info
    for lender, _, clip, _ in asked(cross_emotion_prob=1.0):
        assert info[lender].identity == info[clip].identity
        assert info[lender].emotion != info[clip].emotion
    assert all(lender == clip for lender, _, clip, _ in asked(cross_emotion_prob=0.0))


def test_a_step_without_style_shows_the_emotion_in_the_portrait(asked):
    assert all(lender == clip for lender, _, clip, _ in asked(cross_emotion_prob=1.0, style_drop_prob=1.0))


def test_the_portrait_keeps_its_distance_from_the_target(asked):
    for _, still, _, frames in asked(reference_margin=15):
        assert still <= frames[0] - 15 or still >= frames[-1] + 15
    for _, still, _, frames in asked(reference_margin=1000):  # no clip is so long: as far as it can be
        assert still == (0 if frames[0] > 39 - frames[-1] else 39) or frames[0] == 39 - frames[-1]


def test_the_ablation_takes_the_mean_of_the_prior(model, train_clips, test_clips):
    phase = stage(model, train_clips, test_clips, replace(STAGE, deterministic=True))
    flat = {key: value.flatten(0, 1) for key, value in batch_of(phase).items()}
    seeds = [[torch.Generator().manual_seed(seed + index) for index in range(2)] for seed in (0, 9)]
    assert torch.equal(*(phase.module._style_code(flat, each) for each in seeds))
    phase.module.stage = STAGE
    assert not torch.equal(*(phase.module._style_code(flat, each) for each in seeds))


def test_a_dropped_clip_sees_no_condition(model, train_clips, test_clips, config):
    awake(model)
    model.config = replace(config, residual=False)  # the target itself would move with the portrait
    phase = stage(model, train_clips, test_clips, replace(STAGE, cond_drop_prob=1.0))
    first = batch_of(phase)
    other = {**first, **{key: torch.rand_like(first[key]) for key in ("portrait", "warped", "kps", "audio")}}
    assert torch.equal(phase.module(first)[0], phase.module(other)[0])


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("sample", lambda snr: min(snr, 5.0)),
        ("epsilon", lambda snr: min(snr, 5.0) / snr),
        ("v_prediction", lambda snr: min(snr + 1, 5.0) / (snr + 1)),
    ],
)
def test_min_snr_in_closed_form(prediction, expected):
    config = SchedulerConfig(prediction=prediction)
    timestep = torch.tensor([10, 400, 900])
    alpha = alphas_cumprod(config)[timestep].double()
    wanted = [expected(float(each / (1 - each))) for each in alpha]
    assert torch.allclose(snr_weight(timestep, config, 5.0).double(), torch.tensor(wanted).double(), rtol=1e-4)
    assert torch.equal(snr_weight(timestep, config, 0.0), torch.ones(3))


def test_pure_noise_still_counts_for_velocities():
    config = SchedulerConfig(exact_terminal=True)
    assert snr_weight(torch.tensor([999]), config, 5.0).tolist() == [1.0]


def test_the_noise_offset_is_one_number_for_a_channel_of_the_clip():
    key_name = clip_noise(torch.Size((3, 4, 8, 8)), torch.Generator().manual_seed(1), 0.0)
    offset = clip_noise(torch.Size((3, 4, 8, 8)), torch.Generator().manual_seed(1), 0.1) - key_name
    assert torch.allclose(offset, offset[:1, :, :1, :1].expand_as(offset), atol=1e-6)
    assert len({round(float(each), 4) for each in offset[0, :, 0, 0]}) == 4


def test_validation_is_the_mean_loss_on_test_people_and_changes_nothing(model, train_clips, test_clips):
    phase = stage(model, train_clips, test_clips, replace(STAGE, validation_batches=2))
    of_test = stage(model, test_clips, test_clips)
    losses = []
    for step in range(2):
        batch = stack([of_test.sample(SampleIndex(0, "validation", step, place, 2)) for place in range(2)])
        losses.append(float(of_test.module(batch)[0].detach()))
    first = phase.validate()
    assert first == {"loss": pytest.approx(sum(losses) / 2, rel=1e-6)} and phase.validate() == first


def test_without_singles_an_epoch_shows_every_clip_once(model, train_clips, test_clips):
    phase = stage(model, train_clips, test_clips, replace(STAGE, settings=replace(SETTINGS, batch_size=3)))
    phase.clips = told = Told(train_clips.clips)
    for step in range(3):
        for place in range(3):
            phase.sample(SampleIndex(0, "stage", step, place, 3))
    assert sorted(clip for clip, _ in told.asked[1::2]) == list(range(9))  # targets; portraits are read before them


def test_weights_on_the_mouth_need_landmarks(model, train_clips, test_clips):
    class Blind(Told):
        """Clips of a backend that finds no landmarks."""

        def labels(self, clip):
            labels = self.clips.labels(clip)
            return replace(labels, landmarks=np.full_like(labels.landmarks, np.nan))

    for weight in (0.0, 4.0):
        phase = stage(model, train_clips, test_clips, replace(STAGE, mouth_weight=weight))
        phase.clips = Blind(train_clips.clips)
        if weight:
            with pytest.raises(PortraitError, match="has no landmarks, which mouth_weight 4 .*--backend insightface"):
                batch_of(phase)
        else:
            assert torch.equal(batch_of(phase)["weight"], torch.ones(2, 1, 4, 1, 8, 8))
