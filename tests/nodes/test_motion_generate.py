"""Load Motion Generator and Generate Motion through the stand-in, with the small reference networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from svp_portrait.nodes import head_motion as face_nodes
from svp_portrait.nodes import motion_generate as nodes
from svp_portrait.nodes.head_motion import SVPLoadFaceAnalyzer
from svp_portrait.nodes.host import folder_paths
from svp_portrait.nodes.liveportrait import SVPLoadLivePortrait
from svp_portrait.nodes.motion_generate import (
    SVPLoadMotionGenerator,
    SVPMotionGenerate,
    generator_names,
)
from svp_portrait.nodes.style_predict import SVPStylePredict
from svp_portrait.svp_models.checkpoints.built_in_motion import MotionModel, save_motion_model
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detection import FaceDetection
from svp_portrait.svp_models.networks.motion_generator import MotionGeneratorConfig, MotionGeneratorNetwork

from ..reference.published import write_generators, write_liveportrait

GENERATE = {
    "seed": 0, "fps": 25.0, "steps": 2, "guidance": -1.0, "smoothing": True, "overlap": -1, "framing": "find face",
}  # fmt: skip


class Middle:
    """A backend that finds a face in the middle of every image."""

    name = "middle"

    def detect(self, frames):
        for frame in frames:
            height, width = frame.shape[:2]
            corner = np.array([width * 0.35, height * 0.35], np.float32)
            size = 0.3 * min(width, height)
            points = (corner + size * np.array([[0, 0], [1, 0], [1, 1], [0, 1]] * 17)).astype(np.float32)
            box = np.concatenate([corner, corner + size]).astype(np.float32)
            yield [FaceDetection(box, points[:8].copy(), points[:5].copy(), points)]


@pytest.fixture
def models(folders, tmp_path, monkeypatch) -> Path:
    folder_paths.use(tmp_path, tmp_path / "models")
    monkeypatch.setitem(face_nodes.BACKENDS, "middle", Middle)
    monkeypatch.setattr(
        nodes, "PORTRAIT_SIDE", 64
    )  # the reference networks see smaller pictures than the published ones
    return tmp_path / "models"


@pytest.fixture
def written(models) -> Path:
    write_generators(models)
    write_liveportrait(models / "liveportrait")
    return models


def voice(seconds: float, rate: int = 16000) -> dict:
    noise = torch.randn(1, 2, round(seconds * rate), generator=torch.Generator().manual_seed(1)) / 10
    return {"waveform": noise, "sample_rate": rate}


def picture(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 80, 100, 3, generator=torch.Generator().manual_seed(seed))


def generate(generator, audio, **changes):
    return SVPMotionGenerate.execute(generator, audio, **{**GENERATE, **changes}).args[0]


def load(name):
    assert SVPLoadMotionGenerator.validate_inputs(name) is True
    return SVPLoadMotionGenerator.execute(name).args[0]


def test_what_to_do_without_files(models, monkeypatch):
    assert generator_names() == ["built-in"]  # comes with the pack
    monkeypatch.setattr(nodes, "BUILT_IN_MOTION", models / "gone.safetensors")
    assert generator_names() == ["(none found)"]
    message = SVPLoadMotionGenerator.validate_inputs("(none found)")
    assert "svp download kdtalker" in message and "svp download joyvasa" in message and "\n" not in message
    assert str(models / "kdtalker") in message
    with pytest.raises(PortraitError, match="there is no file 'kdtalker/gone.pth'"):
        SVPLoadMotionGenerator.execute("kdtalker/gone.pth")


def test_generators_are_listed_by_their_own_files(written):
    assert generator_names() == ["kdtalker/KDTalker.pth", "joyvasa/motion_generator_hubert_chinese.pt", "built-in"]
    (written / "joyvasa/mine").mkdir()
    (written / "joyvasa/motion_generator_hubert_chinese.pt").rename(written / "joyvasa/mine/iter_0020000.pt")
    assert "joyvasa/mine/iter_0020000.pt" in generator_names()
    assert load("joyvasa/mine/iter_0020000.pt").generator.name == "JoyVASA"  # the template lies above it
    (written / "kdtalker/norm.npz").unlink()
    with pytest.raises(PortraitError, match="norm.npz not found in .*: run `svp download kdtalker"):
        SVPLoadMotionGenerator.execute("kdtalker/KDTalker.pth")
    assert SVPLoadMotionGenerator.fingerprint_inputs("kdtalker/KDTalker.pth") > 0


def test_joyvasa_needs_the_voice_alone(written):
    generator = load("joyvasa/motion_generator_hubert_chinese.pt")
    motion = generate(generator, voice(1.3), seed=4)
    assert (len(motion), motion.fps, motion.space, motion.face) == (33, 25, "liveportrait", None)
    with_picture = generate(generator, voice(1.3), seed=4, portrait=picture())
    assert torch.equal(motion.expression, with_picture.expression) and torch.equal(motion.angles, with_picture.angles)
    slower = generate(generator, voice(1.3), seed=4, fps=12.5)
    assert len(slower) == 16 and slower.fps == 12.5
    torch.testing.assert_close(slower.expression, motion.expression[:32:2])
    assert len(generate(generator, voice(1.3, 44100), fps=30.0)) == 39
    assert not torch.equal(generate(generator, voice(1.3), seed=5).expression, motion.expression)


def test_kdtalker_needs_the_portrait(written):
    generator = load("kdtalker/KDTalker.pth")
    liveportrait = SVPLoadLivePortrait.execute("/").args[0]
    analyzer = SVPLoadFaceAnalyzer.execute("middle", "largest", 0, 0.0, "backend").args[0]
    with pytest.raises(
        PortraitError, match="KDTalker moves the face of one portrait: connect liveportrait and portrait"
    ):
        generate(generator, voice(0.5))
    given = {"liveportrait": liveportrait, "portrait": picture(), "face_analyzer": analyzer}
    motion = generate(generator, voice(3.2), **given)
    assert len(motion) == 80 and motion.face.shape == (21, 3)
    assert torch.equal(generate(generator, voice(3.2), **given).expression, motion.expression)
    other = generate(generator, voice(3.2), **{**given, "portrait": picture(1)})
    assert not torch.allclose(other.face, motion.face) and not torch.allclose(other.expression, motion.expression)
    whole = generate(
        generator, voice(0.5), liveportrait=liveportrait, portrait=picture()[:, :, :80], framing="whole image"
    )
    assert len(whole) == 13
    published = generate(generator, voice(3.2), **given, overlap=0)
    assert not torch.equal(published.expression, motion.expression)


def test_progress_goes_by_windows_and_can_stop(written, monkeypatch):
    generator, seen = load("joyvasa/motion_generator_hubert_chinese.pt"), []

    def progress():
        def call(done, total):
            seen.append(done / total)
            if len(seen) == 2:
                raise InterruptedError

        return call

    monkeypatch.setattr(nodes.host, "progress", progress)
    with pytest.raises(InterruptedError):
        generate(generator, voice(3))  # seven windows of twelve frames
    assert len(seen) == 2 and 0.1 < seen[0] < seen[1] < 1


def test_a_silent_video_has_no_voice(written):
    with pytest.raises(PortraitError, match="there is no audio"):
        generate(load("joyvasa/motion_generator_hubert_chinese.pt"), None)


def test_the_packs_own_generator_needs_no_models_folder(models, tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = MotionGeneratorNetwork(MotionGeneratorConfig(width=16, heads=2, joint_layers=1))
    file = tmp_path / "motion.safetensors"
    save_motion_model(file, MotionModel("space", network), {})
    monkeypatch.setattr(nodes, "BUILT_IN_MOTION", file)
    assert generator_names() == ["built-in"] and SVPLoadMotionGenerator.validate_inputs("built-in") is True
    loaded = SVPLoadMotionGenerator.execute("built-in").args[0]
    audio = {"waveform": torch.randn(1, 1, 16000) * 0.1, "sample_rate": 16000}
    motion = SVPMotionGenerate.execute(loaded, audio, **GENERATE).args[0]
    assert len(motion) == 25 and motion.space == "svp"


@pytest.fixture(scope="module")
def own():
    """The built-in generator as it is shipped."""
    return SVPLoadMotionGenerator.execute("built-in").args[0]


def test_a_prompt_moves_the_head_and_a_given_motion_is_met_exactly(own):
    audio = voice(3.0)
    free = generate(own, audio)
    nods = generate(own, audio, prompt="at 0.5 s nods large, from 1.5 to 3 s dances")
    assert float(nods.angles[12:40, 1].std()) > 1.5 * float(free.angles[12:40, 1].std())
    given = generate(own, audio, seed=9)
    met = generate(own, audio, given_motion=given, given_part="head")
    assert torch.equal(met.angles, given.angles) and torch.equal(met.shift, given.shift)
    assert not torch.equal(met.expression, given.expression)
    bounded = generate(own, audio, largest_angle=0.5, largest_shift=0.01)
    assert float(bounded.angles.abs().max()) <= 0.501 and float(bounded.shift.abs().max()) <= 0.0101
    assert torch.equal(generate(own, audio, prompt="# nods").angles, free.angles)  # a comment


def test_others_refuse_what_they_cannot_follow(written):
    generator = load("joyvasa/motion_generator_hubert_chinese.pt")
    with pytest.raises(PortraitError, match="JoyVASA cannot follow prompt, blink rate: load the generator 'built-in'"):
        generate(generator, voice(0.5), prompt="nods", blink_rate=0.3)
    with pytest.raises(PortraitError, match="JoyVASA predicts no styles"):
        SVPStylePredict.execute(generator, voice(0.5), 0)


def test_a_style_is_predicted_from_a_voice_and_can_be_used(own):
    prior = SVPStylePredict.execute(own, voice(3.0), 4).args[0]
    again, other = (SVPStylePredict.execute(own, voice(3.0), seed).args[0] for seed in (4, 5))
    assert torch.equal(prior.mu, again.mu) and not torch.equal(prior.mu, other.mu)
    assert float(prior.sigma.abs().max()) == 0
    plain, styled = generate(own, voice(1.0)), generate(own, voice(1.0), style=prior)
    assert not torch.equal(plain.expression, styled.expression)
    with pytest.raises(PortraitError, match="the portrait's expression has to be read"):
        SVPStylePredict.execute(own, voice(1.0), 0, portrait=picture())
