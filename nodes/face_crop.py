"""Faces cropped from images and clips of any size, and pasted back."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ..svp_models.errors import PortraitError
from ..svp_models.face.crop import FaceCrop, crop_around, crop_faces, feather_masks, paste_faces
from ..svp_models.face.detection import boxes_from_keypoints
from ..svp_models.face.keypoints import motion_from_track
from ..svp_models.face.tracking import FaceTracker, find_face_boxes, verify_crop
from ..svp_models.io.progress import Progress, shared
from ..svp_models.media.frame_stream import FrameStream
from ..svp_models.types import HeadMotion
from . import host
from .head_motion import landmarks_input, landmarks_track
from .host import folder_paths, io
from .types import ADVANCED, CropSocket, FaceAnalyzerSocket, HeadMotionSocket, SvpModel, open_frames, rgb_images

STILL, MOVING = "still", "follow"
WHAT = "the images"


def feather_input(tooltip: str, advanced: dict[str, bool] | None = None) -> io.Float.Input:
    """The width of the soft edge of a face."""
    return io.Float.Input("feather", default=0.15, min=0.0, max=0.5, step=0.01, extra_dict=advanced, tooltip=tooltip)


def check_points(motion: HeadMotion, clip: FrameStream) -> None:
    """Points of other images raise PortraitError."""
    size, motion_size = (clip.width, clip.height), (motion.width, motion.height)
    if len(motion) not in (1, len(clip)):
        clip = clip.counted()
    if motion_size != size or len(motion) not in (1, len(clip)):
        raise PortraitError(
            f"the points belong to {len(motion)} images of {motion_size[0]} x {motion_size[1]}, there are {len(clip)} of {size[0]} x "
            f"{size[1]}: connect the same images to both nodes, or leave head_motion out"
        )


def find_crop(
    clip: FrameStream,
    margin: float,
    reach: int | None,
    analyzer: FaceTracker | bytes | None,
    points: tuple[HeadMotion, np.ndarray] | None,
    progress: Progress | None,
) -> FaceCrop:
    """The crop of the face in the clip. points: given keypoints and whether each frame shows the face; None: it is detected."""
    if points is not None:
        check_points(points[0], clip)
        boxes = boxes_from_keypoints(points[0].keypoints.numpy())
        return crop_around(boxes, clip.width, clip.height, margin, reach, points[1])
    boxes, present = find_face_boxes(analyzer, clip, WHAT, progress)
    crop = crop_around(boxes, clip.width, clip.height, margin, reach, present)
    verify_crop(analyzer, clip, crop, boxes, WHAT)
    return crop


def given_points(
    head_motion: HeadMotion | None, landmarks: dict[str, Any] | None, face_analyzer: FaceTracker | None
) -> tuple[HeadMotion, np.ndarray] | None:
    """Keypoints of the images and which of them show the face; None: it has to be detected."""
    if head_motion is not None:
        return head_motion, ~np.isin(np.arange(len(head_motion)), head_motion.interpolated)
    if landmarks is None:
        return None
    track = landmarks_track(landmarks, face_analyzer, WHAT)
    return motion_from_track(track, 25.0), track.present


def require_analyzer(model, face_analyzer: FaceTracker | None) -> FaceTracker | bytes | None:
    """The face analyzer; PortraitError without any."""
    if model is None and face_analyzer is None:
        raise PortraitError(
            "the face has to be found: connect Load Face Analyzer, a model that has a face analyser of its own, or the points "
            "of Type Head Keypoints"
        )
    return face_analyzer or model.portrait.face_analyzer


class SVPCropFace(io.ComfyNode):
    """IMAGE -> squares around the face, their masks, and the crop."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPCropFace",
            display_name="Crop Face (SVP)",
            category="SVP Portrait/face",
            description="Finds the face in a picture or clip of any size and cuts out a square around it, as a portrait to animate, "
            "or for a face restorer, detailer or upscaler. Paste Face Back puts the result where it came from.",
            inputs=[
                io.MultiType.Input(
                    "images",
                    types=[io.Image, io.Video],
                    tooltip="A picture, the frames of a clip, or the video of Load Video, upright or wide. A video is read twice, "
                    "frame by frame, so that only the squares are in memory.",
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
                    options=[STILL, MOVING],
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
                landmarks_input(
                    "From Detect Face Landmarks (MediaPipe) on these pictures: for photographs, instead of looking for a face."
                ),
            ],
            outputs=[
                io.Image.Output("faces", tooltip="The squares; beyond the picture its edge is repeated."),
                io.Mask.Output(
                    "mask",
                    tooltip="1 inside, falling to 0 towards the edges, but not at the edges of the picture. All 0 for frames "
                    "without the face.",
                ),
                CropSocket.Output("crop", tooltip="Where the squares were, for Paste Face Back."),
            ],
        )

    @classmethod
    def execute(
        cls, images: Any, margin: float, size: int, square: str, smoothing: int, feather: float,
        model=None, face_analyzer: FaceTracker | None = None, head_motion: HeadMotion | None = None, face_landmarks=None,
    ) -> io.NodeOutput:  # fmt: skip
        clip, points = open_frames(images), given_points(head_motion, face_landmarks, face_analyzer)
        analyzer = require_analyzer(model, face_analyzer) if points is None else None
        detecting, cropping = shared(host.progress(), 4, 1)
        crop = find_crop(clip, margin, smoothing if square == MOVING else None, analyzer, points, detecting)
        faces = crop_faces(clip, crop, size, cropping, folder_paths.get_temp_directory())
        return io.NodeOutput(faces, feather_masks(crop, len(faces), faces.shape[1], feather), crop)


class SVPPasteBack(io.ComfyNode):
    """Faces -> IMAGE of the whole images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPPasteBack",
            display_name="Paste Face Back (SVP)",
            category="SVP Portrait/face",
            description="Uncrop: puts restored, upscaled or talking faces back into the picture or clip that Crop Face cut them out "
            "of, with a soft edge. Everything outside the square stays as it was. A talking face makes a clip of a still picture.",
            inputs=[
                io.MultiType.Input(
                    "images",
                    types=[io.Image, io.Video],
                    tooltip="The whole picture, clip or video that the faces were cut out of, or the same upscaled. One picture "
                    "serves all frames. Frames without the face stay as they are. A minute of 1280 x 720 pixels at 25 fps takes "
                    "17 GB; above 2 GB the frames are put into the temp folder.",
                ),
                io.Image.Input(
                    "faces", tooltip="The faces, square, of any size: one for all pictures, or one for each."
                ),
                CropSocket.Input("crop", tooltip="The positions of the faces, from Crop Face."),
                feather_input(
                    "Share of the square's side over which face and picture blend at its edges; 0 is a hard edge."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Opacity of the faces from 0 to 1, as square as they are; multiplied by the feather.",
                ),
            ],
            outputs=[io.Image.Output("images", tooltip="The whole pictures, in the size of those that came in.")],
        )

    @classmethod
    def execute(cls, images: Any, faces: Tensor, crop, feather: float, mask: Tensor | None = None) -> io.NodeOutput:
        whole = rgb_images(images) if isinstance(images, Tensor) else open_frames(images)
        folder = folder_paths.get_temp_directory()
        return io.NodeOutput(paste_faces(whole, rgb_images(faces), crop, feather, mask, host.progress(), folder))
