"""Batches for the training on upright crops, made on the device of the frames: windows, warped portraits, keypoints, colours."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from ..config import FaceCropConfig, ModelConfig
from ..errors import PortraitError
from ..face.compose import border_mask, place_face_crops
from ..face.expression_warp import Correct, ExpressionBasis, face_points, moved_points, warp_expression
from ..face.keypoints import draw_head_batch
from ..face.mouth_interior import paint_mouths
from ..face.warp import warp_batch
from .face_config import Augmentation, Regions
from .face_frames import FaceFrames

MOUTH = slice(48, 68)  # of 68 landmarks
EYES_AND_BROWS = (*range(17, 27), *range(36, 48))

Batch = dict[str, Tensor]


class FaceBatches:
    """frames: on the device on which batches are made. styles: mean and standard deviation of every clip's style, c 2 d, or None.
    basis: for models whose portraits are warped to the expression too; dense: what corrects that warp."""

    def __init__(
        self, frames: FaceFrames, model: ModelConfig, config: Augmentation, styles: Tensor | None = None,
        basis: ExpressionBasis | None = None, dense: Correct | None = None,
    ):  # fmt: skip
        self.frames, self.model, self.config, self.styles = frames, model, config, styles
        self.basis = basis if model.face_crop.expression_warp else None
        self.dense = dense
        self.device = frames.crops.device
        self.of_person = len(frames) // len(frames.person.unique())  # clips
        order = frames.emotion.argsort(stable=True)
        counts = torch.bincount(frames.emotion)
        self._by_emotion = order, counts.cumsum(0) - counts, counts
        placement = place_face_crops(frames.portrait_keypoints.flatten(0, 1).cpu().numpy(), _whole_pixels(model))
        corners = -torch.from_numpy(placement.matrices[:, :, 2]).round().long()
        self._portrait_corners = corners.unflatten(0, frames.portraits.shape[:2]).to(self.device)  # c p 2

    def images(self, count: int, generator: torch.Generator) -> Batch:
        """Crops alone: target n 3 H W in [-1, 1], landmarks n 68 2 in their pixels."""
        clip, frame = self._clips(count, generator), self._frames(count, 1, generator)[:, 0]
        offset = self._offsets(count, generator)
        target = self._color(self._windows(clip, frame, offset), generator, count)
        corner = self.frames.corners[clip, frame] + offset
        return {"target": target, "landmarks": self.frames.landmarks[clip, frame] - corner[:, None]}

    def clips(self, count: int, length: int, generator: torch.Generator, expression: Tensor | None = None) -> Batch:
        """count clips b with `length` frames f each: target and warped b f 3 H W, portrait b 3 H W, all in [-1, 1]; kps b f 3 H W
        in [0, 1]; audio b f w F; controls b f 68; style b d, where there are styles; landmarks b f 68 2 in pixels of the crops.

        expression: count, whether a sample has its expression track, without which its portrait is warped to the head alone;
        None: all have it.
        """
        data, config = self.frames, self.config
        clip, frame = self._clips(count, generator), self._frames(count, length, generator)
        many = clip[:, None].expand(-1, length)  # b f
        source, chosen = self._portraits(clip, generator)
        offset = self._offsets(count, generator)[:, None].expand(-1, length, -1)
        corner = data.corners[many, frame] + offset  # b f 2
        size = data.portraits.shape[2]
        bias = config.keypoint_bias * size * self._normal((count, 1, 8, 2), generator)
        jitter = config.keypoint_jitter * size
        keypoints = data.keypoints[many, frame] + bias + jitter * self._normal((count, length, 8, 2), generator)
        own = data.portrait_keypoints[source, chosen] + bias[:, 0] + jitter * self._normal((count, 8, 2), generator)
        portrait = data.portraits[source, chosen].movedim(3, 1).float() / 127.5 - 1  # b 3 S S
        crop = self.model.face_crop
        warped = self._warped(portrait, own, keypoints, (source, chosen), (many, frame), corner, expression, generator)
        still = warp_batch(portrait, own, own, self._portrait_corners[source, chosen], (crop.width, crop.height))
        target = self._windows(many.flatten(), frame.flatten(), offset.flatten(0, 1))
        together = torch.cat([part.unflatten(0, (count, -1)) for part in (target, warped, still)], 1)  # b 2f+1 3 H W
        together = self._color(together.flatten(0, 1), generator, count).unflatten(0, (count, -1))
        target, warped, still = together.split([length, length, 1], 1)
        drawn = draw_head_batch((keypoints - corner[:, :, None]).flatten(0, 1), crop.width, crop.height)
        batch = {
            "target": target,
            "warped": warped,
            "portrait": still[:, 0],
            "kps": drawn.unflatten(0, (count, length)),
            "audio": self._audio(many, frame),
            "controls": data.controls[many, frame],
            "landmarks": data.landmarks[many, frame] - corner[:, :, None],
        }
        if self.styles is not None:
            mean, deviation = self.styles[self._style_clips(clip, generator)].unbind(1)
            batch["style"] = mean + deviation * self._normal(tuple(mean.shape), generator)
        return batch

    def wholes(self, count: int, generator: torch.Generator) -> Batch:
        """Pairs of whole frames of a person: portrait and target n 3 S S in [-1, 1]; what moves one to the other, all in their
        pixels: sources and targets n 8 2, points and moved n 70 2; landmarks n 68 2 of the target."""
        data, config = self.frames, self.config
        if self.basis is None:
            raise PortraitError("whole frames are warped to an expression: set face_crop.expression_warp of the model")
        clip = self._clips(count, generator)
        source, chosen = self._portraits(clip, generator)
        wanted = torch.randint(data.portraits.shape[1], (count,), generator=generator).to(self.device)
        size = data.portraits.shape[2]
        bias = config.keypoint_bias * size * self._normal((count, 8, 2), generator)
        sources, targets = data.portrait_keypoints[source, chosen] + bias, data.portrait_keypoints[clip, wanted] + bias
        row, frame = data.portrait_frames[source, chosen], data.portrait_frames[clip, wanted]
        error = config.keypoint_bias * size * self._normal((count, 68, 2), generator)
        points = face_points(data.landmarks[source, row] + error, sources)
        tracks = data.controls[source, row], data.controls[clip, frame]
        pair = torch.stack([data.portraits[source, chosen], data.portraits[clip, wanted]], 1)  # n 2 S S 3
        pair = self._color(pair.flatten(0, 1).movedim(3, 1).float() / 127.5 - 1, generator, count)
        portrait, target = pair.unflatten(0, (count, 2)).unbind(1)
        return {
            "portrait": portrait,
            "target": target,
            "sources": sources,
            "targets": targets,
            "points": points,
            "moved": moved_points(self.basis, points, sources, targets, *tracks),
            "landmarks": data.landmarks[clip, frame],
        }

    def _warped(
        self,
        portrait: Tensor,
        own: Tensor,
        keypoints: Tensor,
        source: tuple[Tensor, Tensor],
        target: tuple[Tensor, Tensor],
        corner: Tensor,
        expression: Tensor | None,
        generator: torch.Generator,
    ) -> Tensor:
        """Portraits b 3 S S warped to keypoints b f 8 2, and to the expression where that is known: windows (b f) 3 H W."""
        data, crop, length = self.frames, self.model.face_crop, keypoints.shape[1]
        size, flat = (crop.width, crop.height), keypoints.flatten(0, 1)
        images, sources, corners = (
            portrait.repeat_interleave(length, 0),
            own.repeat_interleave(length, 0),
            corner.flatten(0, 1),
        )
        if self.basis is None:
            return warp_batch(images, sources, flat, corners, size)
        clip, row = source[0], data.portrait_frames[source]
        error = self.config.keypoint_bias * data.portraits.shape[2] * self._normal((len(portrait), 68, 2), generator)
        points = face_points(data.landmarks[clip, row] + error, own).repeat_interleave(length, 0)
        own_track, track = data.controls[clip, row], data.controls[target]  # b 68, b f 68
        if self.config.expression_error:
            own_track = own_track + self.config.expression_error * self._normal(tuple(own_track.shape), generator)
        if expression is not None:
            track = torch.where(expression[:, None, None] > 0, track, own_track[:, None])
        own_track = own_track[:, None].expand_as(track)
        tracks = own_track.flatten(0, 1), track.flatten(0, 1)
        moved = moved_points(self.basis, points, sources, flat, *tracks)
        with torch.no_grad():
            found = warp_expression(images, sources, flat, points, moved, corners, size, self.dense)
        return paint_mouths(found, points, moved - corners[:, None]) if crop.paint_mouth else found

    def _clips(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(len(self.frames), (count,), generator=generator).to(self.device)

    def _frames(self, count: int, length: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.frames.length, (count, length), generator=generator).to(self.device)

    def _offsets(self, count: int, generator: torch.Generator) -> Tensor:
        """Left and top of random windows in the stored crops, n 2."""
        height, width = self.frames.crops.shape[2:4]
        crop = self.model.face_crop
        spare = torch.tensor([width - crop.width + 1, height - crop.height + 1])
        return (torch.rand(count, 2, generator=generator) * spare).long().to(self.device)

    def _windows(self, clip: Tensor, frame: Tensor, offset: Tensor) -> Tensor:
        """n 3 H W in [-1, 1]"""
        crop = self.model.face_crop
        rows = offset[:, 1:] + torch.arange(crop.height, device=self.device)  # n H
        columns = offset[:, :1] + torch.arange(crop.width, device=self.device)
        pixels = self.frames.crops[clip[:, None, None], frame[:, None, None], rows[:, :, None], columns[:, None]]
        return pixels.movedim(3, 1).float() / 127.5 - 1

    def _portraits(self, clip: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The clip and the number in it of a portrait of the same person."""
        data, own = self.frames, self.of_person
        other = clip - clip % own + torch.randint(own, clip.shape, generator=generator).to(clip)
        elsewhere = torch.rand(len(clip), generator=generator).to(self.device) < self.config.other_clip_prob
        chosen = torch.randint(data.portraits.shape[1], clip.shape, generator=generator).to(clip)
        return torch.where(elsewhere, other, clip), chosen

    def _audio(self, clip: Tensor, frame: Tensor) -> Tensor:
        """The rows around frames b f, zero outside of the clip: b f w F."""
        window = self.model.audio.window
        rows = frame[:, :, None] + torch.arange(window, device=self.device) - (window - 1) // 2  # b f w
        inside = (rows >= 0) & (rows < self.frames.length)
        found = self.frames.audio[clip[:, :, None], rows.clamp(0, self.frames.length - 1)].float()
        return found * inside[..., None]

    def _style_clips(self, clip: Tensor, generator: torch.Generator) -> Tensor:
        """For every clip itself or one of anybody with the same emotion."""
        order, starts, counts = self._by_emotion
        emotion = self.frames.emotion[clip]
        share = torch.rand(len(clip), generator=generator).to(self.device)
        found = order[starts[emotion] + (share * counts[emotion]).long()]
        other = torch.rand(len(clip), generator=generator).to(self.device) < self.config.other_style_prob
        return torch.where(other, found, clip)

    def _color(self, images: Tensor, generator: torch.Generator, count: int) -> Tensor:
        """Gains and gamma at random, the same for all images of one of `count` samples."""
        config = self.config
        changed = torch.rand(count, 1, 1, 1, generator=generator) < config.color_prob
        gains = (config.color * torch.randn(count, 3, 1, 1, generator=generator)).exp()
        gamma = (config.color * torch.randn(count, 1, 1, 1, generator=generator)).exp()
        ones = torch.ones(())
        each = len(images) // count
        gains, gamma = (
            torch.where(changed, value, ones).to(self.device).repeat_interleave(each, 0) for value in (gains, gamma)
        )
        shown = ((images + 1) / 2).clamp(0, 1)
        return 2 * (shown.pow(gamma) * gains).clamp(0, 1) - 1

    def _normal(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator).to(self.device)


def _whole_pixels(model: ModelConfig) -> FaceCropConfig:
    return replace(model.face_crop, smoothing=0, snap_scale=1.0, snap_angle=180.0)


def region_weight(landmarks: Tensor, width: int, height: int, cell: int, regions: Regions) -> Tensor:
    """1 everywhere, more in the boxes of mouth and eyes: landmarks n 68 2 in pixels of crops of width x height -> n 1 h w, a
    value for every `cell` pixels."""
    centres = [(torch.arange(count // cell, device=landmarks.device) + 0.5) * cell for count in (width, height)]
    weight = torch.ones(())
    parts = [(landmarks[:, MOUTH], regions.mouth), (landmarks[:, list(EYES_AND_BROWS)], regions.eyes)]
    for points, extra in parts:
        low, high = points.amin(1) - regions.margin, points.amax(1) + regions.margin  # n 2
        across, down = (
            ((centre >= low[:, axis, None]) & (centre <= high[:, axis, None])).float()
            for axis, centre in enumerate(centres)
        )
        weight = weight.to(across) + extra * down[:, None, :, None] * across[:, None, None]
    return weight


def inner_weight(width: int, height: int, cell: int, feather: float) -> Tensor:
    """0 at the border of a crop, where the portrait is kept anyway, 1 inside: 1 1 h w."""
    return functional.avg_pool2d(border_mask(width, height, feather), cell)
