"""Config of V-Express weights: diffusers' `unet_config.json`, and all other values in `extra_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import AudioConfig, GuiderConfig, ModelConfig, SchedulerConfig, UNetConfig
from ..errors import PortraitError
from ..presets import PRESETS
from .third_party import read_json

UNET_FILE, EXTRA_FILE = "unet_config.json", "extra_config.json"
MOTION_GROUPS = 32  # of V-Express' temporal layers, for every UNet
LATENT_SCALE = 8  # pixels per latent

# Settings that these networks implement with one value only; another one would give other results.
UNET_FIXED = {
    "act_fn": "silu",
    "center_input_sample": False,
    "class_embed_type": None,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-5,
    "num_attention_heads": None,
    "only_cross_attention": False,
    "resnet_time_scale_shift": "default",
    "use_linear_projection": False,
}
EXTENSION_FIXED = {
    "motion_module_decoder_only": False,
    "motion_module_type": "Vanilla",
    "unet_use_cross_frame_attention": False,
    "unet_use_temporal_attention": False,
    "use_inflated_groupnorm": True,
    "use_motion_module": True,
}
MOTION_FIXED = {
    "attention_block_types": ["Temporal_Self", "Temporal_Self"],
    "num_transformer_block": 1,
    "temporal_attention_dim_div": 1,
    "temporal_position_encoding": True,
}
SCHEDULER_FIXED = {"clip_sample": False, "set_alpha_to_one": True, "thresholding": False, "trained_betas": None}
SCHEDULER_NAMES = {  # diffusers' name -> our name
    "beta_end": "beta_end",
    "beta_schedule": "beta_schedule",
    "beta_start": "beta_start",
    "num_train_timesteps": "train_steps",
    "prediction_type": "prediction",
    "rescale_betas_zero_snr": "zero_terminal_snr",
    "steps_offset": "steps_offset",
    "timestep_spacing": "timestep_spacing",
}
AUDIO_NAMES = {  # V-Express' name -> our name
    "depth": "layers",
    "dim": "width",
    "dim_head": "head_size",
    "embedding_dim": "feature_size",
    "ff_mult": "feed_forward",
    "heads": "heads",
    "max_seq_len": "window",
    "num_queries": "tokens",
}


def vexpress_config(folder: Path | str) -> ModelConfig:
    """The config in a folder's JSON files; missing values are those of the `vexpress` preset.

    A value that the networks of this pack do not support raises PortraitError with file, key and both values.
    """
    folder = Path(folder)
    values, extra = read_json(folder / UNET_FILE) or {}, read_json(folder / EXTRA_FILE) or {}
    try:
        return _config(folder, values, extra)
    except PortraitError as error:
        named = str(error).startswith((str(folder / UNET_FILE), str(folder / EXTRA_FILE)))
        raise error if named else PortraitError(f"{folder}: {UNET_FILE} or {EXTRA_FILE}: {error}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:  # values of another type
        raise PortraitError(
            f"{folder}: {UNET_FILE} or {EXTRA_FILE} is not V-Express' configuration ({error}): copy or download it again"
        ) from error


def _config(folder: Path, values: dict[str, Any], extra: dict[str, Any]) -> ModelConfig:
    preset = PRESETS["vexpress"]
    unet = _unet(preset.unet, values, extra.get("unet_additional_kwargs", {}), folder)
    audio = _audio(preset.audio, extra.get("audio_projection", {}), unet, folder / EXTRA_FILE)
    return replace(
        preset,
        size=LATENT_SCALE * int(values["sample_size"]) if values.get("sample_size") else preset.size,
        window=min(preset.window, unet.motion_positions),
        overlap=min(preset.overlap, unet.motion_positions // 2),
        reference_weight=float(extra.get("reference_attention_weight", preset.reference_weight)),
        audio_weight=float(extra.get("audio_attention_weight", preset.audio_weight)),
        unet=unet,
        vae=replace(preset.vae, latent_channels=unet.latent_channels),
        guider=_guider(preset.guider, extra.get("v_kps_guider", {}), unet, folder / EXTRA_FILE),
        audio=audio,
        style=replace(preset.style, audio_size=audio.feature_size),
        scheduler=scheduler_config(extra.get("noise_scheduler_kwargs", {}), folder / EXTRA_FILE),
    )


def scheduler_config(values: Mapping[str, Any], path: Path) -> SchedulerConfig:
    """The noise schedule from V-Express' arguments of diffusers' DDIMScheduler."""
    _check_fixed(values, SCHEDULER_FIXED, path)
    known = {ours: values[theirs] for theirs, ours in SCHEDULER_NAMES.items() if theirs in values}
    preset = PRESETS["vexpress"].scheduler
    return replace(preset, **known, exact_terminal=known.get("zero_terminal_snr", preset.zero_terminal_snr))


def _unet(preset: UNetConfig, values: Mapping[str, Any], extension: Mapping[str, Any], folder: Path) -> UNetConfig:
    path = folder / EXTRA_FILE
    _check_fixed(extension, EXTENSION_FIXED, path)
    motion = extension.get("motion_module_kwargs", {})
    _check_fixed(motion, MOTION_FIXED, path)
    unet = replace(
        preset,
        motion_groups=MOTION_GROUPS,
        motion_heads=int(motion.get("num_attention_heads", preset.motion_heads)),
        motion_positions=int(motion.get("temporal_position_encoding_max_len", preset.motion_positions)),
        motion_mid_block=bool(extension.get("motion_module_mid_block", preset.motion_mid_block)),
    )
    if values:
        unet = _spatial(unet, values, folder / UNET_FILE)
    levels = [2**level for level in range(len(unet.block_out_channels))]
    resolutions = extension.get("motion_module_resolutions", levels)
    if not set(levels) <= set(resolutions):
        raise PortraitError(
            f"{path}: motion_module_resolutions is {resolutions}, this pack has temporal layers at all of {levels}"
        )
    return unet


def _spatial(unet: UNetConfig, values: Mapping[str, Any], path: Path) -> UNetConfig:
    _check_fixed(values, UNET_FIXED, path)
    widths = tuple(_value(values, "block_out_channels", path))
    heads = _value(values, "attention_head_dim", path)
    heads = [heads] * len(widths) if isinstance(heads, int) else heads
    if len(heads) != len(widths) or not all(1 <= head <= width for head, width in zip(heads, widths, strict=True)):
        raise PortraitError(
            f"{path}: attention_head_dim is {heads}, one number of heads, or one for each of the {len(widths)} levels, "
            "is needed, at most the channels of the level"
        )
    channels = {_value(values, name, path) for name in ("in_channels", "out_channels")}
    if len(channels) != 1:
        raise PortraitError(f"{path}: in_channels and out_channels are {sorted(channels)}, they have to be equal")
    groups = int(_value(values, "norm_num_groups", path))
    for width in widths:
        for count, what in ((groups, "norm_num_groups"), (MOTION_GROUPS, "the temporal layers' groups")):
            if width % count:
                raise PortraitError(f"{path}: block_out_channels has {width}, no multiple of {count}, {what}")
    return replace(
        unet,
        latent_channels=channels.pop(),
        block_out_channels=widths,
        layers_per_block=int(_value(values, "layers_per_block", path)),
        attention_levels=_attention_levels(values, len(widths), path),
        attention_heads=heads[0] if len(set(heads)) == 1 else tuple(heads),
        cross_attention_dim=int(_value(values, "cross_attention_dim", path)),
        norm_groups=groups,
    )


def _attention_levels(values: Mapping[str, Any], levels: int, path: Path) -> tuple[bool, ...]:
    down, up = _value(values, "down_block_types", path), _value(values, "up_block_types", path)
    kinds = {
        f"{kind}{way}Block{d}D": bool(kind) for kind in ("CrossAttn", "") for way in ("Down", "Up") for d in (2, 3)
    }
    unknown = [block for block in [*down, *up] if block not in kinds]
    if unknown:
        raise PortraitError(f"{path}: block type {unknown[0]} is not known; known are {', '.join(kinds)}")
    attention = tuple(kinds[block] for block in down)
    if len(attention) != levels or attention[::-1] != tuple(kinds[block] for block in up):
        raise PortraitError(
            f"{path}: down_block_types {down} and up_block_types {up} have to mirror each other over {levels} levels"
        )
    return attention


def _guider(preset: GuiderConfig, values: Mapping[str, Any], unet: UNetConfig, path: Path) -> GuiderConfig:
    width = unet.block_out_channels[0]
    _check_fixed(values, {"conditioning_embedding_channels": width, "conditioning_channels": 3}, path)
    return GuiderConfig(tuple(values.get("block_out_channels", preset.channels)))


def _audio(preset: AudioConfig, values: Mapping[str, Any], unet: UNetConfig, path: Path) -> AudioConfig:
    width = unet.cross_attention_dim
    _check_fixed(values, {"output_dim": width, "num_latents_mean_pooled": 0}, path)
    known: dict[str, Any] = {ours: int(values[theirs]) for theirs, ours in AUDIO_NAMES.items() if theirs in values}
    return replace(preset, **known | {"width": None if known.get("width") == width else known.get("width")})


def _check_fixed(values: Mapping[str, Any], fixed: Mapping[str, Any], path: Path) -> None:
    for name, expected in fixed.items():
        if name in values and values[name] != expected:
            raise PortraitError(f"{path}: {name} is {values[name]!r}, the networks of this pack have {expected!r}")


def _value(values: Mapping[str, Any], name: str, path: Path) -> Any:
    if values.get(name) is None:
        raise PortraitError(f"{path}: {name} is missing: use the config that belongs to the weights")
    return values[name]
