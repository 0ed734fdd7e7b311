"""Draws the banner of the registry page into docs/images/banner.png: python docs/banner.py

One synthetic person says one sentence in five emotions, above its loudness; no model is needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from svp_portrait.svp_models.synthetic.clips import Clip, make_clip
from svp_portrait.svp_models.synthetic.speakers import Speaker, speaker

FILE = Path(__file__).with_name("images") / "banner.png"
WIDTH, HEIGHT = 1260, 540  # 21 : 9
FINE = 2  # times the size, averaged down
PERSON, SEED = 6, 3
EMOTIONS = ("sad", "contempt", "neutral", "happy", "surprised")
FACE, MARGIN = 212, 56  # pixels: a face's disc, and the border
TOP, BOTTOM = (38, 34, 66), (94, 66, 118)
BAR, LIGHT, FAINT = (150, 120, 190), (245, 240, 250), (205, 194, 222)
MOUTH = slice(60, 68)  # of the 68 landmarks: the inner lips


def speaking_frame(clip: Clip) -> np.ndarray:
    """A picture in which the mouth is half open."""
    opening = np.ptp(clip.landmarks[:, MOUTH, 1], axis=1)  # n
    return clip.images[int(np.argmin(np.abs(opening - opening.max() / 2)))]


def disc(picture: np.ndarray) -> Image.Image:
    """A picture cut to a disc with a light rim."""
    side = len(picture)
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).ellipse((0, 0, side - 1, side - 1), fill=255)
    cut = Image.fromarray(picture).convert("RGBA")
    cut.putalpha(mask)
    ImageDraw.Draw(cut).ellipse((2, 2, side - 3, side - 3), outline=LIGHT, width=4 * FINE)
    return cut


def backdrop() -> Image.Image:
    ramp = np.linspace(0, 1, HEIGHT * FINE)[:, None, None]
    rows = np.asarray(TOP) * (1 - ramp) + np.asarray(BOTTOM) * ramp  # h 1 3
    return Image.fromarray(np.broadcast_to(rows, (HEIGHT * FINE, WIDTH * FINE, 3)).astype(np.uint8))


def draw_loudness(draw: ImageDraw.ImageDraw, audio: np.ndarray, middle: int, tallest: int) -> None:
    """Loudness as bars over the whole width."""
    bars = WIDTH // 12
    loud = np.array([np.abs(part).max() for part in np.array_split(audio, bars)])
    for index, height in enumerate(np.maximum(loud / loud.max() * tallest, 4)):
        left = index * 12 * FINE
        box = (left, (middle - height / 2) * FINE, left + 5 * FINE, (middle + height / 2) * FINE)
        draw.rounded_rectangle(box, radius=2 * FINE, fill=BAR)


def banner(person: Speaker) -> Image.Image:
    """WIDTH x HEIGHT."""
    clips = [make_clip(person, emotion, 3, SEED, seconds=1.2, size=FACE * FINE) for emotion in EMOTIONS]
    picture = backdrop()
    draw = ImageDraw.Draw(picture)
    middle = HEIGHT - MARGIN - FACE // 2
    draw_loudness(draw, clips[EMOTIONS.index("happy")].audio, middle, FACE - 40)
    draw.text((MARGIN * FINE, 44 * FINE), "SVP Portrait", LIGHT, ImageFont.load_default(84 * FINE))
    line = "A portrait, a voice and a speaking style"
    draw.text((MARGIN * FINE + 4, 156 * FINE), line, FAINT, ImageFont.load_default(34 * FINE))
    gap = (WIDTH - 2 * MARGIN - FACE) / (len(clips) - 1)
    for index, clip in enumerate(clips):
        cut = disc(speaking_frame(clip))
        picture.paste(cut, (round((MARGIN + index * gap) * FINE), (middle - FACE // 2) * FINE), cut)
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    banner(speaker(PERSON, "test")).save(FILE, optimize=True)
