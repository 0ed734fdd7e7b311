"""Ground-truth clips: a person says a sentence with an emotion, drawn with everything that was used to draw it.

The painter: one identity, and for every state a picture with its exact landmarks, head keypoints and face mask.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..optional_deps import cv2
from .backdrop import Body, paint_background
from .canvas import SHIFT, Canvas, curve
from .expressions import GROUPS
from .features import lens_outline, paint_brows, paint_eyes, paint_glasses, paint_mouth
from .geometry import UNIT, FaceGeometry, Pose, project
from .hair import COVERS_EARS, Hair
from .identity import EXPRESSION_NAMES, POSE_SIZE, FaceStates, appearance
from .performance import EMOTIONS, INTENSITY_SCALE, TONES, blend, perform
from .skin import Skin
from .speakers import POPULATION, SPLITS, Speaker, sentence
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


@dataclass(frozen=True)
class Drawn:
    """One picture and its ground truth; positions in pixels, (0, 0) is the picture's top-left corner.

    image: size x size x 3 uint8 RGB. landmarks: 68 x 2 float32, iBUG order, 0 at the image-left jaw. head_keypoints:
    8 x 2 float32: left edge upper, left edge lower, right edge upper, right edge lower, left pupil, right pupil, nose
    bridge top, nose tip ('left' is the image's). mask: size x size uint8, 255 inside the face's contour.
    """

    image: np.ndarray
    landmarks: np.ndarray
    head_keypoints: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class DrawnClip:
    """`Drawn` of n frames stacked: images n h w 3, landmarks n 68 2, head_keypoints n 8 2, masks n h w."""

    images: np.ndarray
    landmarks: np.ndarray
    head_keypoints: np.ndarray
    masks: np.ndarray


class FacePainter:
    """Draws one identity. Everything that does not move is prepared once; backgrounds are kept per picture size."""

    def __init__(self, identity: np.ndarray) -> None:
        self.look = appearance(identity)
        self.geometry = FaceGeometry(self.look.shape)
        self.skin = Skin(self.look, self.geometry)
        self.hair = Hair(self.look, self.geometry.neutral[GROUPS["forehead"]])
        self.body = Body(self.look)
        self.lenses = lens_outline(self.look.glasses, self.look.shape["glasses_size"])
        self._backgrounds: dict[int, np.ndarray] = {}

    def draw(self, expression: np.ndarray, pose: np.ndarray, blink: np.ndarray, gaze: np.ndarray, size: int) -> Drawn:
        """expression 64, pose 6, blink 2, gaze 2 (see `FaceStates`) -> a picture `size` pixels wide and high."""
        factor = 3 if size <= 160 else 2
        where, look = Pose.of(pose), self.look
        unit = UNIT * size * where.scale
        solid, solid_pupils = self.geometry.deform(expression, blink, gaze)
        points = project(solid, where, size)
        pupils = project(solid_pupils, where, size)
        coefficients = dict(zip(EXPRESSION_NAMES, (float(value) for value in expression), strict=True))
        outline = curve(np.concatenate([points[:17], points[GROUPS["forehead"]]]), samples=4, closed=True)
        chin = curve(points[2:15], samples=4)

        canvas = Canvas(self._background(size * factor).copy(), factor)
        self.hair.paint_back(canvas, where, size)
        self.body.paint(canvas, where, size, chin)
        if look.hair_style not in COVERS_EARS:
            self.skin.paint_ears(canvas, where, size)
        self.skin.paint_face(canvas, outline, where, size)
        self.skin.paint_marks(canvas, points, outline, coefficients, where, size)
        self.hair.paint_shadow(canvas, outline, where, size)
        self.skin.paint_nose(canvas, points, unit)
        self.skin.paint_beard(canvas, points, outline, unit)
        paint_mouth(canvas, look, points, unit)
        radius = self.geometry.iris_radius * unit
        paint_eyes(canvas, look, points, pupils, radius, np.asarray(blink), unit)
        self.hair.paint_front(canvas, where, size)
        paint_brows(canvas, look, points, unit)
        if look.glasses:
            self._paint_glasses(canvas, where, size, unit)

        fine = np.zeros((size * factor, size * factor), dtype=np.uint8)
        cv2.fillPoly(fine, [canvas.fixed(outline)], 255, cv2.LINE_8, SHIFT)
        mask = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
        keypoints = np.concatenate([points[[0, 3, 16, 13]], pupils, points[[27, 30]]])
        return Drawn(
            image=cv2.resize(canvas.image, (size, size), interpolation=cv2.INTER_AREA),
            landmarks=points[:68].copy(),
            head_keypoints=keypoints,
            mask=np.where(mask >= 128, 255, 0).astype(np.uint8),
        )

    def _background(self, side: int) -> np.ndarray:
        if side not in self._backgrounds:
            self._backgrounds[side] = paint_background(self.look, side)
        return self._backgrounds[side]

    def _paint_glasses(self, canvas: Canvas, pose: Pose, size: int, unit: float) -> None:
        lenses = np.stack([project(lens, pose, size) for lens in self.lenses])
        ends = np.array(
            [[[-0.76, -0.10, 0.32], [-0.985, -0.12, -0.11]], [[0.76, -0.10, 0.32], [0.985, -0.12, -0.11]]], np.float32
        )
        arms = np.stack([project(end, pose, size) for end in ends])
        paint_glasses(canvas, self.look, lenses, arms, unit)


def draw_clip(identity: np.ndarray, states: FaceStates, size: int) -> DrawnClip:
    """Every frame of a clip of one identity."""
    painter = FacePainter(identity)
    frames = [
        painter.draw(states.expression[i], states.pose[i], states.blink[i], states.gaze[i], size)
        for i in range(len(states))
    ]
    return DrawnClip(
        images=np.stack([frame.image for frame in frames]),
        landmarks=np.stack([frame.landmarks for frame in frames]),
        head_keypoints=np.stack([frame.head_keypoints for frame in frames]),
        masks=np.stack([frame.mask for frame in frames]),
    )
