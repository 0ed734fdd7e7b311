"""V-Express folders written by the tests: small weights under V-Express' names, and what our own code computes with them."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from svp_portrait.svp_models.checkpoints.vexpress import load_vexpress_networks
from svp_portrait.svp_models.checkpoints.vexpress_config import vexpress_config
from svp_portrait.svp_models.config import PRESETS
from svp_portrait.svp_models.face.retarget import (
    draw_three_points,
    nearest_turn,
    resize_keypoints,
    retarget_three_points,
)
from svp_portrait.svp_models.media.images import median_filter
from svp_portrait.svp_models.model import PortraitNetworks, build_networks
from svp_portrait.svp_models.networks.attention import BlockContext, sinusoidal_encoding
from svp_portrait.svp_models.networks.conditions import Conditions, ConditionWeights

UNET = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 2,
    "block_out_channels": [32, 64],
    "cross_attention_dim": 24,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "in_channels": 4,
    "layers_per_block": 1,
    "norm_eps": 1e-5,
    "norm_num_groups": 4,
    "out_channels": 4,
    "sample_size": 12,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
EXTRA = {
    "unet_additional_kwargs": {
        "motion_module_mid_block": False,
        "motion_module_resolutions": [1, 2],
        "motion_module_kwargs": {"num_attention_heads": 4, "temporal_position_encoding_max_len": 12},
    },
    "noise_scheduler_kwargs": {"beta_end": 0.011, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    "v_kps_guider": {"conditioning_embedding_channels": 32, "block_out_channels": [4, 6, 8, 10]},
    "audio_projection": {
        "dim": 24, "depth": 2, "dim_head": 8, "heads": 3, "num_queries": 4, "embedding_dim": 20, "output_dim": 24,
        "ff_mult": 4, "max_seq_len": 10,
    },
    "reference_attention_weight": 0.9,
    "audio_attention_weight": 2.0,
    "loop": {"frames": 9, "context": 5, "overlap": 1, "steps": 4, "guidance": 2.0},
}  # fmt: skip
OTHER_UNET = UNET | {
    "attention_head_dim": [3, 4, 5],
    "block_out_channels": [64, 32, 96],
    "cross_attention_dim": 20,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "layers_per_block": 2,
    "norm_num_groups": 16,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}
OTHER_EXTRA = EXTRA | {
    "unet_additional_kwargs": {
        "motion_module_resolutions": [1, 2, 4, 8],
        "motion_module_kwargs": {"num_attention_heads": 8, "temporal_position_encoding_max_len": 9},
    },
    "v_kps_guider": {"conditioning_embedding_channels": 64, "block_out_channels": [3, 5, 7, 9]},
    "audio_projection": {
        "dim": 28, "depth": 1, "dim_head": 6, "heads": 2, "num_queries": 3, "embedding_dim": 14, "output_dim": 20,
        "ff_mult": 2, "max_seq_len": 14,
    },
    "reference_attention_weight": 1.0,
    "audio_attention_weight": 0.5,
}  # fmt: skip
ROWS = 6  # of an audio window there: fewer than the projection has positions for
LAYERS = {"ln0": "0.norm1", "ln1": "0.norm2", "attn.to_q": "0.to_q", "attn.to_out.0": "0.to_out", "ff.0": "1.0",
          "ff.1.net.0.proj": "1.1", "ff.1.net.2": "1.3"}  # fmt: skip


def published(networks: PortraitNetworks, positions: int) -> dict[str, dict[str, Tensor]]:
    """The five files: V-Express' names -> tensors."""
    files: dict[str, dict[str, Tensor]] = {
        "denoising_unet": {},
        "motion_module": {},
        "reference_net": networks.reference.state_dict(),
        "v_kps_guider": networks.guider.state_dict(),
        "audio_projection": {},
    }
    for name, tensor in networks.denoiser.state_dict().items():
        if ".motion_modules." in name:
            theirs = re.sub(r"(motion_modules\.\d+)", r"\1.temporal_transformer", name)
            files["motion_module"][theirs] = tensor
            if theirs.endswith("to_q.weight"):
                table = sinusoidal_encoding(positions, tensor.shape[1], torch.zeros(()))[None]
                files["motion_module"][theirs.replace("to_q.weight", "pos_encoder.pe")] = table
        elif ".style_" not in name:
            name = name.replace("reference_attn", "attn1_5").replace("reference_norm", "norm1_5")
            files["denoising_unet"][name] = tensor
    audio, own = files["audio_projection"], networks.audio_projection.state_dict()
    for name, tensor in own.items():
        for ours, theirs in LAYERS.items():
            name = re.sub(rf"(layers\.\d+)\.{re.escape(ours)}\.(weight|bias)$", rf"\1.{theirs}.\2", name)
        if name.endswith("attn.to_k.weight"):
            both = torch.cat([tensor, own[name.replace("to_k", "to_v")]])
            audio[name.replace("attn.to_k", "0.to_kv")] = both
        elif not name.endswith("attn.to_v.weight"):
            audio[name] = tensor
    return files


def write_folder(folder: Path, files: dict[str, dict[str, Tensor]]) -> Path:
    write_configs(folder, UNET, EXTRA)
    for stem, tensors in files.items():
        torch.save(dict(tensors), folder / f"{stem}.bin")
    return folder


def write_configs(folder: Path, unet: dict, extra: dict) -> None:
    (folder / "unet_config.json").write_text(json.dumps(unet))
    (folder / "extra_config.json").write_text(json.dumps(extra))


def small_config():
    """The two JSON files above, written down once more as ours."""
    preset = PRESETS["vexpress"]
    unet = replace(
        preset.unet, block_out_channels=(32, 64), layers_per_block=1, attention_levels=(True, False), attention_heads=2,
        cross_attention_dim=24, norm_groups=4, motion_heads=4, motion_positions=12, motion_mid_block=False,
    )  # fmt: skip
    audio = replace(preset.audio, feature_size=20, tokens=4, layers=2, heads=3, head_size=8)
    return replace(
        preset, size=96, window=12, overlap=4, reference_weight=0.9, audio_weight=2.0, unet=unet, audio=audio,
        guider=replace(preset.guider, channels=(4, 6, 8, 10)), style=replace(preset.style, audio_size=20),
        scheduler=replace(preset.scheduler, beta_end=0.011),
    )  # fmt: skip


def filled(networks: PortraitNetworks, seed: int) -> PortraitNetworks:
    """Every weight drawn, also those that start at zero; what writes to the residual streams is small."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in networks.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            weight.copy_(drawn * 0.5 / weight[0].numel() ** 0.5 if weight.ndim > 1 else 1 + 0.1 * drawn)
            if name.endswith("bias"):
                weight.copy_(0.05 * drawn)
    return networks.eval()


@pytest.fixture(scope="session")
def vexpress_files() -> dict[str, dict[str, Tensor]]:
    """The five files of small weights; do not write to them."""
    return published(filled(build_networks(small_config()), 5), 12)


@pytest.fixture
def vexpress_folder(tmp_path, vexpress_files) -> Path:
    """Small weights in the published form, with their configs: sizes, heads, groups and positions unlike SD1.5's."""
    (tmp_path / "v-express").mkdir()
    return write_folder(tmp_path / "v-express", vexpress_files)


@pytest.fixture(scope="session")
def parity_original(vexpress_files, tmp_path_factory) -> Path:
    """The same with inputs and outputs as V-Express' reference data has them, non-square; the outputs are our own."""
    return write_reference(write_folder(tmp_path_factory.mktemp("parity"), vexpress_files), 10)


@pytest.fixture(scope="session")
def other_parity_original(tmp_path_factory) -> Path:
    """Another one: three levels, each with its number of heads, which do not divide the widths; an audio projection wider than
    its tokens; weights and frame positions rounded to bfloat16; stale motion layers, no numbers at all, in the denoising file."""
    folder = tmp_path_factory.mktemp("other_parity")
    write_configs(folder, OTHER_UNET, OTHER_EXTRA)
    files = published(filled(build_networks(vexpress_config(folder)), 8), 9)
    stale = {name: torch.full_like(tensor, math.nan) for name, tensor in files["motion_module"].items()}
    files["denoising_unet"] |= stale
    for stem, tensors in files.items():
        rounded = {name: tensor.bfloat16().contiguous() for name, tensor in tensors.items()}
        save_file(rounded, folder / f"{stem}.safetensors")
    return write_reference(folder, ROWS)


def write_reference(folder: Path, rows: int) -> Path:
    """Puts our own inputs and outputs beside the weights; rows: of an audio window."""
    config, networks = load_vexpress_networks(folder)
    tensors, pictures = own_outputs(config, networks, rows)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "io.safetensors")
    np.savez_compressed(folder / "kps_images.npz", **pictures)
    blocks = [name.removeprefix("bank.") for name in tensors if name.startswith("bank.")]
    windows = {
        "num_frames": 9,
        "context_frames": 5,
        "context_overlap": 1,
        "windows": [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]],
    }
    ragged = {"num_frames": 8, "context_frames": 5, "context_overlap": 1, "windows": [[0, 1, 2, 3, 4], [4, 5, 6, 7, 6]]}
    length = {
        "init_video_length": 8,
        "context_frames": 5,
        "context_overlap": 1,
        "indices_inclusive": [[0, 4]],
        "video_length": 5,
    }
    a = scaled_linear_alphas(0.00085, 0.011)
    contents = {
        "bank_paths.json": blocks[::-1],
        "context_windows.json": {"windows": [windows, ragged], "video_length": [length]},
        "ddim.json": {
            "config": EXTRA["noise_scheduler_kwargs"],
            "num_train_timesteps": 1000,
            "timesteps": {"4": [999, 749, 499, 249]},
            "alphas_cumprod": a.tolist(),
        },
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture
def parity_folder(parity_original, tmp_path) -> Path:
    """A copy of it to be changed."""
    return Path(shutil.copytree(parity_original, tmp_path / "parity"))


def scaled_linear_alphas(start: float, end: float) -> Tensor:
    """alphas_cumprod of scaled_linear betas, shifted and scaled to zero terminal SNR, in float64."""
    betas = torch.linspace(start**0.5, end**0.5, 1000, dtype=torch.float64) ** 2
    roots = torch.cumprod(1 - betas, 0).sqrt()
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2


@torch.no_grad()
def own_outputs(config, networks: PortraitNetworks, rows: int) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
    generator = torch.Generator().manual_seed(11)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    high, wide, frames = 6, 10, 3
    heard, tokens, first = config.audio.feature_size, config.audio.tokens, config.unet.block_out_channels[0]
    io = {
        "kps_guider.images": torch.rand(1, 3, 2, 48, 80, generator=generator),
        "audio_projection.input": draw(3, rows, heard),
        "reference_net.latents": draw(1, 4, high, wide),
        "unet.latents": draw(1, 4, frames, high, wide),
        "unet.audio_embeddings": draw(frames, tokens, config.unet.cross_attention_dim),
        "unet.kps_features": draw(1, first, frames, high, wide),
        "loop.keypoints": 40 * torch.rand(9, 3, 2, generator=generator),
        "loop.encoder_states": draw(1, 31, heard),
        "loop.init_latents": draw(1, 4, 9, high, wide),
        "draw_kps.keypoints": 70 * torch.rand(2, 3, 2, generator=generator) - 10,
        "retarget.reference_keypoints": torch.tensor([[20.0, 20], [40, 22], [31, 35]]),
        "retarget.target_keypoints": torch.tensor([[20.0, 20], [40, 22], [31, 35]]) * 1.5 + 2 * draw(5, 3, 2),
        "audio_windows.encoder_states": draw(1, 40, heard),
        "median_filter.input": draw(3, 4, 5, 6),
    }
    io["retarget.target_keypoints"][1] = 1.5 * io["retarget.reference_keypoints"]  # the nearest, but not the last taken
    io["loop.reference_latents"] = io["reference_net.latents"].clone()
    io["kps_guider.features"] = networks.guider(io["kps_guider.images"].transpose(1, 2)).transpose(1, 2)
    io["audio_projection.output"] = networks.audio_projection(io["audio_projection.input"])
    bank = networks.reference(io["reference_net.latents"])
    blocks = [
        name for name, each in networks.denoiser.named_modules() if re.fullmatch(r".*\.transformer_blocks\.0", name)
    ]
    blocks = [name for name in blocks if ".attentions." in name]
    io |= {f"bank.{name}": entry for name, entry in zip(blocks, bank, strict=True)}
    io["reference_net.sample"] = reference_sample(networks.reference, io["reference_net.latents"])
    step_outputs(io, config, networks, bank)
    loop_outputs(io, config, networks, bank, rows)
    reference, target = io["retarget.reference_keypoints"], io["retarget.target_keypoints"]
    bound, anchor = 10000.0, 0
    for index, each in enumerate(target):  # V-Express' scan
        ratio = float((each[0] - each[2]).norm() / (each[1] - each[2]).norm())
        if abs(ratio - float((reference[0] - reference[2]).norm() / (reference[1] - reference[2]).norm())) < bound:
            bound, anchor = ratio, index
    assert anchor != nearest_turn(target, reference)  # only then it shows which frame is taken
    io["retarget.offset"] = retarget_three_points(reference, target, "offset", anchor)
    io["retarget.naive"] = retarget_three_points(reference, target, "naive", anchor)
    io["kps_interpolate.output"] = resize_keypoints(target, 13)
    io["audio_windows.windows"] = audio_windows(io["audio_windows.encoder_states"], 7, rows)
    io["median_filter.output"] = median_filter(io["median_filter.input"].transpose(0, 1)).transpose(0, 1)
    pictures = {
        "draw_kps_images": draw_three_points(io["draw_kps.keypoints"], 64, 56),
        "loop_kps_images": draw_three_points(io["loop.keypoints"], 80, 48),
    }
    return io, pictures


def reference_sample(reference, latents: Tensor) -> Tensor:
    time = reference.embed_time(torch.zeros(1))
    context = BlockContext(frames=1, tokens=torch.zeros(1, 1, reference.cross_attention_dim))
    return reference.conv_out(reference.trunk(reference.conv_in(latents), time, context))


def step_outputs(io: dict[str, Tensor], config, networks: PortraitNetworks, bank: tuple[Tensor, ...]) -> None:
    latents = io["unet.latents"].transpose(1, 2)
    audio, kps = io["unet.audio_embeddings"][None], io["unet.kps_features"].transpose(1, 2)
    conditional = Conditions(bank, None, audio, kps, None)
    for name, timestep, weights in (
        ("t981", 981, ConditionWeights(config.reference_weight, config.audio_weight)),
        ("t40.weights_1_0.5", 40, ConditionWeights(1.0, 0.5)),
    ):
        time = torch.tensor([timestep])
        given = networks.denoiser(latents, time, conditional, weights)
        nothing = networks.denoiser(latents, time, conditional.unconditional(), weights)
        io[f"unet.cfg.{name}.noise_pred"] = torch.cat([nothing, given]).transpose(1, 2)
    io["unet.cond.t981.noise_pred"] = io["unet.cfg.t981.noise_pred"][1:].clone()
    io["unet.cond.t981.stage.time_embedding"] = networks.denoiser.embed_time(torch.tensor([981]))
    io["unet.cond.t981.stage.conv_in"] = networks.denoiser.conv_in(latents[0, :1])


def audio_windows(states: Tensor, frames: int, window: int) -> Tensor:
    rows = torch.nn.functional.interpolate(states.transpose(1, 2), size=2 * frames, mode="linear")[0].T
    silence = torch.zeros((window - 2) // 2, states.shape[2])
    padded = torch.cat([silence, rows, silence])
    return torch.stack([padded[2 * index : 2 * index + window] for index in range(frames)])


def loop_outputs(
    io: dict[str, Tensor], config, networks: PortraitNetworks, bank: tuple[Tensor, ...], rows: int
) -> None:
    """The loop written out: two windows, frame 4 in both, DDIM from the formula."""
    pictures = torch.from_numpy(draw_three_points(io["loop.keypoints"], 80, 48)).permute(0, 3, 1, 2)[None] / 255
    kps = networks.guider(pictures.float())  # 1 f c h w
    windows = audio_windows(io["loop.encoder_states"], 9, rows)
    weights = ConditionWeights(config.reference_weight, config.audio_weight)
    tokens = networks.audio_projection(windows)
    io |= {
        "loop.audio_windows": windows,
        "loop.audio_embeddings": tokens,
        "loop.kps_features": kps.transpose(1, 2).clone(),
    }
    a = torch.cat([scaled_linear_alphas(0.00085, 0.011).float(), torch.ones(1)])  # the last entry: after the last step
    for name, guidance in (("loop", 2.0), ("loop_no_cfg", 1.0)):
        latents = io["loop.init_latents"].transpose(1, 2)
        for step, t in enumerate((999, 749, 499, 249)):
            total, count = torch.zeros_like(latents), torch.zeros(9)
            for index in (list(range(5)), list(range(4, 9))):
                given = Conditions(bank, None, tokens[index][None], kps[:, index], None)
                answers = [
                    networks.denoiser(latents[:, index], torch.tensor([t]), each, weights)
                    for each in (given.unconditional(), given)
                ]
                total[:, index] += answers[0] + guidance * (answers[1] - answers[0])
                count[index] += 1
            velocity = total / count[:, None, None, None]
            now, then = a[t], a[t - 250]  # of the last step a[-1], 1
            clean = now.sqrt() * latents - (1 - now).sqrt() * velocity
            noise = now.sqrt() * velocity + (1 - now).sqrt() * latents
            latents = then.sqrt() * clean + (1 - then).sqrt() * noise
            if step == 1 and name == "loop":
                io["loop.latents_after_step1"] = latents.transpose(1, 2)
        io[f"{name}.final_latents"] = latents.transpose(1, 2)
