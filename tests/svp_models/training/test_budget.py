"""Training within a time: the clock rules the learning rate, the last checkpoint goes on, and the loss says when to stop."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.training.budget import learning_rate, train_for
from svp_portrait.svp_models.training.checkpoint import checkpoints, load_checkpoint
from svp_portrait.svp_models.training.face_config import BudgetSettings

SETTINGS = BudgetSettings(batch_size=8, learning_rate=0.1, weight_decay=0.0, log_seconds=0.1, ema_decay=0.5)


class Line(nn.Module):
    """Learns y = 3 x - 1 from values with errors: a loss that falls to 0 would rise many times over by chance."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, batch):
        error = self.layer(batch["x"]) - batch["y"]
        return error.square().mean(), {"error": error.abs().mean()}


class Phase:
    name = "line"

    def __init__(self):
        self.module, self.shares = Line(), []

    def batch(self, generator, done):
        self.shares.append(done)
        x = torch.randn(8, 1, generator=generator)
        return {"x": x, "y": 3 * x - 1 + 0.3 * torch.randn(8, 1, generator=generator)}

    def validate(self):
        return {"slope": self.module.layer.weight.item()}


def test_the_learning_rate_rises_and_falls_with_the_clock():
    settings = BudgetSettings(learning_rate=1.0, warmup=0.2, final_lr_ratio=0.1)
    values = [learning_rate(settings, done) for done in (0.1, 0.2, 0.6, 1.0)]
    assert values == pytest.approx([0.5, 1.0, 0.55, 0.1], abs=1e-3)


def test_it_learns_until_its_time_is_over(tmp_path):
    lines, phase = [], Phase()
    steps = train_for(phase, SETTINGS, 1.5, tmp_path, 0, "{}", lines.append)
    assert phase.validate()["slope"] == pytest.approx(3, abs=0.1)
    assert phase.shares == sorted(phase.shares) and phase.shares[0] < 0.1 and phase.shares[-1] > 0.9
    assert [path.name for path in checkpoints(tmp_path)] == [f"checkpoint-{steps:07}.pt"]
    assert any("samples_per_second" in line and "batch_ms" in line for line in lines)


def test_another_budget_goes_on(tmp_path):
    first = train_for(Phase(), SETTINGS, 0.5, tmp_path, 0, "{}", lambda line: None)
    phase = Phase()
    second = train_for(phase, SETTINGS, 0.2, tmp_path, 0, "{}", lambda line: None)
    assert second > first
    assert phase.validate()["slope"] == pytest.approx(3, abs=0.1)
    with pytest.raises(PortraitError, match="of another model or phase"):
        train_for(Phase(), SETTINGS, 0.2, tmp_path, 0, '{"model": 1}', lambda line: None)


def test_a_stop_leaves_a_checkpoint(tmp_path):
    def stop(done, total):
        if done > total / 10:
            raise KeyboardInterrupt

    phase = Phase()
    with pytest.raises(KeyboardInterrupt):
        train_for(phase, SETTINGS, 2.0, tmp_path, 0, "{}", lambda line: None, stop)
    saved = checkpoints(tmp_path)
    assert len(saved) == 1
    averaged = load_checkpoint(saved[0])["ema"]["layer.weight"]
    assert torch.equal(phase.module.layer.weight, averaged)  # what it leaves is what it would have ended with


def test_a_loss_that_is_no_number_is_named(tmp_path):
    phase = Phase()
    phase.module.layer.weight.data.fill_(torch.inf)
    with pytest.raises(PortraitError, match="lower learning_rate"):
        train_for(phase, SETTINGS, 1.0, tmp_path, 0, "{}", lambda line: None)


def test_without_a_working_compiler_it_trains_anyway(tmp_path, monkeypatch):
    def broken(module, dynamic):
        def call(batch):
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    lines, phase = [], Phase()
    train_for(phase, SETTINGS, 0.5, tmp_path, 0, "{}", lines.append, compiled=True)
    assert any("torch.compile does not work here" in line for line in lines)
    assert phase.validate()["slope"] > 1
