from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.config import AudioConfig
from svp_portrait.svp_models.diffusion import conditioning as module
from svp_portrait.svp_models.diffusion.conditioning import (
    KpsFeatureCache,
    audio_features,
    audio_tokens,
    encode_conditions,
    style_tokens,
)
from svp_portrait.svp_models.diffusion.inputs import ClipInputs
from svp_portrait.svp_models.diffusion.pipeline import PortraitPipeline, SamplerOptions
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.keypoints import draw_head_frames, draw_vexpress_frames
from svp_portrait.svp_models.io import memory_map
from svp_portrait.svp_models.io.memory_map import IN_MEMORY, MappedFrames, ReorderedFrames, Storage
from svp_portrait.svp_models.model import build_networks
from svp_portrait.svp_models.networks.audio_encoder import AudioEncoder, Segments, feature_windows, mel_features


class Counter(torch.nn.Module):
    """A guider stand-in: the mean picture of every 8 x 8 cell; remembers how many frames it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.frames: list[int] = []

    def forward(self, images):
        self.frames.append(images.shape[1])
        return torch.nn.functional.avg_pool2d(images[0], 8)[None] * self.weight


def test_audio_tokens_are_those_of_the_whole_clip(model, clip):
    tokens = audio_tokens(model, clip.audio, 40, 25)  # two chunks
    windows = feature_windows(mel_features(clip.audio, 40, 25), model.config.audio, 40)
    assert tokens.shape == (40, 2, 8)
    torch.testing.assert_close(tokens, model.networks.audio_projection(windows).detach())


def test_several_rows_per_frame(model, clip):
    audio = replace(model.config.audio, rows_per_frame=2, window=3)
    tokens = audio_tokens(replace(model, config=replace(model.config, audio=audio)), clip.audio, 6, 25)
    windows = feature_windows(mel_features(clip.audio, 12, 50), audio, 6)
    torch.testing.assert_close(tokens, model.networks.audio_projection(windows).detach())


def hearing(model, features: str, size: int, **changes):
    """The model as one that reads other features."""
    return replace(
        model, config=replace(model.config, audio=AudioConfig(features=features, feature_size=size)), **changes
    )


class Steps(AudioEncoder):
    """An encoder whose rows count from 0."""

    kind = "wav2vec2"

    def __init__(self) -> None:
        super().__init__(torch.nn.Identity(), 4, Segments())

    def _row_positions(self, samples, rows, rate):
        return rows, torch.arange(rows, dtype=torch.float64)

    def _hidden(self, samples, starts):
        yield torch.arange(50.0)[:, None].expand(-1, 4)


@pytest.mark.parametrize(("features", "folder"), [("whisper", "whisper-tiny"), ("wav2vec2", "wav2vec2-base-960h")])
def test_an_encoder_that_is_not_there_is_named(model, clip, features, folder):
    message = f"'tiny' reads {features} features of 768 values.*models/audio_encoders/{folder}.*Apply Audio Encoder"
    with pytest.raises(PortraitError, match=message):
        audio_tokens(hearing(model, features, 768), clip.audio, 4, 25)


def test_the_model_hears_through_its_encoder(model, clip):
    rows = audio_features(hearing(model, "wav2vec2", 4, audio_encoder=Steps()), clip.audio, 25, 25, rows_per_frame=2)
    assert rows.shape == (50, 4) and rows[:, 0].tolist() == list(range(50))


@pytest.mark.parametrize(
    ("features", "size", "message"),
    [
        ("wav2vec2", 768, "features of 768 values, the audio encoder gives wav2vec2 features of 4 values"),
        ("whisper", 4, "reads whisper features of 4 values, the audio encoder gives wav2vec2"),
        ("mel", 4, "uses no audio encoder: leave out the wav2vec2 encoder"),
    ],
)
def test_an_encoder_that_does_not_fit(model, clip, features, size, message):
    with pytest.raises(PortraitError, match=message):
        audio_features(hearing(model, features, size, audio_encoder=Steps()), clip.audio, 4, 25)


def test_progress_of_hearing(model, clip):
    """Half of it for the segments of the encoder, half for the projection of 50 frames in chunks of 32."""
    seen = []
    audio = AudioConfig(features="wav2vec2", feature_size=4, window=3, rows_per_frame=1, layers=1, heads=2, head_size=4)
    deep = replace(model.config, audio=audio)
    networks = build_networks(deep)
    audio_tokens(
        replace(model, config=deep, networks=networks, audio_encoder=Steps()),
        clip.audio,
        50,
        50,
        lambda done, total: seen.append(done / total),
    )
    assert seen == pytest.approx([0.5, 0.5 + 16 / 50, 1], abs=1e-4)


def test_style_tokens_follow_the_clip(model, clip):
    tokens = style_tokens(model, clip.style, 35)
    assert tokens.shape == (35, 3, 8)
    ends = model.networks.style_projection(clip.style.codes).detach()
    torch.testing.assert_close(tokens[[0, -1]], ends)


def test_kps_features_are_computed_once_per_frame():
    pictures = torch.rand(9, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    guider = Counter()
    kps = KpsFeatureCache(guider, pictures, (24, 16))
    expected = torch.nn.functional.avg_pool2d(pictures, 8)
    torch.testing.assert_close(kps.frames([0, 1, 2, 3]), expected[:4])
    torch.testing.assert_close(kps.frames([2, 3, 4, 5]), expected[2:6])
    torch.testing.assert_close(kps.frames([8, 0]), expected[[8, 0]])
    assert guider.frames == [4, 2, 1]


def test_frames_that_look_the_same_share_their_features(clip):
    still, moving = clip.motion(1), clip.motion(3)
    points = torch.cat([moving.keypoints, moving.keypoints.flip(0)])  # 0 1 2 2 1 0
    drawn, pictures = Counter(), Counter()
    kps = KpsFeatureCache(drawn, replace(still, keypoints=points), (32, 24))
    assert torch.equal(kps.frames([3, 4, 5]), kps.frames([2, 1, 0]))
    assert drawn.frames == [3]
    back_and_forth = ReorderedFrames(torch.rand(3, 3, 24, 32), [0, 1, 2, 1, 0])
    kps = KpsFeatureCache(pictures, back_and_forth, (32, 24))
    assert torch.equal(kps.frames([3, 4]), kps.frames([1, 0]))
    assert pictures.frames == [2]


def test_a_style_that_stays_has_one_row(model, clip):
    still = replace(clip.style, codes=clip.style.codes[:1])
    tokens = style_tokens(model, still, 35)
    assert tokens.shape == (1, 3, 8)
    request = ClipInputs(clip.latent, clip.audio, clip.motion(7), still, 7, 25, clip.size)
    window = encode_conditions(model, request).window([3, 4, 5], torch.zeros(1))
    assert torch.equal(window.style, tokens[None])


def test_kps_features_stay_bounded(monkeypatch):
    monkeypatch.setattr(module, "CACHE_BYTES", 2 * 3 * 2 * 3 * 4)  # two frames of 3 x 2 x 3 float32
    guider = Counter()
    pictures = torch.rand(6, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    kps = KpsFeatureCache(guider, pictures, (24, 16))
    expected = torch.nn.functional.avg_pool2d(pictures, 8)
    for _ in range(2):
        torch.testing.assert_close(kps.frames([0, 1, 2, 3]), expected[:4])
    assert guider.frames == [4, 2]


def test_long_windows_reach_the_guider_in_chunks(monkeypatch):
    monkeypatch.setattr(module, "GUIDER_FRAMES", 3)
    guider = Counter()
    kps = KpsFeatureCache(guider, torch.zeros(8, 3, 16, 24), (24, 16))
    assert kps.frames(list(range(8))).shape == (8, 3, 2, 3)
    assert guider.frames == [3, 3, 2]


def test_one_picture_holds_for_the_clip():
    guider = Counter()
    kps = KpsFeatureCache(guider, torch.full((1, 3, 16, 24), 0.5), (24, 16))
    assert kps.frames([3, 4, 5]).shape == (3, 3, 2, 3)
    assert guider.frames == [1]


def test_pictures_of_another_size_are_resized():
    kps = KpsFeatureCache(Counter(), torch.full((2, 3, 32, 48), 0.5), (24, 16))
    torch.testing.assert_close(kps.images([1]), torch.full((1, 3, 16, 24), 0.5))


def test_head_motion_is_drawn(model, clip):
    kps = KpsFeatureCache(model.networks.guider, clip.motion(5), (32, 24))
    pictures = kps.images([0, 4])
    assert pictures.shape == (2, 3, 24, 32) and pictures.dtype == torch.float32
    assert pictures.min() == 0 and 0.2 < pictures.max() <= 1 and not torch.equal(pictures[0], pictures[1])
    assert kps.frames([0, 4]).shape == (2, 8, 3, 4)


def test_a_window_of_the_clip(model, clip):
    request = ClipInputs(clip.latent, clip.audio, clip.motion(7), clip.style, 7, 25, clip.size)
    made = encode_conditions(model, request)
    torch.testing.assert_close(made.reference_latent, clip.latent * 0.5)
    bank = model.networks.reference(clip.latent * 0.5)
    assert all(torch.equal(a, b) for a, b in zip(made.reference, bank, strict=True))
    like = torch.zeros(1, dtype=torch.float64)
    window = made.window([3, 4, 5], like)
    torch.testing.assert_close(window.audio, made.audio[None, 3:6].double())
    torch.testing.assert_close(window.style, made.style[None, 3:6].double())
    torch.testing.assert_close(window.kps, made.kps.frames([3, 4, 5])[None].double())


def test_no_reference_latent_where_the_model_takes_none(model, clip):
    config = replace(model.config, unet=replace(model.config.unet, reference_concat=False))
    request = ClipInputs(clip.latent, clip.audio, clip.motion(2), None, 2, 25, clip.size)
    made = encode_conditions(replace(model, config=config), request)
    assert made.reference_latent is None and made.style is None


def test_a_head_motion_is_drawn_for_the_kind_of_keypoints(clip):
    motion = clip.motion(3)
    eight, three = (KpsFeatureCache(Counter(), motion, (64, 48), kind).images([1]) for kind in ("head8", "vexpress3"))
    assert torch.equal(eight, draw_head_frames(motion, [1], 64, 48))
    assert torch.equal(three, draw_vexpress_frames(motion, [1], 64, 48))


class SeenGuider(torch.nn.Module):
    """Every 8th pixel; it notes the numbers that are drawn on its frames, in tenths."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen: list[int] = []

    def forward(self, images):
        self.seen.extend(round(value * 10) for value in images[0, :, 0, 0, 0].tolist())
        return images[..., ::8, ::8]


NUMBERED = torch.arange(6.0)[:, None, None, None].expand(6, 3, 16, 24) / 10
ROW = 3 * 2 * 3 * 4  # bytes of the features of a frame


def three_steps(kps: KpsFeatureCache, windows: list[list[int]], **asked) -> list[list[int]]:
    """What the guider sees in every step."""
    steps = []
    for _ in range(3):
        kps.guider.seen.clear()
        for window in windows:
            torch.testing.assert_close(kps.frames(window, **asked), NUMBERED[window][..., ::8, ::8], rtol=0, atol=0)
        steps.append(list(kps.guider.seen))
    return steps


def test_every_step_finds_the_frames_again_that_there_is_room_for(monkeypatch):
    """Windows 0 1, 2 3, 4 5 in every step, and room for two of them: the third is computed anew."""
    kps = KpsFeatureCache(SeenGuider(), NUMBERED, (24, 16))
    monkeypatch.setattr(module, "CACHE_BYTES", 4 * ROW)
    assert three_steps(kps, [[0, 1], [2, 3], [4, 5]]) == [[0, 1, 2, 3, 4, 5], [4, 5], [4, 5]]


def test_features_of_a_long_clip_lie_in_the_folder(tmp_path, monkeypatch):
    made: list[tuple[tuple[int, ...], str | None]] = []

    class Noted(MappedFrames):
        def __init__(self, shape, dtype, folder):
            super().__init__(shape, dtype, folder)
            made.append((tuple(shape), folder))

    monkeypatch.setattr(memory_map, "MappedFrames", Noted)
    folder, windows = str(tmp_path / "new"), [[0, 1, 2], [2, 3, 4], [3, 4, 5]]
    kps = KpsFeatureCache(SeenGuider(), NUMBERED, (24, 16), storage=Storage(folder, budget=6 * ROW - 1))
    assert three_steps(kps, windows) == [[0, 1, 2, 3, 4, 5], [], []] and made == [((6, 3, 2, 3), folder)]
    monkeypatch.setattr(Storage, "free", lambda self: module.DISK_SHARE * 3 * ROW + 1)
    little = KpsFeatureCache(SeenGuider(), NUMBERED, (24, 16), storage=Storage(folder, budget=0))
    assert three_steps(little, windows) == [[0, 1, 2, 3, 4, 5], [3, 4, 5], [3, 4, 5]]
    assert made[1:] == [((3, 3, 2, 3), folder)]
    monkeypatch.setattr(Storage, "free", lambda self: 0)
    full = KpsFeatureCache(SeenGuider(), NUMBERED, (24, 16), storage=Storage(folder, budget=0))
    assert three_steps(full, windows) == [[0, 1, 2, 3, 4, 5]] * 3 and len(made) == 2


def test_frames_that_come_once_are_not_stored(tmp_path):
    kps = KpsFeatureCache(SeenGuider(), NUMBERED, (24, 16), storage=Storage(str(tmp_path / "none"), budget=0))
    assert three_steps(kps, [[0, 1, 2], [2, 3, 4]], again=False) == [[0, 1, 2, 3, 4]] + 2 * [
        [0, 1, 3, 4]
    ]  # 2 was seen just before
    assert not (tmp_path / "none").exists()


def test_a_clip_with_its_features_in_a_file_has_the_same_latents(model, clip, tmp_path, monkeypatch):
    """Several steps, a head that goes back and forth; nothing but the features of the guider lies in the file."""
    found, shapes = [], []

    class Noted(MappedFrames):
        def __init__(self, shape, dtype, folder):
            super().__init__(shape, dtype, folder)
            shapes.append(tuple(shape))

    monkeypatch.setattr(memory_map, "MappedFrames", Noted)
    for storage in (IN_MEMORY, Storage(str(tmp_path), budget=5000)):
        pipeline = PortraitPipeline(model, storage=storage)
        portrait = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
        inputs = pipeline.prepare(portrait, clip.audio, clip.motion(15), None, 20, 25.0, clip.size)
        conditions = pipeline.encode_conditions(inputs)
        found.append(pipeline.denoise(inputs, conditions, 5, SamplerOptions(steps=3, cfg=2.0)))
    assert torch.equal(*found) and shapes == [(15, 8, 3, 4)]
