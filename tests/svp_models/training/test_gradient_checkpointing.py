"""Gradient checkpointing: the same numbers, less kept for the way back."""

from __future__ import annotations

from dataclasses import replace

import torch

from svp_portrait.svp_models.training.config import StagePhase, TrainSettings
from svp_portrait.svp_models.training.dataset import SampleIndex, stack
from svp_portrait.svp_models.training.train_diffusion import StageTraining
from svp_portrait.svp_models.training.trainer import set_gradient_checkpointing, train

SETTINGS = TrainSettings(steps=2, batch_size=1, learning_rate=0.01, warmup_steps=1, ema_decay=0.0)
STAGE = StagePhase(
    SETTINGS, ("spatial", "temporal", "reference"), frames=4, audio=True, cond_drop_prob=0.0, reference_margin=0
)


def gradients(phase: StageTraining) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients of one batch, and the bytes that the way to the loss kept for them."""
    batch, kept = stack([phase.sample(SampleIndex(0, "stage", 0, 0, 1))]), []
    phase.module.zero_grad()
    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.nbytes) or each, lambda each: each):
        loss = phase.module.train()(batch)[0]
    loss.backward()
    found = {name: each.grad.clone() for name, each in phase.module.named_parameters() if each.grad is not None}
    return found, sum(kept)


def test_gradients_are_the_same_and_less_is_kept(model, train_clips, test_clips):
    for parameter in model.networks.parameters():
        if not parameter.any():  # layers that start at zero would hide what lies before them
            torch.nn.init.normal_(parameter, std=0.1)
    phase = StageTraining("stage", model, train_clips, test_clips, STAGE, 0, lambda folder, step: None)
    whole, kept = gradients(phase)
    set_gradient_checkpointing(phase.module, True)
    again, kept_then = gradients(phase)
    set_gradient_checkpointing(phase.module, False)
    assert any(name.startswith("networks.reference.") for name in whole)
    assert again.keys() == whole.keys() and all(torch.equal(again[name], whole[name]) for name in whole)
    assert kept_then < kept / 3
    assert gradients(phase)[1] == kept  # as before


def test_a_run_ends_the_same(model, train_clips, test_clips, tmp_path):
    start = {name: value.clone() for name, value in model.networks.state_dict().items()}
    ends = []
    for on in (False, True):
        model.networks.load_state_dict(start)
        settings = replace(SETTINGS, gradient_checkpointing=on)
        config = replace(STAGE, settings=settings)
        phase = StageTraining("stage", model, train_clips, test_clips, config, 0, lambda folder, step: None)
        train(phase, settings, tmp_path / str(on), 0, "{}", lambda line: None)
        ends.append({name: value.clone() for name, value in model.networks.state_dict().items()})
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in start)
    assert any(not torch.equal(ends[0][name], start[name]) for name in start)
