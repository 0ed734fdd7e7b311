from __future__ import annotations

import json

import pytest

from svp_portrait.svp_models.checkpoints.vexpress_config import vexpress_config
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.presets import PRESETS

SD15 = {
    "_class_name": "UNet2DConditionModel", "act_fn": "silu", "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280], "center_input_sample": False, "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "downsample_padding": 1,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1,
    "norm_eps": 1e-05, "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip


def write(folder, unet=None, extra=None):
    for name, values in (("unet_config.json", unet), ("extra_config.json", extra)):
        if values is not None:
            (folder / name).write_text(values if isinstance(values, str) else json.dumps(values))
    return folder


def test_without_files_it_is_the_preset_and_with_those_of_sd15_too(tmp_path):
    assert vexpress_config(tmp_path) == PRESETS["vexpress"]
    assert vexpress_config(write(tmp_path, SD15)) == PRESETS["vexpress"]
    assert vexpress_config(write(tmp_path, SD15, {"weight_seed": 3})) == PRESETS["vexpress"]


def test_one_file_alone_is_enough(tmp_path):
    extra = {"unet_additional_kwargs": {"motion_module_kwargs": {"temporal_position_encoding_max_len": 16}}}
    config = vexpress_config(write(tmp_path, None, extra))
    assert (config.unet.motion_positions, config.window, config.overlap) == (16, 16, 4)
    assert config.unet.block_out_channels == (320, 640, 1280, 1280)


def test_heads_of_each_level_and_the_inside_of_the_audio_projection(tmp_path):
    audio = {"dim": 512, "output_dim": 768, "ff_mult": 2}
    config = vexpress_config(
        write(tmp_path, {**SD15, "attention_head_dim": [5, 10, 20, 20]}, {"audio_projection": audio})
    )
    assert config.unet.attention_heads == (5, 10, 20, 20)
    assert (config.audio.width, config.audio.feed_forward) == (512, 2)
    audio["dim"] = 768
    assert vexpress_config(write(tmp_path, SD15, {"audio_projection": audio})).audio.width is None


def test_only_a_zero_terminal_snr_is_taken_exactly(tmp_path):
    epsilon = {"noise_scheduler_kwargs": {"prediction_type": "epsilon", "rescale_betas_zero_snr": False}}
    scheduler = vexpress_config(write(tmp_path, SD15, epsilon)).scheduler
    assert scheduler.prediction == "epsilon" and not scheduler.zero_terminal_snr and not scheduler.exact_terminal


@pytest.mark.parametrize(
    ("unet", "extra", "message"),
    [
        ({"norm_eps": 1e-6}, {}, r"unet_config.json: norm_eps is 1e-06, the networks of this pack have 1e-05"),
        ({"flip_sin_to_cos": False}, {}, "flip_sin_to_cos is False"),
        ({"attention_head_dim": [5, 10, 20]}, {}, r"attention_head_dim is \[5, 10, 20\], one number of heads, or one for each of the 4 levels"),
        ({"attention_head_dim": 0}, {}, r"attention_head_dim is \[0, 0, 0, 0\], one number of heads, or one for each of the 4 levels"),
        ({"in_channels": 8}, {}, r"in_channels and out_channels are \[4, 8\]"),
        ({"block_out_channels": [320, 640, 1280, 1300]}, {}, "block_out_channels has 1300, no multiple of 32, norm_num_groups"),
        ({"block_out_channels": [40] * 4, "norm_num_groups": 8}, {}, "has 40, no multiple of 32, the temporal layers' groups"),
        ({"up_block_types": ["CrossAttnUpBlock2D"] * 4}, {}, "have to mirror each other over 4 levels"),
        ({"down_block_types": ["AttnDownBlock2D"] * 4}, {}, "block type AttnDownBlock2D is not known"),
        ({"cross_attention_dim": None}, {}, "cross_attention_dim is missing"),
        ({}, {"unet_additional_kwargs": {"use_inflated_groupnorm": False}}, "extra_config.json: use_inflated_groupnorm is False"),
        ({}, {"unet_additional_kwargs": {"motion_module_resolutions": [1, 2]}},
         r"motion_module_resolutions is \[1, 2\], this pack has temporal layers at all of \[1, 2, 4, 8\]"),
        ({}, {"unet_additional_kwargs": {"motion_module_kwargs": {"num_transformer_block": 2}}}, "num_transformer_block is 2"),
        ({}, {"noise_scheduler_kwargs": {"clip_sample": True}}, "clip_sample is True"),
        ({}, {"v_kps_guider": {"conditioning_embedding_channels": 32}}, "conditioning_embedding_channels is 32, .* have 320"),
        ({}, {"audio_projection": {"output_dim": 512}}, "output_dim is 512, the networks of this pack have 768"),
        ({}, "[1]", "extra_config.json: holds a list"),
        ({}, "{", "extra_config.json: not JSON"),
    ],
)  # fmt: skip
def test_what_the_networks_cannot_follow_is_named(tmp_path, unet, extra, message):
    write(tmp_path, {**SD15, **unet}, extra)
    with pytest.raises(PortraitError, match=message):
        vexpress_config(tmp_path)
