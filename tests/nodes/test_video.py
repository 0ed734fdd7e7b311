"""The median filter as a node, and what is said of frames and sound that cannot be written."""

from __future__ import annotations

from threading import Event

import pytest
import torch

from svp_portrait.nodes import host_stub
from svp_portrait.nodes import video as module
from svp_portrait.nodes.types import audio_from_host, bytes_from_images
from svp_portrait.nodes.video import CHUNK, SVPMedianFilter, SVPVideoCombine, image_chunks
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.io.memory_map import Storage, as_tensor
from svp_portrait.svp_models.media.images import median_filter
from svp_portrait.svp_models.media.writer import VideoWriter


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


LONG = 20  # seconds after which a test gives up


@pytest.fixture
def output(tmp_path, monkeypatch):
    folder = tmp_path / "output"
    folder.mkdir()
    monkeypatch.setattr(host_stub.folder_paths, "folders", host_stub.folder_paths.folders)
    host_stub.folder_paths.set_output_directory(str(folder))
    return folder


def combined(latent, vae):
    return SVPVideoCombine.execute(25.0, 18, "clip", latent={"samples": latent}, vae=vae)


def pictures_of(frames: int) -> torch.Tensor:
    return torch.rand(frames, 3, 32, 48, generator=torch.Generator().manual_seed(1)) / 2


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])  # the host runs nodes in the second
def test_a_decoded_clip_has_the_bytes_of_one_written_in_turn(output, tmp_path, mode):
    latent, frames = pictures_of(3 * CHUNK + 5), 3 * CHUNK + 5
    with mode():
        combined(latent, Doubler())
    with VideoWriter(tmp_path / "turn.mp4", 48, 32, 25.0) as writer:
        writer.write(bytes_from_images(Doubler().decode(latent)))
    (path,) = output.iterdir()
    assert writer.frames_written == frames and path.read_bytes() == (tmp_path / "turn.mp4").read_bytes()


def test_frames_are_written_while_the_next_are_decoded(output, monkeypatch):
    decoding, waited = Event(), []

    class Slow(Doubler):
        def decode(self, samples):
            if started:
                decoding.set()
            started.append(True)
            return super().decode(samples)

    started = []
    write = VideoWriter.write

    def late(self, frames):
        waited.append(decoding.wait(LONG))
        write(self, frames)

    monkeypatch.setattr(VideoWriter, "write", late)
    combined(pictures_of(2 * CHUNK), Slow())
    assert waited == [True, True]


class Failing(Doubler):
    def __init__(self, error, good):
        self.error, self.good = error, good

    def decode(self, samples):
        self.good -= 1
        if self.good < 0:
            raise self.error
        return super().decode(samples)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_an_error_while_decoding_leaves_no_file(output, error):
    with pytest.raises(type(error)) as caught:
        combined(pictures_of(6 * CHUNK), Failing(error, good=3))
    assert caught.value is error and not list(output.iterdir())


def test_an_error_while_writing_ends_the_decoding_and_leaves_no_file(output, monkeypatch):
    write, decoder = VideoWriter.write, Failing(None, good=100)

    def full(self, frames):
        if self.frames_written:
            raise PortraitError("the video cannot be written (no space left on device)")
        write(self, frames)

    monkeypatch.setattr(VideoWriter, "write", full)
    with pytest.raises(PortraitError, match="no space left on device"):
        combined(pictures_of(20 * CHUNK), decoder)
    assert not list(output.iterdir()) and decoder.good >= 95  # two written, one waiting, one or two decoded


def test_a_cancel_while_decoding_leaves_no_file(output, monkeypatch):
    def show(done, total):
        if done >= 2 * CHUNK:
            raise KeyboardInterrupt

    monkeypatch.setattr(host_stub.ProgressBar, "show", show)
    with pytest.raises(KeyboardInterrupt):
        combined(pictures_of(6 * CHUNK), Doubler())
    assert not list(output.iterdir())


def test_values_between_bytes_are_rounded_as_before():
    images = torch.linspace(-0.1, 1.1, 2 * 7 * 5 * 3).view(2, 7, 5, 3)
    expected = (images.clamp(0, 1) * 255).round().byte()
    for kind in (torch.float32, torch.float64):
        assert (bytes_from_images(images.to(kind)) == expected.numpy()).all()
    assert bytes_from_images(images[..., :1]).shape == (2, 7, 5, 3)
