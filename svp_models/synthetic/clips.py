"""Ground-truth clips: a person says a sentence with an emotion, drawn with everything that was used to draw it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .drawing import DrawnClip, draw_clip
from .emotions import EMOTIONS, INTENSITY_SCALE, TONES
from .parameters import POSE_SIZE, FaceStates
from .performance import blend, perform
from .sentences import SPLITS, sentence
from .speakers import POPULATION, Speaker
from .speech import Speech, Voice, fit_speech, join_speech, synthesize

DATA_VERSION = "1"  # of everything in this package that changes what a clip contains
LEAD_SECONDS = 0.1  # before the first word


@dataclass(frozen=True)
class Clip:
    """One clip of n frames.

    speaker, split: who; emotion, intensity, text: what was performed; images: n x h x w x 3, uint8 RGB; audio: samples,
    float32, 16 kHz mono, round(n / fps x 16000) of them; landmarks: n x 68 x 2 and head_keypoints: n x 8 x 2 in pixels;
    masks: n x h x w, the face; states: the parameters behind it all.
    """

    speaker: int
    split: str
    emotion: str
    intensity: int
    text: str
    fps: float
    images: np.ndarray
    audio: np.ndarray
    landmarks: np.ndarray
    head_keypoints: np.ndarray
    masks: np.ndarray
    states: FaceStates


def make_clip(
    speaker: Speaker,
    emotion: str,
    intensity: int,
    seed: int,
    seconds: float = 3.0,
    fps: float = 25.0,
    size: int = 128,
) -> Clip:
    """Clip number `seed` of a speaker with an emotion: the same arguments give the same clip."""
    frames = max(1, int(np.floor(seconds * fps + 0.5)))
    text, speech, states = act(speaker, emotion, intensity, seed, frames, fps)
    drawn = draw_clip(speaker.identity, states, size)
    return Clip(
        speaker=speaker.index,
        split=speaker.split,
        emotion=emotion,
        intensity=intensity,
        text=text,
        fps=fps,
        images=drawn.images,
        audio=speech.waveform,
        landmarks=drawn.landmarks,
        head_keypoints=drawn.head_keypoints,
        masks=drawn.masks,
        states=states,
    )


def act(
    speaker: Speaker, emotion: str, intensity: int, seed: int, frames: int, fps: float
) -> tuple[str, Speech, FaceStates]:
    """A clip without its pictures: text, speech of exactly frames / fps seconds, and states."""
    entropy = (POPULATION, SPLITS.index(speaker.split), speaker.index, EMOTIONS.index(emotion), intensity, seed)
    words, conduct = (np.random.default_rng(each) for each in np.random.SeedSequence(entropy).spawn(2))
    text, speech = speak(speaker, emotion, intensity, frames / fps, words)
    return text, speech, perform(speaker, emotion, intensity, speech, frames, fps, conduct)


def speak(
    speaker: Speaker, emotion: str, intensity: int, seconds: float, rng: np.random.Generator
) -> tuple[str, Speech]:
    """As many sentences of the speaker's split as the time asks for, cut at `seconds`."""
    voice = emotional_voice(speaker.voice, emotion, intensity, rng)
    texts, parts, pauses = [], [], []
    length = LEAD_SECONDS
    while length < seconds or not parts:
        texts.append(sentence(rng, speaker.split))
        parts.append(synthesize(texts[-1], voice))
        pauses.append(rng.uniform(0.05, 0.25))
        length += parts[-1].seconds + pauses[-1]
    return " ".join(texts), fit_speech(join_speech(parts, LEAD_SECONDS, pauses), seconds)


def emotional_voice(voice: Voice, emotion: str, intensity: int, rng: np.random.Generator) -> Voice:
    """A speaker's voice under an emotion, a little different on every occasion."""
    tone, scale = TONES[emotion], INTENSITY_SCALE[intensity]
    return replace(
        voice,
        pitch=voice.pitch + tone.pitch * scale + rng.normal(0, 2),
        pitch_range=voice.pitch_range * blend(tone.pitch_range, scale) * rng.uniform(0.94, 1.06),
        rate=voice.rate * blend(tone.rate, scale) * rng.uniform(0.96, 1.04),
        volume=voice.volume * blend(tone.volume, scale) * rng.uniform(0.94, 1.06),
        tilt=voice.tilt + tone.tilt * scale,
    )


def neutral_portrait(speaker: Speaker, size: int) -> DrawnClip:
    """One frame of the relaxed face: frontal, mouth closed, eyes open, looking at the viewer."""
    pose = np.zeros((1, POSE_SIZE), np.float32)
    pose[:, -1] = 1
    still = FaceStates(
        expression=speaker.habits.rest[None].copy(),
        pose=pose,
        blink=np.zeros((1, 2), np.float32),
        gaze=np.zeros((1, 2), np.float32),
    )
    return draw_clip(speaker.identity, still, size)
