from __future__ import annotations

import torch

from svp_portrait.svp_models.networks.motion_generators.joyvasa import DiffusionSchedule, alignment_mask


@torch.no_grad()
def test_the_audio_features_of_joyvasa(joyvasa, joyvasa_io, close):
    for window, samples in enumerate(joyvasa_io["waveform_16k"].chunk(2)):
        close(joyvasa.audio_features(samples[None]), joyvasa_io[f"window{window}.audio_features"])


@torch.no_grad()
def test_the_denoiser_of_joyvasa(joyvasa, joyvasa_io, close):
    start = (joyvasa_io["window0.audio_features"], joyvasa.start_motion_feat, joyvasa.start_audio_feat)
    audio, motion, sound = (part.expand(2, -1, -1) for part in start)
    ours = joyvasa.denoising_net(joyvasa_io["denoiser.noisy"], audio, motion, sound, joyvasa_io["denoiser.step"])
    close(ours, joyvasa_io["denoiser.target"])


def test_the_noise_schedule_of_joyvasa(joyvasa_io):
    for name, values in DiffusionSchedule(6).state_dict().items():
        torch.testing.assert_close(values, joyvasa_io[f"schedule.{name}"], rtol=1e-5, atol=1e-7)


def test_frames_see_the_audio_around_them():
    assert torch.equal(alignment_mask(4, 1), ~torch.eye(4, dtype=torch.bool))
    assert (~alignment_mask(4, 2)[1]).tolist() == [True, True, True, False]
