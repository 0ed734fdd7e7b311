"""Faces cut out of pictures and clips of any size, and put back where they were."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..svp_models.errors import PortraitError
from ..svp_models.face.closer import find_face
from ..svp_models.face.crop import crop_around, cut_faces
from ..svp_models.face.outline import boxes_of_keypoints
from ..svp_models.face.paste import feather_masks, paste_faces
from ..svp_models.face.tracking import FaceTracker
from ..svp_models.values import HeadMotion
from . import host
from .host import io
from .sockets import CropSocket, FaceAnalyzerSocket, HeadMotionSocket, SvpModel, bytes_from, rgb_from
from .widgets import ADVANCED

STILL, FOLLOW = "still", "follow"


def feather_input(tooltip: str, advanced: dict[str, bool] | None = None) -> io.Float.Input:
    """How wide the soft edge of a face is."""
    return io.Float.Input("feather", default=0.15, min=0.0, max=0.5, step=0.01, extra_dict=advanced, tooltip=tooltip)


def faces_in(images: Tensor, model, face_analyzer: FaceTracker | None, head_motion: HeadMotion | None) -> np.ndarray:
    """Boxes n 4 of the face, from the brows to the chin, in pixels: of the points that are given, or found in the images."""
    if head_motion is not None:
        size, own = (images.shape[2], images.shape[1]), (head_motion.width, head_motion.height)
        if own != size or len(head_motion) not in (1, len(images)):
            raise PortraitError(
                f"the points belong to {len(head_motion)} pictures of {own[0]} x {own[1]}, there are {len(images)} of {size[0]} x "
                f"{size[1]}: connect the same pictures to both nodes, or leave head_motion out"
            )
        return boxes_of_keypoints(head_motion.keypoints.numpy())
    if model is None and face_analyzer is None:
        raise PortraitError(
            "the face has to be found: connect Load Face Analyzer, a model that has a face analyser of its own, or the points "
            "of Type Head Keypoints"
        )
    analyzer = face_analyzer or model.portrait.face_analyzer
    return find_face(analyzer, bytes_from(images), "the pictures", host.progress())


class SVPCropFace(io.ComfyNode):
    """IMAGE -> squares around the face, their mask, and where they were."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPCropFace",
            display_name="Crop Face (SVP)",
            category="SVP Portrait/face",
            description="Finds the face in a picture or clip of any size and cuts out a square around it, as a portrait to animate, "
            "or for a face restorer, detailer or upscaler. Paste Face Back puts the result where it came from.",
            inputs=[
                io.Image.Input(
                    "images", tooltip="A picture or the frames of a clip, upright or wide, one face in view."
                ),
                io.Float.Input(
                    "margin",
                    default=2.0,
                    min=1.1,
                    max=8.0,
                    step=0.05,
                    tooltip="Side of the square as a factor of the face's size, which counts from the brows to the chin. 2 is a "
                    "portrait with hair and neck. The square is not larger than the picture's shorter side unless the face is.",
                ),
                io.Int.Input(
                    "size",
                    default=0,
                    min=0,
                    max=4096,
                    step=8,
                    tooltip="Pixels per side of the cut faces; 0 leaves them as they are in the picture.",
                ),
                io.Combo.Input(
                    "square",
                    options=[STILL, FOLLOW],
                    default=STILL,
                    tooltip="For clips. still: one square that holds the face in all frames. follow: a square for every frame, which "
                    "goes with the face and grows with it.",
                ),
                io.Int.Input(
                    "smoothing",
                    default=12,
                    min=0,
                    max=250,
                    step=1,
                    extra_dict=ADVANCED,
                    tooltip="Of 'follow': place and size of the square are averaged over so many frames before and after; 0 is off.",
                ),
                feather_input(
                    "Of the mask: share of the square's side over which it falls from 1 to 0; 0 is a hard edge.",
                    ADVANCED,
                ),
                SvpModel.Input("model", optional=True, tooltip="Finds a drawn face, if the model has a face analyser."),
                FaceAnalyzerSocket.Input(
                    "face_analyzer",
                    optional=True,
                    tooltip="From Load Face Analyzer: finds the face in photographs, and chooses one of several.",
                ),
                HeadMotionSocket.Input(
                    "head_motion",
                    optional=True,
                    tooltip="The points of these pictures, from Type Head Keypoints or Extract Head Motion, instead of looking for "
                    "a face.",
                ),
            ],
            outputs=[
                io.Image.Output("faces", tooltip="The squares; beyond the picture its edge is repeated."),
                io.Mask.Output("mask", tooltip="1 inside, falling to 0 towards the edges; not at the picture's own."),
                CropSocket.Output("crop", tooltip="Where the squares were, for Paste Face Back."),
            ],
        )

    @classmethod
    def execute(
        cls, images: Tensor, margin: float, size: int, square: str, smoothing: int, feather: float,
        model=None, face_analyzer: FaceTracker | None = None, head_motion: HeadMotion | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        pictures = rgb_from(images)
        boxes = faces_in(pictures, model, face_analyzer, head_motion)
        height, width = pictures.shape[1:3]
        crop = crop_around(boxes, width, height, margin, smoothing if square == FOLLOW else None)
        faces = cut_faces(pictures, crop, size, host.progress())
        return io.NodeOutput(faces, feather_masks(crop, len(faces), faces.shape[1], feather), crop)


class SVPPasteBack(io.ComfyNode):
    """Faces -> IMAGE of the whole."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPPasteBack",
            display_name="Paste Face Back (SVP)",
            category="SVP Portrait/face",
            description="Uncrop: puts restored, upscaled or talking faces back into the picture or clip that Crop Face cut them out "
            "of, with a soft edge. All outside of the square stays as it was. A talking face makes a clip of a still picture.",
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="The whole picture or clip that the faces were cut out of, or the same upscaled. One picture serves all "
                    "frames. A minute of 1280 x 720 pixels at 25 fps takes 17 GB of memory.",
                ),
                io.Image.Input(
                    "faces", tooltip="The faces, square, of any size: one for all pictures, or one for each."
                ),
                CropSocket.Input("crop", tooltip="Where they belong, from Crop Face."),
                feather_input(
                    "Share of the square's side over which face and picture blend at its edges; 0 is a hard edge."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="How much of the faces goes back, from 0 to 1, as square as they are; multiplied with the feather.",
                ),
            ],
            outputs=[io.Image.Output("images", tooltip="The whole pictures, in the size of those that came in.")],
        )

    @classmethod
    def execute(cls, images: Tensor, faces: Tensor, crop, feather: float, mask: Tensor | None = None) -> io.NodeOutput:
        pasted = paste_faces(rgb_from(images), rgb_from(faces), crop, feather, mask, host.progress())
        return io.NodeOutput(pasted)
