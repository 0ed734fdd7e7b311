from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.media.audio import load_audio
from svp_portrait.svp_models.media.video import as_rate, iter_frames, load_video, resample_frames, upright
from svp_portrait.svp_models.media.writer import VideoWriter
from svp_portrait.svp_models.types import Audio

CLIPS = Path(__file__).resolve().parents[3].parent / "shared" / "clips"
needs_clips = pytest.mark.skipif(not CLIPS.is_dir(), reason="no ../shared/clips beside the repository")
RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 40), (30, 40, 210), (235, 235, 235)


def quarters(width: int = 64, height: int = 32) -> np.ndarray:
    """Red, green / blue, white: every orientation looks different."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, WHITE
    return image


def corners(image: np.ndarray) -> list[tuple[int, ...]]:
    """The nearest of the four colours in each quarter: top left, top right, bottom left, bottom right."""
    height, width = image.shape[:2]
    found = []
    for y in (height // 4, 3 * height // 4):
        for x in (width // 4, 3 * width // 4):
            pixel = image[y, x].astype(int)
            found.append(min((RED, GREEN, BLUE, WHITE), key=lambda color: np.abs(pixel - color).sum()))
    return found


def write_frames(path, images, times, time_base=Fraction(1, 1000), codec="libx264", pixels="yuv420p", setup=None):
    """Images with time stamps of any spacing."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = time_base
        if codec == "libx264":
            stream.options = {"crf": "8"}
        if setup is not None:
            setup(stream)
        for image, time in zip(images, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def grey(level: int) -> np.ndarray:
    return np.full((32, 32, 3), level, np.uint8)


def levels(frames: np.ndarray) -> list[int]:
    return [int(frame.mean().round()) for frame in frames]


def timed(times, duration=Fraction(1, 25)):
    return ((Fraction(time).limit_denominator(1000), duration, index) for index, time in enumerate(times))


def test_constant_rate_passes_through_unchanged():
    items = timed([round(i / 25, 3) for i in range(10)])
    assert list(resample_frames(items, Fraction(25))) == list(range(10))


def test_times_rounded_to_milliseconds_lose_no_frame():
    rate = Fraction(30000, 1001)
    items = timed([round(i * 1.001 / 30, 3) for i in range(300)], 1 / rate)
    assert list(resample_frames(items, rate)) == list(range(300))


def test_the_first_time_stamp_is_time_0():
    assert list(resample_frames(timed([5.0, 5.04, 5.08]), Fraction(25))) == [0, 1, 2]


def test_a_pause_holds_the_last_frame():
    assert list(resample_frames(timed([0, 0.04, 0.2, 0.24]), Fraction(25))) == [0, 1, 1, 1, 1, 2, 3]


def test_halving_and_doubling_the_rate():
    times = [i / 50 for i in range(8)]
    assert list(resample_frames(timed(times, Fraction(1, 50)), Fraction(25))) == [1, 3, 5, 7]
    assert list(resample_frames(timed([0, 0.04]), Fraction(50))) == [0, 0, 1, 1]


def test_unknown_times_follow_the_duration():
    items = ((None, Fraction(1, 10), index) for index in range(3))
    assert list(resample_frames(items, Fraction(10))) == [0, 1, 2]


def test_broken_time_stamps_are_named():
    with pytest.raises(PortraitError, match="jump by 95444 s"):
        list(resample_frames(timed([0, 95443.7]), Fraction(25)))


@pytest.mark.parametrize("fps", [0, -1, float("nan")])
def test_as_rate_refuses_what_is_no_rate(fps):
    with pytest.raises(PortraitError, match="frame rate"):
        as_rate(fps)


def test_as_rate_is_exact():
    assert as_rate(30000 / 1001) == Fraction(30000, 1001)
    assert as_rate(29.97) == Fraction(2997, 100)


def test_variable_rate_file_is_resampled_by_time(tmp_path):
    path = tmp_path / "vfr.mkv"
    write_frames(path, [grey(level) for level in (20, 90, 160, 230)], [0, 40, 400, 480])
    frames = load_video(path, fps=25).frames
    assert np.allclose(levels(frames)[:13], [20] + [90] * 9 + [160] * 2 + [230], atol=4)
    assert len(frames) in (13, 14, 15)  # the last frame's length is the container's guess


@pytest.mark.parametrize(
    "degrees, hflip, expected",
    [
        (0, False, [RED, GREEN, BLUE, WHITE]),
        (90, False, [GREEN, WHITE, RED, BLUE]),  # counter-clockwise
        (180, False, [WHITE, BLUE, GREEN, RED]),
        (270, False, [BLUE, RED, WHITE, GREEN]),
        (0, True, [GREEN, RED, WHITE, BLUE]),
    ],
)
def test_display_matrix_is_respected(tmp_path, degrees, hflip, expected):
    path = tmp_path / "turned.mp4"
    write_frames(path, [quarters()], [0], setup=lambda stream: stream.set_display_rotation(degrees, hflip=hflip))
    frame = load_video(path).frames[0]
    assert frame.shape == ((64, 32, 3) if degrees % 180 else (32, 64, 3))
    assert corners(frame) == expected


def test_rotate_tag_is_respected(tmp_path):
    path = tmp_path / "tagged.mkv"
    write_frames(path, [quarters()], [0], setup=lambda stream: stream.metadata.update({"rotate": "90"}))
    with av.open(str(path)) as container:
        name = next((key for key in container.streams.video[0].metadata if key.lower() == "rotate"), None)
    assert name is not None
    assert corners(load_video(path).frames[0]) == [BLUE, RED, WHITE, GREEN]  # clockwise


def test_upright_mirrored_quarter_turn():
    transpose = upright(quarters(), (0, 1, 1, 0))
    assert corners(transpose) == [RED, BLUE, GREEN, WHITE]


def test_non_square_pixels_are_made_square(tmp_path):
    path = tmp_path / "wide.mkv"

    def anamorphic(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(2)

    write_frames(path, [quarters()], [0], setup=anamorphic)
    frames = load_video(path).frames
    assert frames.shape == (1, 32, 128, 3) and corners(frames[0]) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(
    "name, codec, pixels",
    [
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mkv", "ffv1", "yuv444p"),
        ("a.mov", "prores_ks", "yuv422p10le"),
        ("a.ts", "mpeg2video", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
    ],
)
def test_containers_and_codecs(tmp_path, name, codec, pixels):
    base = Fraction(1, 100) if codec == "gif" else Fraction(1, 25)
    step = 4 if codec == "gif" else 1
    images = [quarters()] * 5
    write_frames(tmp_path / name, images, [step * i for i in range(5)], base, codec, pixels)
    video = load_video(tmp_path / name)
    assert video.frames.shape == (5, 32, 64, 3) and video.fps == 25 and video.audio is None
    assert corners(video.frames[2]) == [RED, GREEN, BLUE, WHITE]


def test_full_range_video_keeps_its_levels(tmp_path):
    write_frames(tmp_path / "a.avi", [grey(200)], [0], Fraction(1, 25), "mjpeg", "yuvj420p")
    assert np.abs(load_video(tmp_path / "a.avi").frames.astype(int) - 200).max() <= 3


def test_max_frames_cuts_picture_and_sound(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 32, 32, 25, Audio(torch.zeros(1, 16000), 16000)) as writer:
        writer.write(np.zeros((25, 32, 32, 3), np.uint8))
    video = load_video(path, max_frames=10)
    assert len(video) == 10 and video.seconds == 0.4 and video.audio.waveform.shape == (1, 6400)
    with pytest.raises(PortraitError, match="max_frames is 0"):
        load_video(path, max_frames=0)


@pytest.mark.parametrize("delay", [0.5, -0.25])
def test_sound_that_starts_with_another_frame_is_aligned(tmp_path, delay):
    path = tmp_path / "late.mkv"
    click = np.zeros((1, 16000), np.float32)
    click[0, 8000] = 0.9
    base = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        image = container.add_stream("libx264", rate=25, options={"bf": "0"})
        image.width = image.height = 32
        image.pix_fmt = "yuv420p"
        image.codec_context.time_base = base
        sound = container.add_stream("pcm_f32le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(click, format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, round((1 + delay) * 16000), Fraction(1, 16000)
        container.mux([*sound.encode(frame), *sound.encode(None)])
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(grey(100), format="rgb24")
            frame.pts, frame.time_base = 1000 + 40 * index, base
            container.mux(image.encode(frame))
        container.mux(image.encode(None))
    for audio in (load_video(path).audio, load_audio(path)):
        assert int(audio.waveform[0].argmax()) == round((0.5 + delay) * 16000)


def test_damaged_and_foreign_files_are_named(tmp_path):
    whole = tmp_path / "whole.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), np.uint8)
    with VideoWriter(whole, 64, 64, 25) as writer:
        writer.write(noise)
    data = whole.read_bytes()
    (tmp_path / "half.mp4").write_bytes(data[: len(data) // 2])
    broken = bytearray(data)
    broken[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    (tmp_path / "broken.mp4").write_bytes(broken)
    (tmp_path / "text.mp4").write_text("no video at all")
    for name in ("half.mp4", "broken.mp4", "text.mp4"):
        with pytest.raises(PortraitError, match=f"{name}: cannot be decoded"):
            load_video(tmp_path / name)
    with pytest.raises(PortraitError, match="none.mp4: cannot be opened"):
        load_video(tmp_path / "none.mp4")
    with pytest.raises(PortraitError, match="whole.mp4: there is no audio track"):
        load_audio(whole)


def test_sound_file_has_no_video_stream(tmp_path):
    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(PortraitError, match="a.m4a: there is no video stream"):
        load_video(tmp_path / "a.m4a")


def test_video_stream_without_frames(tmp_path):
    path = tmp_path / "zero.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    with pytest.raises(PortraitError, match="zero.avi: (the video holds 0 frames|cannot be decoded|there is no video)"):
        load_video(path)


@needs_clips
@pytest.mark.parametrize("name, frames", [("vasa_17", 238), ("vasa_7", 316), ("vasa_l4", 377)])
def test_real_clips_decode_frame_by_frame(name, frames):
    count = sum(1 for _ in iter_frames(CLIPS / name / "video.mp4"))
    assert count == frames


@needs_clips
def test_real_clip_at_another_rate_and_its_first_frame():
    video = load_video(CLIPS / "vasa_17" / "video.mp4", fps=30, max_frames=12)
    assert video.frames.shape == (12, 512, 512, 3) and video.fps == 30
    portrait = np.asarray(Image.open(CLIPS / "vasa_17" / "portrait.jpg"))
    assert np.abs(video.frames[0].astype(int) - portrait).mean() < 2
