"""Ground-truth clips: a synthetic speaker says a sentence with an emotion, with all parameters behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..errors import PortraitError
from ..motion.coefficients import EXPRESSION_SIZE
from ..types import SVP, Motion
from .identity import POSE_SIZE, FaceStates
from .movements import Movement
from .performance import EMOTIONS, INTENSITY_SCALE, TONES, blend, perform
from .renderer import RenderedClip, render_clip
from .speakers import POPULATION, SPLITS, Speaker, sentence
from .speech import Speech, Voice, fit_speech, join_speech, synthesize

# By version of the pictures: changes with everything in this package that changes a clip.
DATA_VERSIONS = {1: "1", 2: "2.2"}
DATA_VERSION = DATA_VERSIONS[1]
LEAD_SECONDS = 0.1  # before the first word


@dataclass(frozen=True)
class Clip:
    """One clip of n frames.

    speaker, split: the speaker; emotion, intensity, text: the performance; images: n x h x w x 3, uint8 RGB; audio: samples,
    float32, 16 kHz mono, round(n / fps x 16000) of them; landmarks: n x 68 x 2 and head_keypoints: n x 8 x 2 in pixels;
    masks: n x h x w, the face; states: expression, pose, blinks and gaze.
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
    version: int = 1,
) -> Clip:
    """Clip number `seed` of a speaker with an emotion: the same arguments give the same clip. version: see `renderer_for`."""
    frames = max(1, int(np.floor(seconds * fps + 0.5)))
    text, speech, states = act(speaker, emotion, intensity, seed, frames, fps)
    rendered = render_clip(speaker.identity, states, size, version)
    return Clip(
        speaker=speaker.index,
        split=speaker.split,
        emotion=emotion,
        intensity=intensity,
        text=text,
        fps=fps,
        images=rendered.images,
        audio=speech.waveform,
        landmarks=rendered.landmarks,
        head_keypoints=rendered.head_keypoints,
        masks=rendered.masks,
        states=states,
    )


def act(
    speaker: Speaker,
    emotion: str,
    intensity: int,
    seed: int,
    frames: int,
    fps: float,
    movements: Sequence[Movement] = (),
) -> tuple[str, Speech, FaceStates]:
    """A clip without images: text, speech of exactly frames / fps seconds, and states. movements: see `perform`."""
    entropy = (POPULATION, SPLITS.index(speaker.split), speaker.index, EMOTIONS.index(emotion), intensity, seed)
    words, motion = map(np.random.default_rng, np.random.SeedSequence(entropy).spawn(2))
    text, speech = speak(speaker, emotion, intensity, frames / fps, words)
    return text, speech, perform(speaker, emotion, intensity, speech, frames, fps, motion, movements)


def speak(
    speaker: Speaker, emotion: str, intensity: int, seconds: float, rng: np.random.Generator
) -> tuple[str, Speech]:
    """Sentences of the speaker's split for `seconds` of speech; the last one is cut."""
    voice = emotional_voice(speaker.voice, emotion, intensity, rng)
    texts: list[str] = []
    parts: list[Speech] = []
    pauses: list[float] = []
    length = LEAD_SECONDS
    while length < seconds or not parts:
        texts.append(sentence(rng, speaker.split))
        parts.append(synthesize(texts[-1], voice))
        pauses.append(rng.uniform(0.05, 0.25))
        length += parts[-1].seconds + pauses[-1]
    return " ".join(texts), fit_speech(join_speech(parts, LEAD_SECONDS, pauses), seconds)


def emotional_voice(voice: Voice, emotion: str, intensity: int, rng: np.random.Generator) -> Voice:
    """A speaker's voice with an emotion, a little different each time."""
    tone, scale = TONES[emotion], INTENSITY_SCALE[intensity]
    return replace(
        voice,
        pitch=voice.pitch + tone.pitch * scale + rng.normal(0, 2),
        pitch_range=voice.pitch_range * blend(tone.pitch_range, scale) * rng.uniform(0.94, 1.06),
        rate=voice.rate * blend(tone.rate, scale) * rng.uniform(0.96, 1.04),
        volume=voice.volume * blend(tone.volume, scale) * rng.uniform(0.94, 1.06),
        tilt=voice.tilt + tone.tilt * scale,
    )


def neutral_portrait(speaker: Speaker, size: int, version: int = 1) -> RenderedClip:
    """One frame of the relaxed face: frontal, mouth closed, eyes open, looking at the viewer."""
    pose = np.zeros((1, POSE_SIZE), np.float32)
    pose[:, -1] = 1
    relaxed = FaceStates(
        expression=speaker.habits.rest[None].copy(),
        pose=pose,
        blink=np.zeros((1, 2), np.float32),
        gaze=np.zeros((1, 2), np.float32),
    )
    return render_clip(speaker.identity, relaxed, size, version)


def states_to_motion(states: FaceStates, fps: float) -> Motion:
    """The moving parameters of a clip as a motion in the space 'svp': the same numbers, as tensors of their own."""
    pose = torch.tensor(states.pose, dtype=torch.float32)
    return Motion(
        angles=pose[:, :3].clone(),
        shift=pose[:, 3:5].clone(),
        scale=pose[:, 5].clone(),
        expression=torch.tensor(states.expression, dtype=torch.float32),
        fps=fps,
        space=SVP,
        lids=torch.tensor(states.blink, dtype=torch.float32),
        gaze=torch.tensor(states.gaze, dtype=torch.float32),
    )


def motion_to_states(motion: Motion) -> FaceStates:
    """A motion in the space 'svp' as parameters that a synthetic speaker can perform; eyes open and straight without lids
    and gaze."""
    if motion.space != SVP or motion.expression.shape[1] != EXPRESSION_SIZE:
        raise PortraitError(
            f"the motion has {motion.expression.shape[1]} numbers in the space {motion.space}, a synthetic speaker needs "
            f"{EXPRESSION_SIZE} in {SVP}: choose a motion of a synthetic speaker"
        )
    still = torch.zeros(len(motion), 2)
    return FaceStates(
        expression=motion.expression.numpy().copy(),
        pose=torch.cat([motion.angles, motion.shift, motion.scale[:, None]], dim=1).numpy(),
        blink=(still if motion.lids is None else motion.lids).numpy().copy(),
        gaze=(still if motion.gaze is None else motion.gaze).numpy().copy(),
    )
