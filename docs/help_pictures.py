"""Draws the pictures of the help pages into web/docs/images: python docs/help_pictures.py

They show exact points of synthetic faces and numbers of the software itself; no model is needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from svp_portrait.svp_models.diffusion.context_windows import frame_windows
from svp_portrait.svp_models.diffusion.style import EASINGS, interpolate_styles, sample_style
from svp_portrait.svp_models.face.crop import crop_around, crop_faces, feather_masks, paste_faces
from svp_portrait.svp_models.face.keypoints import LINES, POINT_COLORS, draw_head_keypoints
from svp_portrait.svp_models.face.retarget import retarget
from svp_portrait.svp_models.synthetic.identity import FaceStates
from svp_portrait.svp_models.synthetic.renderer import RenderedClip, render_clip
from svp_portrait.svp_models.synthetic.speakers import Speaker, speaker
from svp_portrait.svp_models.types import HeadMotion, Style, StylePrior

IMAGES = Path(__file__).resolve().parents[1] / "web" / "docs" / "images"
BACK, LIGHT, FAINT = (30, 30, 34), (225, 225, 230), (96, 96, 104)
COLOURS = ((110, 190, 255), (255, 180, 80), (140, 220, 130), (240, 130, 200))
FINE = 3  # times the size, averaged down
SIDE = 140  # pixels of a tile
PERSON, DRIVER = 5, 12  # of the test split


def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size * FINE)


def canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty picture, FINE times as large, and its pen."""
    picture = Image.new("RGB", (width * FINE, height * FINE), BACK)
    return picture, ImageDraw.Draw(picture)


def save(picture: Image.Image, name: str) -> None:
    """Averaged down to the size that the pages show."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    small = picture.resize((picture.width // FINE, picture.height // FINE), Image.Resampling.BOX)
    small.save(IMAGES / name, optimize=True, **({"quality": 88} if name.endswith(".jpg") else {}))


def fine(points: object) -> list[tuple[float, float]]:
    return [(float(x) * FINE, float(y) * FINE) for x, y in points]


def face(person: Speaker, poses: list[tuple[float, ...]], size: int) -> RenderedClip:
    """A resting face in these poses: yaw, pitch, roll in degrees, shift right and down as fractions, scale."""
    count = len(poses)
    still = FaceStates(
        expression=np.repeat(person.habits.rest[None], count, axis=0),
        pose=np.asarray(poses, np.float32),
        blink=np.zeros((count, 2), np.float32),
        gaze=np.zeros((count, 2), np.float32),
    )
    return render_clip(person.identity, still, size)


def head_keypoints() -> None:
    """A face with its numbered points, and the points as a model sees them."""
    side = 190
    drawn = face(speaker(PERSON, "test"), [(0, 0, 0, 0, 0, 1)], side * FINE)
    points = drawn.head_keypoints[0]  # 8 2
    picture, pen = canvas(2 * side + 12, side)
    picture.paste(Image.fromarray(drawn.images[0]), (0, 0))
    seen = draw_head_keypoints(points[None], side * FINE, side * FINE, side * FINE, side * FINE)[0]
    picture.paste(Image.fromarray(seen), ((side + 12) * FINE, 0))
    for number, ((x, y), colour) in enumerate(zip(points, POINT_COLORS, strict=True), start=1):
        radius = 4 * FINE
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=(0, 0, 0), width=FINE)
        right, down = (0, -14) if number == 7 else (-13 if number in (1, 2, 5) else 13, 0)
        pen.text(
            (x + right * FINE, y + down * FINE),
            str(number),
            LIGHT,
            font(16),
            "mm",
            stroke_width=2 * FINE,
            stroke_fill=(0, 0, 0),
        )
    save(picture, "head_keypoints.jpg")


def retarget_modes() -> None:
    """A portrait, a driver's first frame and a later one, and what three modes make of the later one's points."""
    portrait = face(speaker(PERSON, "test"), [(0, 0, 0, 0, 0, 1)], SIDE * FINE)
    driver = face(speaker(DRIVER, "test"), [(24, 0, 0, 0.1, 0.06, 0.72), (-6, 4, 12, 0.0, 0.06, 0.72)], SIDE * FINE)
    edge = SIDE * FINE
    own = HeadMotion(torch.from_numpy(portrait.head_keypoints), edge, edge, 25.0)
    driving = HeadMotion(torch.from_numpy(driver.head_keypoints), edge, edge, 25.0)
    gap, foot = 8, 28
    picture, pen = canvas(3 * SIDE + 2 * gap, 2 * (SIDE + foot))

    def place(column: int, row: int, pixels: np.ndarray, name: str) -> tuple[int, int]:
        left, top = (SIDE + gap) * column * FINE, (SIDE + foot) * row * FINE
        picture.paste(Image.fromarray(pixels), (left, top))
        pen.text((left + edge / 2, top + edge + foot * FINE / 2), name, LIGHT, font(18), "mm")
        return left, top

    for column, (pixels, name) in enumerate(
        ((portrait.images[0], "portrait"), (driver.images[0], "motion 0"), (driver.images[1], "motion 1"))
    ):
        place(column, 0, pixels, name)
    for column, mode in enumerate(("fix", "offset", "rescale")):
        points = retarget(driving, own, mode).keypoints[1:2].numpy()
        corner = place(column, 1, draw_head_keypoints(points, edge, edge, edge, edge)[0], mode)
        mark = portrait.head_keypoints[0] + corner
        for start, end in LINES:
            pen.line((*mark[start], *mark[end]), fill=(170, 170, 170), width=FINE)
    save(picture, "retarget.jpg")


def crop_and_paste() -> None:
    """A wide picture with the square around its face, the cropped face, its mask, and a changed face pasted back."""
    wide, high, gap = 288, 162, 8
    drawn = face(speaker(DRIVER, "test"), [(8, 0, -2, 0.05, 0.06, 0.52)], wide * FINE)
    top = round(0.24 * wide * FINE)
    whole = np.ascontiguousarray(drawn.images[0][top : top + high * FINE])
    marks = drawn.landmarks[0] - (0, top)  # 68 2, from the brows to the chin
    crop = crop_around(np.concatenate([marks.min(0), marks.max(0)])[None], wide * FINE, high * FINE, 2.0, None)
    images = torch.from_numpy(whole)[None].float() / 255  # 1 h w 3
    faces = crop_faces(images, crop, high * FINE)
    mask = feather_masks(crop, 1, high * FINE, 0.15)[0].numpy()
    grey = faces.mean(-1, keepdim=True).expand_as(faces) * 0.7
    pasted = paste_faces(images, grey, crop, 0.15)
    picture, pen = canvas(wide + gap + high, 2 * high + gap)
    right, below = (wide + gap) * FINE, (high + gap) * FINE
    shades = np.repeat(mask[..., None] * 255, 3, axis=-1)
    for values, corner in (
        (whole, (0, 0)),
        (faces[0].numpy() * 255, (right, 0)),
        (pasted[0].numpy() * 255, (0, below)),
        (shades, (right, below)),
    ):
        picture.paste(Image.fromarray(values.round().astype(np.uint8)), corner)
    square = crop.at(0)
    box = (square.left, square.top, square.left + square.side, square.top + square.side)
    pen.rectangle(box, outline=(255, 255, 255), width=2 * FINE)
    save(picture, "crop_paste.jpg")


def easings() -> None:
    """Weight of style_b over a clip."""
    wide, high, left, top = 220, 160, 36, 12
    picture, pen = canvas(wide + left + 124, high + top + 30)
    for weight in (0, 0.5, 1):
        y = top + high * (1 - weight)
        pen.line(fine([(left, y), (left + wide, y)]), fill=FAINT, width=FINE)
        pen.text(fine([(left - 8, y)])[0], f"{weight:g}", LIGHT, font(15), "rm")
    here, there = Style(torch.zeros(1, 1), "picture"), Style(torch.ones(1, 1), "picture")
    for number, (name, colour) in enumerate(zip(EASINGS, COLOURS, strict=True)):
        weights = interpolate_styles(here, there, easing=name).at(201)[:, 0].tolist()
        curve = [(left + wide * index / 200, top + high * (1 - value)) for index, value in enumerate(weights)]
        pen.line(fine(curve), fill=colour, width=2 * FINE, joint="curve")
        pen.text(fine([(left + wide + 14, top + 20 + 26 * number)])[0], name, colour, font(16), "lm")
    for text, x, anchor in (("start", left, "lm"), ("end", left + wide, "rm")):
        pen.text(fine([(x, top + high + 17)])[0], text, LIGHT, font(16), anchor)
    save(picture, "easing.png")


def windows() -> None:
    """Windows of 6 frames that share 2, over 14 frames."""
    frames, window, overlap = 14, 6, 2
    cell, left, top = 25, 10, 34
    parts = frame_windows(frames, window, overlap)
    picture, pen = canvas(frames * cell + 2 * left, top + 26 * len(parts) + 12)
    for frame in range(frames):
        pen.text(fine([(left + cell * (frame + 0.5), top / 2)])[0], str(frame), LIGHT, font(15), "mm")
        pen.line(fine([(left + cell * frame, top - 4), (left + cell * frame, picture.height / FINE - 10)]), fill=FAINT)
    for row, (part, colour) in enumerate(zip(parts, COLOURS[: len(parts)], strict=True)):
        box = fine(
            [(left + cell * part[0] + 2, top + 26 * row), (left + cell * (part[-1] + 1) - 2, top + 26 * row + 20)]
        )
        pen.rounded_rectangle([*box[0], *box[1]], radius=5 * FINE, fill=colour)
    save(picture, "windows.png")


def temperatures() -> None:
    """Samples of one prior, in two dimensions."""
    prior = StylePrior(torch.zeros(2), torch.tensor([1.0, 0.6]), "picture")
    side, gap, foot, unit = 170, 8, 28, 17
    picture, pen = canvas(2 * side + gap, 2 * (side + foot))
    for number, temperature in enumerate((0.0, 0.5, 1.0, 2.0)):
        left, top = (side + gap) * (number % 2), (side + foot) * (number // 2)
        middle = np.array([left + side / 2, top + side / 2])
        pen.rectangle([*fine([(left, top)])[0], *fine([(left + side, top + side)])[0]], fill=(18, 18, 20))
        spread = prior.sigma.numpy() * unit
        pen.ellipse([*fine([middle - spread])[0], *fine([middle + spread])[0]], outline=FAINT, width=FINE)
        for seed in range(120):
            point = middle + sample_style(prior, seed, temperature).codes[0].numpy() * unit
            pen.ellipse([*fine([point - 2])[0], *fine([point + 2])[0]], fill=COLOURS[0])
        label = fine([(left + side / 2, top + side + foot / 2)])[0]
        pen.text(label, f"temperature {temperature:g}", LIGHT, font(16), "mm")
    save(picture, "temperature.png")


if __name__ == "__main__":
    head_keypoints()
    retarget_modes()
    crop_and_paste()
    easings()
    windows()
    temperatures()
