from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from svp_portrait.svp_models.config import ModelConfig, SchedulerConfig, VaeConfig
from svp_portrait.svp_models.diffusion.inputs import ClipInputs
from svp_portrait.svp_models.diffusion.noise_schedule import alphas_cumprod, sampling_schedule
from svp_portrait.svp_models.diffusion.pipeline import (
    PortraitPipeline,
    SamplerOptions,
    WindowedDenoiser,
    clip_noise,
    guidance_scales,
    postprocess_latents,
    resolve_options,
    resolve_windows,
)
from svp_portrait.svp_models.diffusion.samplers import SAMPLERS
from svp_portrait.svp_models.errors import Cancelled, PortraitError
from svp_portrait.svp_models.io.memory_map import IN_MEMORY, MAPPING, Storage
from svp_portrait.svp_models.networks.conditions import Conditions
from svp_portrait.svp_models.presets import PRESETS
from svp_portrait.svp_models.types import Audio, Style

QUICK = SamplerOptions(steps=2)
PINNED = [0.0419, -0.6338, 5.4978]  # frames 0, 3, 5 of channel 1 at row 2, column 1


def sample(model, clip, frames: int, options: SamplerOptions = QUICK, seed: int = 7, **changes) -> torch.Tensor:
    given = {
        "portrait_latent": clip.latent,
        "audio": clip.audio,
        "motion": clip.motion(frames),
        "style": clip.style,
        "frames": frames,
        "fps": 25.0,
        "size": clip.size,
    }
    control = {name: changes.pop(name) for name in ("progress", "on_latents") if name in changes}
    pipeline = PortraitPipeline(model, storage=changes.pop("storage", IN_MEMORY))
    inputs = ClipInputs(**{**given, **changes})
    return pipeline.denoise(inputs, pipeline.encode_conditions(inputs), seed, options, **control)


def stand_in(denoiser, latent_scale: float = 1.0):
    """A model whose denoiser is a plain function of (latents, timestep, conditions, weights)."""

    class Denoiser(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, *given):
            return denoiser(*given)

        def reference_keys(self, bank, frames):
            return ()

        def prepare(self, conditions, cells, weights):
            return conditions

    config = ModelConfig(name="plain", vae=VaeConfig(scale=latent_scale), scheduler=SchedulerConfig())
    return SimpleNamespace(
        config=config, networks=SimpleNamespace(denoiser=Denoiser()), like=lambda network: next(network.parameters())
    )


def denoise(model, x, conditions, options, **control) -> torch.Tensor:
    """Latents of a sampler on noise x, with nothing of the portrait around it."""
    schedule = sampling_schedule(model.config.scheduler, options.steps)
    denoiser = WindowedDenoiser(model, conditions, options, schedule, **control)
    return SAMPLERS[options.scheduler](denoiser, x, schedule)


class FrameNumbers:
    """Conditions whose kps features are the frame's number and whose audio is 1."""

    def windows(self, indices, like, again=True):
        numbers = torch.tensor(indices, dtype=like.dtype)[..., None, None, None]  # b f 1 1 1
        return Conditions((torch.ones(1, 1, 1),), None, torch.ones(*numbers.shape[:2], 1, 1), numbers, None)


def test_every_length_works(model, clip):
    for frames in range(1, 2 * 4 + 4):
        latents = sample(model, clip, frames, SamplerOptions(steps=1))
        assert latents.shape == (frames, 4, 3, 4)
        assert latents.dtype == torch.float32 and latents.device.type == "cpu" and not latents.requires_grad
        assert torch.isfinite(latents).all() and latents.abs().max() > 0.1


@pytest.mark.parametrize("scheduler", SAMPLERS)
@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon", "sample"])
@pytest.mark.parametrize("zero", [True, False])
def test_every_schedule_runs(model, clip, scheduler, prediction, zero):
    """A single step from pure noise is the same for every sampler: the x_0 that the model sees there."""
    config = replace(model.config, scheduler=SchedulerConfig(prediction=prediction, zero_terminal_snr=zero))
    changed = replace(model, config=config)
    latents = sample(changed, clip, 6, SamplerOptions(steps=4, scheduler=scheduler))
    assert torch.isfinite(latents).all()
    if zero:
        once, ddim = (sample(changed, clip, 6, SamplerOptions(steps=1, scheduler=s)) for s in (scheduler, "ddim"))
        assert (once - ddim).norm() < 1e-3 * ddim.norm() and not torch.allclose(once, latents, atol=0.01)


@pytest.mark.parametrize("options", [SamplerOptions(steps=3), SamplerOptions(steps=3, blend="triangular", cfg=1)])
def test_the_same_seed_gives_the_same(model, clip, options):
    first, again = sample(model, clip, 9, options), sample(model, clip, 9, options)
    assert torch.equal(first, again)
    assert not torch.allclose(first, sample(model, clip, 9, options, seed=8))


def test_the_window_does_not_matter_to_a_clip_that_fits(model, clip):
    results = [
        sample(model, clip, 4, SamplerOptions(steps=3, window=window, overlap=overlap, blend=blend))
        for window, overlap, blend in [(4, 1, "average"), (5, 0, "triangular"), (8, 7, "average")]
    ]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_a_longer_clip_begins_with_the_same_noise():
    long = clip_noise(12, (3, 3, 5), 4)  # 45 numbers a frame: torch fills blocks of 16
    assert torch.equal(long[:5], clip_noise(5, (3, 3, 5), 4))
    assert long.std().item() == pytest.approx(1, abs=0.1) and not torch.equal(long[0], long[1])
    assert clip_noise(1, (2, 2), 2**64 - 1).shape == (1, 2, 2)


def test_pinned_loop(model, clip):
    latents = sample(model, clip, 6, SamplerOptions(steps=4))
    torch.testing.assert_close(latents[[0, 3, 5], 1, 2, 1], torch.tensor(PINNED), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_a_clip_on_disk_is_the_same(model, clip, scheduler, tmp_path):
    """70 frames are three blocks."""
    options = SamplerOptions(steps=3, cfg=2.0, scheduler=scheduler)
    storage = Storage(str(tmp_path), budget=0)
    on_disk = sample(model, clip, 70, options, storage=storage)
    assert hasattr(on_disk, MAPPING)
    torch.testing.assert_close(on_disk, sample(model, clip, 70, options), rtol=0, atol=0)


def test_predicted_x0_comes_as_soon_as_all_windows_of_a_frame_are_done(model, clip):
    seen = []
    latents = sample(model, clip, 11, QUICK, on_latents=lambda *given: seen.append(given))
    assert [(step, first, len(x0)) for step, first, x0 in seen] == [
        (step, first, count) for step in (0, 1) for first, count in ((0, 3), (3, 3), (6, 1), (7, 4))
    ]
    torch.testing.assert_close(torch.cat([x0 for step, _, x0 in seen if step == 1]), latents, rtol=1e-3, atol=1e-3)


def test_conditions_all_matter(model, clip):
    base = sample(model, clip, 3)
    pictures = torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    others = {
        "portrait": sample(model, clip, 3, portrait_latent=-clip.latent),
        "audio": sample(model, clip, 3, audio=Audio(torch.zeros(1, 16000), 16000)),
        "motion": sample(model, clip, 3, motion=pictures),
        "style": sample(model, clip, 3, style=Style(-clip.style.codes, "tiny-space")),
        "no style": sample(model, clip, 3, style=None),
        "reference weight": sample(model, clip, 3, replace(QUICK, reference_weight=0.0)),
        "audio weight": sample(model, clip, 3, replace(QUICK, audio_weight=0.0)),
        "style weight": sample(model, clip, 3, replace(QUICK, style_weight=0.0)),
        "cfg": sample(model, clip, 3, replace(QUICK, cfg=1.0)),
    }
    for name, other in others.items():
        assert not torch.allclose(base, other, atol=1e-4), name


def test_a_weight_of_1_is_the_models_own(model, clip):
    own = replace(model, config=replace(model.config, reference_weight=0.5, audio_weight=3.0))
    asked = sample(model, clip, 3, replace(QUICK, reference_weight=0.5, audio_weight=3.0))
    assert torch.equal(sample(own, clip, 3), asked)
    half = replace(QUICK, reference_weight=2.0, audio_weight=1 / 3)
    torch.testing.assert_close(sample(own, clip, 3, half), sample(model, clip, 3), rtol=1e-4, atol=1e-4)
    assert (PRESETS["vexpress"].reference_weight, PRESETS["vexpress"].audio_weight) == (0.95, 3.0)
    assert {PRESETS[name].audio_weight for name in ("demo", "sd15")} == {1.0}


def test_other_precision_of_the_network(model, clip):
    half = replace(model, networks=deepcopy(model.networks).to(torch.bfloat16))
    latents = sample(half, clip, 6)
    assert latents.dtype == torch.float32 and torch.isfinite(latents).all()
    difference = (latents - sample(model, clip, 6)).abs().mean()
    assert 0 < difference < 0.5


def test_one_keypoint_picture_stands_for_all_frames(model, clip):
    still = clip.motion(1)
    repeated = replace(still, keypoints=still.keypoints.expand(6, -1, -1))
    one, six = sample(model, clip, 6, motion=still), sample(model, clip, 6, motion=repeated)
    torch.testing.assert_close(one, six, rtol=1e-3, atol=1e-2)


def test_overlapping_predictions_are_averaged():
    # Each window's denoiser says how long the window's first frame number is; at one step with zero terminal SNR and
    # v-prediction the result is minus the prediction.
    def first_frame(latents, timestep, conditions, weights):
        return conditions.kps[:, :1].expand_as(latents)

    options = SamplerOptions(steps=1, cfg=1, window=4, overlap=2)  # windows 0-3, 2-5, 3-6
    latents = denoise(stand_in(first_frame), torch.zeros(7, 1, 1, 1), FrameNumbers(), options)
    expected = [0, 0, (0 + 2) / 2, (0 + 2 + 3) / 3, (2 + 3) / 2, (2 + 3) / 2, 3]
    assert (-latents.flatten()).tolist() == pytest.approx(expected, abs=1e-3)


def test_each_frame_is_stepped_once_per_step():
    seen = []

    def spy(latents, timestep, conditions, weights):
        seen.append((int(timestep), conditions.kps[0, :, 0, 0, 0].int().tolist(), latents[0, :, 0, 0, 0].tolist()))
        return torch.zeros_like(latents)

    noise = torch.arange(1.0, 7)[:, None, None, None]
    options = SamplerOptions(steps=2, cfg=1, scheduler="ddim", window=4, overlap=2)
    denoise(stand_in(spy), noise, FrameNumbers(), options)
    assert [(t, frames) for t, frames, _ in seen] == [
        (t, frames) for t in (999, 499) for frames in ([0, 1, 2, 3], [2, 3, 4, 5])
    ]
    for first, second in (seen[:2], seen[2:]):
        assert first[2][2:] == second[2][:2]  # the shared frames are the same latents in both windows of a step


def test_guidance_of_equal_halves_is_no_guidance():
    def blind(latents, timestep, conditions, weights):
        return torch.sin(3 * latents)

    results = []
    for cfg in (1, 3.5):
        options = SamplerOptions(steps=5, cfg=cfg, scheduler="dpmpp_2m", window=4, overlap=1)
        results.append(denoise(stand_in(blind), clip_noise(6, (1, 2, 2), 0), FrameNumbers(), options))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-5)


def test_latents_are_scaled_for_the_network_alone(model, clip):
    # A network that knows its scaled picture: the result is that picture, unscaled, whatever the schedule.
    def knows(latents, timestep, conditions, weights):
        a = alphas_cumprod(SchedulerConfig())[timestep]
        return (a.sqrt() * latents - 3.0) / (1 - a).sqrt()  # v of x_0 = 3

    seen = []
    latents = denoise(
        stand_in(knows, latent_scale=0.5),
        clip_noise(3, (1, 2, 2), 0),
        FrameNumbers(),
        SamplerOptions(steps=4, cfg=1, window=3, overlap=0),
        on_x0=lambda step, first, x0: seen.append((step, x0)),
    )
    torch.testing.assert_close(latents, torch.full((3, 1, 2, 2), 3.0), rtol=0, atol=2e-3)
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    for _, x0 in seen:
        torch.testing.assert_close(x0, torch.full((3, 1, 2, 2), 3.0), rtol=0, atol=5e-3)


@pytest.mark.parametrize("residual", [False, True])
def test_latents_are_unscaled_and_added_to_the_portrait_if_residual(residual):
    config = ModelConfig(name="x", vae=VaeConfig(scale=0.5), residual=residual)
    portrait = torch.arange(4.0).reshape(1, 1, 2, 2)
    result = postprocess_latents(torch.full((3, 1, 2, 2), 3.0), portrait, config)
    torch.testing.assert_close(result, 6.0 + (portrait if residual else 0) + torch.zeros(3, 1, 2, 2))


def test_progress_counts_the_windows_of_all_steps(model, clip):
    seen = []
    sample(model, clip, 6, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_stages_are_the_pipeline(model, clip):
    """prepare crops, encodes and fits; the call runs the other stages; the frames are those of the latents."""
    pipeline = PortraitPipeline(model)
    portrait = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    inputs = pipeline.prepare(portrait, clip.audio, clip.motion(3), clip.style, 5, 25.0, clip.size)
    small = torch.nn.functional.interpolate(portrait[None], (24, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(inputs.portrait_latent, model.vae.encode(small))
    assert inputs.motion.keypoints[:, 0, 0].tolist() == [4.0, 5.5, 7.0, 5.5, 4.0]  # back and forth
    frames = pipeline(inputs, 7, QUICK)
    latents = pipeline.denoise(inputs, pipeline.encode_conditions(inputs), 7, QUICK)
    assert frames.shape == (5, 3, 24, 32)
    torch.testing.assert_close(frames, model.vae.decode(latents).clamp(-1, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("calls", [1, 4])
def test_cancelling_midway(model, clip, calls):
    seen = []

    def stop(done, total):
        seen.append(done)
        if len(seen) == calls:
            raise Cancelled

    with pytest.raises(Cancelled):
        sample(model, clip, 6, progress=stop)
    assert len(seen) == calls


def test_windows_come_from_the_model_or_the_options(model):
    assert resolve_windows(model.config, SamplerOptions()) == (4, 1)
    assert resolve_windows(model.config, SamplerOptions(window=8)) == (8, 1)
    assert resolve_windows(model.config, SamplerOptions(window=1)) == (1, 0)
    assert resolve_windows(model.config, SamplerOptions(window=6, overlap=5)) == (6, 5)


def test_what_is_left_open_is_the_models_own(model):
    config = replace(model.config, steps=7, cfg=1.5)
    own = resolve_options(config, SamplerOptions())
    assert (own.steps, own.cfg, own.window, own.overlap) == (7, 1.5, 4, 1)
    assert guidance_scales(own) == (1.5, 1.5)
    assert guidance_scales(resolve_options(config, SamplerOptions(style_cfg=4.0))) == (1.5, 4.0)
    given = SamplerOptions(steps=3, cfg=0.0, window=6, overlap=0)
    assert vars(resolve_options(config, given)) == vars(given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 0}, "0 frames are asked"),
        ({"fps": 0.0}, "fps is 0"),
        ({"size": (32, 25)}, "32 x 25 is not a multiple of 8 pixels: the nearest is 32 x 24"),
        ({"size": (32, 32)}, r"\(1, 4, 4, 4\) is needed for 32 x 32"),
        ({"audio": Audio(torch.tensor([[0.0, torch.nan]]), 16000)}, "(?i)nan|finite"),
        ({"audio": Audio(torch.zeros(1, 0), 16000)}, "0 samples"),
        ({"options": SamplerOptions(steps=0)}, "steps is 0"),
        ({"options": SamplerOptions(window=4, overlap=4)}, "overlap is 4 frames and window 4"),
        ({"options": SamplerOptions(window=9)}, "window is 9 frames: this model's temporal layers reach 1 to 8"),
        ({"options": SamplerOptions(cfg=float("nan"))}, "cfg is nan"),
        ({"options": SamplerOptions(style_cfg=-2.0)}, "style_cfg is -2"),
        ({"options": SamplerOptions(audio_weight=-1.0)}, "audio_weight is -1"),
        ({"options": SamplerOptions(scheduler="heun")}, "unknown scheduler"),
        ({"options": SamplerOptions(blend="cubic")}, "unknown blend"),
        ({"style": Style(torch.zeros(1, 16), "elsewhere")}, "'elsewhere', the model reads 'tiny-space'"),
        ({"motion": torch.zeros(4, 3, 24, 32)}, "3 frames at 25 fps are asked, Head-Kps has 4"),
    ],
)
def test_unusable_inputs(model, clip, changes, message):
    with pytest.raises(PortraitError, match=message):
        sample(model, clip, **{"frames": 3, **changes})


def test_ten_milliseconds_of_audio_are_one_frame_of_it_and_silence(model, clip):
    short = clip.audio.waveform[:, :160]
    padded = torch.nn.functional.pad(short, (0, 480))  # one frame at 25 frames per second
    latents = [sample(model, clip, 1, audio=Audio(waveform, 16000)) for waveform in (short, padded, padded.flip(1))]
    torch.testing.assert_close(latents[0], latents[1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(latents[0], latents[2], atol=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_damaged_model_is_named_instead_of_a_black_clip(model, clip, value):
    damaged = replace(model, networks=deepcopy(model.networks))
    with torch.no_grad():
        next(iter(damaged.networks.denoiser.parameters())).fill_(value)
    with pytest.raises(PortraitError, match="the latents of frame 0 hold .*: the model 'tiny' is damaged or overflows"):
        sample(damaged, clip, 5)


def test_a_scale_of_zero_is_refused(model):
    with pytest.raises(PortraitError, match="scale is 0.0: 1e-06 to 1e.06 is allowed"):
        replace(model.config.vae, scale=0.0)
