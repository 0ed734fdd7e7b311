"""The phase of the VAE: what it leaves its latents like."""

from __future__ import annotations

import torch

from svp_portrait.svp_models.training.config import AutoencoderPhase, TrainSettings
from svp_portrait.svp_models.training.train_vae import AutoencoderTraining

NUDGE = 0.05


@torch.no_grad()
def test_an_error_has_the_same_effect_in_all_channels_and_images_stay(model, train_clips, test_clips):
    settings = TrainSettings(steps=1, batch_size=2, learning_rate=1e-3)
    phase = AutoencoderTraining(model.vae, train_clips.clips, test_clips.clips, AutoencoderPhase(settings), 0)
    clips, vae = train_clips.clips, model.vae.eval()
    pictures = torch.cat([clips.frames(clip, [0, 20]) for clip in clips.with_video])
    before = vae.decode(vae.encode(pictures))
    phase.finish()
    latents = vae.encode(pictures)
    torch.testing.assert_close(vae.decode(latents), before, atol=1e-3, rtol=0)
    seen = []
    for channel in range(latents.shape[1]):
        moved = latents.clone()
        moved[:, channel] += NUDGE
        seen.append((vae.decode(moved) - before).square().mean().sqrt())
    assert max(seen) < 1.3 * min(seen)
    assert 0.3 < (latents[0::2] - latents[1::2]).square().mean() < 3  # 1 on average over what the phase has looked at
