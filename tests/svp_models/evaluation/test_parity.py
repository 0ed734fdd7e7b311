"""The parity check itself: what agrees is small, what does not is named, nothing in a folder is passed over."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from svp_portrait.svp_models.checkpoints.vexpress import load_vexpress_networks
from svp_portrait.svp_models.checkpoints.vexpress_config import vexpress_config
from svp_portrait.svp_models.config import ModelConfig, SchedulerConfig
from svp_portrait.svp_models.diffusion.noise_schedule import alphas_cumprod, sampling_schedule
from svp_portrait.svp_models.diffusion.pipeline import SamplerOptions
from svp_portrait.svp_models.diffusion.samplers import ddim_step
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.evaluation.parity import (
    IDENTICAL,
    LOOP,
    NETWORK,
    PROCESSING,
    Measure,
    largest,
    open_folder,
    relative_error,
    remaining,
)
from svp_portrait.svp_models.evaluation.parity_networks import (
    check_loops,
    check_networks,
    replayed_latents,
    vexpress_schedule,
    vexpress_windows,
)
from svp_portrait.svp_models.evaluation.parity_processing import check_processing, scanned_frame, whole_windows
from svp_portrait.svp_models.presets import PRESETS


def networks_of(folder, path):
    return check_networks(folder, *load_vexpress_networks(path))


def loops_of(folder, path):
    return check_loops(folder, *load_vexpress_networks(path))


def processing_of(folder, path):
    return check_processing(folder, vexpress_config(path))


def measures(path, *checks) -> dict[str, Measure]:
    """The results of some checks by name; of all, and of the search for tensors they pass over, if none is named."""
    folder = open_folder(path)
    found = [item for check in checks or (networks_of, loops_of, processing_of) for item in check(folder, path)]
    found += [] if checks else remaining(folder, found)
    assert len({measure.name for measure in found}) == len(found)
    return {measure.name: measure for measure in found}


def change(path, **tensors) -> None:
    """Tensors of the folder replaced by what a function makes of them; '.' in names is written '__'."""
    io = load_file(path / "io.safetensors")
    for name, make in tensors.items():
        name = name.replace("__", ".")
        io[name] = make(io.get(name)).contiguous()
    save_file(io, path / "io.safetensors")


def overlay(path, name: str) -> set[str]:
    """Puts the tensors of another file of the reference data over those of the folder; returns their names."""
    over = load_file(path / name)
    save_file(load_file(path / "io.safetensors") | over, path / "io.safetensors")
    return set(over)


def test_the_numbers_of_v_express(parity_original):
    found = measures(parity_original)
    assert not [measure for measure in found.values() if measure.missed]
    assert sum(name.endswith("noise_pred") for name in found) == 3
    assert largest(list(found.values()), NETWORK).error < 2e-6
    assert {"loop.latents_after_step1", "loop_no_cfg.final_latents"} < found.keys()
    assert largest(list(found.values()), LOOP).error < 2e-6
    assert largest(list(found.values()), PROCESSING).error < 3e-7
    assert {"unet.cond.t981.stage.conv_in", "context_windows.8.5.1", "draw_kps_images"} <= found.keys()
    assert load_file(parity_original / "io.safetensors").keys() <= found.keys()  # a line for each, inputs too
    assert (found["unet.latents"].error, found["unet.latents"].note) == (None, "input")


def test_uneven_heads_are_among_them(parity_original):
    config = vexpress_config(parity_original)
    assert config.unet.attention_heads == (2, 3, 5, 4) and config.unet.block_out_channels == (32, 64, 32, 96)
    assert (config.audio.width, config.audio.feed_forward) == (28, 2)


def test_rounded_positions_give_v_express_numbers_and_stale_motion_layers_are_passed_over(
    parity_folder, vexpress_files
):
    motion = dict(vexpress_files["motion_module"])
    for name in motion:
        if name.endswith("pos_encoder.pe"):
            motion[name] = motion[name].bfloat16()
    stale = {name: torch.full_like(tensor, math.nan) for name, tensor in motion.items()}
    torch.save(motion, parity_folder / "motion_module.bin")
    torch.save(vexpress_files["denoising_unet"] | stale, parity_folder / "denoising_unet.bin")
    (name,) = overlay(parity_folder, "rounded_positions.safetensors")
    found = measures(parity_folder, networks_of)
    assert found[name].error < 2e-6
    assert 1e-5 < found["unet.cfg.t981.noise_pred"].error < 1e-3  # that one was computed with exact positions


def test_changed_outputs_are_the_only_misses_and_unknown_tensors_are_one(parity_folder):
    changed = (
        "audio_projection.output",
        "unet.cond.t981.noise_pred",
        "loop.latents_after_step1",
        "loop_no_cfg.final_latents",
    )
    change(parity_folder, **{name.replace(".", "__"): lambda tensor: tensor * 1.001 for name in changed})
    change(parity_folder, novelty=lambda _: torch.ones(2))
    missed = {measure.name: measure for measure in measures(parity_folder).values() if measure.missed}
    assert missed.keys() == {*changed, "novelty"} and missed["novelty"].note == "no check knows this tensor"
    for name in changed:
        assert missed[name].error == pytest.approx(1e-3, rel=0.05)


def test_a_changed_weight_spreads_to_what_it_feeds(parity_folder):
    path = parity_folder / "v_kps_guider.bin"
    weights = torch.load(path, weights_only=True)
    weights["conv_out.bias"] = weights["conv_out.bias"] + 0.1
    torch.save(weights, path)
    missed = {measure.name for measure in measures(parity_folder).values() if measure.missed}
    assert missed == {"kps_guider.features", "loop.kps_features", "loop.latents_after_step1", "loop.final_latents",
                      "loop_no_cfg.final_latents"}  # fmt: skip


def test_a_moved_keypoint_and_another_schedule_are_missed(parity_folder):
    change(parity_folder, draw_kps__keypoints=lambda points: points + 3)
    ddim = json.loads((parity_folder / "ddim.json").read_text())
    ddim["timesteps"]["4"][3] = 250
    ddim["alphas_cumprod"][-1] = 2**-24
    (parity_folder / "ddim.json").write_text(json.dumps(ddim))
    missed = {measure.name for measure in measures(parity_folder, processing_of).values() if measure.missed}
    assert missed == {"draw_kps_images", "ddim.timesteps.4", "ddim.alphas_cumprod.last"}


def test_loops_that_are_no_whole_windows_are_replayed_as_v_express_runs_them(parity_folder):
    overlay(parity_folder, "ragged_loop.safetensors")
    io = load_file(parity_folder / "io.safetensors")
    save_file({name: tensor for name, tensor in io.items() if "loop_no_cfg" not in name and name != "loop.latents_after_step1"},
              parity_folder / "io.safetensors")  # fmt: skip
    extra = json.loads((parity_folder / "extra_config.json").read_text())
    extra["loop"] |= {"context": 6, "overlap": 2, "steps": 2}
    (parity_folder / "extra_config.json").write_text(json.dumps(extra))
    found = measures(parity_folder, loops_of)
    assert not [measure for measure in found.values() if measure.missed]
    last = found["loop.final_latents"]
    assert "with V-Express' windows, 11 frames are no whole ones of 6 with 2" in last.note
    assert max(last.error, found["loop.latents_after_step0"].error) < 3e-6


def test_a_replayed_loop_leaves_repeated_frames_half_stepped():
    """As V-Express does with 11 frames, windows of 6 with 2 in common: the last one turns back over frames 9, 8 and 7."""
    windows = vexpress_windows(11, 6, 2)
    assert windows == [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 9], [8, 9, 10, 9, 8, 7]]

    def one(latents, *given):
        return torch.ones_like(latents)

    config = SchedulerConfig(prediction="epsilon", zero_terminal_snr=False)
    schedule = sampling_schedule(config, 2)
    model = SimpleNamespace(networks=SimpleNamespace(denoiser=one), config=ModelConfig(name="x", scheduler=config))
    conditions = SimpleNamespace(window=lambda index, like: None)
    after = replayed_latents(model, torch.zeros(11, 1, 1, 1), conditions, schedule, windows, SamplerOptions(cfg=1.0))
    share, expected = torch.tensor([1.0] * 8 + [0.5, 0.5, 1.0]), torch.zeros(11)
    for latents, a, next_a in zip(after, schedule.alphas, schedule.next_alphas, strict=True):
        scale = (next_a / a).sqrt()
        expected = scale * expected + ((1 - next_a).sqrt() - scale * (1 - a).sqrt()) * share
        torch.testing.assert_close(latents.flatten(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("unet__audio_embeddings", lambda t: t[..., :-1], r"has the shape \[3, 4, 23\], \[3, 4, 24\] is needed"),
        ("unet__kps_features", lambda t: t[:, :, :2], r"has the shape \[1, 32, 2, 8, 16\], \[1, 32, 3, 8, 16\] is"),
        ("reference_net__latents", lambda t: t * math.nan, "an input, has values that are no finite numbers"),
    ],
)
def test_inputs_that_do_not_fit_are_named(parity_folder, name, make, message):
    change(parity_folder, **{name: make})
    with pytest.raises(PortraitError, match=f"io.safetensors: {name.replace('__', '.')}.* {message}"):
        measures(parity_folder, networks_of)


def test_outputs_of_other_shapes_and_unknown_modules_are_missed(parity_folder):
    change(
        parity_folder,
        kps_guider__features=lambda t: t[:, :, :1],
        unet__cond__t981__stage__conv_act=lambda _: torch.ones(1),
        loop__latents_after_step9=lambda _: torch.ones(1),
        median_filter__output=lambda t: t[:, :2],
    )
    missed = {measure.name: measure.note for measure in measures(parity_folder).values() if measure.missed}
    assert missed == {
        "kps_guider.features": "ours has the shape [1, 32, 2, 8, 16], the reference [1, 32, 1, 8, 16]",
        "unet.cond.t981.stage.conv_act": "our denoiser has no such module",
        "loop.latents_after_step9": "the loop has 4 steps",
        "median_filter.output": "ours has the shape [3, 4, 5, 6], the reference [3, 2, 5, 6]",
    }


def test_timesteps_that_v_express_has_too_many_are_told(parity_folder):
    ddim = json.loads((parity_folder / "ddim.json").read_text())
    ddim["timesteps"] = {"4": [999, 749, 499, 249, -1], "48": [999, 978]}
    (parity_folder / "ddim.json").write_text(json.dumps(ddim))
    found = measures(parity_folder, processing_of)
    assert not found["ddim.timesteps.4"].missed and "goes on to timestep -1" in found["ddim.timesteps.4"].note
    assert found["ddim.timesteps.48"].missed


def test_missing_data_are_named(parity_folder, tmp_path):
    with pytest.raises(PortraitError, match="there is no io.safetensors"):
        open_folder(tmp_path)
    io = load_file(parity_folder / "io.safetensors")
    del io["loop.final_latents"]
    save_file(io, parity_folder / "io.safetensors")
    with pytest.raises(PortraitError, match="loop.final_latents is missing: the folder is not complete"):
        measures(parity_folder, loops_of)
    unet = (parity_folder / "unet_config.json").rename(tmp_path / "unet_config.json")
    with pytest.raises(PortraitError, match="unet_config.json: cannot be read .*: the folder is not complete"):
        open_folder(parity_folder)
    unet.rename(parity_folder / "unet_config.json")
    ddim = json.loads((parity_folder / "ddim.json").read_text())
    (parity_folder / "ddim.json").write_text(json.dumps({name: ddim[name] for name in ddim if name != "config"}))
    with pytest.raises(PortraitError, match="ddim.json: config is missing: the folder is not complete"):
        measures(parity_folder, processing_of)
    (parity_folder / "context_windows.json").write_text('{"windows": [{"num_frames": 3}]}')
    with pytest.raises(PortraitError, match="context_windows.json: windows: context_frames is missing"):
        measures(parity_folder, processing_of)
    pictures = parity_folder / "kps_images.npz"
    pictures.write_bytes(pictures.read_bytes()[:-30])
    with pytest.raises(PortraitError, match=r"kps_images.npz: cannot be read \("):
        measures(parity_folder, processing_of)
    (parity_folder / "bank_paths.json").write_text('["mid_block.attentions.0.transformer_blocks.0"]')
    with pytest.raises(
        PortraitError, match="bank_paths.json: down_blocks.0.attentions.0.transformer_blocks.0 is a block"
    ):
        measures(parity_folder, networks_of)


def test_relative_error():
    assert relative_error(torch.tensor([3.0, 4.1]), torch.tensor([3.0, 4.0])) == pytest.approx(0.02, rel=1e-4)
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0
    assert relative_error(torch.ones(2), torch.zeros(2)) == math.inf
    assert relative_error(torch.ones(2), torch.ones(3)) == math.inf


def test_numbers_that_are_none_are_missed_and_the_largest():
    broken = Measure("broken", NETWORK, math.nan)
    assert broken.missed and largest([Measure("a", NETWORK, 5.0), broken], NETWORK) is broken
    assert Measure("b", IDENTICAL, 1.0).missed and not Measure("c", LOOP, 1e-4).missed


def test_the_scan_keeps_the_turn_and_not_the_distance():
    # Turns 1, 1.5 and 4 of the driving frames; the reference's is 1.4: the nearest is frame 1, and after frame 0 was
    # taken with the bound 1 every frame nearer than 1 to 1.4 is taken.
    def face(ratio: float) -> torch.Tensor:
        return torch.tensor([[-ratio, 0.0], [1.0, 0.0], [0.0, 0.0]])

    driving = torch.stack([face(item) for item in (1.0, 1.5, 2.3, 4.0)])
    assert scanned_frame(driving, face(1.4)) == 2


def test_whole_windows():
    assert [length for length in range(1, 70) if whole_windows(length, 24, 4)] == [*range(1, 25), 44, 64]


@pytest.mark.parametrize(("steps", "second"), [(5, 799), (6, 833)])
def test_steps_lead_where_those_of_v_express_lead(steps, second):
    config = replace(PRESETS["vexpress"].scheduler, exact_terminal=True)
    schedule, note = vexpress_schedule(config, steps)
    noise = torch.randn(3, generator=torch.Generator().manual_seed(0))
    stepped = ddim_step(noise, -torch.ones(3), schedule.alphas[0], schedule.next_alphas[0])
    a = alphas_cumprod(config)[second]
    torch.testing.assert_close(stepped, -a.sqrt() + (1 - a).sqrt() * noise, rtol=1e-5, atol=1e-6)
    assert bool(note) == (steps == 6) and len(schedule) == steps
