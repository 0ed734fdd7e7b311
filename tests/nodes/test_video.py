"""The median filter as a node, and what is said of frames and sound that cannot be written."""

from __future__ import annotations

import pytest
import torch

from svp_portrait.nodes import host_stub
from svp_portrait.nodes import video as module
from svp_portrait.nodes.types import audio_from_host
from svp_portrait.nodes.video import CHUNK, SVPMedianFilter, image_chunks
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.io.memory_map import Storage, as_tensor
from svp_portrait.svp_models.media.images import median_filter


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_frames_are_filtered_over_space_and_time(frames):
    images = torch.rand(frames, 6, 5, 3, generator=torch.Generator().manual_seed(frames))
    before = images.clone()
    (filtered,) = SVPMedianFilter.execute(images).args
    assert torch.equal(filtered, median_filter(images.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
    assert torch.equal(images, before) and filtered.is_contiguous()


def test_a_flash_of_one_frame_disappears():
    images = torch.full((5, 4, 4, 3), 0.25)
    images[2] = 1
    assert torch.equal(SVPMedianFilter.execute(images).args[0], torch.full((5, 4, 4, 3), 0.25))


def test_every_frame_is_reported_and_a_cancel_ends_it(monkeypatch):
    reports = []

    def show(done, total):
        reports.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(host_stub.ProgressBar, "show", show)
    with pytest.raises(KeyboardInterrupt):
        SVPMedianFilter.execute(torch.rand(9, 4, 4, 3))
    assert reports == [(1, 9), (2, 9), (3, 9)]


def test_nothing_to_filter_is_named():
    with pytest.raises(PortraitError, match=r"\(0, 4, 4, 3\): images x height x width x 3 is needed"):
        SVPMedianFilter.execute(torch.zeros(0, 4, 4, 3))


@pytest.mark.parametrize("shape", [(1, 4, 16, 16), (1, 16, 2, 8, 8), (0, 16, 8, 8)])
def test_a_latent_of_another_model_is_named(shape):
    class Vae:
        latent_channels = 16

    with pytest.raises(
        PortraitError, match=r"the latent has shape \(.*frames x 16 channels .* latent and VAE of one model"
    ):
        next(image_chunks(None, {"samples": torch.zeros(shape)}, Vae()))


def test_the_sound_of_a_silent_film_is_named():
    with pytest.raises(PortraitError, match="there is no audio: the video has none"):
        audio_from_host(None)


class Doubler:
    """A VAE whose pictures are twice the latent."""

    def decode(self, samples):
        return 2 * samples.movedim(1, -1)


def test_a_latent_in_a_file(tmp_path, monkeypatch):
    numbers = torch.rand(2 * CHUNK + 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    rows = Storage(str(tmp_path), budget=0).zeros(numbers.shape)
    rows[:] = numbers
    latent, released = as_tensor(rows), []
    monkeypatch.setattr(module, "release", lambda tensor: released.append(tensor is latent))
    pictures = list(image_chunks(None, {"samples": latent}, Doubler()))
    assert [len(each) for each in pictures] == [CHUNK, CHUNK, 3] and released == [True] * 3
    assert torch.equal(torch.cat(pictures), 2 * numbers.movedim(1, -1))
