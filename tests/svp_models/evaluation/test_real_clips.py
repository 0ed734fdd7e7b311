"""Known answers on filmed clips and the points that a face mesh found in them; skipped where the clips are absent.

Nothing of the clips is stored: a clip is compared with itself, shifted, with noise, compressed again, slowed, and with faults planted.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from svp_portrait.svp_models.evaluation.measure import measure_clip
from svp_portrait.svp_models.evaluation.metrics.landmarks import lower_lip_drop
from svp_portrait.svp_models.evaluation.metrics.series import roughest_frames
from svp_portrait.svp_models.evaluation.metrics.sync import lip_sync, speech_energy
from svp_portrait.svp_models.evaluation.suite_videos import track_from_points
from svp_portrait.svp_models.face.detection import FaceTrack
from svp_portrait.svp_models.face.keypoints import MESH_68
from svp_portrait.svp_models.media.audio import load_audio, to_mono
from svp_portrait.svp_models.media.video import load_video
from svp_portrait.svp_models.media.writer import VideoWriter
from svp_portrait.svp_models.types import Audio

CLIPS = Path(__file__).parents[4] / "shared/clips"
NAMES = ("vasa_3", "vasa_7", "vasa_10", "vasa_13", "vasa_15", "vasa_17", "vasa_l2", "vasa_l4")
FPS, COUNT, SIDE = 25.0, 60, 128
pytestmark = pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not at hand")


@cache
def landmarks(name: str) -> np.ndarray:
    """n 68 2, pixels of 512 x 512."""
    with np.load(CLIPS / name / "landmarks.npz") as stored:
        return stored["mesh"][:, list(MESH_68), :2].astype(np.float64)


@cache
def voice(name: str) -> np.ndarray:
    return to_mono(load_audio(CLIPS / name / "speech.mp3"), 16000).numpy()


@cache
def film(name: str) -> np.ndarray:
    frames = load_video(CLIPS / name / "video.mp4", max_frames=COUNT).frames
    return frames.reshape(COUNT, SIDE, 4, SIDE, 4, 3).mean((2, 4)).round().astype(np.uint8)


def track(name: str, rows: np.ndarray | slice = slice(COUNT)) -> FaceTrack:
    return track_from_points(landmarks(name)[rows] / 4, SIDE, SIDE)


def figures(name: str, made: np.ndarray, own: FaceTrack | None = None, audio: Audio | None = None, joins=()):
    true = track(name)
    return measure_clip(made, film(name), own or true, true, FPS, audio, joins=joins, tolerance=1)


@pytest.mark.parametrize("name", NAMES)
def test_a_shift_of_the_sound_is_found_exactly(name):
    drop, samples = lower_lip_drop(landmarks(name)), voice(name)

    def lag(late: int) -> int:
        """Of the pictures, when the sound comes so many frames earlier."""
        moved = samples[640 * late :] if late >= 0 else np.concatenate([np.zeros(-640 * late), samples])
        return lip_sync(drop, speech_energy(moved, len(drop), FPS))[0]

    own = lag(0)
    assert own in (0, 1)
    assert [lag(late) - own for late in (-5, 5, 9)] == [-5, 5, 9]


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_clip_against_itself_and_with_noise(name):
    rng = np.random.default_rng(0)
    rows = [figures(name, film(name)).figures]
    assert rows[0]["f_lmd"] == rows[0]["m_lmd"] == 0
    assert [rows[0]["mouth_corr"], rows[0]["lid_corr"]] == pytest.approx([1, 1])
    assert rows[0]["ssim"] == pytest.approx(1)
    for strength in (2, 8, 24):
        noise = rng.normal(0, strength, film(name).shape)
        rows.append(figures(name, np.clip(np.rint(film(name) + noise), 0, 255).astype(np.uint8)).figures)
    for key in [f"{region}ssim" for region in ("", "mouth_", "eyes_", "brows_", "rest_")]:
        assert rows[0][key] > rows[1][key] > rows[2][key] > rows[3][key], key
    for key in [f"{region}psnr" for region in ("", "mouth_", "eyes_", "brows_", "rest_")]:
        assert rows[1][key] > rows[2][key] > rows[3][key], key
    assert rows[0]["still_flicker"] < rows[1]["still_flicker"] < rows[2]["still_flicker"] < rows[3]["still_flicker"]


def test_stronger_compression_is_worse(tmp_path):
    rows = []
    for crf in (15, 32, 46):
        path = tmp_path / f"{crf}.mp4"
        with VideoWriter(path, SIDE, SIDE, 25, crf=crf) as writer:
            writer.write(film("vasa_10"))
        rows.append(figures("vasa_10", load_video(path).frames).figures)
    for key in ("psnr", "ssim", "mouth_psnr", "mouth_sharpness", "eyes_sharpness"):
        assert rows[0][key] > rows[1][key] > rows[2][key], key


def test_a_slowed_clip_loses_voice_and_mouth():
    slow = np.arange(COUNT) // 2
    audio = load_audio(CLIPS / "vasa_10" / "speech.mp3")
    true = figures("vasa_10", film("vasa_10"), audio=audio).figures
    slowed = figures("vasa_10", film("vasa_10")[slow], track("vasa_10", slow), audio).figures
    assert slowed["mouth_corr"] < 0.6 < true["mouth_corr"]
    assert slowed["m_lmd"] > 0.01 > true["m_lmd"] and slowed["psnr"] < 35


def test_planted_faults_are_found_where_they_were_planted():
    name = "vasa_17"
    made = film(name).astype(int)
    made[31] += 10  # one frame flashes
    flashed = figures(name, np.clip(made, 0, 255).astype(np.uint8))
    usual = figures(name, film(name))
    more = np.subtract(flashed.series["roughness"], usual.series["roughness"])
    assert roughest_frames(more, 3) == [30, 31, 32]
    assert flashed.figures["still_flicker"] > usual.figures["still_flicker"] + 0.2
    seamed = film(name).astype(int)
    seamed[40:] += 10  # the brightness jumps where two windows join
    seamed = np.clip(seamed, 0, 255).astype(np.uint8)
    steps = np.subtract(figures(name, seamed).series["roughness"], usual.series["roughness"])
    assert roughest_frames(steps, 2) == [39, 40]
    own = {join: figures(name, film(name), joins=(join,)).figures["seams"] for join in (20, 40)}
    found = {join: figures(name, seamed, joins=(join,)).figures["seams"] for join in (20, 40)}
    assert found[40] > own[40] + 2 and found[20] < own[20]
    assert figures(name, seamed).figures["colour_drift"] == pytest.approx(10 * np.sqrt(3), abs=1.5)
