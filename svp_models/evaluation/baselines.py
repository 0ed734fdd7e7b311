"""What a model has to beat: its portrait standing still or warped, its own VAE on true frames, the nearest clip of training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from einops import rearrange

from ..checkpoints.expression_basis import load_expression_basis
from ..checkpoints.portrait_reader import load_portrait_reader
from ..diffusion.composition import FEATHER
from ..face.compose import border_mask, compose, crop_faces_upright, place_face_crops
from ..face.portrait_face import read_portrait_face
from ..face.warp import warp_to_keypoints
from ..model import PortraitModel
from ..networks.vae import encode_images
from ..synthetic.clips import Clip, make_clip, neutral_portrait
from ..synthetic.speakers import TRAIN_SPEAKERS, speaker

CHUNK = 8  # frames that the VAE reads at a time


def to_planes(frames: np.ndarray) -> torch.Tensor:
    """Frames n h w 3, uint8 -> n 3 h w in [-1, 1]."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "n h w c -> n c h w").float() / 127.5 - 1


def to_frames(planes: torch.Tensor) -> np.ndarray:
    """n 3 h w in [-1, 1] -> frames n h w 3, uint8."""
    pixels = ((planes + 1) * 127.5).round().clamp(0, 255).byte()
    return rearrange(pixels, "n c h w -> n h w c").numpy()


def still_portrait(portrait: np.ndarray, frames: int) -> np.ndarray:
    """The portrait h w 3 in every frame."""
    return np.broadcast_to(portrait, (frames, *portrait.shape))


def warped_portrait(portrait: np.ndarray, own: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """The portrait h w 3 warped from its own head keypoints (8 2) to those of every frame (n 8 2), without any network."""
    source, targets = (torch.from_numpy(np.asarray(points, np.float32)) for points in (own, keypoints))
    return to_frames(warp_to_keypoints(to_planes(portrait[None])[0], source, targets))


def warped_expression(
    analyzer: bytes | None, portrait: np.ndarray, own: np.ndarray, keypoints: np.ndarray, track: torch.Tensor
) -> np.ndarray:
    """The same, warped to the expressions n 68 too, see `face.expression_warp`; the analyser finds the portrait's landmarks."""
    image = to_planes(portrait[None])[0]
    source, targets = (torch.from_numpy(np.asarray(points, np.float32)) for points in (own, keypoints))
    face = replace(read_portrait_face(analyzer, portrait[None], reader=load_portrait_reader()), keypoints=source)
    basis = load_expression_basis()
    parts = zip(targets.split(CHUNK), track.split(CHUNK), strict=True)
    return np.concatenate([to_frames(face.warp(image, points, rows, basis)) for points, rows in parts])


@torch.no_grad()
def vae_alone(model: PortraitModel, frames: np.ndarray, keypoints: np.ndarray | None = None) -> np.ndarray:
    """Frames n h w 3 encoded and decoded by the model's VAE: the best that the denoiser could do. keypoints: n 8 2, of the heads, for
    models that draw crops of the face: the rest of the frames stays."""
    parts, crop = [], model.config.face_crop
    placement = place_face_crops(keypoints, crop) if crop.width and keypoints is not None else None
    for start in range(0, len(frames), CHUNK):
        planes = to_planes(frames[start : start + CHUNK])
        if placement is None:
            parts.append(to_frames(_round_trip(model, planes)))
            continue
        here = replace(placement, matrices=placement.matrices[start : start + CHUNK])
        faces = _round_trip(model, crop_faces_upright(planes, here))
        border = border_mask(crop.width, crop.height, FEATHER)
        parts.append(to_frames(compose(planes, faces, border, here)[0]))
    return np.concatenate(parts)


def _round_trip(model: PortraitModel, planes: torch.Tensor) -> torch.Tensor:
    latents = encode_images(model.vae, planes)
    decoded = model.vae.decode(latents.to(next(model.vae.parameters())))
    return decoded.float().cpu().clamp(-1, 1)


class TrainingPeople:
    """The first `count` people of the synthetic training split, to look up who is nearest to a test person."""

    def __init__(self, count: int, size: int, version: int = 1) -> None:
        self.size, self.version = size, version
        self.people = [speaker(index, "train") for index in range(min(count, TRAIN_SPEAKERS))]
        self.portraits = np.stack([neutral_portrait(who, size, version).images[0] for who in self.people]).astype(
            np.float32
        )

    def nearest_clip(self, portrait: np.ndarray, clip: Clip, seed: int) -> np.ndarray:
        """A clip of the person whose relaxed portrait differs least from `portrait` (h w 3), with the emotion, intensity and
        length of `clip`: n h w 3."""
        errors = np.square(self.portraits - portrait).mean((1, 2, 3))
        who = self.people[int(errors.argmin())]
        seconds = len(clip.images) / clip.fps
        return make_clip(who, clip.emotion, clip.intensity, seed, seconds, clip.fps, self.size, self.version).images
