"""The parity check itself: what agrees is small, what does not is named, nothing in a folder is passed over."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from svp_portrait.svp_models.checkpoints.vexpress import load_vexpress_networks
from svp_portrait.svp_models.checkpoints.vexpress_config import vexpress_config
from svp_portrait.svp_models.config import PRESETS
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.evaluation.parity import (
    IDENTICAL,
    LOOP,
    NETWORK,
    Measure,
    largest,
    open_folder,
    relative_error,
    unused,
)
from svp_portrait.svp_models.evaluation.parity_loop import check_loops, vexpress_scheduler
from svp_portrait.svp_models.evaluation.parity_networks import check_networks
from svp_portrait.svp_models.evaluation.parity_processing import check_processing, scanned_frame, whole_windows
from svp_portrait.svp_models.sampling.schedule import alphas_cumprod


def networks_of(folder, path):
    return check_networks(folder, *load_vexpress_networks(path))


def loops_of(folder, path):
    return check_loops(folder, *load_vexpress_networks(path))


def processing_of(folder, path):
    return check_processing(folder, vexpress_config(path))


def measures(path, *checks) -> dict[str, Measure]:
    """The results of some checks by name; of all, and of the search for tensors they pass over, if none is named."""
    folder = open_folder(path)
    found = [each for check in checks or (networks_of, loops_of, processing_of) for each in check(folder, path)]
    found += [] if checks else unused(folder)
    assert len({each.name for each in found}) == len(found)
    return {each.name: each for each in found}


def change(path, **tensors) -> None:
    """Tensors of the folder replaced by what a function makes of them; '.' in names is written '__'."""
    io = load_file(path / "io.safetensors")
    for name, make in tensors.items():
        name = name.replace("__", ".")
        io[name] = make(io.get(name)).contiguous()
    save_file(io, path / "io.safetensors")


def test_other_sizes_agree_with_a_loop_written_out(parity_folder):
    found = measures(parity_folder)
    assert not [each for each in found.values() if each.missed]
    assert largest(list(found.values()), NETWORK).error < 3e-6
    assert largest(list(found.values()), LOOP).error < 1e-5
    outputs = [
        name for name in load_file(parity_folder / "io.safetensors") if name.endswith(("noise_pred", "final_latents"))
    ]
    assert len(outputs) == 5 and set(outputs) <= found.keys()
    assert {"loop.latents_after_step1", "unet.cond.t981.stage.conv_in", "context_windows.8.5.1"} <= found.keys()


def test_changed_outputs_are_the_only_misses_and_unknown_tensors_are_one(parity_folder):
    changed = (
        "audio_projection.output",
        "unet.cond.t981.noise_pred",
        "loop.latents_after_step1",
        "loop_no_cfg.final_latents",
    )
    change(parity_folder, **{name.replace(".", "__"): lambda tensor: tensor * 1.001 for name in changed})
    change(parity_folder, novelty=lambda _: torch.ones(2))
    missed = {each.name: each for each in measures(parity_folder).values() if each.missed}
    assert missed.keys() == {*changed, "novelty"} and missed["novelty"].note == "no check knows this tensor"
    for name in changed:
        assert missed[name].error == pytest.approx(1e-3, rel=0.05)


def test_a_changed_weight_spreads_to_what_it_feeds(parity_folder):
    path = parity_folder / "v_kps_guider.bin"
    weights = torch.load(path, weights_only=True)
    weights["conv_out.bias"] = weights["conv_out.bias"] + 0.1
    torch.save(weights, path)
    missed = {each.name for each in measures(parity_folder).values() if each.missed}
    assert missed == {"kps_guider.features", "loop.kps_features", "loop.latents_after_step1", "loop.final_latents",
                      "loop_no_cfg.final_latents"}  # fmt: skip


def test_a_moved_keypoint_and_another_schedule_are_missed(parity_folder):
    change(parity_folder, draw_kps__keypoints=lambda points: points + 3)
    ddim = json.loads((parity_folder / "ddim.json").read_text())
    ddim["timesteps"]["4"][3] = 250
    ddim["alphas_cumprod"][-1] = 2**-24
    (parity_folder / "ddim.json").write_text(json.dumps(ddim))
    missed = {each.name for each in measures(parity_folder, processing_of).values() if each.missed}
    assert missed == {"draw_kps_images", "ddim.timesteps.4", "ddim.alphas_cumprod.last"}


def test_loops_that_are_no_whole_windows_are_not_compared(parity_folder):
    extra = json.loads((parity_folder / "extra_config.json").read_text())
    extra["loop"]["overlap"] = 2
    (parity_folder / "extra_config.json").write_text(json.dumps(extra))
    found = measures(parity_folder, loops_of)
    assert (
        found["loop.final_latents"].error is None
        and "9 frames are no whole windows of 5 with 2" in found["loop.final_latents"].note
    )
    with pytest.raises(PortraitError, match="nothing of the kind 'loop'"):
        largest(list(found.values()), LOOP)


def test_missing_data_are_named(parity_folder, tmp_path):
    with pytest.raises(PortraitError, match="there is no io.safetensors"):
        open_folder(tmp_path)
    io = load_file(parity_folder / "io.safetensors")
    del io["loop.final_latents"]
    save_file(io, parity_folder / "io.safetensors")
    with pytest.raises(PortraitError, match="loop.final_latents is missing: the folder is not complete"):
        measures(parity_folder, loops_of)
    (parity_folder / "bank_paths.json").write_text('["mid_block.attentions.0.transformer_blocks.0"]')
    with pytest.raises(
        PortraitError, match="bank_paths.json: down_blocks.0.attentions.0.transformer_blocks.0 is a block"
    ):
        measures(parity_folder, networks_of)


def test_relative_error():
    assert relative_error(torch.tensor([3.0, 4.1]), torch.tensor([3.0, 4.0]), "x") == pytest.approx(0.02, rel=1e-4)
    assert relative_error(torch.zeros(2), torch.zeros(2), "x") == 0
    assert relative_error(torch.ones(2), torch.zeros(2), "x") == math.inf
    with pytest.raises(PortraitError, match=r"x: ours has the shape \[2\], the reference \[3\]"):
        relative_error(torch.ones(2), torch.ones(3), "x")


def test_numbers_that_are_none_are_missed_and_the_largest():
    broken = Measure("broken", NETWORK, math.nan)
    assert broken.missed and largest([Measure("a", NETWORK, 5.0), broken], NETWORK) is broken
    assert Measure("b", IDENTICAL, 1.0).missed and not Measure("c", LOOP, 1e-4).missed


def test_the_scan_keeps_the_turn_and_not_the_distance():
    # Turns 1, 1.5 and 4 of the driving frames; the reference's is 1.4: the nearest is frame 1, and after frame 0 was
    # taken with the bound 1 every frame nearer than 1 to 1.4 is taken.
    def face(ratio: float) -> torch.Tensor:
        return torch.tensor([[-ratio, 0.0], [1.0, 0.0], [0.0, 0.0]])

    driving = torch.stack([face(each) for each in (1.0, 1.5, 2.3, 4.0)])
    assert scanned_frame(driving, face(1.4)) == 2


def test_whole_windows():
    assert [length for length in range(1, 70) if whole_windows(length, 24, 4)] == [*range(1, 25), 44, 64]


@pytest.mark.parametrize(("steps", "second"), [(5, 799), (6, 833)])
def test_steps_lead_where_those_of_v_express_lead(steps, second):
    config = replace(PRESETS["vexpress"].scheduler, exact_terminal=True)
    scheduler, note = vexpress_scheduler(config, steps)
    noise = torch.randn(3, generator=torch.Generator().manual_seed(0))
    stepped = scheduler.step(torch.ones(3), scheduler.timesteps[0], noise).prev_sample  # clean: minus the velocity
    a = alphas_cumprod(config)[second]
    torch.testing.assert_close(stepped, -a.sqrt() + (1 - a).sqrt() * noise, rtol=1e-5, atol=1e-6)
    assert bool(note) == (steps == 6) and len(scheduler.timesteps) == steps
