"""Denoiser, ReferenceNet, guider and projections on a tiny config."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel

from svp_portrait.svp_models.config import AudioConfig, GuiderConfig, UNetConfig
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.model import build_networks
from svp_portrait.svp_models.networks.attention import BlockContext
from svp_portrait.svp_models.networks.audio_projection import AudioProjection, ExpressionProjection
from svp_portrait.svp_models.networks.conditions import ConditionKeys, Conditions, ConditionWeights, cat
from svp_portrait.svp_models.networks.denoiser import Denoiser
from svp_portrait.svp_models.networks.pose_guider import PoseGuider
from svp_portrait.svp_models.networks.style_extractor import StyleProjection
from svp_portrait.svp_models.networks.unet import ReferenceNet
from svp_portrait.svp_models.presets import PRESETS

TINY = UNetConfig(
    block_out_channels=(16, 32), layers_per_block=1, attention_levels=(False, True), attention_heads=2,
    cross_attention_dim=24, norm_groups=4, motion_heads=2, motion_groups=4, motion_positions=8, reference_concat=True,
    reference_warp=True,
)  # fmt: skip


@pytest.fixture
def denoiser():
    torch.manual_seed(0)
    return Denoiser(TINY, style=True).eval()


def inputs(frames: int = 3, size: int = 8, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, Conditions]:
    torch.manual_seed(1)
    portrait = torch.randn(batch, 4, size, size)
    with torch.no_grad():
        bank = ReferenceNet(TINY)(portrait)
    conditions = Conditions(
        reference=bank,
        reference_latent=portrait,
        audio=torch.randn(batch, frames, 5, 24),
        kps=torch.randn(batch, frames, 16, size, size),
        style=torch.randn(batch, frames, 16, 24),
        reference_warped=torch.randn(batch, frames, 4, size, size),
    )
    return torch.randn(batch, frames, 4, size, size), torch.tensor([999.0, 12.5])[:batch], conditions


def train_a_little(module: torch.nn.Module) -> None:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)


@torch.no_grad()
def test_untrained_style_layers_change_nothing(denoiser):
    latents, time, conditions = inputs()
    with_style = denoiser(latents, time, conditions)
    without = denoiser(latents, time, replace(conditions, style=None))
    assert with_style.shape == latents.shape
    assert torch.equal(with_style, without)


@torch.no_grad()
def test_every_condition_and_its_weight_count(denoiser):
    train_a_little(denoiser)
    latents, time, conditions = inputs()
    full = denoiser(latents, time, conditions)
    for name in ("audio", "kps", "style", "reference_latent", "reference_warped"):
        changed = replace(conditions, **{name: getattr(conditions, name) + 1.0})
        assert not torch.allclose(full, denoiser(latents, time, changed)), name
    changed = replace(conditions, reference=tuple(each + torch.randn_like(each) for each in conditions.reference))
    assert not torch.allclose(full, denoiser(latents, time, changed))
    without = denoiser(latents, time, replace(conditions, style=None))
    torch.testing.assert_close(denoiser(latents, time, conditions, ConditionWeights(style=0.0)), without)


@torch.no_grad()
def test_frames_are_independent_until_motion_is_trained(denoiser):
    latents, time, conditions = inputs(frames=3)
    together = denoiser(latents, time, conditions)
    alone = denoiser(latents[:, [1]], time, conditions.frames([1]))
    torch.testing.assert_close(together[:, [1]], alone, atol=1e-5, rtol=1e-5)
    train_a_little(denoiser.mid_block.motion_modules[0])
    assert not torch.allclose(denoiser(latents, time, conditions)[:, [1]], alone, atol=1e-3)


@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other(denoiser):
    train_a_little(denoiser)
    latents, time, conditions = inputs()
    both = denoiser(latents, time, conditions)
    second = Conditions(
        tuple(each[1:] for each in conditions.reference), conditions.reference_latent[1:], conditions.audio[1:],
        conditions.kps[1:], conditions.style[1:], conditions.reference_warped[1:],
    )  # fmt: skip
    torch.testing.assert_close(both[1:], denoiser(latents[1:], time[1:], second), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_reference_attention_equals_the_one_per_frame(denoiser):
    block = denoiser.transformer_blocks()[0]
    latents, _, conditions = inputs(frames=3, batch=1)
    hidden, bank = torch.randn(3, 16, 32), conditions.reference[0]
    attend = block.reference_attn
    expected = torch.cat([attend(block.reference_norm(each[None]), bank) for each in hidden])
    weights = ConditionWeights(audio=0)
    context = BlockContext(frames=3, tokens=torch.zeros(3, 1, 24), reference=conditions.reference, weights=weights)
    block.attn1.to_out[0].weight.zero_()
    block.attn1.to_out[0].bias.zero_()
    block.ff.net[2].weight.zero_()
    block.ff.net[2].bias.zero_()
    torch.testing.assert_close(block(hidden, context) - hidden, expected)


@torch.no_grad()
@pytest.mark.parametrize("size", [(7, 9), (8, 12)])
def test_without_its_additions_it_is_the_unet_of_diffusers(size):
    """Frame by frame, odd sizes too: no key points, no portrait, no style, temporal layers as they start."""
    torch.manual_seed(3)
    ours = Denoiser(replace(TINY, reference_concat=False, reference_warp=False), style=True).eval()
    theirs = UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=24, attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    ).eval()  # fmt: skip
    weights = theirs.state_dict()
    assert weights.keys() <= ours.state_dict().keys()
    ours.load_state_dict(ours.state_dict() | weights)
    latents, audio = torch.randn(2, 3, 4, *size), torch.randn(2, 3, 5, 24)
    bank = ReferenceNet(replace(TINY, reference_concat=False, reference_warp=False))(latents[:, 0])
    conditions = Conditions(bank, None, audio, torch.zeros(2, 3, 16, *size), torch.randn(2, 3, 16, 24))
    time = torch.tensor([999.0, 12.5])
    found = ours(latents, time, conditions, ConditionWeights(reference=0.0))
    expected = theirs(latents.flatten(0, 1), time.repeat_interleave(3), audio.flatten(0, 1)).sample
    torch.testing.assert_close(found.flatten(0, 1), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_audio_and_style_are_added_to_the_time_embedding():
    """Their means over tokens through a linear layer each, times their weights; nothing before the layers are trained."""
    torch.manual_seed(3)
    denoiser = Denoiser(replace(TINY, condition_embedding=True), style=True).eval()
    latents, time, conditions = inputs()
    seen = []
    denoiser.down_blocks[0].resnets[0].register_forward_pre_hook(lambda layer, given: seen.append(given[1]))
    weights = ConditionWeights(audio=0.5, style=3.0)
    denoiser(latents, time, conditions, weights)
    base = denoiser.embed_time(time).repeat_interleave(3, dim=0)
    torch.testing.assert_close(seen[-1], base)
    train_a_little(denoiser.audio_embedding)
    train_a_little(denoiser.style_embedding)
    denoiser(latents, time, conditions, weights)
    audio = denoiser.audio_embedding(conditions.audio.mean(2)).flatten(0, 1)
    style = denoiser.style_embedding(conditions.style.mean(2)).flatten(0, 1)
    torch.testing.assert_close(seen[-1], base + 0.5 * audio + 3 * style)
    denoiser(latents, time, replace(conditions, style=None), weights)
    torch.testing.assert_close(seen[-1], base + 0.5 * audio)


@torch.no_grad()
def test_the_portrait_and_the_warped_one_follow_the_noisy_latents(denoiser):
    latents, time, conditions = inputs()
    seen = []
    denoiser.conv_in.register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    denoiser(latents, time, conditions)
    portrait = conditions.reference_latent[:, None].expand(-1, 3, -1, -1, -1)
    expected = torch.cat([latents, portrait, conditions.reference_warped], dim=2)
    assert torch.equal(seen[0], expected.flatten(0, 1))


@torch.no_grad()
def test_temporal_layers_can_be_left_out(denoiser):
    latents, time, conditions = inputs()
    before = denoiser(latents, time, conditions)
    train_a_little(denoiser.mid_block.motion_modules[0])
    assert torch.equal(denoiser(latents, time, conditions, temporal=False), before)
    assert not torch.allclose(denoiser(latents, time, conditions), before)


def test_mistakes_are_named(denoiser):
    latents, time, conditions = inputs(frames=3)
    with pytest.raises(PortraitError, match="audio conditions are for 2 x 2 clips x frames, the latents are 2 x 3"):
        denoiser(latents, time, replace(conditions, audio=conditions.audio[:, :2]))
    with pytest.raises(PortraitError, match="style conditions are for 2 x 2 clips x frames"):
        denoiser(latents, time, replace(conditions, style=conditions.style[:, :2]))
    with pytest.raises(PortraitError, match="bank has 1 entries, the denoiser reads 4"):
        denoiser(latents, time, replace(conditions, reference=conditions.reference[:1]))
    with pytest.raises(PortraitError, match="portrait latent"):
        denoiser(latents, time, replace(conditions, reference_latent=None))
    with pytest.raises(PortraitError, match="warped portrait"):
        denoiser(latents, time, replace(conditions, reference_warped=None))
    with pytest.raises(PortraitError, match="without style layers"):
        Denoiser(TINY, style=False)(latents, time, conditions)
    latents, time, conditions = inputs(frames=9)
    with pytest.raises(PortraitError, match="window of 9 frames is longer than the 8"):
        denoiser(latents, time, conditions)


def test_guider_shape_and_zero_start():
    guider = PoseGuider(GuiderConfig(channels=(4, 6, 8, 10)), 16)
    features = guider(torch.rand(2, 3, 3, 32, 24))
    assert features.shape == (2, 3, 16, 4, 3) and not features.any()


def test_projections():
    audio = AudioProjection(AudioConfig(feature_size=20, window=3, tokens=5, layers=2, heads=2, head_size=8), 24)
    windows = torch.randn(4, 3, 20)
    tokens = audio(windows)
    assert tokens.shape == (4, 5, 24)
    assert not torch.allclose(tokens, audio(windows.flip(1)), atol=1e-4)  # the order of the rows counts
    projection, codes = StyleProjection(12, 16, 24), torch.randn(4, 12)
    style = projection(codes)
    assert style.shape == (4, 16, 24)
    torch.testing.assert_close(style.mean(-1), torch.zeros(4, 16), atol=1e-5, rtol=0)
    third = (
        codes @ projection.proj.weight[48:72].T + projection.proj.bias[48:72]
    )  # 24 numbers a token, one after another
    torch.testing.assert_close(style[:, 2], torch.nn.functional.layer_norm(third, (24,)))


@torch.no_grad()
def test_demo_preset_runs():
    torch.manual_seed(0)
    config = PRESETS["demo"]
    channels = config.vae.latent_channels
    networks = build_networks(config).eval()
    bank = networks.reference(torch.randn(1, channels, 16, 16))
    conditions = Conditions(
        reference=bank,
        reference_latent=torch.randn(1, channels, 16, 16),
        audio=networks.audio_projection(torch.randn(2, 3, 1920))[None],
        kps=networks.guider(torch.rand(1, 2, 3, 128, 128)),
        style=networks.style_projection(torch.randn(2, config.style.style_size))[None],
        reference_warped=torch.randn(1, 2, channels, 16, 16),
    )
    latents = torch.randn(1, 2, channels, 16, 16)
    together = networks.denoiser(latents, torch.tensor([500]), conditions)
    alone = networks.denoiser(latents[:, [1]], torch.tensor([500]), conditions.frames([1]))
    torch.testing.assert_close(together[:, [1]], alone, atol=1e-4, rtol=1e-4)  # until its temporal layers are trained
    assert 0.1 < together.std() < 10


@torch.no_grad()
def test_no_expression_track_is_one_of_zeros():
    torch.manual_seed(0)
    reading = Denoiser(replace(TINY, expression_size=68, condition_embedding=True), style=True).eval()
    torch.nn.init.normal_(reading.expression_embedding.weight)
    latents, time, conditions = inputs()
    without = reading(latents, time, conditions)
    zeros = reading(latents, time, replace(conditions, expression=torch.zeros(2, 3, 2, 24)))
    torch.testing.assert_close(without, zeros)
    assert not torch.allclose(without, reading(latents, time, replace(conditions, expression=torch.ones(2, 3, 2, 24))))


def test_an_expression_track_needs_tokens(denoiser):
    latents, time, conditions = inputs()
    with pytest.raises(PortraitError, match="built without expression tokens"):
        denoiser(latents, time, replace(conditions, expression=torch.zeros(2, 3, 2, 24)))


@torch.no_grad()
def test_every_frame_may_have_a_timestep_of_its_own(denoiser):
    latents, time, conditions = inputs()
    both = denoiser(latents, time[:, None].expand(-1, 3), conditions, temporal=False)
    torch.testing.assert_close(both, denoiser(latents, time, conditions, temporal=False))
    mixed = denoiser(latents, torch.tensor([[999.0, 12.5, 999.0]]).expand(2, -1), conditions, temporal=False)
    torch.testing.assert_close(mixed[0, 0], both[0, 0])
    assert not torch.allclose(mixed[0, 1], both[0, 1])


def test_an_expression_projection_starts_at_zero():
    projection = ExpressionProjection(replace(TINY, expression_size=68))
    assert projection(torch.randn(2, 3, 68)).shape == (2, 3, 2, 24)
    assert not projection(torch.randn(2, 3, 68)).any()


@torch.no_grad()
@pytest.mark.parametrize("keep_portrait", [False, True])
def test_nothing_is_computed_for_conditions_that_are_not_there(denoiser, keep_portrait):
    """The unconditional clips of a batch have the prediction for conditions of zeros, in fewer products."""
    train_a_little(denoiser)
    latents, time, conditions = inputs()
    absent = ("audio", "style") if keep_portrait else ("audio", "style", "kps", "reference_latent", "reference_warped")
    zeros = replace(conditions, **{name: torch.zeros_like(getattr(conditions, name)) for name in absent})
    if not keep_portrait:
        zeros = replace(zeros, reference=tuple(torch.zeros_like(bank) for bank in conditions.reference))
    expected = denoiser(latents, time, zeros)
    scale = expected.norm() / expected.numel() ** 0.5
    nothing = conditions.unconditional(keep_portrait)
    assert (denoiser(latents, time, nothing) - expected).abs().max() < 1e-4 * scale
    given = denoiser(latents, time, conditions)
    both = denoiser(torch.cat([latents, latents]), torch.cat([time, time]), cat(nothing, conditions))
    assert (both - torch.cat([expected, given])).abs().max() < 1e-4 * scale


@torch.no_grad()
def test_a_weight_of_zero_skips_its_attention(denoiser):
    train_a_little(denoiser)
    latents, time, conditions = inputs()
    without = denoiser(latents, time, replace(conditions, style=None))
    assert torch.equal(denoiser(latents, time, conditions, ConditionWeights(style=0)), without)
    assert not torch.allclose(denoiser(latents, time, conditions), without)


@torch.no_grad()
@pytest.mark.parametrize("keep_portrait", [False, True])
def test_prepared_keys_and_values_change_no_bit(denoiser, keep_portrait):
    train_a_little(denoiser)
    latents, time, conditions = inputs()
    keys = ConditionKeys(reference=denoiser.reference_keys(conditions.reference, latents.shape[1]))
    cells = [bank.shape[1] for bank in conditions.reference]
    prepared = denoiser.prepare(replace(conditions, reference=(), keys=keys), cells)
    assert torch.equal(denoiser(latents, time, prepared), denoiser(latents, time, conditions))
    twice = torch.cat([latents, latents]), torch.cat([time, time])
    plain, ours = (denoiser(*twice, cat(given.unconditional(keep_portrait), given)) for given in (conditions, prepared))
    assert torch.equal(ours, plain)
    with pytest.raises(PortraitError, match="cut them before"):
        prepared.frames([0])


@torch.no_grad()
def test_a_style_of_one_row_is_for_all_frames(denoiser):
    train_a_little(denoiser)
    latents, time, conditions = inputs()
    still = replace(conditions, style=conditions.style[:, :1])
    everywhere = replace(conditions, style=still.style.expand(-1, latents.shape[1], -1, -1))
    torch.testing.assert_close(denoiser(latents, time, still), denoiser(latents, time, everywhere), rtol=0, atol=1e-5)
