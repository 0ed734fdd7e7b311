"""A speaker acts: speech, emotion and habits become the moving parameters of every frame."""

from __future__ import annotations

import numpy as np

from .emotions import INTENSITY_SCALE, MANNERS, Manner, emotion_direction
from .parameters import EXPRESSION_INDEX, EXPRESSION_NAMES, EXPRESSION_SIZE, FaceStates, expression_vector
from .speakers import Habits, Speaker
from .speech import Speech, energy_envelope
from .visemes import viseme_track

# Parts of the face wax and wane on their own.
PART_WORDS = {"brows": ("brow", "forehead"), "eyes": ("lid", "eye_"), "middle": ("nos", "cheek", "fold"), "mouth": ()}
SIGNED = tuple(
    index for index, name in enumerate(EXPRESSION_NAMES) if "_side" in name or "_mode_" in name or name == "lips_wide"
)
UNSIGNED = tuple(sorted(set(range(EXPRESSION_SIZE)) - set(SIGNED)))

TREMBLE = 0.025  # every coefficient moves at least this much
BLINK_CLOSING, BLINK_CLOSED, BLINK_OPENING = 0.06, 0.03, 0.11  # s


def perform(
    speaker: Speaker,
    emotion: str,
    intensity: int,
    speech: Speech,
    frames: int,
    fps: float,
    rng: np.random.Generator,
) -> FaceStates:
    """The states of `frames` frames at `fps`, each taken at the frame's centre."""
    manner, habits = MANNERS[emotion], speaker.habits
    scale = INTENSITY_SCALE[intensity]
    times = (np.arange(frames) + 0.5) / fps  # n
    energy = energy_envelope(speech.waveform, frames, fps)  # n, 0 .. 1.2
    expression = (
        habits.rest
        + speech_movement(speech, energy, habits, frames, fps)
        + emotion_movement(emotion, scale, manner, habits, times, rng)
        + brow_beats(energy, scale, manner, habits)
        + small_movements(energy, times, rng)
    )
    expression *= side_gains(habits.asymmetry)
    expression[:, UNSIGNED] = np.clip(expression[:, UNSIGNED], 0, 1.3)
    expression[:, SIGNED] = np.clip(expression[:, SIGNED], -1, 1.2)
    pose = head_pose(energy, scale, manner, habits, times, rng)
    return FaceStates(
        expression=expression.astype(np.float32),
        pose=pose.astype(np.float32),
        blink=blinks(habits.blink_rate * blend(manner.blink, scale), times, rng).astype(np.float32),
        gaze=gaze(pose, scale, manner, habits, times, rng).astype(np.float32),
    )


def blend(factor: float, scale: float) -> float:
    """A factor of a manner at an intensity: 1 at scale 0."""
    return 1 + (factor - 1) * scale


def waves(rng: np.random.Generator, times: np.ndarray, slowest: float, fastest: float, count: int = 5) -> np.ndarray:
    """Smooth noise: a sum of sines with random frequencies (Hz) and phases, mean square 1. Shape of times."""
    frequencies = rng.uniform(slowest, fastest, count)
    phases = rng.uniform(0, 2 * np.pi, count)
    return np.sin(2 * np.pi * np.multiply.outer(times, frequencies) + phases).sum(axis=-1) * np.sqrt(2 / count)


def speech_movement(speech: Speech, energy: np.ndarray, habits: Habits, frames: int, fps: float) -> np.ndarray:
    """Visemes: n x 64. Loud syllables open the mouth further; closures stay closed whatever the habit."""
    track = viseme_track(speech.phonemes, speech.seconds, frames, fps) * habits.viseme_strength
    track[:, EXPRESSION_INDEX["jaw_open"]] *= 0.6 + 0.75 * energy
    return track


def emotion_movement(
    emotion: str, scale: float, manner: Manner, habits: Habits, times: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The emotion's direction over time: n x 64. It has mostly set in when the clip begins and then wavers."""
    begin, rise = rng.uniform(0.6, 1.0), rng.uniform(0.2, 0.6)
    onset = begin + (1 - begin) * smoothstep(times / rise)
    whole = 1 + manner.swing * waves(rng, times, 0.08, 0.35)
    parts = {part: 1 + 0.7 * manner.swing * waves(rng, times, 0.15, 0.7) for part in PART_WORDS}
    direction = emotion_direction(emotion) * habits.emotion_gain * scale * rng.uniform(0.94, 1.06)
    columns = [parts[part_of(name)] for name in EXPRESSION_NAMES]
    return direction * np.stack(columns, axis=1) * (onset * whole)[:, None]


def part_of(name: str) -> str:
    return next((part for part, words in PART_WORDS.items() if any(word in name for word in words)), "mouth")


def brow_beats(energy: np.ndarray, scale: float, manner: Manner, habits: Habits) -> np.ndarray:
    """Brows that stress what is said: n x 64, on the louder half of the energy."""
    accent = smoothstep((energy - 0.55) / 0.5)
    size = habits.brow_activity * blend(manner.beat, scale)
    return np.outer(accent * size, expression_vector(**{manner.beat_shape: 1.0}))


def small_movements(energy: np.ndarray, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What never stands still: n x 64 of slow noise, wider in the modes, and nostrils that breathe with speech."""
    amounts = np.full(EXPRESSION_SIZE, TREMBLE)
    for index, name in enumerate(EXPRESSION_NAMES):
        if "_mode_" in name:
            amounts[index] = 0.05 if "lip" in name else 0.1
    moving = np.stack([waves(rng, times, 0.1, 0.9, 3) for _ in range(EXPRESSION_SIZE)], axis=1) * amounts
    moving[:, EXPRESSION_INDEX["nostril_flare"]] += 0.08 * energy
    return moving


def side_gains(asymmetry: float) -> np.ndarray:
    """64 factors: the weaker side of the face moves less by |asymmetry|."""
    weak = "_l" if asymmetry > 0 else "_r"
    return np.array([1 - abs(asymmetry) if name.endswith(weak) else 1.0 for name in EXPRESSION_NAMES])


def head_pose(
    energy: np.ndarray, scale: float, manner: Manner, habits: Habits, times: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """n x 6: yaw, pitch, roll in degrees, shift as a share of the width, scale."""
    sway, tempo = habits.head_sway * blend(manner.sway, scale), blend(manner.tempo, scale)
    slow, fast = 0.06 * tempo, 0.42 * tempo
    noise = [sway * waves(rng, times, slow, fast) for _ in range(6)]
    nod = habits.nod * blend(manner.sway, scale) * smooth(energy, 2)
    yaw = rng.normal(0, 2.5) + 4.5 * noise[0]
    pitch = manner.pitch * scale + 2.0 * noise[1] + nod - nod.mean()
    roll = manner.roll * scale + 2.0 * noise[2]
    # The head turns about the neck: it also moves towards where it looks.
    shift_x = 0.010 * noise[3] + 0.0012 * yaw
    shift_y = 0.008 * noise[4] + 0.0010 * pitch
    size = 1 + manner.lean * scale + 0.016 * noise[5]
    limits = (14, 8, 7, 0.04, 0.04, 0.05)
    centred = np.stack([yaw, pitch, roll, shift_x, shift_y, size - 1], axis=1)
    limited = np.tanh(centred / limits) * limits
    limited[:, 5] += 1
    return limited


def blinks(rate: float, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """n x 2 lids, 0 open .. 1 closed: random blinks, `rate` a second, never closer than 0.5 s."""
    closed = np.zeros((len(times), 2))
    shut = BLINK_CLOSING + BLINK_CLOSED
    moment = rng.exponential(1 / rate)
    while moment < times[-1] + shut:
        depth, lag = rng.uniform(0.9, 1.0), rng.normal(0, 0.008)
        for side, delay in enumerate((0.0, lag)):
            since = times - moment - delay
            curve = smoothstep(since / BLINK_CLOSING) * (1 - smoothstep((since - shut) / BLINK_OPENING))
            closed[:, side] = np.maximum(closed[:, side], depth * curve)
        moment += 0.5 + rng.exponential(max(1 / rate - 0.5, 0.2))
    return closed


def gaze(
    pose: np.ndarray, scale: float, manner: Manner, habits: Habits, times: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """n x 2: eyes that jump between fixations near the viewer and stay there while the head turns."""
    rate = habits.gaze_unrest * blend(manner.dart, scale)
    favourite = np.array([manner.gaze_x, manner.gaze_y]) * scale
    spread = np.array([0.16, 0.08]) * np.sqrt(blend(manner.dart, scale))
    direction = np.empty((len(times), 2))
    moment, point = 0.0, favourite + 0.5 * spread * rng.normal(size=2)
    while moment <= times[-1]:
        following = moment + 0.15 + rng.exponential(1 / rate)
        direction[times >= moment] = point
        moment, away = following, rng.uniform() < 0.5
        point = favourite + spread * rng.normal(size=2) * (1.0 if away else 0.25)
    direction -= pose[:, :2] / (45, 40)
    return np.clip(direction + rng.normal(0, 0.008, direction.shape), -0.8, 0.8)


def smoothstep(ramp: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    ramp = np.clip(ramp, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def smooth(values: np.ndarray, reach: int) -> np.ndarray:
    """Weighted running mean over 2 x reach + 1 frames, edges held."""
    weights = np.hanning(2 * reach + 3)[1:-1]
    return np.convolve(np.pad(values, reach, mode="edge"), weights / weights.sum(), mode="valid")
