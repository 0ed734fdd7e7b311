"""What a config or recipe file may say, and the one line that is said of the rest."""

from __future__ import annotations

import json
import math

import pytest

from svp_portrait.svp_models.config import ModelConfig, config_from_dict, config_to_json
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.io.strict_config import json_value
from svp_portrait.svp_models.presets import PRESETS

DEMO = json.loads(config_to_json(PRESETS["demo"]))


def changed(path: str, value: object) -> dict:
    values = json.loads(json.dumps(DEMO))
    *sections, key = path.split(".")
    place = values
    for section in sections:
        place = place[section]
    place[key] = value
    return values


@pytest.mark.parametrize("name", PRESETS)
def test_presets_come_back_as_they_are(name):
    values = json.loads(config_to_json(PRESETS[name]))
    assert config_from_dict(ModelConfig, values) == PRESETS[name]


def test_whole_numbers_are_floats_where_those_are_meant():
    assert isinstance(config_from_dict(ModelConfig, changed("fps", 30)).fps, float)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("unet.layers_per_block", 100_000, "config.unet.layers_per_block is 100000: 1 to 16 is allowed"),
        ("unet.layers_per_block", True, "layers_per_block is True: it must be a whole number"),
        ("unet.block_out_channels", [-56, 72, 96], "block_out_channels is -56: 2 to 8192"),
        ("unet.block_out_channels", [56, 72], "attention_levels has 3 values: block_out_channels has 2 levels"),
        ("unet.block_out_channels", 56, "block_out_channels is 56: it must be a list, each of it a whole number"),
        ("unet.block_out_channels", ["a"] * 3, "must be a list, each of it a whole number"),
        ("unet.block_out_channels", [8] * 99, "block_out_channels has 99 values: 1 to 8 are allowed"),
        ("unet.block_out_channels", [57, 72, 96], "have to be even"),
        ("unet.norm_groups", 9, "norm_groups is 9: the width 56 of block_out_channels is no multiple of it"),
        ("unet.attention_heads", 0, "attention_heads is 0: 1 to 256"),
        ("unet.attention_heads", [4, 4], "attention_heads has 2 values: block_out_channels has 3 levels"),
        ("unet.motion_heads", 100, "a level of 56 channels has no more heads than these"),
        ("unet.latent_channels", 4, "unet.latent_channels is 4: vae.latent_channels is 48"),
        ("unet", None, "config.unet is null: names and values are needed"),
        ("unet", [], "config.unet is .*: names and values are needed"),
        ("vae.scale", 0, "vae.scale is 0.0: 1e-06 to 1e.06 is allowed"),
        ("vae.kind", "other", "vae.kind is 'other': it must be one of portrait, sd15"),
        ("vae.fold", 2, "vae.downscale is 8: 2 encoder_widths and fold 2 give 1/4"),
        ("vae.encoder_widths", [20, 48], "encoder_widths has 20: multiples of 8"),
        ("guider.channels", [8, 16], "guider.channels has 2 values, which give 1/2 of the size: the latents have 1/8"),
        ("face_crop.mask_width", 7, "mask_width is 7: multiples of 8"),
        ("face_crop.dense_width", 12, "dense_width is 12: multiples of 8"),
        (
            "face_crop.dense_width",
            24,
            "corrects the warp to an expression, so set expression_warp too, or dense_width 0",
        ),
        ("face_crop.dense_size", 100, "dense_size is 100: multiples of 8"),
        ("style.heads", 7, "style.heads is 7: style_size 128 is no even multiple of it"),
        ("scheduler.beta_start", 0.5, "beta_start is 0.5: no more than beta_end, 0.012"),
        ("fps", math.nan, "config.fps is nan: 1 to 240 is allowed"),
        ("fps", math.inf, "config.fps is inf"),
        ("fps", 10**400, "config.fps is a number of too many digits"),
        ("fps", "25", "config.fps is '25': it must be a number"),
        ("overlap", 6, "overlap is 6: less than the window of 6 frames"),
        ("name", "a\0b", "characters that no text has"),
        ("name", "\ud800", "characters that no text has"),
        ("name", "", "name has 0 characters: 1 to 200"),
        ("name", 3, "config.name is 3: it must be text"),
        ("colour", 1, "config: unknown key colour; known are audio, "),
    ],
)
def test_what_a_config_may_not_say_is_named(path, value, message):
    with pytest.raises(PortraitError, match=message) as error:
        config_from_dict(ModelConfig, changed(path, value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values", [None, [], 3, "text"])
def test_a_config_is_names_and_values(values):
    with pytest.raises(PortraitError, match=r"^FILE: config is .*: names and values are needed"):
        config_from_dict(ModelConfig, values, "FILE: config")


def test_what_is_missing_is_named():
    with pytest.raises(PortraitError, match="config: missing 1 required: 'name'"):
        config_from_dict(ModelConfig, {})


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "{", "1" * 5000, b"\xff", ""])
def test_json_that_cannot_be_read_is_one_line(text):
    with pytest.raises(PortraitError, match="FILE: not JSON"):
        json_value(text, "FILE")
