"""The training loop: the same bits however it is interrupted, the same numbers however it is shared, and clean stops."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.training.checkpoint import checkpoints, load_checkpoint
from svp_portrait.svp_models.training.config import TrainSettings
from svp_portrait.svp_models.training.dataset import SampleIndex, torch_generator
from svp_portrait.svp_models.training.trainer import EMA, train

SETTINGS = TrainSettings(
    steps=12,
    batch_size=4,
    learning_rate=0.05,
    warmup_steps=2,
    ema_decay=0.9,
    checkpoint_steps=5,
    log_steps=4,
    keep_checkpoints=2,
)


class Regression(nn.Module):
    """y = w x with a dropout and a frozen part, to be found from noisy pairs; `late` enters the loss at step 9, `idle` never."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer, self.drop, self.norm = nn.Linear(3, 1), nn.Dropout(0.2), nn.BatchNorm1d(3)
        self.frozen = nn.Linear(1, 1).requires_grad_(False)
        self.late, self.idle = nn.Linear(1, 1), nn.Linear(1, 1)

    def forward(self, batch):
        error = self.layer(self.drop(self.norm(batch["x"]))) - batch["y"]
        if batch["late"].any():
            error = self.late(error)
        return error.square().mean(), {"bias": self.layer.bias.sum()}


class Toy:
    """A phase of the regression; `bad_step` gives a sample that is not a number there, `far` one that is far off."""

    name = "toy"

    def __init__(self, bad_step=None, far_step=None):
        self.module, self.bad_step, self.far_step, self.shown = Regression(), bad_step, far_step, []

    def sample(self, index: SampleIndex):
        x = torch.randn(3, generator=torch_generator(index.rng()))
        y = x.sum()[None] + 1e4 * (index.step == self.far_step)
        return {"x": x, "y": y * math.nan if index.step == self.bad_step else y, "late": torch.tensor(index.step >= 9)}

    def validate(self):
        return {"weight": float(self.module.layer.weight.detach().sum())}

    def write_sample(self, folder, step):
        folder.mkdir(exist_ok=True)
        (folder / f"{step}.txt").write_text(str(self.validate()["weight"]))


class Stop(Exception):
    """Raised to end a run, as a host's cancel button does."""


def stop_after(steps: int):
    def progress(done: int, total: int) -> None:
        if done == steps:
            raise Stop

    return progress


def weights(phase: Toy) -> list[torch.Tensor]:
    return [each.clone() for each in phase.module.state_dict().values()]


def run(folder, phase=None, settings=SETTINGS, progress=None) -> Toy:
    phase = phase or Toy()
    train(phase, settings, folder, 7, "{}", lambda line: None, progress)
    return phase


@pytest.mark.parametrize("stop", [1, 5, 8, 11])
def test_a_stopped_run_ends_with_the_same_bits(tmp_path, stop):
    whole = weights(run(tmp_path / "whole"))
    with pytest.raises(Stop):
        run(tmp_path / "parts", progress=stop_after(stop))
    assert load_checkpoint(checkpoints(tmp_path / "parts")[-1])["step"] == stop
    assert all(map(torch.equal, weights(run(tmp_path / "parts")), whole))


def test_a_killed_run_loses_no_more_than_the_steps_since_the_last_checkpoint(tmp_path):
    whole = weights(run(tmp_path / "whole"))

    class Killed(Toy):
        def sample(self, index):
            if index.step == 8:
                raise SystemExit  # no chance to write anything, as with kill -9
            return super().sample(index)

    with pytest.raises(SystemExit):
        run(tmp_path / "parts", Killed())
    assert load_checkpoint(checkpoints(tmp_path / "parts")[-1])["step"] == 5
    assert all(map(torch.equal, weights(run(tmp_path / "parts")), whole))


def test_a_finished_run_is_taken_as_it_is(tmp_path):
    first = weights(run(tmp_path))
    written = {path: path.stat().st_mtime_ns for path in checkpoints(tmp_path)}
    assert all(map(torch.equal, weights(run(tmp_path)), first))
    assert {path: path.stat().st_mtime_ns for path in checkpoints(tmp_path)} == written


def test_it_ends_with_the_moving_average(tmp_path):
    key_name = run(tmp_path / "key_name", settings=replace(SETTINGS, ema_decay=0.0))
    averaged = run(tmp_path / "averaged")
    assert not torch.equal(key_name.module.layer.weight, averaged.module.layer.weight)
    state = load_checkpoint(checkpoints(tmp_path / "averaged")[-1])
    assert torch.equal(state["ema"]["layer.weight"], averaged.module.layer.weight)
    assert torch.equal(state["module"]["layer.weight"], key_name.module.layer.weight)  # averaging does not steer


def test_frozen_weights_stay_and_are_not_in_the_checkpoint(tmp_path):
    before = Toy().module.frozen.weight
    phase = run(tmp_path)
    assert torch.equal(phase.module.frozen.weight, before)
    assert "frozen.weight" not in load_checkpoint(checkpoints(tmp_path)[-1])["module"]


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    run(tmp_path)
    assert [load_checkpoint(each)["step"] for each in checkpoints(tmp_path)] == [10, 12]


@pytest.mark.parametrize("accumulate", [2, 4])
def test_a_batch_in_several_passes_gives_the_same_gradient(tmp_path, accumulate):
    class Plain(Toy):
        def __init__(self):
            super().__init__()
            self.module.drop, self.module.norm = nn.Identity(), nn.Identity()

    one = run(tmp_path / "one", Plain())
    several = run(tmp_path / "several", Plain(), replace(SETTINGS, grad_accum_steps=accumulate))
    assert torch.allclose(one.module.layer.weight, several.module.layer.weight, atol=1e-6)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(PortraitError, match=r"loss became nan at step 9; .*checkpoint-0000005\.pt.*learning_rate"):
        run(tmp_path, Toy(bad_step=8))
    assert torch.isfinite(load_checkpoint(checkpoints(tmp_path)[-1])["module"]["layer.weight"]).all()


def test_a_loss_that_explodes_stops_the_run(tmp_path):
    settings = replace(SETTINGS, steps=40)
    with pytest.raises(PortraitError, match=r"the loss jumped from .* at step 31; .*checkpoint-0000030"):
        run(tmp_path, Toy(far_step=30), settings)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(PortraitError, match="another config"):
        train(Toy(), SETTINGS, tmp_path, 7, '{"other": 1}', lambda line: None)
    with pytest.raises(PortraitError, match="another seed"):
        train(Toy(), SETTINGS, tmp_path, 8, "{}", lambda line: None)


def test_a_checkpoint_of_version_0_1_0_is_resumed_to_the_same_bits(tmp_path):
    """With the earlier name of the moving average, and of the keys of its configuration."""
    whole = weights(run(tmp_path / "whole"))
    with pytest.raises(Stop):
        run(tmp_path / "parts", progress=stop_after(8))
    path = checkpoints(tmp_path / "parts")[-1]
    state = torch.load(path, weights_only=True)
    assert state["version"] == 1
    torch.save({("average" if key == "ema" else key): value for key, value in state.items()}, path)
    assert all(map(torch.equal, weights(run(tmp_path / "parts")), whole))


def test_phases_of_one_process_may_have_different_precisions(tmp_path):
    key_name = run(tmp_path / "no").module.layer.weight
    mixed = run(tmp_path / "bf16", settings=replace(SETTINGS, precision="bf16")).module.layer.weight
    again = run(tmp_path / "again").module.layer.weight
    assert torch.equal(key_name, again) and not torch.equal(key_name, mixed)
    assert torch.allclose(key_name, mixed, atol=0.02) and mixed.dtype == torch.float32


def test_the_moving_average_in_closed_form():
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    ema = EMA(module)
    for value in (2.0, 3.0):
        nn.init.constant_(module.weight, value)
        ema.update(0.75)
    assert ema.shadow[0].item() == 0.75 * (0.75 * 1 + 0.25 * 2) + 0.25 * 3
    with ema.applied():
        assert module.weight.item() == ema.live[0].item() == 1.6875
    assert module.weight.item() == 3


def test_a_damaged_checkpoint_is_named(tmp_path):
    run(tmp_path)
    last = checkpoints(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:200])
    with pytest.raises(PortraitError, match=rf"{last.name}: not a readable checkpoint"):
        run(tmp_path)


def test_a_full_disk_stops_cleanly(tmp_path, monkeypatch):
    def no_space(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("svp_portrait.svp_models.training.checkpoint.torch.save", no_space)
    with pytest.raises(PortraitError, match="no space left"):
        run(tmp_path)
    assert list(tmp_path.glob("checkpoint*")) == []


def test_what_is_told(tmp_path):
    phase, lines = Toy(), []
    settings = replace(SETTINGS, validate_steps=6, sample_steps=12)
    train(phase, settings, tmp_path, 7, "{}", lines.append)
    assert any("toy 12/12 loss" in line and "0:00:00 left" in line for line in lines)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [each["step"] for each in records] == [4, 6, 8, 12, 12]
    assert {"loss", "bias", "gradient", "learning_rate", "seconds"} < records[0].keys()
    # validation and samples use the moving average, which is what the run ends with
    assert records[-1]["validation/weight"] == pytest.approx(phase.validate()["weight"])
    assert float((tmp_path / "samples" / "12.txt").read_text()) == pytest.approx(records[-1]["validation/weight"])


def test_a_resumed_run_does_not_tell_twice(tmp_path):
    class Killed(Toy):
        def sample(self, index):
            if index.step == 9:
                raise SystemExit
            return super().sample(index)

    with pytest.raises(SystemExit):
        run(tmp_path, Killed())
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [4, 8]
    run(tmp_path)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [4, 8, 12]


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    with pytest.raises(PortraitError, match="batch of 4 .* multiple of 3"):
        run(tmp_path, settings=replace(SETTINGS, grad_accum_steps=3))


def test_nothing_to_train_is_refused(tmp_path):
    phase = Toy()
    phase.module.requires_grad_(False)
    with pytest.raises(PortraitError, match="nothing to train"):
        run(tmp_path, phase)


SCRIPT = """
import os
import sys
from pathlib import Path

from torch import nn

sys.path.insert(0, {tests!r})
from test_trainer import SETTINGS, Toy, train

phase = Toy()
phase.module.drop, phase.module.norm = nn.Identity(), nn.Identity()
train(phase, SETTINGS, Path(sys.argv[1]), 7, "{{}}", lambda line: None)
Path(sys.argv[1], "process-" + os.environ.get("RANK", "0")).touch()
"""


def test_two_processes_train_as_one_with_the_double_batch(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    alone = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, str(script), str(tmp_path / "two")], check=True, timeout=200, env=alone)
    phase = Toy()
    phase.module.drop, phase.module.norm = nn.Identity(), nn.Identity()
    run(tmp_path / "one", phase)
    assert len(list((tmp_path / "two").glob("process-*"))) == 2
    one, two = (load_checkpoint(checkpoints(tmp_path / name)[-1]) for name in ("one", "two"))
    assert two["values"]["loss"] == pytest.approx(one["values"]["loss"], rel=1e-5)
    for key, value in one["module"].items():
        assert torch.allclose(two["module"][key], value, atol=1e-5), key
    records = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").open()] for name in ("one", "two")]
    for alone, shared in zip(*records, strict=True):
        assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-5)


KILLED = """
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, {tests!r})
from test_trainer import SETTINGS, Toy, train


class Killed(Toy):
    def sample(self, index):
        if index.step == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample(index)


train(Killed(), SETTINGS, Path(sys.argv[1]), 7, "{{}}", lambda line: None)
"""


def test_a_process_killed_with_sigkill_ends_with_the_same_bits(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(KILLED.format(tests=str(Path(__file__).parent)))
    killed = subprocess.run([sys.executable, str(script), str(tmp_path / "parts")], timeout=100)
    assert killed.returncode == -9
    assert load_checkpoint(checkpoints(tmp_path / "parts")[-1])["step"] == 5
    assert all(map(torch.equal, weights(run(tmp_path / "parts")), weights(run(tmp_path / "whole"))))


class Steep(Toy):
    """A finite loss whose gradient is not."""

    def __init__(self):
        super().__init__()
        layer = self.module.layer
        self.module.forward = lambda batch: ((layer.weight * 0).sum().abs().sqrt() + batch["y"].mean() * 0, {})


def test_a_gradient_that_is_no_number_stops_the_run(tmp_path):
    with pytest.raises(PortraitError, match="gradient became nan at step 1"):
        run(tmp_path, Steep())


STOPPED = """
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, {tests!r})
from test_trainer import SETTINGS, Toy, train

from svp_portrait.svp_models.cli.train import stoppable


class Stopped(Toy):
    turns = 0

    def tell_all(self, module, batch):
        self.turns += 1
        if self.turns == 7:
            # What a terminal, or a scheduler, does; from the training process itself it would be no failure of its readers.
            subprocess.run(["sh", "-c", "kill -s " + sys.argv[2] + " -- -" + str(os.getpgid(0))])
            time.sleep(1)


phase = Stopped()
phase.module.register_forward_pre_hook(phase.tell_all)
with stoppable() as progress:
    train(phase, replace(SETTINGS, num_workers=1), Path(sys.argv[1]), 7, "{{}}", lambda line: None, progress)
"""


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_a_signal_to_all_processes_leaves_a_checkpoint(tmp_path, name):
    script = tmp_path / "script.py"
    script.write_text(STOPPED.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, str(script), str(tmp_path / "run"), name]
    stopped = subprocess.run(command, timeout=100, start_new_session=True, stderr=subprocess.PIPE, text=True)
    assert "Interrupted: signal" in stopped.stderr.splitlines()[-1]
    assert load_checkpoint(checkpoints(tmp_path / "run")[-1])["step"] == 7
