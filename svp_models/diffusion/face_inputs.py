"""The inputs of models that draw an upright crop of the face (`ModelConfig.face_crop`): crops of portrait and warped portraits."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.expression_basis import load_expression_basis
from ..checkpoints.portrait_reader import load_portrait_reader
from ..config import FaceCropConfig
from ..errors import PortraitError
from ..face.compose import FacePlacement, crop_faces_upright, place_face_crops
from ..face.dense_warp import DenseWarp
from ..face.expression_warp import Correct, ExpressionBasis
from ..face.portrait_face import PortraitFace, read_portrait_face
from ..face.tracking import FaceTracker
from ..face.warp import warp_to_keypoints
from ..io.memory_map import IN_MEMORY, FrameArray, Storage
from ..io.progress import Progress, in_chunks, shared
from ..model import PortraitModel
from ..types import HeadMotion
from .inputs import fit_portrait
from .warped_reference import CHUNK, Encode, portrait_keypoints, target_keypoints

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeadPoints:
    """Where the head is. portrait: 8 2 and frames: f 8 2 (or 1), head keypoints in pixels of width x height.

    face, basis: for models that warp portraits to an expression track too; track: f 68, None: no expression moves; paint_mouth:
    whether the inside of a mouth that opens is painted; dense: what corrects the spline.
    """

    portrait: Tensor
    frames: Tensor
    width: int
    height: int
    face: PortraitFace | None = None
    track: Tensor | None = None
    basis: ExpressionBasis | None = None
    paint_mouth: bool = False
    dense: Correct | None = None

    def __len__(self) -> int:
        """Warped portraits that differ: 1 where nothing moves."""
        followed = 1 if self.face is None or self.track is None else len(self.track)
        return max(len(self.frames), followed)

    def warp(self, image: Tensor, index: list[int]) -> Tensor:
        """The portrait 3 h w, of this size, warped to some frames: n 3 h w."""
        targets = self.frames[index if len(self.frames) > 1 else [0] * len(index)]
        if self.face is None or self.basis is None:
            return warp_to_keypoints(image, self.portrait, targets)
        track = self.face.expression.expand(len(index), -1) if self.track is None else self.track[index]
        return self.face.warp(image, targets, track, self.basis, self.paint_mouth, self.dense)

    def placement(self, config: FaceCropConfig) -> FacePlacement:
        """Where the crops of the frames lie."""
        return place_face_crops(self.frames.numpy(), config)

    def scaled(self, width: int, height: int) -> HeadPoints:
        """The same in pictures of another size."""
        factor = self.frames.new_tensor([width / self.width, height / self.height])
        face = None if self.face is None else self.face.scaled(factor)
        return replace(
            self, portrait=self.portrait * factor, frames=self.frames * factor, width=width, height=height, face=face
        )


@dataclass(frozen=True)
class FaceInputs:
    """portrait_latent: 1 c h w and warped: f c h w (or 1), unscaled; motion: the head motion in pixels of the crops."""

    portrait_latent: Tensor
    warped: FrameArray
    motion: HeadMotion


def head_points(
    model: PortraitModel,
    image: Tensor,
    motion: HeadMotion | FrameArray,
    progress: Progress | None = None,
    expression: Tensor | None = None,
    face: PortraitFace | None = None,
) -> HeadPoints:
    """The head keypoints of portrait and frames, see `warped_latents`. image: 3 h w in [-1, 1], motion: of its aspect.

    expression: f 68, a track, and face: the portrait's, None: found here; for models that warp portraits to it.
    """
    width, height = image.shape[-1], image.shape[-2]
    targets = target_keypoints(motion, width, height, progress)
    expressive = model.config.face_crop.expression_warp
    if expressive:
        face = face or _portrait_face(model, image)
    # A face that was read has its keypoints already, from a closer look than the analyser's.
    source = portrait_keypoints(None if face else model.face_analyzer, image, motion)
    if source is None and face is not None:
        source = face.keypoints
    if source is None:
        LOG.warning("the portrait's head keypoints are not known: those of the motion's first frame stand in for them")
        source = targets[0]
    if not expressive:
        return HeadPoints(source, targets, width, height)
    if face is None:
        LOG.warning("the portrait's landmarks are not known: it is warped to the head motion alone")
        return HeadPoints(source, targets, width, height)
    face = replace(face, keypoints=source)
    basis, painted = load_expression_basis(), model.config.face_crop.paint_mouth
    return HeadPoints(source, targets, width, height, face, expression, basis, painted, dense_warp(model))


def dense_warp(model: PortraitModel) -> DenseWarp | None:
    """What corrects the warped portraits of a model, None for models without such a network."""
    network = model.networks.dense_motion
    return None if network is None else DenseWarp(network, model.config.face_crop, model.device)


def face_in_frame(analyzer: FaceTracker | bytes, portrait: Tensor, width: int, height: int) -> PortraitFace:
    """The face of a portrait 3 h w in [-1, 1] in pixels of the frames, to which it is cut and resized."""
    image = fit_portrait(portrait, width, height)
    pixels = ((image + 1) * 127.5).round().clamp(0, 255).byte().movedim(0, 2)
    return read_portrait_face(analyzer, pixels[None].numpy(), reader=load_portrait_reader())


def _portrait_face(model: PortraitModel, image: Tensor) -> PortraitFace | None:
    """What the model's face analyser finds in an image 3 h w in [-1, 1]."""
    if model.face_analyzer is None:
        return None
    try:
        return face_in_frame(model.face_analyzer, image, image.shape[-1], image.shape[-2])
    except PortraitError as error:
        LOG.warning("%s", error)
        return None


@torch.no_grad()
def face_inputs(
    model: PortraitModel,
    encode: Encode,
    image: Tensor,
    motion: HeadMotion | FrameArray,
    fps: float,
    progress: Progress | None = None,
    storage: Storage = IN_MEMORY,
    expression: Tensor | None = None,
    face: PortraitFace | None = None,
) -> FaceInputs:
    """The latents of the portrait's crop and of the crops of the portrait warped to every frame of the motion.

    image: 3 h w in [-1, 1], as large as the frames; encode: n 3 h w in [-1, 1] -> n c h/8 w/8; progress(done, total) may raise
    to stop the work; storage: where the latents go; expression, face: see `head_points`.
    """
    reading, warping = shared(progress, 1, 4)
    config = model.config.face_crop
    points = head_points(model, image, motion, reading, expression, face)
    own, placement = place_face_crops(points.portrait[None].numpy(), config), points.placement(config)

    def encoded(frames: Tensor) -> Tensor:
        index = frames.tolist()
        rows = replace(placement, matrices=placement.matrices[index if len(placement) > 1 else [0] * len(index)])
        return encode(crop_faces_upright(points.warp(image, index), rows)).float().cpu()

    warped = in_chunks(encoded, torch.arange(len(points)), CHUNK, warping, storage)
    keypoints = torch.from_numpy(placement.points(points.frames.double().numpy())).float()
    still = torch.from_numpy(own.points(points.portrait[None].double().numpy())[0]).float()
    moved = HeadMotion(keypoints, config.width, config.height, fps, portrait=still)
    return FaceInputs(encode(crop_faces_upright(image[None], own)).float().cpu(), warped, moved)


def check_expression(expression: Tensor | None, model: PortraitModel, frames: int) -> None:
    """An expression track has a row for every frame, and the model has tokens for it."""
    if expression is None:
        return
    size = model.config.unet.expression_size
    if not size:
        raise PortraitError(f"model {model.config.name!r} reads no expression track: leave the motion out")
    if tuple(expression.shape) != (frames, size) or not np.isfinite(expression.numpy()).all():
        raise PortraitError(
            f"the expression track has shape {tuple(expression.shape)}: {frames} x {size} finite numbers are needed"
        )
