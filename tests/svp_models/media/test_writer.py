from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import Cancelled, PortraitError
from svp_portrait.svp_models.media.audio import load_audio
from svp_portrait.svp_models.media.video import iter_frames, load_video
from svp_portrait.svp_models.media.writer import VideoWriter
from svp_portrait.svp_models.types import Audio


def grey_frames(count: int, width: int = 32, height: int = 32, level: int = 90) -> np.ndarray:
    return np.full((count, height, width, 3), level, np.uint8)


def noise(seconds: float, rate: int, channels: int = 1) -> Audio:
    generator = torch.Generator().manual_seed(0)
    return Audio(torch.randn(channels, round(seconds * rate), generator=generator) * 0.1, rate)


def lag(heard: np.ndarray, sent: np.ndarray) -> int:
    """By how many samples `heard` comes after `sent`."""
    size = 1 << (len(heard) + len(sent)).bit_length()
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(sent, size)))
    best = int(product.argmax())
    return best if best < size // 2 else best - size


def streams(path) -> dict[str, object]:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        context = video.codec_context
        frame = next(container.decode(video))
        return {
            "codec": context.name,
            "pixels": context.pix_fmt,
            "size": (video.width, video.height),
            "rate": video.average_rate,
            "frames": video.frames,
            "colors": (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range),
            "audio": [each.codec_context.name for each in container.streams.audio],
            "audio seconds": [float(each.duration * each.time_base) for each in container.streams.audio],
        }


@pytest.mark.parametrize("rate", [16000, 24000, 44100, 48000])
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_sample_0_is_frame_0(tmp_path, rate, ending):
    path, sound = tmp_path / f"a.{ending}", noise(2, rate)
    with VideoWriter(path, 32, 32, 25, sound) as writer:
        writer.write(grey_frames(50))
    heard = load_video(path).audio
    assert heard.sample_rate == rate
    assert abs(lag(heard.waveform[0].numpy(), sound.waveform[0].numpy())) <= (0 if ending != "mkv" else rate // 500)
    assert 0 <= heard.waveform.shape[1] - 2 * rate <= 1024


def measure_alignment(path, rate: Fraction, minutes: int, sound_rate: int) -> np.ndarray:
    """Seconds by which each click comes after its flash, one a minute and one at the very end."""
    frames = round(minutes * 60 * rate)
    flashes = [round(minute * 60 * rate) for minute in range(minutes)] + [frames - 1]
    waveform = torch.zeros(1, round(frames / rate * sound_rate))
    for flash in flashes:
        waveform[0, round(flash / rate * sound_rate)] = 0.9
    with VideoWriter(path, 32, 32, rate, Audio(waveform, sound_rate)) as writer:
        for start in range(0, frames, 1000):
            chunk = grey_frames(min(1000, frames - start), level=10)
            for flash in flashes:
                if start <= flash < start + len(chunk):
                    chunk[flash - start] = 245
            writer.write(chunk)
    with av.open(str(path)) as container:
        times = [
            float(each.time)
            for each in container.decode(video=0)
            if np.frombuffer(each.planes[0], np.uint8)[:32].mean() > 128  # a row: lines are padded
        ]
        container.seek(0)
        count = container.streams.video[0].frames
    sound = load_audio(path).waveform[0].abs().numpy()
    assert count == frames and len(times) == len(flashes)
    clicks = []
    for time in times:
        start = max(0, round((time - 0.5) * sound_rate))
        clicks.append((start + int(sound[start : start + sound_rate].argmax())) / sound_rate)
    assert abs(len(sound) / sound_rate - float(frames / rate)) <= 1024 / sound_rate
    return np.array(clicks) - np.array(times)


@pytest.mark.slow
@pytest.mark.parametrize("rate, sound_rate", [(Fraction(25), 16000), (Fraction(30000, 1001), 44100)])
def test_ten_minutes_stay_aligned(tmp_path, rate, sound_rate):
    late = measure_alignment(tmp_path / "long.mp4", rate, 10, sound_rate)
    assert np.abs(late).max() < 0.0005, late  # half a frame is 0.02 s


def test_one_minute_stays_aligned_at_a_float_rate(tmp_path):
    late = measure_alignment(tmp_path / "a.mp4", Fraction(2997, 100), 1, 16000)
    assert np.abs(late).max() < 0.0005, late


def test_what_the_file_says(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 64, 48, 30000 / 1001, noise(1, 16000)) as writer:
        for _ in range(3):
            writer.write(grey_frames(10, 64, 48))
    assert writer.frames_written == 30
    told = streams(path)
    assert told["codec"] == "h264" and told["pixels"] == "yuv420p" and told["audio"] == ["aac"]
    assert told["size"] == (64, 48) and told["rate"] == Fraction(30000, 1001) and told["frames"] == 30
    assert told["colors"] == (1, 1, 1, 1)  # BT.709, limited range
    assert told["audio seconds"][0] == pytest.approx(1.001, abs=1e-4)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # playable while it loads


@pytest.mark.parametrize(
    "color", [(220, 30, 30), (30, 200, 40), (30, 40, 210), (255, 255, 255), (0, 0, 0), (180, 120, 60)]
)
def test_colors_survive(tmp_path, color):
    with VideoWriter(tmp_path / "a.mp4", 32, 32, 25, crf=8) as writer:
        writer.write(np.full((3, 32, 32, 3), color, np.uint8))
    frames = load_video(tmp_path / "a.mp4").frames
    assert np.abs(frames.astype(int) - color).max() <= 4


@pytest.mark.parametrize("width, height", [(33, 17), (1, 1), (31, 32), (2, 2)])
def test_odd_sizes_grow_by_their_edge(tmp_path, width, height):
    image = grey_frames(2, width, height)
    image[:, :, -1] = 200
    with VideoWriter(tmp_path / "a.mp4", width, height, 25, crf=1) as writer:
        writer.write(image)
    frames = load_video(tmp_path / "a.mp4").frames
    assert frames.shape == (2, height + height % 2, width + width % 2, 3)
    assert np.abs(frames[:, :, -1].astype(int) - 200).max() <= 6


def test_one_frame_with_ten_milliseconds_of_sound(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 32, 32, 25, noise(0.01, 16000)) as writer:
        writer.write(grey_frames(1))
    video = load_video(path)
    assert len(video) == 1 and video.fps == 25
    assert 640 <= video.audio.waveform.shape[1] <= 640 + 1024


@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_sound_is_cut_or_padded_to_the_frames(tmp_path, seconds):
    with VideoWriter(tmp_path / "a.mp4", 32, 32, 25, noise(seconds, 48000)) as writer:
        writer.write(grey_frames(40))
    assert streams(tmp_path / "a.mp4")["audio seconds"] == [pytest.approx(1.6, abs=1e-4)]


def test_loud_sound_is_clipped_and_other_rates_and_channels_are_converted(tmp_path):
    tone = 1.5 * torch.sin(torch.arange(8000 * 2) / 8000 * 2 * torch.pi * 100)[None]
    with VideoWriter(tmp_path / "a.mp4", 32, 32, 25, Audio(tone, 8000)) as writer:
        writer.write(grey_frames(50))
    heard = load_audio(tmp_path / "a.mp4")
    assert heard.sample_rate == 48000 and heard.waveform.shape[0] == 1
    assert 0.9 < heard.waveform.abs().max() < 1.15  # a lossy codec overshoots a little
    with VideoWriter(tmp_path / "b.mp4", 32, 32, 25, noise(1, 44100, channels=6)) as writer:
        writer.write(grey_frames(25))
    assert load_audio(tmp_path / "b.mp4").waveform.shape[0] == 1
    with VideoWriter(tmp_path / "c.mp4", 32, 32, 25, noise(1, 11025, channels=2)) as writer:
        writer.write(grey_frames(25))
    assert load_audio(tmp_path / "c.mp4").waveform.shape[0] == 2


@pytest.mark.parametrize("crf", [0, 1, 2, 17, 51])
@pytest.mark.parametrize("size", [(64, 48), (33, 17)])
def test_every_quality_is_of_the_profile_that_all_players_take(tmp_path, crf, size):
    noise_frames = np.random.default_rng(0).integers(0, 255, (5, size[1], size[0], 3), np.uint8)
    with VideoWriter(tmp_path / "a.mp4", *size, 25, crf=crf) as writer:
        writer.write(noise_frames)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.profile == "High" and stream.codec_context.pix_fmt == "yuv420p"
        assert len(list(container.decode(stream))) == 5


def test_lossless_gives_back_what_was_encoded(tmp_path):
    decoded = []
    for crf in (None, 0):
        with VideoWriter(tmp_path / "a.mp4", 64, 64, 25, crf=crf) as writer:
            writer.write(np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8))
        with av.open(str(tmp_path / "a.mp4")) as container:
            decoded.append(container.streams.video[0].codec_context.profile)
            decoded.append(np.stack([frame.to_ndarray() for frame in container.decode(video=0)]))
    assert decoded[0].startswith("High 4:4:4") and decoded[2] == "High"
    assert np.abs(decoded[1].astype(int) - decoded[3]).max() <= 12  # the best of High is nearly lossless


def test_texts_travel_in_the_container(tmp_path):
    texts = {"prompt": '{"1": "\u00e4"}', "workflow": "x" * 300_000}
    with VideoWriter(tmp_path / "a.mp4", 32, 32, 25, metadata=texts) as writer:
        writer.write(grey_frames(2))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert {name: container.metadata[name] for name in texts} == texts


def test_crf_changes_the_size(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), np.uint8)
    sizes = []
    for crf in (10, 40):
        with VideoWriter(tmp_path / "a.mp4", 64, 64, 25, crf=crf) as writer:
            writer.write(frames)
        sizes.append((tmp_path / "a.mp4").stat().st_size)
    assert sizes[0] > 3 * sizes[1]


def test_a_clip_written_and_read_again(tmp_path):
    ramp = np.stack([np.full((32, 32, 3), 20 + 8 * index, np.uint8) for index in range(25)])
    with VideoWriter(tmp_path / "a.mp4", 32, 32, 25, crf=8) as writer:
        writer.write(ramp[:7])
        writer.write(ramp[7:])
    read = np.stack(list(iter_frames(tmp_path / "a.mp4")))
    assert read.shape == ramp.shape and np.abs(read.astype(int) - ramp).max() <= 4


@pytest.mark.parametrize("error", [Cancelled(), KeyboardInterrupt(), RuntimeError("host")])
def test_an_exception_in_the_block_passes_and_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)):
        with VideoWriter(tmp_path / "a.mp4", 32, 32, 25, noise(1, 16000)) as writer:
            writer.write(grey_frames(30))
            raise error
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_survives_a_failed_write(tmp_path):
    (tmp_path / "a.mp4").write_text("older")
    with pytest.raises(Cancelled):
        with VideoWriter(tmp_path / "a.mp4", 32, 32, 25):
            raise Cancelled
    assert (tmp_path / "a.mp4").read_text() == "older" and len(list(tmp_path.iterdir())) == 1


def test_no_frames_leave_nothing(tmp_path):
    with pytest.raises(PortraitError, match="a.mp4: 0 frames were written"):
        with VideoWriter(tmp_path / "a.mp4", 32, 32, 25, noise(1, 16000)):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    frames = np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), np.uint8)
    with VideoWriter(tmp_path / "whole.mp4", 64, 64, 25) as writer:
        writer.write(frames)
    size = (tmp_path / "whole.mp4").stat().st_size
    (tmp_path / "whole.mp4").unlink()
    for limit in (size // 2, size - 400, size - 3):  # in the frames, in the index, while the index moves to the front
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(PortraitError, match="a.mp4: the video cannot be written .* free disk space"):
                with VideoWriter(tmp_path / "a.mp4", 64, 64, 25) as writer:
                    writer.write(frames)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(tmp_path.iterdir()) == []


def test_a_name_that_cannot_be_taken_leaves_nothing(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(PortraitError, match="cannot be written"):
        with VideoWriter(tmp_path / "a.mp4", 32, 32, 25) as writer:
            writer.write(grey_frames(2))
    assert [each.name for each in tmp_path.iterdir()] == ["a.mp4"]


def test_wrong_frames_and_settings_are_named(tmp_path):
    with pytest.raises(PortraitError, match="float32 of shape .* must be uint8 of shape n x 32 x 48 x 3"):
        with VideoWriter(tmp_path / "a.mp4", 48, 32, 25) as writer:
            writer.write(np.zeros((1, 32, 48, 3), np.float32))
    with pytest.raises(PortraitError, match="must be uint8 of shape n x 32 x 48 x 3"):
        with VideoWriter(tmp_path / "a.mp4", 48, 32, 25) as writer:
            writer.write(np.zeros((1, 48, 32, 3), np.uint8))
    with pytest.raises(PortraitError, match="0 x 32 pixels"):
        VideoWriter(tmp_path / "a.mp4", 0, 32, 25)
    with pytest.raises(PortraitError, match="crf is 60"):
        VideoWriter(tmp_path / "a.mp4", 32, 32, 25, crf=60)
    with pytest.raises(PortraitError, match="frame rate is 0"):
        VideoWriter(tmp_path / "a.mp4", 32, 32, 0)
    with pytest.raises(PortraitError, match="ending"):
        VideoWriter(tmp_path / "a.txt", 32, 32, 25)
    with pytest.raises(PortraitError, match="folder .* does not exist"):
        with VideoWriter(tmp_path / "absent" / "a.mp4", 32, 32, 25):
            pass
    with pytest.raises(PortraitError, match="not finite"):
        VideoWriter(tmp_path / "a.mp4", 32, 32, 25, Audio(torch.full((1, 100), float("nan")), 16000))
    with pytest.raises(PortraitError, match="0 samples"):
        VideoWriter(tmp_path / "a.mp4", 32, 32, 25, Audio(torch.zeros(1, 0), 16000))
    assert list(tmp_path.iterdir()) == []
