"""Draws the moving picture of the README into docs/images/teaser.webp: python docs/teaser.py

`svp generate` makes one synthetic portrait say the bundled sentence in the styles of two synthetic clips; portrait, voice and
style clips are shown beside the results. Takes about a minute on two cores.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from svp_portrait.svp_models.media.audio import load_audio

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "images" / "teaser.webp"
ASSETS = ROOT / "workflows" / "assets"
PERSON, STYLE_PERSON = 6, 3  # of the test split
PICTURES = ("--synthetic-version", 2)
EMOTIONS = ("happy", "angry")
FPS = 25
FACE, RESULT, EDGE, GAP, TOP = 112, 224, 20, 6, 36  # pixels
BLOCK = FACE + GAP + RESULT  # a style clip and its result
WIDTH, HEIGHT = FACE + 2 * BLOCK + 4 * EDGE, TOP + RESULT + EDGE
PLAYED, TO_COME, TEXT, BACK = (150, 120, 190), (94, 84, 120), (235, 228, 245), (38, 34, 66)
QUALITY = 70


def run(*arguments: str | Path | int) -> None:
    """One `svp` command."""
    command = [sys.executable, "-m", "svp_portrait.nodes.command", *map(str, arguments)]
    subprocess.run(command, check=True)


def make_clips(folder: Path) -> None:
    """portrait.png, and STYLE.mp4 and result_STYLE.mp4 for every style."""
    person = ["--portrait", folder / "portrait.png", "--speaker", PERSON, "--emotion", "neutral", "--seconds", 1]
    run("synthesize", folder / "person.mp4", *person, *PICTURES)
    for emotion in EMOTIONS:
        style = ["--emotion", emotion, "--speaker", STYLE_PERSON, "--seconds", 3]
        run("synthesize", folder / f"{emotion}.mp4", *style, *PICTURES)
        inputs = ["--portrait", folder / "portrait.png", "--audio", ASSETS / "speech.wav"]
        driven = ["--style", folder / f"{emotion}.mp4", "--motion", ASSETS / "driving.mp4"]
        run("generate", *inputs, *driven, "--out", folder / f"result_{emotion}.mp4")


def frames_of(path: Path, side: int) -> list[Image.Image]:
    with av.open(path) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    return [frame.resize((side, side), Image.Resampling.LANCZOS) for frame in frames]


def draw_voice(draw: ImageDraw.ImageDraw, loudness: np.ndarray, box: tuple[int, int, int, int], played: float) -> None:
    """Bars of the loudness in a box; those that were played are lit."""
    left, top, right, bottom = box
    step = (right - left) / len(loudness)
    for index, height in enumerate(np.maximum(loudness / loudness.max() * (bottom - top), 3)):
        x, middle = left + index * step, (top + bottom) / 2
        colour = PLAYED if index / len(loudness) <= played else TO_COME
        draw.rounded_rectangle((x, middle - height / 2, x + step - 2, middle + height / 2), 1, fill=colour)


def teaser(folder: Path) -> list[Image.Image]:
    """The frames, WIDTH x HEIGHT."""
    font = ImageFont.load_default(15)
    with Image.open(folder / "portrait.png") as picture:
        portrait = picture.convert("RGB").resize((FACE, FACE), Image.Resampling.LANCZOS)
    styles = [frames_of(folder / f"{emotion}.mp4", FACE) for emotion in EMOTIONS]
    results = [frames_of(folder / f"result_{emotion}.mp4", RESULT) for emotion in EMOTIONS]
    waveform = load_audio(ASSETS / "speech.wav").waveform.numpy().mean(0)
    loudness = np.array([np.abs(part).max() for part in np.array_split(waveform, 28)])
    frames = []
    for index in range(len(results[0])):
        canvas = Image.new("RGB", (WIDTH, HEIGHT), BACK)
        draw = ImageDraw.Draw(canvas)
        draw.text((EDGE, 12), "portrait + voice", TEXT, font)
        canvas.paste(portrait, (EDGE, TOP))
        box = (EDGE, TOP + FACE + EDGE, EDGE + FACE, TOP + FACE + EDGE + 60)
        draw_voice(draw, loudness, box, index / len(results[0]))
        for number, emotion in enumerate(EMOTIONS):
            left = 2 * EDGE + FACE + number * (BLOCK + EDGE)
            draw.text((left, 12), f"+ {emotion} style clip", TEXT, font)
            canvas.paste(styles[number][index % len(styles[number])], (left, TOP))
            canvas.paste(results[number][index], (left + FACE + GAP, TOP))
        frames.append(canvas)
    return frames


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        make_clips(Path(name))
        first, *others = teaser(Path(name))
    first.save(FILE, save_all=True, append_images=others, duration=1000 // FPS, loop=0, quality=QUALITY, method=6)
