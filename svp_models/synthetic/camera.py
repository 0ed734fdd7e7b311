"""What a camera and a file do to a picture: white balance, tone curve, vignette, blur, grain and JPEG.

The grain stands still, as the pattern of one sensor does, so that what does not move stays the same from frame to frame.
"""

from __future__ import annotations

import numpy as np

from ..optional_deps import cv2
from .natural_look import CameraLook


class Camera:
    """Finishes pictures of one size with one look."""

    def __init__(self, look: CameraLook, size: int, rng: np.random.Generator) -> None:
        self.jpeg = look.jpeg
        self.blur = look.blur * size / 256
        self.table = _tone_table(look)
        grey = np.array([[0.299, 0.587, 0.114]]) * (1 - look.saturation)
        self.colour = np.float32(np.eye(3) * look.saturation + np.repeat(grey, 3, axis=0))
        self.plain = abs(look.saturation - 1) < 0.02
        y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size - 0.5
        falloff = 1 - look.vignette * (x * x + y * y) * 2
        self.vignette = None
        if look.vignette:
            self.vignette = np.repeat(np.uint8(np.rint(np.clip(falloff, 0, 1) * 255))[..., None], 3, axis=2)
        self.grain = None
        if look.grain > 0.4:
            noise = rng.normal(0, look.grain, (size, size, 3)).astype(np.float32)
            noise = (
                cv2.GaussianBlur(noise, (0, 0), 0.5) * 1.3
            )  # neighbours share colour, as in a raw file's development
            self.grain = np.int16(np.rint(noise))

    def develop(self, image: np.ndarray) -> np.ndarray:
        """size x size x 3 uint8 RGB -> the same, finished."""
        if self.blur > 0.2:
            image = cv2.GaussianBlur(image, (0, 0), self.blur)
        if self.vignette is not None:
            image = cv2.multiply(image, self.vignette, scale=1 / 255)
        if not self.plain:
            image = cv2.transform(image, self.colour)
        image = cv2.LUT(image, self.table)
        if self.grain is not None:
            image = cv2.add(image, self.grain, dtype=cv2.CV_8U)
        if self.jpeg:
            _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg])
            decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
            assert decoded is not None, "OpenCV cannot read the JPEG that it wrote"
            image = decoded
        return image


def _tone_table(look: CameraLook) -> np.ndarray:
    """1 x 256 x 3 uint8: white balance, gamma, contrast around the middle and lifted black."""
    level = np.linspace(0, 1, 256)[:, None] * look.gains  # 256 3
    level = np.clip(level, 0, 1) ** look.gamma
    level = 0.45 + (level - 0.45) * look.contrast
    shoulder = np.where(level > 0.85, 0.85 + 0.15 * np.tanh((level - 0.85) / 0.15), level)
    lift = look.lift / 255
    return np.uint8(np.rint(np.clip(lift + shoulder * (1 - lift), 0, 1) * 255))[None]
