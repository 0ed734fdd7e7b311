"""Every node executed once through the stand-in, with a tiny random model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.nodes.head_motion import SVPHeadKpsExtract, SVPHeadKpsManual, SVPHeadKpsRender, SVPHeadKpsRetarget
from svp_portrait.nodes.motion import SVPMotionToHeadKps
from svp_portrait.nodes.sampler import SVPSampler
from svp_portrait.nodes.saved_files import FROM_INPUT
from svp_portrait.nodes.style import (
    SVPStyleExtract,
    SVPStyleInterpolate,
    SVPStyleLoad,
    SVPStyleSample,
    SVPStyleSave,
)
from svp_portrait.nodes.video import SVPVideoCombine
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detectors.built_in import BuiltInBackend
from svp_portrait.svp_models.face.tracking import FaceTracker
from svp_portrait.svp_models.media.video import load_video
from svp_portrait.svp_models.types import SVP, Motion

SAMPLER = {
    "seed": 0, "steps": 2, "cfg": 2.0, "scheduler": "euler", "reference_weight": 1.0, "audio_weight": 1.0, "style_weight": 1.0,
    "fps": 25.0, "window": 0, "overlap": -1, "width": 0, "height": 0, "length": "audio",
}  # fmt: skip


def first(output):
    return output.args[0]


def told(loaded, **config):
    """A model whose own choices are these."""
    portrait = replace(loaded[0].portrait, config=replace(loaded[0].portrait.config, **config))
    return replace(loaded[0], portrait=portrait), loaded[1]


@pytest.fixture
def prior(loaded, clip):
    return first(SVPStyleExtract.execute(loaded[0], frames=clip["frames"], audio=clip["audio"], fps=25.0))


def sample(loaded, clip, motion, **changes):
    inputs = {**SAMPLER, "portrait": clip["portrait"], "audio": clip["audio"], **changes}
    return SVPSampler.execute(loaded[0], loaded[1], head_motion=motion, **inputs)


def typed(clip):
    points = "\n".join(f"{0.1 * index + 0.1}, {0.05 * index + 0.2}" for index in range(8))
    return first(SVPHeadKpsManual.execute(clip["portrait"], points))


def test_model_without_built_in_choice_names_the_folder(folders):
    from svp_portrait.nodes.loaders import SVPLoadModel

    with pytest.raises(PortraitError, match="missing.safetensors.*svp"):
        SVPLoadModel.execute("missing.safetensors")


def test_vae_socket_speaks_the_hosts_language(loaded):
    vae = loaded[1]
    latent = vae.encode(torch.rand(2, 32, 40, 3))
    assert latent.shape == (2, 4, 4, 5)
    images = vae.decode(latent)
    assert images.shape == (2, 32, 40, 3) and 0 <= images.min() and images.max() <= 1


def test_the_samplers_defaults_are_the_models_own(loaded, clip):
    own = {name: each.default for each in SVPSampler.define_schema().inputs if (name := each.id) in SAMPLER}
    assert (own["steps"], own["cfg"], own["fps"]) == (0, -1.0, 0.0)
    model = told(loaded, steps=3, cfg=1.5, fps=20.0)
    left_open = sample(model, clip, typed(clip), **own).args
    given = sample(model, clip, typed(clip), steps=3, cfg=1.5, fps=20.0).args
    assert left_open[1] == given[1] == 20.0
    assert torch.equal(left_open[0]["samples"], given[0]["samples"])
    other = first(sample(model, clip, typed(clip), steps=2, cfg=1.5, fps=20.0))["samples"]
    assert not torch.equal(other, given[0]["samples"])


def test_sides_are_checked_before_anything_runs():
    assert SVPSampler.validate_inputs(width=0, height=None) is True
    assert SVPSampler.validate_inputs(width=512, height=768) is True
    assert "width is 100 pixels" in SVPSampler.validate_inputs(
        width=100
    ) and "nearest is 104" in SVPSampler.validate_inputs(100)
    assert "the nearest is 2048" in SVPSampler.validate_inputs(height=4096)
    assert "the nearest is 8," in SVPSampler.validate_inputs(width=-3)


@pytest.mark.parametrize("given", [("frames",), ("audio",), ("frames", "audio")])
def test_style_from_either_or_both(loaded, clip, given):
    extracted = first(SVPStyleExtract.execute(loaded[0], **{name: clip[name] for name in given}))
    assert extracted.mu.shape == extracted.sigma.shape == (16,)
    assert extracted.style_space == loaded[0].portrait.style_space


def test_style_without_a_face_says_so(loaded, clip):
    with pytest.raises(PortraitError, match="no face found in the style clip"):
        SVPStyleExtract.execute(loaded[0], frames=torch.zeros_like(clip["frames"]))


def test_styles_are_sampled_and_interpolated(prior):
    a, b = (first(SVPStyleSample.execute(prior, seed, 1.0)) for seed in (1, 2))
    mixed = first(SVPStyleInterpolate.execute(a, b, 0.0, 1.0, "linear"))
    assert torch.allclose(mixed.at(5)[0], a.codes[0]) and torch.allclose(mixed.at(5)[-1], b.codes[0])


def test_style_library_keeps_a_prior(folders, prior):
    saved = first(SVPStyleSave.execute(prior, "svp_styles/happy"))
    assert (folders / "output" / saved).is_file()
    assert "happy_00001_.safetensors" in SVPStyleLoad.define_schema().inputs[0].options
    for chosen in ({"style": FROM_INPUT, "file": saved}, {"style": "happy_00001_.safetensors"}):
        assert torch.equal(first(SVPStyleLoad.execute(**chosen)).mu, prior.mu)
        assert isinstance(SVPStyleLoad.fingerprint_inputs(**chosen), float)


def test_style_load_without_a_choice_names_the_cure(folders):
    with pytest.raises(PortraitError, match="choose a file"):
        SVPStyleLoad.execute(FROM_INPUT)
    with pytest.raises(PortraitError, match="passwd"):
        SVPStyleLoad.execute(FROM_INPUT, file="../../../../etc/passwd")


def test_head_motion_is_extracted_retargeted_and_drawn(loaded, clip):
    motion = first(SVPHeadKpsExtract.execute(loaded[0], clip["frames"], 25.0))
    assert len(motion) == 10 and (motion.width, motion.height) == (40, 48)
    moved = first(SVPHeadKpsRetarget.execute(motion, clip["portrait"], "offset", loaded[0]))
    assert (moved.width, moved.height) == (48, 64)
    drawn = first(SVPHeadKpsRender.execute(moved, 0, 0, 0))
    assert drawn.shape == (10, 64, 48, 3) and drawn.max() > 0.5
    assert first(SVPHeadKpsRender.execute(moved, 32, 24, 3)).shape == (3, 24, 32, 3)


def test_typed_points_need_no_model(clip):
    motion = typed(clip)
    assert len(motion) == 1 and (motion.width, motion.height) == (48, 64)
    assert len(first(SVPHeadKpsRetarget.execute(motion, motion, "fix"))) == 1
    with pytest.raises(PortraitError, match="connect"):
        SVPHeadKpsRetarget.execute(motion, clip["portrait"], "fix")


@pytest.mark.parametrize("samples, frames", [(6400, 10), (640, 1), (5000, 8)])
def test_sampler_gives_the_frames_of_the_audio(loaded, clip, samples, frames):
    audio = {"waveform": clip["audio"]["waveform"][..., :samples], "sample_rate": 16000}
    latent, fps = sample(loaded, clip, typed(clip), audio=audio).args
    assert latent["samples"].shape == (frames, 4, 4, 4) and fps == 25.0
    assert torch.isfinite(latent["samples"]).all()


def test_without_head_motion_the_portraits_own_points_are_used(loaded, clip):
    """The same latents as with the portrait's points retargeted to itself."""
    found = first(SVPHeadKpsExtract.execute(loaded[0], clip["portrait"], 25.0))
    fixed = first(SVPHeadKpsRetarget.execute(found, clip["portrait"], "fix", loaded[0]))
    still, given = (first(sample(loaded, clip, each))["samples"] for each in (None, fixed))
    assert torch.equal(still, given)
    assert not torch.equal(still, first(sample(loaded, clip, typed(clip)))["samples"])


def test_a_motion_moves_the_head_as_its_keypoints_do(loaded, clip):
    """The same latents as with Motion to Head Keypoints between."""
    turn = torch.linspace(0, 20, 10)[:, None] * torch.tensor([1.0, 0.5, 0.0])
    motion = Motion(turn, torch.zeros(10, 2), torch.ones(10), torch.zeros(10, 64), 25.0, SVP)
    head = first(SVPMotionToHeadKps.execute(motion, clip["portrait"], "relative", loaded[0]))
    moved, given = (first(sample(loaded, clip, each))["samples"] for each in (motion, head))
    assert torch.equal(moved, given)
    assert not torch.equal(moved, first(sample(loaded, clip, None))["samples"])


def test_a_portrait_whose_face_is_not_found_is_told_with_the_cure(loaded, clip):
    with pytest.raises(PortraitError, match="no face found in the portrait .48 x 64 pixels.*type the 8 keypoints"):
        sample(loaded, clip, None, portrait=torch.zeros(1, 64, 48, 3))
    blind = replace(loaded[0], portrait=replace(loaded[0].portrait, face_analyzer=None))
    with pytest.raises(PortraitError, match="no face analyser.*connect face_analyzer.*or a head_motion"):
        sample((blind, loaded[1]), clip, None)
    seeing = FaceTracker(BuiltInBackend(loaded[0].portrait.face_analyzer))
    assert len(first(sample((blind, loaded[1]), clip, None, face_analyzer=seeing))["samples"]) == 10


def test_sampler_takes_pictures_and_other_sizes(loaded, clip):
    pictures = first(SVPHeadKpsRender.execute(typed(clip), 0, 0, 3))
    latent = first(sample(loaded, clip, pictures, width=48, height=32))
    assert latent["samples"].shape == (10, 4, 4, 6)
    short = first(sample(loaded, clip, pictures, width=48, height=32, length="shortest"))
    assert short["samples"].shape == (3, 4, 4, 6)
    black = first(sample(loaded, clip, torch.zeros_like(pictures), width=48, height=32))
    assert not torch.equal(latent["samples"], black["samples"])


def test_sampler_follows_its_seed_and_style(loaded, clip, prior):
    style = first(SVPStyleSample.execute(prior, 0, 1.0))
    once, again, other, plain = (
        first(sample(loaded, clip, typed(clip), seed=seed, style=chosen))["samples"]
        for seed, chosen in ((1, style), (1, style), (2, style), (1, None))
    )
    assert torch.equal(once, again) and not torch.equal(once, other) and not torch.equal(once, plain)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_portraits_of_any_channels(loaded, clip, channels):
    latent = first(sample(loaded, clip, typed(clip), portrait=torch.rand(1, 40, 40, channels)))
    assert len(latent["samples"]) == 10


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"portrait": torch.rand(1, 1, 1, 3)}, "1 x 1"),
        ({"audio": {"waveform": torch.zeros(1, 1, 0), "sample_rate": 16000}}, "0 samples|empty"),
        (
            {"audio": {"waveform": torch.full((1, 1, 6400), float("nan")), "sample_rate": 16000}},
            "finite|NaN|not a number",
        ),
        ({"window": 99}, "window is 99"),
        ({"width": 44, "height": 44}, "multiple of 8"),
    ],
)
def test_sampler_explains_bad_input(loaded, clip, changes, message):
    with pytest.raises(PortraitError, match=message):
        sample(loaded, clip, typed(clip), **changes)


def test_video_from_images_and_from_latent(folders, loaded, clip):
    latent = {"samples": torch.randn(20, 4, 4, 6)}
    for given in ({"images": clip["frames"]}, {"latent": latent, "vae": loaded[1]}):
        output = SVPVideoCombine.execute(25.0, 23, "svp/clip", audio=clip["audio"], **given)
        shown = output.ui.as_dict()["images"][0]
        path = folders / "output" / shown["subfolder"] / shown["filename"]
        video = load_video(path)
        assert len(video) == len(given.get("images", latent["samples"])) and video.fps == 25.0
        assert video.audio is not None and first(output).get_components().images.shape[0] == len(video)


def test_video_refuses_to_leave_the_output_folder(folders, clip):
    with pytest.raises(PortraitError, match="outside the output folder"):
        SVPVideoCombine.execute(25.0, 23, "../clip", images=clip["frames"])
    assert not list(folders.glob("*.mp4"))


def test_video_needs_one_source(folders, clip):
    with pytest.raises(PortraitError, match="either images, or a latent"):
        SVPVideoCombine.execute(25.0, 23, "clip", images=clip["frames"], latent={"samples": torch.zeros(1, 4, 4, 4)})
    with pytest.raises(PortraitError, match="at least one frame"):
        SVPVideoCombine.execute(25.0, 23, "clip", images=clip["frames"][:0])


@pytest.mark.parametrize("prefix", ["../up", "a/../../up", "/tmp/up"])
def test_a_prefix_outside_the_output_folder_is_refused_before_the_run(prefix):
    for node in (SVPVideoCombine, SVPStyleSave):
        assert "leads outside the output folder" in node.validate_inputs(filename_prefix=prefix)
        assert node.validate_inputs(filename_prefix="svp/portrait") is True
        assert node.validate_inputs(filename_prefix=None) is True  # linked: checked when the file is written
