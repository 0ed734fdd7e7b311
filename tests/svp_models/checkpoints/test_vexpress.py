"""V-Express folders: every tensor is placed or checked, in any format; what does not fit is named with both shapes."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from svp_portrait.svp_models.checkpoints.model_file import load_model, save_model
from svp_portrait.svp_models.checkpoints.vexpress import FILES, holds_vexpress, load_vexpress, load_vexpress_networks
from svp_portrait.svp_models.config import VaeConfig
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.attention import sinusoidal_encoding
from svp_portrait.svp_models.networks.conditions import Conditions
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.presets import PRESETS

from ...reference.weights import full_size_shapes

TABLE = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.pos_encoder.pe"


def rewrite(folder: Path, stem: str, change, suffix: str = ".bin") -> None:
    """One of the files with what `change` makes of its tensors (in place or anew)."""
    path = folder / f"{stem}.bin"
    tensors = torch.load(path, weights_only=True)
    tensors = change(tensors) or tensors
    path.unlink()
    if suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path.with_suffix(suffix))
    else:
        torch.save(tensors, path.with_suffix(suffix))


def same(first, second) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_tensors_come_to_their_places(vexpress_folder, vexpress_files):
    _, networks = load_vexpress_networks(vexpress_folder)
    block = networks.denoiser.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0")
    stored = vexpress_files["denoising_unet"]
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1_5.to_q.weight"
    assert torch.equal(block.reference_attn.to_q.weight, stored[name])
    motion = networks.denoiser.get_submodule("up_blocks.1.motion_modules.1")
    theirs = vexpress_files["motion_module"]["up_blocks.1.motion_modules.1.temporal_transformer.norm.bias"]
    assert torch.equal(motion.norm.bias, theirs)
    both = vexpress_files["audio_projection"]["layers.1.0.to_kv.weight"]
    attention = networks.audio_projection.layers[1].attn
    assert torch.equal(torch.cat([attention.to_k.weight, attention.to_v.weight]), both)
    assert not networks.training and all(not tensor.is_meta for tensor in networks.state_dict().values())


def test_the_config_is_read_from_the_folder(vexpress_folder):
    config, _ = load_vexpress_networks(vexpress_folder)
    assert (config.name, config.keypoints, config.size, config.fps) == ("vexpress", "vexpress3", 96, 30.0)
    assert (config.window, config.overlap) == (12, 4)  # no more than the 12 frame positions
    assert (config.reference_weight, config.audio_weight) == (0.9, 2.0)
    assert config.unet.attention_levels == (True, True, True, False) and config.unet.motion_mid_block
    assert (config.unet.norm_groups, config.unet.motion_groups, config.unet.motion_heads) == (4, 32, 4)
    assert config.audio.feature_size == config.style.audio_size == 20 and config.audio.rows_per_frame == 2
    assert config.scheduler.beta_end == 0.011 and config.scheduler.exact_terminal


def test_any_mix_of_formats_and_precisions(vexpress_folder):
    _, expected = load_vexpress_networks(vexpress_folder)
    rewrite(vexpress_folder, "reference_net", lambda tensors: None, ".safetensors")
    rewrite(vexpress_folder, "motion_module", lambda tensors: {"state_dict": tensors}, ".pth")
    _, networks = load_vexpress_networks(vexpress_folder)
    assert same(networks, expected)
    rewrite(vexpress_folder, "v_kps_guider", lambda t: {name: each.to(torch.bfloat16) for name, each in t.items()})
    _, networks = load_vexpress_networks(vexpress_folder)
    weight, full = networks.guider.conv_in.weight, expected.guider.conv_in.weight
    assert weight.dtype == torch.float32 and torch.equal(weight, full.to(torch.bfloat16).float())


def test_stale_motion_layers_in_the_denoising_file_give_way(vexpress_folder, vexpress_files):
    _, expected = load_vexpress_networks(vexpress_folder)
    stale = {name: tensor * math.nan for name, tensor in vexpress_files["motion_module"].items()}
    rewrite(vexpress_folder, "denoising_unet", lambda tensors: tensors.update(stale))
    _, networks = load_vexpress_networks(vexpress_folder)
    assert same(networks, expected)


def test_rounded_frame_positions_are_used_as_they_are_stored(vexpress_folder):
    def encoding(networks):
        return networks.denoiser.get_submodule("up_blocks.0.motion_modules.0.transformer_blocks.0").positional_encoding

    _, networks = load_vexpress_networks(vexpress_folder)
    assert encoding(networks) is None  # those that are computed anyway
    rewrite(
        vexpress_folder,
        "motion_module",
        lambda tensors: {name: each.half() if name.endswith("pe") else each for name, each in tensors.items()},
    )
    _, rounded = load_vexpress_networks(vexpress_folder)
    exact = sinusoidal_encoding(12, 96, torch.zeros(()))
    assert torch.equal(encoding(rounded), exact.half().float().expand(2, -1, -1))
    assert same(rounded, networks)  # they are no weights: a file of our own has none
    with torch.no_grad():
        images = torch.randn(3, 96, 2, 2, generator=torch.Generator().manual_seed(1))
        first, second = (
            each.denoiser.get_submodule("up_blocks.0.motion_modules.0")(images, 3) for each in (networks, rounded)
        )
    assert 0 < float((first - second).abs().max()) < 1e-3


def test_style_layers_are_new_and_silent(vexpress_folder):
    (_, first), (_, again) = (load_vexpress_networks(vexpress_folder) for _ in range(2))
    assert same(first, again)  # styles saved with one are read by the other
    block = first.denoiser.transformer_blocks()[0]
    assert not block.style_attn.to_out[0].weight.any() and block.style_attn.to_q.weight.std() > 0.01
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    bank = first.reference(draw(1, 4, 4, 6))
    latents, audio, kps, style = draw(1, 2, 4, 4, 6), draw(1, 2, 4, 24), draw(1, 2, 32, 4, 6), draw(1, 2, 16, 24)
    with torch.no_grad():
        results = [
            first.denoiser(latents, torch.tensor([500]), Conditions(bank, None, audio, kps, each))
            for each in (None, style)
        ]
    assert torch.equal(*results)


def wider(name: str):
    def change(tensors):
        tensors[name] = torch.cat([tensors[name], tensors[name][:1]])

    return change


@pytest.mark.parametrize(
    ("stem", "change", "message"),
    [
        ("audio_projection", wider("layers.0.0.to_kv.weight"),
         r"audio_projection.bin: layers.0.0.to_kv.weight has shape \[49, 28\], \[48, 28\] is needed"),
        ("reference_net", wider("conv_in.bias"), r"reference_net.bin: conv_in.bias has shape \[33\], \[32\] is needed"),
        ("v_kps_guider", lambda t: t.pop("blocks.2.weight") is None,
         r"v_kps_guider.bin: blocks.2.weight is missing, shape \[6, 6, 3, 3\] is needed"),
        ("denoising_unet", lambda t: t.update({"add_embedding.weight": torch.zeros(2)}),
         r"denoising_unet.bin: add_embedding.weight of shape \[2\] is unexpected"),
        ("denoising_unet", lambda t: t.update({"down_blocks.7.motion_modules.0.x": torch.zeros(2)}),
         r"denoising_unet.bin: down_blocks.7.motion_modules.0.x of shape \[2\] is unexpected"),
        ("denoising_unet", lambda t: t.update({TABLE: torch.zeros(1, 24, 32)}),
         r"denoising_unet.bin: .*pos_encoder.pe has shape \[1, 24, 32\], \[1, 12, 32\] is needed"),
        ("motion_module", lambda t: t.pop(TABLE) is None, r"motion_module.bin: .*blocks.1.pos_encoder.pe is missing"),
        ("motion_module", lambda t: t.update({TABLE: t[TABLE].roll(1, 1)}),
         r"motion_module.bin: .*blocks.1.pos_encoder.pe differs by up to \S+ from the sinusoidal positional encoding"),
        ("reference_net", lambda t: t.update({"conv_in.weight": t["conv_in.weight"].to(torch.int8)}),
         "reference_net.bin: conv_in.weight holds torch.int8, weights are floats"),
        ("v_kps_guider", lambda t: t["conv_in.weight"].view(-1)[:2].fill_(math.inf) is None,
         "v_kps_guider.bin: conv_in.weight has 2 of 108 values that are not finite"),
        ("motion_module", lambda t: next(iter(t.values())).fill_(math.nan) is None,
         "motion_module.bin: .* values that are not finite"),
        ("audio_projection", lambda t: {f"module.{name}": tensor for name, tensor in t.items()},
         r"audio_projection.bin: latents is missing, but module.latents is there: .* DataParallel wrapper, remove the prefix 'module.'"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_named(vexpress_folder, stem, change, message):
    rewrite(vexpress_folder, stem, change)
    with pytest.raises(PortraitError, match=message):
        load_vexpress_networks(vexpress_folder)


def test_mislabelled_truncated_and_poisoned_files_are_named(vexpress_folder):
    reference, denoising = (vexpress_folder / f"{stem}.bin" for stem in ("reference_net", "denoising_unet"))
    content = reference.read_bytes()
    reference.write_bytes(denoising.read_bytes())
    with pytest.raises(PortraitError, match=r"reference_net.bin: .*(norm1_5|attn1_5).* of shape .* is unexpected"):
        load_vexpress_networks(vexpress_folder)
    reference.write_bytes(content[:-1000])
    with pytest.raises(PortraitError, match=r"reference_net.bin: not a readable weight file"):
        load_vexpress_networks(vexpress_folder)

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(vexpress_folder / "sprung"),)

    torch.save({"conv_in.weight": torch.zeros(1), "trap": Trap()}, reference)
    with pytest.raises(PortraitError, match=r"reference_net.bin: its pickle holds more than tensors"):
        load_vexpress_networks(vexpress_folder)
    assert not (vexpress_folder / "sprung").exists()
    reference.unlink()
    with pytest.raises(PortraitError, match="there is no reference_net with one of the endings"):
        load_vexpress_networks(vexpress_folder)
    index = vexpress_folder / "reference_net.bin.index.json"
    index.write_text("{}")
    with pytest.raises(
        PortraitError, match="index.json: the weights are split into several files: use reference_net.bin"
    ):
        load_vexpress_networks(vexpress_folder)
    index.unlink()
    reference.mkdir()
    with pytest.raises(PortraitError, match="reference_net.bin: it is a folder, the file of that name is needed"):
        load_vexpress_networks(vexpress_folder)
    with pytest.raises(PortraitError, match="there is no such folder"):
        load_vexpress_networks(vexpress_folder / "nowhere")


def test_a_folder_is_known_by_its_five_files():
    names = [
        f"{stem}{suffix}" for stem, suffix in zip(FILES, (".bin", ".pth", ".safetensors", ".bin", ".pt"), strict=True)
    ]
    assert holds_vexpress([*names, "readme.md"])
    assert not holds_vexpress(names[1:]) and not holds_vexpress([*names[1:], "denoising_unet.onnx"])


SMALL_VAE = VaeConfig(encoder_widths=(32, 32, 32, 32), decoder_widths=(32, 32, 32, 32), layers=1)


def write_vae(folder: Path) -> torch.nn.Module:
    """A small VAE as diffusers keeps one."""
    vae = build_vae(SMALL_VAE).eval()
    (folder / "sd-vae-ft-mse").mkdir()
    save_file(vae.autoencoder.state_dict(), folder / "sd-vae-ft-mse" / "diffusion_pytorch_model.safetensors")
    config = {"block_out_channels": [32] * 4, "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 32}
    (folder / "sd-vae-ft-mse" / "config.json").write_text(json.dumps(config))
    return vae


def test_the_whole_model_has_the_vae_beside_it_and_can_be_saved(vexpress_folder, tmp_path):
    with pytest.raises(PortraitError, match="vae-ft-mse-840000-ema-pruned.safetensors not found in .*v-express, "):
        load_vexpress(vexpress_folder)
    vae = write_vae(vexpress_folder)
    model = load_vexpress(vexpress_folder)
    assert model.config.vae == SMALL_VAE and same(model.vae, vae) and model.face_analyzer is None
    half = load_vexpress(vexpress_folder, torch.bfloat16)
    assert half.networks.guider.conv_in.weight.dtype == torch.bfloat16 and half.style_space == model.style_space
    save_model(tmp_path / "own.safetensors", model, {}, torch.float32)
    assert same(load_model(tmp_path / "own.safetensors").networks, model.networks)


@pytest.mark.slow
def test_full_size_files_load_strictly(tmp_path):
    """All names and shapes of the released sizes, in files whose tensors each keep one number for all of their values."""
    manifest = full_size_shapes()
    assert set(manifest) == set(FILES)

    def constant(shape: list[int]) -> torch.Tensor:
        return torch.full((1,), 0.02).expand(shape)

    for stem, shapes in manifest.items():
        tensors = {name: constant(shape) for name, shape in shapes.items()}
        for name in tensors:
            if name.endswith("pos_encoder.pe"):
                tensors[name] = sinusoidal_encoding(*shapes[name][1:], torch.zeros(()))[None]
        torch.save(tensors, tmp_path / f"{stem}.bin")
    with torch.device("meta"):
        vae = build_vae(PRESETS["vexpress"].vae).autoencoder
    torch.save(
        {name: constant(tensor.shape) for name, tensor in vae.state_dict().items()}, tmp_path / "sd-vae-ft-mse.bin"
    )
    model = load_vexpress(tmp_path)
    assert model.config == PRESETS["vexpress"]
    parameters = sum(tensor.numel() for name, tensor in model.networks.named_parameters() if "style" not in name)
    tables = sum(torch.Size(s).numel() for n, s in manifest["motion_module"].items() if n.endswith("pos_encoder.pe"))
    stored = sum(torch.Size(shape).numel() for shapes in manifest.values() for shape in shapes.values())
    assert parameters == stored - tables
    assert float(model.networks.denoiser.mid_block.motion_modules[0].proj_out.weight.detach().mean()) == pytest.approx(
        0.02
    )
