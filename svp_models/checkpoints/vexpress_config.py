"""The configuration of V-Express weights: diffusers' `unet_config.json` and the rest in `extra_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import PRESETS, AudioConfig, GuiderConfig, ModelConfig, SchedulerConfig, UNetConfig
from ..errors import PortraitError
from ..io.strict_config import json_value

UNET_FILE, EXTRA_FILE = "unet_config.json", "extra_config.json"
MOTION_GROUPS = 32  # of V-Express' temporal layers, whatever the UNet has
LATENT_CELL = 8  # pixels

# Choices that leave names and shapes alone, or that these networks have built in: another value would compute other numbers.
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
SCHEDULER_NAMES = {  # theirs -> ours
    "beta_end": "beta_end",
    "beta_schedule": "beta_schedule",
    "beta_start": "beta_start",
    "num_train_timesteps": "train_steps",
    "prediction_type": "prediction",
    "rescale_betas_zero_snr": "zero_terminal_snr",
    "steps_offset": "steps_offset",
    "timestep_spacing": "timestep_spacing",
}
AUDIO_NAMES = {
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
    """The config that a folder's JSON files describe; what they leave open is as in the `vexpress` preset.

    A choice that the networks of this pack cannot follow raises PortraitError with file, key and both values.
    """
    folder = Path(folder)
    values, extra = _read(folder / UNET_FILE), _read(folder / EXTRA_FILE)
    try:
        return _config(folder, values, extra)
    except PortraitError as error:
        named = str(error).startswith((str(folder / UNET_FILE), str(folder / EXTRA_FILE)))
        raise error if named else PortraitError(f"{folder}: {UNET_FILE} or {EXTRA_FILE}: {error}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:  # values of another kind than theirs
        raise PortraitError(
            f"{folder}: {UNET_FILE} or {EXTRA_FILE} is not V-Express' configuration ({error}): copy or download it again"
        ) from error


def _config(folder: Path, values: dict[str, Any], extra: dict[str, Any]) -> ModelConfig:
    preset = PRESETS["vexpress"]
    unet = _unet(preset.unet, values, extra.get("unet_additional_kwargs", {}), folder)
    audio = _audio(preset.audio, extra.get("audio_projection", {}), unet, folder / EXTRA_FILE)
    return replace(
        preset,
        size=LATENT_CELL * int(values["sample_size"]) if values.get("sample_size") else preset.size,
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
    """The noise schedule from the arguments of diffusers' DDIMScheduler as V-Express gives them."""
    _check_fixed(values, SCHEDULER_FIXED, path)
    known = {own: values[theirs] for theirs, own in SCHEDULER_NAMES.items() if theirs in values}
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
    having = extension.get("motion_module_resolutions", levels)
    if not set(levels) <= set(having):
        raise PortraitError(
            f"{path}: motion_module_resolutions is {having}, temporal layers are built at all of {levels}"
        )
    return unet


def _spatial(unet: UNetConfig, values: Mapping[str, Any], path: Path) -> UNetConfig:
    _check_fixed(values, UNET_FIXED, path)
    widths = tuple(_value(values, "block_out_channels", path))
    heads = _value(values, "attention_head_dim", path)
    heads = [heads] * len(widths) if isinstance(heads, int) else heads
    if len(heads) != len(widths) or not all(1 <= each <= width for each, width in zip(heads, widths, strict=True)):
        raise PortraitError(
            f"{path}: attention_head_dim is {heads}, a number of heads for all of the {len(widths)} levels or for each is "
            "needed, no more than the level has channels"
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
    unknown = [each for each in [*down, *up] if each not in kinds]
    if unknown:
        raise PortraitError(f"{path}: block type {unknown[0]} is not known; known are {', '.join(kinds)}")
    having = tuple(kinds[each] for each in down)
    if len(having) != levels or having[::-1] != tuple(kinds[each] for each in up):
        raise PortraitError(
            f"{path}: down_block_types {down} and up_block_types {up} have to mirror each other over {levels} levels"
        )
    return having


def _guider(preset: GuiderConfig, values: Mapping[str, Any], unet: UNetConfig, path: Path) -> GuiderConfig:
    width = unet.block_out_channels[0]
    _check_fixed(values, {"conditioning_embedding_channels": width, "conditioning_channels": 3}, path)
    return GuiderConfig(tuple(values.get("block_out_channels", preset.channels)))


def _audio(preset: AudioConfig, values: Mapping[str, Any], unet: UNetConfig, path: Path) -> AudioConfig:
    width = unet.cross_attention_dim
    _check_fixed(values, {"output_dim": width, "num_latents_mean_pooled": 0}, path)
    own: dict[str, Any] = {own: int(values[theirs]) for theirs, own in AUDIO_NAMES.items() if theirs in values}
    return replace(preset, **own | {"width": None if own.get("width") == width else own.get("width")})


def _check_fixed(values: Mapping[str, Any], fixed: Mapping[str, Any], path: Path) -> None:
    for name, needed in fixed.items():
        if name in values and values[name] != needed:
            raise PortraitError(f"{path}: {name} is {values[name]!r}, the networks of this pack have {needed!r}")


def _value(values: Mapping[str, Any], name: str, path: Path) -> Any:
    if values.get(name) is None:
        raise PortraitError(f"{path}: {name} is missing: take the config that belongs to the weights")
    return values[name]


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an absent file is an empty one."""
    if not path.is_file():
        return {}
    values = json_value(path.read_bytes(), str(path))
    if not isinstance(values, dict):
        raise PortraitError(f"{path}: holds a {type(values).__name__}, an object with the configuration is needed")
    return values
