"""Clips read one frame at a time: the frames, the part, the rate and the size that were asked for."""

from __future__ import annotations

import gc
from io import BytesIO

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.media.audio import audio_segment
from svp_portrait.svp_models.media.frame_stream import FrameSelection, file_audio, file_stream, image_stream
from svp_portrait.svp_models.media.video import iter_frames
from svp_portrait.svp_models.media.writer import VideoWriter
from svp_portrait.svp_models.types import Audio

FPS = 10


def grey(number: int) -> int:
    """The brightness of frame `number`."""
    return 20 + 5 * number


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """40 frames of 64 x 48 at 10 fps, each of its own grey, and a rising tone of as long."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    time = torch.arange(4 * 16000) / 16000
    sound = Audio((0.5 * torch.sin(2 * torch.pi * (200 + 100 * time) * time))[None], 16000)
    with VideoWriter(path, 64, 48, FPS, sound, 4) as writer:
        for number in range(40):
            writer.write(np.full((1, 48, 64, 3), grey(number), np.uint8))
    return path


def numbers(stream) -> list[int]:
    """Which frames of the film they are, by their brightness."""
    return [round((float(frame.mean()) - 20) / 5) for frame in stream]


@pytest.mark.parametrize(
    "chosen, expected, fps",
    [
        (FrameSelection(), list(range(40)), 10),
        (FrameSelection(skip=7, cap=3), [7, 8, 9], 10),
        (FrameSelection(skip=1, every=10), [1, 11, 21, 31], 1),
        (FrameSelection(frame_rate=5), list(range(1, 40, 2)), 5),
        (FrameSelection(frame_rate=20, cap=6), [0, 0, 1, 1, 2, 2], 20),
        (FrameSelection(frame_rate=5, skip=2, every=3, cap=2), [5, 11], 5 / 3),
    ],
)
def test_the_frames_that_were_asked_for(film, chosen, expected, fps):
    images = torch.stack([torch.full((48, 64, 3), grey(number) / 255) for number in range(40)])
    for stream in (file_stream(film, selection=chosen), image_stream(images, 10.0, chosen)):
        assert numbers(stream) == expected == numbers(stream)  # twice
        assert stream.fps == pytest.approx(fps) and len(stream) == len(expected) and stream.shape[1:] == (48, 64, 3)


@pytest.mark.parametrize(
    "start, seconds, expected", [(0, 0.5, [0, 1, 2, 3, 4]), (1.5, 0.3, [15, 16, 17]), (3.8, 0, [38, 39])]
)
def test_a_part_of_a_film_by_its_time(film, start, seconds, expected):
    assert numbers(file_stream(film, start, seconds)) == expected
    assert numbers(file_stream(BytesIO(film.read_bytes()), start, seconds)) == expected
    sound, whole = file_audio(film, start, seconds), file_audio(film)
    first = round(start * whole.sample_rate)
    assert torch.equal(sound.waveform, whole.waveform[:, first : first + sound.waveform.shape[-1]])
    assert sound.seconds == pytest.approx(seconds or whole.seconds - start, abs=1e-3)


def test_nothing_left_is_told(film):
    with pytest.raises(PortraitError, match="nothing is left after 9 s and 0 frames of 4.0 s"):
        file_stream(film, 9.0)
    with pytest.raises(PortraitError, match="nothing is left after 0 s and 99 frames"):
        file_stream(film, selection=FrameSelection(skip=99))
    assert audio_segment(Audio(torch.zeros(1, 100), 100), 2.0, 1.0) is None


@pytest.mark.parametrize(
    "width, height, size", [(0, 0, (64, 48)), (32, 0, (32, 24)), (0, 96, (128, 96)), (20, 20, (20, 20))]
)
def test_the_size_that_was_asked_for(width, height, size, film):
    chosen = FrameSelection(width=width, height=height, cap=2)
    half = torch.zeros(2, 48, 64, 3)
    half[:, :, 32:] = 1
    for stream in (file_stream(film, selection=chosen), image_stream(half, 10.0, chosen)):
        assert (stream.width, stream.height) == size
        assert {frame.shape for frame in stream} == {(size[1], size[0], 3)}
    frame = next(iter(stream))  # the middle stays in the middle, whatever is cut off
    assert (frame[:, : size[0] // 2 - 2] < 20).all() and (frame[:, size[0] // 2 + 2 :] > 235).all()


def test_pictures_come_out_as_they_are_and_rounded():
    images = torch.rand(3, 8, 6, 3, generator=torch.Generator().manual_seed(0))
    stream = image_stream(images)
    assert np.array_equal(np.stack(list(stream.images())), images.numpy())
    assert np.array_equal(np.stack(list(stream)), (images * 255).round().byte().numpy())


def test_old_calls_of_the_reader_are_as_before(film):
    assert len(list(iter_frames(film))) == 40 and len(list(iter_frames(film, 5))) == 20
    assert len(list(iter_frames(film, 10, 7))) == 7


def test_decoded_frames_do_not_wait_for_the_collector_of_cycles(film):
    """Each of them would hold its image until then: gigabytes of a long film."""
    gc.collect()
    gc.disable()
    try:
        for number, _ in enumerate(file_stream(film)):
            if number == 5:
                before = len(gc.get_objects())
        grown = len(gc.get_objects()) - before
    finally:
        gc.enable()
    assert grown < 20  # of 34 frames
