"""Performance of a speaker: speech, emotion and habits become the moving parameters of each frame.

The emotions are the eight of MEAD, each with its expression, its motion over time and its voice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..motion.blinks import BLINK, blink_curve, smoothstep
from ..motion.coefficients import EXPRESSION_INDEX, EXPRESSION_NAMES, EXPRESSION_SIZE, expression_vector
from .identity import FaceStates
from .movements import Movement, added_gaze, with_movements
from .speakers import Habits, Speaker
from .speech import Speech, energy_envelope
from .visemes import VISEME_NAMES, viseme_track

EMOTIONS = ("neutral", "angry", "contempt", "disgusted", "fear", "happy", "sad", "surprised")
INTENSITIES = (1, 2, 3)
INTENSITY_SCALE = {1: 0.45, 2: 0.72, 3: 1.0}

# Coefficients that distinguish emotions: speech does not change them.
EMOTION_INDEX = tuple(index for index, name in enumerate(EXPRESSION_NAMES) if name not in VISEME_NAMES)

# Range of lengths along an emotion's ray from neutral; half of the shortest separates the emotion from neutral.
SHORTEST, LONGEST = 0.36, 1.15
SCORE_WIDTH = 0.35  # unit of the squared distances in the scores

_DIRECTIONS = {
    "neutral": {},
    "angry": dict(
        brow_lower=1.0, brow_squeeze=0.9, lower_lid_raise=0.45, upper_lid_raise=0.3, nostril_flare=0.8,
        jaw_forward=0.55, corner_down=0.25, lips_press=0.25,
    ),
    "contempt": dict(
        corner_up_r=0.9, corner_out_r=0.5, smile_fold_r=0.8, mouth_side=0.55, cheek_raise_r=0.35,
        upper_lid_droop=0.55, brow_outer_up_l=0.7, brow_lower_r=0.3,
    ),
    "disgusted": dict(
        nose_wrinkle=1.0, upper_lip_raise=0.55, smile_fold=0.5, cheek_raise=0.35, brow_lower=0.45,
        upper_lid_droop=0.35, lower_lid_raise=0.4, chin_raise=0.35,
    ),
    "fear": dict(
        brow_inner_up=0.75, brow_squeeze=0.75, eye_widen=0.95, corner_out=0.7, corner_down=0.3, lower_lip_drop=0.25,
        forehead_wrinkle=0.25,
    ),
    "happy": dict(
        corner_up=1.0, corner_out=0.5, cheek_raise=0.85, smile_fold=0.75, lower_lid_raise=0.5, upper_teeth_show=0.25,
    ),
    "sad": dict(
        brow_inner_up=0.85, corner_down=1.0, upper_lid_droop=0.75, chin_raise=0.6, forehead_wrinkle=0.2,
    ),
    "surprised": dict(
        brow_outer_up=1.0, brow_inner_up=0.65, upper_lid_raise=0.9, eye_widen=0.3, forehead_wrinkle=0.9, jaw_open=0.25,
    ),
}  # fmt: skip

# Parts of the face that vary in strength independently, and words in the names of their coefficients.
PART_WORDS = {"brows": ("brow", "forehead"), "eyes": ("lid", "eye_"), "middle": ("nos", "cheek", "fold"), "mouth": ()}
SIGNED = tuple(
    index for index, name in enumerate(EXPRESSION_NAMES) if "_side" in name or "_mode_" in name or name == "lips_wide"
)
UNSIGNED = tuple(sorted(set(range(EXPRESSION_SIZE)) - set(SIGNED)))

TREMBLE = 0.025  # minimum amplitude of each coefficient


@dataclass(frozen=True)
class MotionStyle:
    """Motion of an emotion over time. Factors multiply the speaker's habits; degrees as in FaceStates.pose.

    blink, sway, tempo, beat: factors on blink rate, head amplitude, head speed and brow beats; beat_shape: the brow
    movement on loud syllables; pitch, roll: degrees added to the head at intensity 3; lean: added to the scale;
    gaze_x, gaze_y: preferred direction; dart: factor on the rate of eye movements; swing: slow variation of the strength.
    """

    blink: float = 1.0
    sway: float = 1.0
    tempo: float = 1.0
    beat: float = 1.0
    beat_shape: str = "brow_outer_up"
    pitch: float = 0.0
    roll: float = 0.0
    lean: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    dart: float = 1.0
    swing: float = 0.10


MOTION_STYLES = {
    "neutral": MotionStyle(),
    "angry": MotionStyle(0.6, 1.3, 1.3, 1.6, "brow_lower", 2.0, 0.0, 0.02, dart=0.6, swing=0.12),
    "contempt": MotionStyle(
        0.8, 0.7, 0.7, 0.6, "brow_outer_up", -3.0, 3.0, gaze_x=0.15, gaze_y=0.1, dart=0.7, swing=0.08
    ),
    "disgusted": MotionStyle(1.1, 0.8, 0.9, 0.8, "brow_lower", -1.5, -2.0, -0.015, gaze_x=-0.15, swing=0.14),
    "fear": MotionStyle(1.7, 0.9, 1.9, 1.0, "brow_inner_up", -1.0, 0.0, -0.02, dart=2.2, swing=0.14),
    "happy": MotionStyle(1.1, 1.35, 1.15, 1.3, "brow_outer_up", -1.0, -2.0, 0.01, swing=0.14),
    "sad": MotionStyle(1.2, 0.6, 0.6, 0.5, "brow_inner_up", 3.5, 2.0, -0.01, gaze_y=0.25, dart=0.6, swing=0.08),
    "surprised": MotionStyle(0.6, 1.1, 1.2, 1.8, "brow_outer_up", -2.5, 0.0, -0.01, dart=0.9, swing=0.12),
}


@dataclass(frozen=True)
class Tone:
    """Changes of a voice by an emotion at intensity 3. pitch: espeak units; the others are factors."""

    pitch: float = 0.0
    pitch_range: float = 1.0
    rate: float = 1.0
    volume: float = 1.0
    tilt: float = 0.0


TONES = {
    "neutral": Tone(),
    "angry": Tone(8, 1.35, 1.12, 1.5, 0.16),
    "contempt": Tone(-9, 0.75, 0.88, 0.9, 0.0),
    "disgusted": Tone(-5, 0.9, 0.84, 1.05, -0.05),
    "fear": Tone(20, 0.65, 1.22, 0.85, 0.06),
    "happy": Tone(13, 1.6, 1.08, 1.2, 0.10),
    "sad": Tone(-7, 0.5, 0.78, 0.65, -0.15),
    "surprised": Tone(22, 1.75, 0.98, 1.25, 0.06),
}


def perform(
    speaker: Speaker,
    emotion: str,
    intensity: int,
    speech: Speech,
    frames: int,
    fps: float,
    rng: np.random.Generator,
    movements: Sequence[Movement] = (),
) -> FaceStates:
    """The states of `frames` frames at `fps`, each taken at the frame's centre. movements: named ones that the head makes;
    they change pose and gaze, everything else is as without them."""
    motion, habits = MOTION_STYLES[emotion], speaker.habits
    scale = INTENSITY_SCALE[intensity]
    times = (np.arange(frames) + 0.5) / fps  # n
    energy = energy_envelope(speech.waveform, frames, fps)  # n, 0 .. 1.2
    expression = (
        habits.rest
        + speech_movement(speech, energy, habits, frames, fps)
        + emotion_movement(emotion, scale, motion, habits, times, rng)
        + brow_beats(energy, scale, motion, habits)
        + small_movements(energy, times, rng)
    )
    expression *= side_gains(habits.asymmetry)
    expression[:, UNSIGNED] = np.clip(expression[:, UNSIGNED], 0, 1.3)
    expression[:, SIGNED] = np.clip(expression[:, SIGNED], -1, 1.2)
    pose = head_pose(energy, scale, motion, habits, times, rng, movements)
    return FaceStates(
        expression=expression.astype(np.float32),
        pose=pose.astype(np.float32),
        blink=blinks(habits.blink_rate * blend(motion.blink, scale), times, rng).astype(np.float32),
        gaze=gaze(pose, scale, motion, habits, times, rng, movements).astype(np.float32),
    )


def blend(factor: float, scale: float) -> float:
    """A factor of an emotion at an intensity: 1 at scale 0."""
    return 1 + (factor - 1) * scale


def waves(rng: np.random.Generator, times: np.ndarray, slowest: float, fastest: float, count: int = 5) -> np.ndarray:
    """Smooth noise: a sum of sines with random frequencies (Hz) and phases, mean square 1. Shape of times."""
    frequencies = rng.uniform(slowest, fastest, count)
    phases = rng.uniform(0, 2 * np.pi, count)
    return np.sin(2 * np.pi * np.multiply.outer(times, frequencies) + phases).sum(axis=-1) * np.sqrt(2 / count)


def speech_movement(speech: Speech, energy: np.ndarray, habits: Habits, frames: int, fps: float) -> np.ndarray:
    """Visemes: n x 64. Loud syllables open the mouth further; closures stay closed for all habits."""
    track = viseme_track(speech.phonemes, speech.seconds, frames, fps) * habits.viseme_strength
    track[:, EXPRESSION_INDEX["jaw_open"]] *= 0.6 + 0.75 * energy
    return track


def emotion_movement(
    emotion: str, scale: float, motion: MotionStyle, habits: Habits, times: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The emotion's direction over time: n x 64. It is mostly there when the clip begins, and then varies."""
    begin, rise = rng.uniform(0.6, 1.0), rng.uniform(0.2, 0.6)
    onset = begin + (1 - begin) * smoothstep(times / rise)
    whole = 1 + motion.swing * waves(rng, times, 0.08, 0.35)
    parts = {part: 1 + 0.7 * motion.swing * waves(rng, times, 0.15, 0.7) for part in PART_WORDS}
    direction = emotion_direction(emotion) * habits.emotion_gain * scale * rng.uniform(0.94, 1.06)
    columns = [parts[part_of(name)] for name in EXPRESSION_NAMES]
    return direction * np.stack(columns, axis=1) * (onset * whole)[:, None]


def part_of(name: str) -> str:
    return next((part for part, words in PART_WORDS.items() if any(word in name for word in words)), "mouth")


def brow_beats(energy: np.ndarray, scale: float, motion: MotionStyle, habits: Habits) -> np.ndarray:
    """Brow movements that stress loud syllables: n x 64."""
    accent = smoothstep((energy - 0.55) / 0.5)
    size = habits.brow_activity * blend(motion.beat, scale)
    return np.outer(accent * size, expression_vector(**{motion.beat_shape: 1.0}))


def small_movements(energy: np.ndarray, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slow noise of all coefficients, larger in the modes, and nostrils that move with speech: n x 64."""
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
    energy: np.ndarray,
    scale: float,
    motion: MotionStyle,
    habits: Habits,
    times: np.ndarray,
    rng: np.random.Generator,
    movements: Sequence[Movement] = (),
) -> np.ndarray:
    """n x 6: yaw, pitch, roll in degrees, shift as a share of the width, scale."""
    sway, tempo = habits.head_sway * blend(motion.sway, scale), blend(motion.tempo, scale)
    slow, fast = 0.06 * tempo, 0.42 * tempo
    noise = [sway * waves(rng, times, slow, fast) for _ in range(6)]
    nod = habits.nod * blend(motion.sway, scale) * smooth(energy, 2)
    yaw = rng.normal(0, 2.5) + 4.5 * noise[0]
    pitch = motion.pitch * scale + 2.0 * noise[1] + nod - nod.mean()
    roll = motion.roll * scale + 2.0 * noise[2]
    # The head turns about the neck, so it also shifts in the direction of its turn.
    shift_x = 0.010 * noise[3] + 0.0012 * yaw
    shift_y = 0.008 * noise[4] + 0.0010 * pitch
    size = 1 + motion.lean * scale + 0.016 * noise[5]
    limits = (14, 8, 7, 0.04, 0.04, 0.05)
    centred = np.stack([yaw, pitch, roll, shift_x, shift_y, size - 1], axis=1)
    if movements:
        centred = with_movements(centred, movements, times)
    limited = np.tanh(centred / limits) * limits
    limited[:, 5] += 1
    return limited


def blinks(rate: float, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """n x 2 lids, 0 open .. 1 closed: random blinks, `rate` a second, never closer than 0.5 s."""
    closed = np.zeros((len(times), 2))
    shut = BLINK.closing + BLINK.closed
    moment = rng.exponential(1 / rate)
    while moment < times[-1] + shut:
        depth, lag = rng.uniform(0.9, 1.0), rng.normal(0, 0.008)
        for side, delay in enumerate((0.0, lag)):
            closed[:, side] = np.maximum(closed[:, side], depth * blink_curve(times - moment - delay))
        moment += 0.5 + rng.exponential(max(1 / rate - 0.5, 0.2))
    return closed


def gaze(
    pose: np.ndarray,
    scale: float,
    motion: MotionStyle,
    habits: Habits,
    times: np.ndarray,
    rng: np.random.Generator,
    movements: Sequence[Movement] = (),
) -> np.ndarray:
    """n x 2: eyes that jump between fixation points near the viewer and stay on them while the head turns."""
    rate = habits.gaze_unrest * blend(motion.dart, scale)
    favourite = np.array([motion.gaze_x, motion.gaze_y]) * scale
    spread = np.array([0.16, 0.08]) * np.sqrt(blend(motion.dart, scale))
    direction = np.empty((len(times), 2))
    moment, point = 0.0, favourite + 0.5 * spread * rng.normal(size=2)
    while moment <= times[-1]:
        following = moment + 0.15 + rng.exponential(1 / rate)
        direction[times >= moment] = point
        moment, away = following, rng.uniform() < 0.5
        point = favourite + spread * rng.normal(size=2) * (1.0 if away else 0.25)
    direction -= pose[:, :2] / (45, 40)
    if movements:
        direction += added_gaze(movements, times)
    return np.clip(direction + rng.normal(0, 0.008, direction.shape), -0.8, 0.8)


def smooth(values: np.ndarray, reach: int) -> np.ndarray:
    """Weighted running mean over 2 x reach + 1 frames; edges are repeated."""
    weights = np.hanning(2 * reach + 3)[1:-1]
    return np.convolve(np.pad(values, reach, mode="edge"), weights / weights.sum(), mode="valid")


def emotion_direction(emotion: str) -> np.ndarray:
    """The movement of an emotion at intensity 3: 64 coefficients, zero for neutral. Unknown emotions raise KeyError."""
    return expression_vector(**_DIRECTIONS[emotion])


def classify_emotion(expression: np.ndarray) -> tuple[str, np.ndarray]:
    """The emotion of a clip by its expressions.

    expression: n x 64 coefficients of the frames (a single row is a still image). The mean over time, without the
    coefficients that speech moves, is compared with the nearest point on each emotion's ray from the relaxed face.
    Returns the emotion and 8 scores in the order of EMOTIONS: positive, sum 1, highest for the nearest.
    """
    index = list(EMOTION_INDEX)
    mean = np.asarray(expression, np.float64).reshape(-1, EXPRESSION_SIZE).mean(axis=0)[index]
    squared = np.empty(len(EMOTIONS))
    for position, emotion in enumerate(EMOTIONS):
        ray = emotion_direction(emotion)[index].astype(np.float64)
        length = ray @ ray
        amount = np.clip(mean @ ray / length, SHORTEST, LONGEST) if length else 0.0
        squared[position] = np.sum((mean - amount * ray) ** 2)
    scores = np.exp(-0.5 * (squared - squared.min()) / SCORE_WIDTH**2)
    return EMOTIONS[int(np.argmin(squared))], (scores / scores.sum()).astype(np.float32)


def emotion_amount(expression: np.ndarray, emotion: str) -> float:
    """How much of an emotion expressions n x 64 show on average: 0 none, 1 as at intensity 3, without what speech moves; 0 for
    neutral."""
    index = list(EMOTION_INDEX)
    ray = emotion_direction(emotion)[index].astype(np.float64)
    mean = np.asarray(expression, np.float64).reshape(-1, EXPRESSION_SIZE).mean(axis=0)[index]
    return float(mean @ ray / (ray @ ray)) if ray.any() else 0.0
