"""The pack's nodes, as the host and the command line list them."""

from __future__ import annotations

from .acceleration import SVPAccelerate
from .compose import SVPComposePortrait, SVPWarpPortrait
from .dataset import SVPPrepareDataset
from .evaluation import SVPEvaluate, SVPStylePlot
from .face_crop import SVPCropFace, SVPPasteBack
from .head_motion import SVPHeadKpsExtract, SVPHeadKpsManual, SVPHeadKpsRender, SVPHeadKpsRetarget, SVPLoadFaceAnalyzer
from .host import ComfyExtension, io
from .liveportrait import SVPAnimate, SVPLoadLivePortrait, SVPMotionExtract
from .loaders import SVPApplyAudioEncoder, SVPLoadAudioEncoder, SVPLoadModel, SVPLoadStyleLayer, SVPSaveStyleLayer
from .motion import SVPMotionLoad, SVPMotionMix, SVPMotionPlot, SVPMotionSave, SVPMotionToHeadKps
from .motion_edit import SVPMotionEdit, SVPMotionExpression
from .motion_generate import SVPLoadMotionGenerator, SVPMotionGenerate
from .motion_style import (
    SVPMotionEmotion,
    SVPMotionStyle,
    SVPMotionStyleLoad,
    SVPMotionStyleMix,
    SVPMotionStyleSave,
)
from .sampler import SVPSampler
from .style import SVPStyleExtract, SVPStyleInterpolate, SVPStyleLoad, SVPStyleSample, SVPStyleSave
from .style_emotion import SVPEmotion
from .style_predict import SVPStylePredict
from .training import SVPTrainStage, SVPTrainStyleExtractor
from .video import SVPLoadVideo, SVPMedianFilter, SVPVideoCombine

NODE_CLASSES: list[type[io.ComfyNode]] = [
    SVPLoadModel,
    SVPStyleExtract,
    SVPStyleSample,
    SVPStyleInterpolate,
    SVPStyleSave,
    SVPStyleLoad,
    SVPHeadKpsExtract,
    SVPHeadKpsRetarget,
    SVPHeadKpsManual,
    SVPHeadKpsRender,
    SVPSampler,
    SVPVideoCombine,
    SVPLoadAudioEncoder,
    SVPApplyAudioEncoder,
    SVPLoadStyleLayer,
    SVPSaveStyleLayer,
    SVPLoadFaceAnalyzer,
    SVPMedianFilter,
    SVPPrepareDataset,
    SVPTrainStyleExtractor,
    SVPTrainStage,
    SVPCropFace,
    SVPPasteBack,
    SVPLoadVideo,
    SVPLoadLivePortrait,
    SVPMotionExtract,
    SVPAnimate,
    SVPMotionStyle,
    SVPMotionEmotion,
    SVPMotionStyleMix,
    SVPMotionStyleSave,
    SVPMotionStyleLoad,
    SVPLoadMotionGenerator,
    SVPMotionGenerate,
    SVPMotionEdit,
    SVPMotionExpression,
    SVPMotionMix,
    SVPMotionSave,
    SVPMotionLoad,
    SVPMotionPlot,
    SVPMotionToHeadKps,
    SVPEvaluate,
    SVPStylePlot,
    SVPComposePortrait,
    SVPWarpPortrait,
    SVPAccelerate,
    SVPStylePredict,
    SVPEmotion,
]


class PortraitExtension(ComfyExtension):
    """Lists the nodes for the host."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODE_CLASSES
