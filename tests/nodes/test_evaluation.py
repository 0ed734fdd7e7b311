"""Evaluation nodes: figures of any frames, and a picture of style priors."""

import json

import numpy as np
import pytest
import torch

from svp_portrait.nodes.evaluation import SVPEvaluate, SVPStylePlot
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.evaluation.plots import panels
from svp_portrait.svp_models.face.detection import FaceDetection
from svp_portrait.svp_models.face.tracking import FaceTracker
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import StylePrior


@pytest.fixture(scope="module")
def clip():
    return make_clip(speaker(5, "test"), "sad", 3, 1, seconds=0.8, size=64)


@pytest.fixture(scope="module")
def images(clip):
    return torch.from_numpy(clip.images).float() / 255


@pytest.fixture
def analyzer(clip):
    """Knows the faces of the clip by the order of its frames."""

    class Known:
        name = "known"

        def detect(self, frames):
            for index, _ in enumerate(frames):
                points, head = clip.landmarks[index], clip.head_keypoints[index]
                five = points[[36, 45, 30, 48, 54]]
                yield [FaceDetection(np.array([0, 0, 64, 64]), head, five, points.astype(np.float32))]

    return FaceTracker(Known())


def voice(clip):
    return {"waveform": torch.from_numpy(clip.audio)[None, None], "sample_rate": 16000}


def test_frames_against_themselves(images, clip, analyzer):
    text, values, plot = SVPEvaluate.execute(images, images, 25.0, 0, voice(clip), analyzer).args
    found = json.loads(values)
    assert found["made"] == found["truth"]
    assert found["made"]["f_lmd"] == 0 and found["made"]["mouth_corr"] == pytest.approx(1)
    assert found["made"]["voice_corr"] > 0.3
    assert "The frames are the same: PSNR is infinite." in text
    assert plot.shape == (1, 4 * 220, 960, 3) and 0 <= plot.min() < plot.max() <= 1


def test_noise_is_measured_without_faces(images):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)) * 8 / 255
    text, values, plot = SVPEvaluate.execute((images + noise).clamp(0, 1), images[:12], 25.0, 0).args
    found = json.loads(values)
    assert found["frames"] == {"fps": 25.0, "count": 12}
    assert found["made"]["psnr"] == pytest.approx(20 * np.log10(255 / 8), abs=0.5)
    assert "m_lmd" not in found["made"] and "connect a face analyser" in text
    assert plot.shape[1] == 2 * 220


def test_frames_of_two_sizes_are_refused(images):
    with pytest.raises(PortraitError, match="made frames are 32 x 32 pixels, the true ones 64 x 64: scale one"):
        SVPEvaluate.execute(images[:, ::2, ::2], images, 25.0, 0)


def test_curves_go_from_left_to_right_and_up():
    image = panels({"rising": {"a": [0.0, 1.0, float("nan"), 3.0]}})
    blue = (image == (0, 0x72, 0xB2)).all(-1)
    rows, columns = np.nonzero(blue[30:])  # without the legend
    assert rows[columns.argmin()] > rows[columns.argmax()]
    with pytest.raises(PortraitError, match="0 curves"):
        panels({})


def prior(place: float, spread: float, space: str = "demo") -> StylePrior:
    mu = torch.zeros(16)
    mu[0] = place
    return StylePrior(mu, torch.full((16,), spread), space, f"at {place}")


def test_priors_lie_apart_as_far_as_their_means():
    plot = SVPStylePlot.execute(prior(-5, 0.1), 32, 0, style_prior_3=prior(5, 0.1)).args[0][0]
    pixels = (plot * 255).round().byte().numpy()[:720]
    places = [np.argwhere((pixels == colour).all(-1)).mean(0) for colour in ((0, 0x72, 0xB2), (0xD5, 0x5E, 0))]
    assert abs(places[0][1] - places[1][1]) > 400 and abs(places[0][0] - places[1][0]) < 60
    again = SVPStylePlot.execute(prior(-5, 0.1), 32, 0, style_prior_3=prior(5, 0.1)).args[0][0]
    assert torch.equal(plot, again)


def test_styles_of_two_models_have_no_common_plane():
    with pytest.raises(PortraitError, match=r"the styles are of 2 models \(demo, other\)"):
        SVPStylePlot.execute(prior(0, 1), 8, 0, style_prior_2=prior(1, 1, "other"))
