"""The pack's nodes, as the host and the command line list them."""

from __future__ import annotations

from .audio import SVPApplyAudioEncoder, SVPLoadAudioEncoder
from .crop import SVPCropFace, SVPPasteBack
from .dataset import SVPPrepareDataset
from .face import SVPLoadFaceAnalyzer
from .host import ComfyExtension, io
from .load import SVPLoadModel
from .motion import SVPHeadKpsExtract, SVPHeadKpsManual, SVPHeadKpsRender, SVPHeadKpsRetarget
from .sample import SVPSampler
from .style import SVPStyleExtract, SVPStyleInterpolate, SVPStyleSample
from .style_files import SVPStyleLoad, SVPStyleSave
from .style_layer import SVPLoadStyleLayer, SVPSaveStyleLayer
from .train import SVPTrainStage, SVPTrainStyleExtractor
from .video import SVPMedianFilter, SVPVideoCombine
from .video_input import SVPLoadVideo

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
]


class PortraitExtension(ComfyExtension):
    """Lists the nodes for the host."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODE_CLASSES
