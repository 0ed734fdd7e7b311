import pytest
import torch
from torch import nn

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.training.loop import Schedule, run_phase, step_generator


def fit(folder, steps=30, stop_at=None, shards=1):
    torch.manual_seed(0)
    module = nn.Linear(3, 1)

    def loss_function(step, rng):
        if step == stop_at:
            raise KeyboardInterrupt
        inputs = torch.from_numpy(rng.standard_normal((8, 3))).float()
        return (module(inputs) - inputs.sum(1, keepdim=True)).square().mean(), {}

    schedule = Schedule(steps, 0.1, warmup=2, checkpoint_seconds=0, shards=shards)
    return run_phase("line", module, module.parameters(), loss_function, schedule, folder, 3, lambda line: None)


def test_it_learns_and_leaves_the_averaged_weights(tmp_path):
    module = fit(tmp_path, steps=300)
    torch.testing.assert_close(module.weight, torch.ones(1, 3), atol=0.05, rtol=0)


def test_running_statistics_are_averaged_with_the_weights(tmp_path):
    module = nn.BatchNorm1d(1, momentum=1.0)

    def loss_function(step, rng):
        return module(torch.tensor([[-1.0], [1.0]]) + step).square().mean(), {}

    schedule = Schedule(6, 0.0, warmup=1, average=0.5)
    run_phase("norm", module, module.parameters(), loss_function, schedule, tmp_path, 0, lambda line: None)
    expected = 0.0
    for step in range(6):
        decay = min(0.5, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(module.running_mean, torch.tensor([expected]))


def test_a_killed_run_ends_bit_equal_to_an_uninterrupted_one(tmp_path):
    whole = fit(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", stop_at=17)
    resumed = fit(tmp_path / "killed")
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)
    assert not list((tmp_path / "killed").glob("*.partial"))


def test_a_finished_phase_is_read_back_and_not_trained_again(tmp_path):
    done = fit(tmp_path)
    again = fit(tmp_path, stop_at=0)
    assert torch.equal(done.weight, again.weight)


def test_shards_average_their_gradients(tmp_path):
    first = fit(tmp_path / "a", steps=5, shards=2)
    second = fit(tmp_path / "b", steps=5, shards=2)
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, fit(tmp_path / "c", steps=5).weight)


def test_a_loss_that_is_not_finite_stops_the_phase(tmp_path):
    module = nn.Linear(1, 1)

    def loss_function(step, rng):
        return module(torch.ones(1, 1)).sum() * (float("nan") if step == 2 else 1.0), {}

    schedule = Schedule(5, 0.1, checkpoint_seconds=0)
    with pytest.raises(PortraitError, match="became nan at step 2"):
        run_phase("bad", module, module.parameters(), loss_function, schedule, tmp_path, 0, lambda line: None)
    assert (tmp_path / "bad.resume.pt").exists()


def test_randomness_depends_on_seed_phase_step_and_shard():
    draws = {
        float(step_generator(seed, phase, step, shard).random())
        for seed in (0, 1)
        for phase in ("a", "b")
        for step in (0, 1)
        for shard in (0, 1)
    }
    assert len(draws) == 16
    assert step_generator(0, "a", 1).random() == step_generator(0, "a", 1).random()
