"""One clip to be sampled: everything that drives it, at one length, one frame rate and one size."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..checkpoints.native import PortraitModel
from ..io.frames import Rows
from ..media.audio import check_audio
from ..values import Audio, HeadMotion, Style
from .checks import check_clip, check_motion, check_portrait, check_size, check_style, check_warped


@dataclass(frozen=True)
class ClipRequest:
    """What is to be sampled.

    portrait_latent: 1 c h/8 w/8, unscaled; warped: from `warped_latents`, for the models that ask for it; motion: a
    HeadMotion or Head-Kps pictures f 3 H W in [0, 1], one per frame or a single one, held still; style: None samples
    without style layers; size: width, height in pixels.
    """

    portrait_latent: Tensor
    audio: Audio
    motion: HeadMotion | Rows
    style: Style | None
    frames: int
    fps: float
    size: tuple[int, int]
    warped: Rows | None = None

    def check(self, model: PortraitModel) -> None:
        """Raises PortraitError for the first thing that does not fit the model or the rest."""
        config = model.config
        width, height = self.size
        check_clip(self.frames, self.fps)
        check_size(width, height, config.vae.downscale)
        check_audio(self.audio)
        check_portrait(self.portrait_latent, config, width, height)
        check_motion(self.motion, config, self.frames, self.fps, self.size)
        check_warped(self.warped, config, self.portrait_latent, self.frames)
        if self.style is not None:
            check_style(self.style, model)
