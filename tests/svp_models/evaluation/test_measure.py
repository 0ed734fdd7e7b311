"""Known answers on a drawn clip: what was planted is found where it was planted, and more of it is worse."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.evaluation import measure
from svp_portrait.svp_models.evaluation.feature_networks import (
    FACE_TEMPLATE,
    FeatureNetworks,
    NetworkFiles,
    load_feature_networks,
    syncnet_boxes,
    syncnet_face,
)
from svp_portrait.svp_models.evaluation.measure import measure_clip
from svp_portrait.svp_models.evaluation.metrics.series import roughest_frames
from svp_portrait.svp_models.face.detection import FaceTrack, boxes_around
from svp_portrait.svp_models.face.keypoints import five_points_from_68
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import Audio

FPS = 25.0


@pytest.fixture(scope="module")
def clip():
    return make_clip(speaker(3, "test"), "happy", 3, 1, seconds=2.4, size=64)


@pytest.fixture(scope="module")
def track(clip):
    points = clip.landmarks.astype(np.float32)
    return FaceTrack(
        boxes=boxes_around(points),
        landmarks=points,
        head_keypoints=clip.head_keypoints.astype(np.float32),
        expression=None,
        pose=clip.states.pose[:, :3].astype(np.float32),
        present=np.ones(len(points), bool),
        width=64,
        height=64,
        five_points=five_points_from_68(points),
    )


@pytest.fixture(scope="module")
def audio(clip):
    return Audio(torch.from_numpy(clip.audio)[None], 16000)


def noisy(frames: np.ndarray, strength: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, strength, frames.shape)
    return np.clip(np.rint(frames + noise), 0, 255).astype(np.uint8)


def test_a_clip_against_itself(clip, track, audio):
    found = measure_clip(clip.images, clip.images, track, track, FPS, audio)
    figures = found.figures
    assert [figures[key] for key in ("f_lmd", "m_lmd", "f_lmd_256", "m_lmd_256")] == [0, 0, 0, 0]
    assert figures["ssim"] == pytest.approx(1) and figures["mouth_corr"] == pytest.approx(1)
    assert [figures[f"{name}_sharpness"] for name in ("mouth", "eyes", "brows", "rest")] == [1, 1, 1, 1]
    assert figures["still_flicker"] == figures["colour_drift"] == 0
    assert "psnr" not in figures  # it is infinite
    assert figures["voice_corr"] > 0.5 and abs(figures["voice_lag"]) <= 3
    assert found.missing["seams"] == "where the windows of the clip join is not known"


def test_lids_are_compared_where_they_move(clip, track):
    points = track.landmarks.copy()
    shut = points.copy()
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        shut[10:14, upper] = shut[10:14, lower]  # a blink
    moving, still = replace(track, landmarks=shut), replace(track, landmarks=np.repeat(points[:1], len(points), axis=0))
    found = measure_clip(clip.images, clip.images, moving, moving, FPS)
    assert found.figures["lid_corr"] == pytest.approx(1) and "lid_corr" not in found.missing
    without = measure_clip(clip.images, clip.images, moving, still, FPS)
    assert "lid_corr" not in without.figures
    assert without.missing["lid_corr"] == "the lids of the true clip hardly move"


@pytest.mark.parametrize("late", [-5, 3, 5])
def test_a_shift_of_the_sound_is_found_exactly(clip, track, audio, late):
    own = measure_clip(clip.images, clip.images, track, track, FPS, audio).figures["voice_lag"]
    samples = 640 * late
    moved = replace(audio, waveform=torch.roll(audio.waveform, -samples, dims=1))
    if late > 0:
        moved.waveform[:, -samples:] = 0
    else:
        moved.waveform[:, :-samples] = 0
    assert measure_clip(clip.images, clip.images, track, track, FPS, moved).figures["voice_lag"] - own == late


def test_more_noise_is_worse_everywhere(clip, track, audio):
    rows = [measure_clip(noisy(clip.images, s), clip.images, track, track, FPS, audio).figures for s in (2, 6, 18)]
    for key in [
        f"{region}{figure}" for region in ("", "mouth_", "eyes_", "brows_", "rest_") for figure in ("psnr", "ssim")
    ]:
        assert rows[0][key] > rows[1][key] > rows[2][key], key
    assert rows[0]["still_flicker"] < rows[1]["still_flicker"] < rows[2]["still_flicker"]


def test_planted_flicker_and_a_planted_seam_are_found_where_they_are(clip, track):
    made = clip.images.copy()
    made[40] = np.clip(made[40].astype(int) + 12, 0, 255)  # one frame is brighter
    found = measure_clip(made, clip.images, track, track, FPS)
    rough = np.subtract(
        found.series["roughness"], measure_clip(clip.images, clip.images, track, track, FPS).series["roughness"]
    )
    assert roughest_frames(rough, 3) == [39, 40, 41]
    assert found.figures["still_flicker"] > 0.2
    seamed = clip.images.astype(int)
    seamed[24:] += 14  # from one window to the next the brightness jumps
    seamed = np.clip(seamed, 0, 255).astype(np.uint8)
    at, beside = (
        measure_clip(seamed, clip.images, track, track, FPS, joins=joins).figures["seams"] for joins in ((24,), (12,))
    )
    assert at > 1.8 and beside < 1.1


def test_a_face_in_another_place_counts_by_its_distance(clip, track):
    moved = replace(track, landmarks=track.landmarks + np.float32([3, 4]))
    figures = measure_clip(clip.images, clip.images, moved, track, FPS).figures
    assert [figures["f_lmd_256"], figures["m_lmd_256"]] == pytest.approx([5 * 4] * 2, rel=1e-5)  # 64 pixels a side
    assert figures["mouth_corr"] == pytest.approx(1)


def test_a_slowed_clip_loses_its_mouth(clip, track, audio):
    slow = np.arange(len(clip.images)) // 2
    rows = {name: getattr(track, name)[slow] for name in ("landmarks", "pose", "present", "boxes", "five_points")}
    slowed = measure_clip(clip.images[slow], clip.images, replace(track, **rows), track, FPS, audio).figures
    true = measure_clip(clip.images, clip.images, track, track, FPS, audio).figures
    assert slowed["mouth_corr"] < 0.5 < true["mouth_corr"]
    assert slowed["voice_corr"] < true["voice_corr"]


def test_figures_do_not_depend_on_how_many_frames_are_read_at_once(clip, track, audio, monkeypatch):
    made = noisy(clip.images, 5)
    whole = measure_clip(made, clip.images, track, track, FPS, audio, joins=(24,))
    for count in (1, 7, 100):
        monkeypatch.setattr(measure, "CHUNK", count)
        parts = measure_clip(iter(made), iter(clip.images), track, track, FPS, audio, joins=(24,))
        assert parts.figures == pytest.approx(whole.figures, rel=1e-6)
        assert parts.series == {key: pytest.approx(value, rel=1e-6) for key, value in whole.series.items()}


def test_frames_without_a_face_are_left_out(clip, track):
    present = track.present.copy()
    present[5:9] = False
    landmarks = track.landmarks.copy()
    landmarks[5:9] = 0
    figures = measure_clip(
        clip.images, clip.images, replace(track, present=present, landmarks=landmarks), track, FPS
    ).figures
    assert figures["faces"] == pytest.approx(1 - 4 / len(present))
    assert figures["f_lmd"] == 0


def test_what_an_analyser_does_not_know_is_named(clip, track):
    found = measure_clip(clip.images, clip.images, replace(track, landmarks=None, pose=None), track, FPS)
    assert found.missing["m_lmd"] == "the face analyser detects no 68 landmarks"
    assert found.missing["beat_alignment"] == "the face analyser detects no angles of the head"
    assert "m_lmd" not in found.figures and found.figures["ssim"] == pytest.approx(1)


def test_too_few_frames_have_no_lag(clip, track, audio):
    short = measure_clip(clip.images[:5], clip.images[:5], track, track, FPS, audio)
    assert "voice_lag" not in short.figures
    assert short.missing["voice_lag"] == "5 frames are too few to find a lag in"


def test_frames_of_two_sizes_or_none_are_refused(clip, track):
    with pytest.raises(PortraitError, match="made frames are 32 x 32, true ones 64 x 64"):
        measure_clip(clip.images[:, ::2, ::2], clip.images, track, track, FPS)
    with pytest.raises(PortraitError, match="0 frames to measure"):
        measure_clip([], clip.images, track, track, FPS)


class Mean(torch.nn.Module):
    """Stands for a feature network: the mean colours."""

    def forward(self, x: torch.Tensor, resize_images: bool = False, return_lpips: bool = False, rescale: bool = False,
                resize: bool = False, return_features: bool = False) -> torch.Tensor:  # fmt: skip
        return x.flatten(2).mean(2)


def test_features_are_taken_of_every_frame_and_window(clip, track):
    networks = FeatureNetworks(inception=Mean(), i3d=Mean(), lpips=Mean())
    made = noisy(clip.images, 5)
    found = measure_clip(made, clip.images, track, track, FPS, networks=networks)
    assert found.features["inception"] == pytest.approx(made.mean((1, 2)) / 255, rel=1e-4)
    windows = made[:48].reshape(3, 16, 64, 64, 3).mean((1, 2, 3))
    assert found.features["i3d"] == pytest.approx(windows, rel=1e-4)
    colours = made.mean((1, 2)) - clip.images.mean((1, 2))
    assert found.figures["lpips"] == pytest.approx(np.square(colours).sum(1).mean(), rel=1e-3)


def test_missing_files_are_named_and_wrong_ones_refused(tmp_path):
    networks = load_feature_networks(NetworkFiles(), [tmp_path])
    assert networks.missing["fid"].startswith("pt_inception-2015-12-05-6726825d.pth is missing")
    assert set(networks.missing) == {
        "fid",
        "fvd",
        "kvd",
        "lpips",
        "sync_offset",
        "sync_confidence",
        "identity",
        "embedding_distance",
    }
    with pytest.raises(
        PortraitError, match=r"gone.model: there is no such file, syncnet_v2.model is needed for sync_offset"
    ):
        load_feature_networks(NetworkFiles(syncnet=str(tmp_path / "gone.model")))
    torch.jit.script(Mean()).save(tmp_path / "i3d_torchscript.pt")
    assert load_feature_networks(NetworkFiles(), [tmp_path]).i3d is not None  # found in a models folder


def test_faces_are_cut_as_syncnet_wants_them():
    """A face of 80 x 100 pixels from brows to chin: the box is grown to the forehead, the context is 0.4 of its half side."""
    points = np.full((15, 68, 2), 100.0)
    points[:, :17] = np.linspace((60, 100), (140, 100), 17)
    points[:, 8], points[:, 19] = (100, 150), (90, 50)
    boxes = syncnet_boxes(points)
    half = 125 / 2
    assert boxes[7] == pytest.approx([100 - 1.4 * half, 87.5 - half, 100 + 1.4 * half, 87.5 + 1.8 * half])
    frame = np.full((200, 200, 3), 50, np.uint8)
    face = syncnet_face(frame, boxes[7])
    assert face.shape == (224, 224, 3)
    assert face[112, 112].tolist() == [50] * 3
    assert syncnet_face(frame, boxes[7] - 100)[5, 5].tolist() == [110] * 3  # outside of the picture


def test_embeddings_are_of_faces_brought_onto_the_template():
    class Session:
        def get_inputs(self):
            return [type("Input", (), {"name": "input"})]

        def run(self, names, values):
            (image,) = values["input"]
            self.seen = image
            return [image.mean((1, 2))[None]]

    session = Session()
    frame = np.zeros((300, 300, 3), np.uint8)
    points = FACE_TEMPLATE * 2 + 30
    for x, y in points.round().astype(int):
        frame[y - 3 : y + 4, x - 3 : x + 4] = 255
    rows = FeatureNetworks(embedding=session).embeddings(frame[None], points[None])
    assert rows.shape == (1, 3)
    assert all(session.seen[0, round(y), round(x)] > 0 for x, y in FACE_TEMPLATE)  # -1 where it is black
    assert session.seen[0, 5, 5] == -1
