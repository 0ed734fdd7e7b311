"""Style layers: from one model into another, at any strength. Style files: round trips. Files that do not fit are errors."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from svp_portrait.svp_models.checkpoints.model_file import style_space_of
from svp_portrait.svp_models.checkpoints.safetensors_io import read_metadata, write_safetensors
from svp_portrait.svp_models.checkpoints.style_layers import (
    apply_style_layer,
    is_style_tensor,
    load_style,
    read_style_layer,
    save_style,
    save_style_layer,
    style_tensors,
)
from svp_portrait.svp_models.config import AudioConfig, GuiderConfig, ModelConfig, StyleConfig, UNetConfig, VaeConfig
from svp_portrait.svp_models.diffusion.style import extract_style
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.model import PortraitModel, build_networks, parameter_group
from svp_portrait.svp_models.networks.conditions import Conditions
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.presets import PRESETS
from svp_portrait.svp_models.types import Audio, Style, StylePrior

PLAIN = ModelConfig(
    name="plain",
    unet=UNetConfig(
        block_out_channels=(8, 16), layers_per_block=1, attention_levels=(False, True), attention_heads=2,
        cross_attention_dim=12, norm_groups=4, motion_heads=2, motion_groups=4, motion_positions=8,
    ),
    vae=VaeConfig(kind="portrait", fold=4, scale=1.0, encoder_widths=(8, 8), decoder_widths=(8, 8, 8), layers=1),
    guider=GuiderConfig(channels=(4, 4, 4, 4)),
    audio=AudioConfig(features="mel", window=3, tokens=2, layers=1, heads=2, head_size=4),
    style=StyleConfig(style_size=8, layers=1, heads=2, feed_forward=8, max_frames=16, tokens=3),
)  # fmt: skip
# The built-in model's family: more inputs, and conditions in the time embedding too.
DEMO = replace(
    PLAIN,
    name="demo-like",
    residual=True,
    unet=replace(PLAIN.unet, reference_concat=True, reference_warp=True, condition_embedding=True),
)


def made(config: ModelConfig, seed: int) -> PortraitModel:
    """A model all of whose weights matter."""
    torch.manual_seed(seed)
    networks = build_networks(config).eval()
    with torch.no_grad():
        for weight in networks.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    space = style_space_of(networks.style_extractor)
    return PortraitModel(config, networks, build_vae(config.vae).eval(), None, space, {"seed": str(seed)})


def denoised(model: PortraitModel, styled: bool = True) -> torch.Tensor:
    """One pass of the denoiser over two frames, with style code 1, 2, ... or without any style."""
    generator = torch.Generator().manual_seed(9)
    networks, unet = model.networks, model.config.unet
    latents = torch.randn(1, 2, unet.latent_channels, 4, 4, generator=generator)
    with torch.no_grad():
        codes = torch.arange(1.0, 1 + model.config.style.style_size).expand(2, -1)
        conditions = Conditions(
            reference=networks.reference(latents[:, 0]),
            reference_latent=latents[:, 0] if unet.reference_concat else None,
            audio=torch.randn(1, 2, 2, unet.cross_attention_dim, generator=generator),
            kps=torch.randn(1, 2, unet.block_out_channels[0], 4, 4, generator=generator),
            style=networks.style_projection(codes)[None] if styled else None,
            reference_warped=latents if unet.reference_warp else None,
        )
        return networks.denoiser(latents, torch.tensor([500]), conditions)


@pytest.fixture(scope="module", params=[PLAIN, DEMO], ids=lambda config: config.name)
def trained(request):
    return made(request.param, 1)


@pytest.fixture
def file(trained, tmp_path):
    path = tmp_path / "layers.safetensors"
    save_style_layer(path, trained, {"step": "7"}, dtype=torch.float32)
    return path


def rewrite(path, tensors=lambda each: each, metadata=lambda each: each):
    with safe_open(path, framework="pt") as stored:
        have, header = {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata()
    save_file(tensors(have), path, metadata=metadata(header))


def test_the_file_holds_the_style_layers_and_says_so(trained, file):
    tensors, config, metadata = read_style_layer(file)
    assert set(tensors) == {name for name in trained.networks.state_dict() if is_style_tensor(name)}
    groups = {name: parameter_group(name) for name, _ in trained.networks.named_parameters()}
    style = {name for name, group in groups.items() if group in ("style", "style_projection", "style_extractor")}
    assert set(tensors) == style
    assert config.style == trained.config.style and config.features == "mel"
    assert config.base.block_out_channels == (8, 16) and config.base.cross_attention_dim == 12
    assert metadata["kind"] == "style_layer" and metadata["step"] == "7"
    assert metadata["style_space"] == trained.style_space


def test_half_precision_by_default(trained, tmp_path):
    save_style_layer(tmp_path / "half.safetensors", trained, {})
    tensors, _, _ = read_style_layer(tmp_path / "half.safetensors")
    assert {each.dtype for each in tensors.values()} == {torch.float16}
    applied = apply_style_layer(trained, tmp_path / "half.safetensors")
    assert applied.style_space == trained.style_space
    torch.testing.assert_close(denoised(applied), denoised(trained), atol=5e-3, rtol=0)


def test_back_into_its_own_model_nothing_changes(trained, file):
    assert torch.equal(denoised(apply_style_layer(trained, file)), denoised(trained))


def test_strength_runs_from_the_base_to_the_layers_as_trained(trained, file):
    base = made(trained.config, 2)
    before = denoised(base)
    plain = denoised(base, styled=False)
    at = {strength: denoised(apply_style_layer(base, file, strength)) for strength in (0.0, 0.01, 0.5, 1.0)}
    assert torch.equal(at[0.0], plain) and not torch.equal(at[1.0], before)
    distance = {strength: float((result - plain).norm()) for strength, result in at.items()}
    assert 0 < 10 * distance[0.01] < distance[0.5] < distance[1.0]
    # For small strengths the denoiser is linear in what the layers add.
    twice = denoised(apply_style_layer(base, file, 0.02)) - plain
    torch.testing.assert_close(twice, 2 * (at[0.01] - plain), atol=0.03 * float(twice.abs().max()), rtol=0)
    assert torch.equal(denoised(base), before)


def test_a_fresh_base_with_the_layers_is_the_base_that_was_trained(trained, file):
    """Only the style layers of the trained model differ from the base: applied to it, the result is the trained model."""
    base = made(trained.config, 1)
    fresh = made(trained.config, 5).networks.state_dict()
    base.networks.load_state_dict(
        {name: fresh[name] if is_style_tensor(name) else each for name, each in base.networks.state_dict().items()}
    )
    assert not torch.equal(denoised(base), denoised(trained))
    applied = apply_style_layer(base, file)
    assert torch.equal(denoised(applied), denoised(trained))
    assert applied.style_space == trained.style_space
    assert applied.metadata["style_layer"] == "layers.safetensors" and applied.metadata["seed"] == "1"


def test_of_two_files_in_a_row_the_second_remains(trained, file, tmp_path):
    other = made(trained.config, 3)
    save_style_layer(tmp_path / "other.safetensors", other, {}, dtype=torch.float32)
    base = made(trained.config, 2)
    first = apply_style_layer(base, file, 0.7)
    both = apply_style_layer(first, tmp_path / "other.safetensors", 0.5)
    alone = apply_style_layer(base, tmp_path / "other.safetensors", 0.5)
    assert torch.equal(denoised(both), denoised(alone)) and not torch.equal(denoised(both), denoised(first))
    assert both.style_space == other.style_space != first.style_space == trained.style_space
    assert both.metadata == alone.metadata and both.metadata["style_layer"] == "other.safetensors"


def test_two_strengths_live_side_by_side_on_shared_weights(trained, file):
    base = made(trained.config, 2)
    weak, strong = apply_style_layer(base, file, 0.25), apply_style_layer(base, file, 1.0)
    own, first, second = (each.networks.state_dict() for each in (base, weak, strong))
    for name, tensor in own.items():
        places = {tensor.data_ptr(), first[name].data_ptr(), second[name].data_ptr()}
        assert len(places) == (3 if is_style_tensor(name) else 1), name
    assert weak.vae is base.vae
    expected = denoised(strong)
    weak.networks.double()  # as moving one to another device or precision does
    assert torch.equal(denoised(strong), expected) and next(base.networks.parameters()).dtype == torch.float32


def test_a_base_without_style_layers_gets_them(tmp_path):
    source = made(PLAIN, 1)
    save_style_layer(tmp_path / "layers.safetensors", source, {}, dtype=torch.float32)
    base = made(replace(PLAIN, unet=replace(PLAIN.unet, style_attention=False)), 2)
    applied = apply_style_layer(base, tmp_path / "layers.safetensors")
    assert applied.config.unet.style_attention and not base.config.unet.style_attention
    assert torch.equal(denoised(applied, styled=False), denoised(base, styled=False))
    assert not torch.equal(denoised(applied), denoised(base, styled=False))
    with pytest.raises(PortraitError, match="model 'plain' has style layers in 0 of its 4 transformer blocks"):
        save_style_layer(tmp_path / "none.safetensors", base, {})


@pytest.mark.parametrize(
    ("unet", "message"),
    [
        ({"block_out_channels": (8, 24)}, r"block_out_channels \(8, 24\), not \(8, 16\)"),
        ({"cross_attention_dim": 16}, "cross_attention_dim 16, not 12"),
        ({"layers_per_block": 2}, "layers_per_block 2, not 1"),
        ({"attention_levels": (True, True)}, r"attention_levels \(True, True\), not \(False, True\)"),
        ({"condition_embedding": True}, "condition_embedding True, not False"),
    ],
)
def test_other_widths_and_blocks_are_refused(unet, message, tmp_path):
    save_style_layer(tmp_path / "layers.safetensors", made(PLAIN, 1), {})
    base = made(replace(PLAIN, name="other", unet=replace(PLAIN.unet, **unet)), 2)
    with pytest.raises(PortraitError, match=f"layers.safetensors.*do not fit model 'other', which has {message}"):
        apply_style_layer(base, tmp_path / "layers.safetensors")


def test_other_audio_features(tmp_path):
    path = tmp_path / "layers.safetensors"
    save_style_layer(path, made(PLAIN, 1), {})
    same_size = made(replace(PLAIN, audio=replace(PLAIN.audio, features="whisper")), 2)
    with pytest.raises(PortraitError, match="reads mel features, model 'plain' reads whisper.*1920 values"):
        apply_style_layer(same_size, path)
    audio = replace(PLAIN.audio, features="wav2vec2", feature_size=768)
    applied = apply_style_layer(made(replace(PLAIN, audio=audio, style=replace(PLAIN.style, audio_size=768)), 2), path)
    seen = extract_style(applied, torch.randn(4, 64), None, 25.0)
    assert seen.style_space == applied.style_space and seen.mu.shape == (8,)
    with pytest.raises(
        PortraitError, match="takes 1920 audio features a frame, model 'plain' has 768 .wav2vec2.*frames alone"
    ):
        extract_style(applied, None, Audio(torch.zeros(1, 16000), 16000), 25.0)


@pytest.mark.parametrize("strength", [-0.5, float("nan"), float("inf")])
def test_strengths_that_mean_nothing(trained, file, strength):
    with pytest.raises(PortraitError, match="strength is"):
        apply_style_layer(trained, file, strength)


def test_damaged_files(trained, file):
    good = file.read_bytes()
    first = "style_extractor.pool.weight"
    cases = [
        ({"tensors": lambda have: {**have, first: have[first] + 1}}, "it was changed after saving"),
        ({"tensors": lambda have: {key: each for key, each in have.items() if key != first}}, f"{first} is missing"),
        ({"tensors": lambda have: {**have, "denoiser.conv_in.bias": torch.zeros(8)}}, "denoiser.conv_in.bias.*unexpected"),
        ({"metadata": lambda header: {**header, "kind": "style"}}, "holds a style, a style_layer is needed"),
        ({"metadata": lambda header: {**header, "config": "{"}}, "config: not JSON"),
        ({"metadata": lambda header: {**header, "config": json.dumps({"colour": 1})}}, "unknown key colour"),
        ({"metadata": lambda header: {**header, "style_space": ""}}, "names no style space"),
    ]  # fmt: skip
    for change, message in cases:
        file.write_bytes(good)
        rewrite(file, **change)
        with pytest.raises(PortraitError, match=message):
            apply_style_layer(trained, file)


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_has_style_layers_where_its_blocks_are(name):
    config = PRESETS[name]
    with torch.device("meta"):
        networks = build_networks(config)
    names = style_tensors(networks)
    blocks = len(networks.denoiser.transformer_blocks())
    of_denoiser = [each for each in names if each.startswith("denoiser.")]
    # A norm (2) and an attention (q, k, v, out, bias of out) in each block, and the style's embedding.
    assert len(of_denoiser) == 7 * blocks + config.unet.condition_embedding
    assert blocks == {"demo": 7, "demo256": 7, "sd15": 16, "vexpress": 16}[name]
    if name in ("sd15", "vexpress"):
        assert "denoiser.mid_block.attentions.0.transformer_blocks.0.style_attn.to_out.0.weight" in names
        assert names["style_projection.proj.weight"].shape == (16 * 768, 256)
    assert not any(".attn" in each or "reference" in each or "motion" in each for each in of_denoiser)
    # Of it 16 million are the style attention of the 16 blocks: 49 MB of a file in half precision.
    numbers = sum(each.numel() for each in names.values())
    assert numbers == {"demo": 1_666_824, "demo256": 1_995_392, "sd15": 24_558_912, "vexpress": 24_264_000}[name]


def test_metadata_is_readable_without_the_tensors(file):
    assert read_metadata(file)["kind"] == "style_layer"


def test_narrow_layers_plug_into_a_base_with_wide_ones(tmp_path):
    narrow = replace(PLAIN, unet=replace(PLAIN.unet, style_width=4))
    trained, base = made(narrow, 1), made(PLAIN, 2)
    path = tmp_path / "narrow.safetensors"
    save_style_layer(path, trained, {}, dtype=torch.float32)
    joined = apply_style_layer(base, path)
    assert joined.config.unet == narrow.unet
    attention = joined.networks.denoiser.transformer_blocks()[0].style_attn
    assert tuple(attention.to_q.weight.shape) == (4, 16) and tuple(attention.to_out[0].weight.shape) == (16, 4)
    assert torch.equal(denoised(joined, styled=False), denoised(base, styled=False))
    assert not torch.equal(denoised(joined), denoised(base))


SPACE = "0123456789abcdef"


def test_prior_round_trip(tmp_path):
    prior = StylePrior(torch.randn(8), torch.rand(8), SPACE, "happy — Füße")
    save_style(tmp_path / "prior.safetensors", prior)
    again = load_style(tmp_path / "prior.safetensors")
    assert isinstance(again, StylePrior) and (again.style_space, again.label) == (SPACE, prior.label)
    assert torch.equal(again.mu, prior.mu) and torch.equal(again.sigma, prior.sigma)
    assert read_metadata(tmp_path / "prior.safetensors")["kind"] == "style_prior"


def test_style_round_trip(tmp_path):
    style = Style(torch.randn(3, 8), SPACE)
    save_style(tmp_path / "style.safetensors", style)
    again = load_style(tmp_path / "style.safetensors")
    assert isinstance(again, Style) and torch.equal(again.codes, style.codes) and again.label == ""


@pytest.mark.parametrize(
    ("kind", "tensors", "space", "message"),
    [
        ("model", {"mu": torch.zeros(2)}, SPACE, "holds a model, a style_prior or style is needed"),
        ("style", {"mu": torch.zeros(2)}, SPACE, "codes is missing"),
        ("style", {"codes": torch.zeros(2)}, SPACE, r"codes has shape \[2\], 2 filled dimensions"),
        ("style", {"codes": torch.zeros(0, 8)}, SPACE, r"codes has shape \[0, 8\]"),
        (
            "style",
            {"codes": torch.full((1, 2), torch.nan)},
            SPACE,
            "codes has 2 of 2 values that are not finite",
        ),
        ("style", {"codes": torch.zeros(1, 2).to(torch.float8_e5m2)}, SPACE, "codes is stored as float8_e5m2"),
        ("style", {"codes": torch.zeros(1, 2, dtype=torch.int64)}, SPACE, "codes is stored as int64"),
        ("style_prior", {"mu": torch.zeros(2), "sigma": torch.zeros(3)}, SPACE, "mu has 2 values and sigma 3"),
        ("style_prior", {"mu": torch.zeros(2), "sigma": -torch.ones(2)}, SPACE, "sigma goes down to -1"),
        ("style", {"codes": torch.zeros(1, 2)}, "", "names no style space"),
    ],
)
def test_files_that_do_not_fit(tmp_path, kind, tensors, space, message):
    write_safetensors(tmp_path / "file", kind, tensors, {"style_space": space})
    with pytest.raises(PortraitError, match=message):
        load_style(tmp_path / "file")
