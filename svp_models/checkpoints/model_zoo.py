"""Model zoo: the published weight files that the pack can use (names, folders, sizes, licences) and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import PortraitError

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class WeightFile:
    """A published file. bytes, sha256: None if not known for certain; remote: its path in the repository if that is not its name;
    url: where it is if not in the repository."""

    name: str
    bytes: int | None = None
    sha256: str | None = None
    remote: str = ""
    url: str = ""


@dataclass(frozen=True)
class Entry:
    """Files that belong together. folder: below a models folder; licence: of the weights, None if their authors state none;
    repository: on Hugging Face, None if there is none; page: for a download by hand; enables: what they are needed for."""

    name: str
    files: tuple[WeightFile, ...]
    folder: str
    licence: str | None
    repository: str | None
    enables: str
    page: str = ""

    @property
    def source(self) -> str:
        """The page to download from by hand."""
        return self.page or f"{HUB}/{self.repository}"

    @property
    def bytes(self) -> int | None:
        """Size of all files together; None if one of them is not known."""
        sizes = [file.bytes for file in self.files if file.bytes is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None


RESEARCH = "non-commercial research only"

ZOO = (
    Entry(
        "sd15",
        (
            WeightFile(
                "v1-5-pruned-emaonly.safetensors",
                4265146304,
                "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa",
            ),
        ),
        "checkpoints",
        "CreativeML OpenRAIL-M",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "the start of a training at full size: ReferenceNet, denoiser and VAE",
    ),
    Entry(
        "animatediff-v2",
        (
            WeightFile(
                "mm_sd_v15_v2.ckpt",
                1817888431,
                "69ed0f5fef82b110aca51bcab73b21104242bc65d6ab4b8b2a2a94d31cad1bf0",
            ),
        ),
        "animatediff_models",
        "Apache-2.0",
        "guoyww/animatediff",
        "temporal layers, with one for the mid block, for the start of a training at full size",
    ),
    Entry(
        "animatediff-v3",
        (
            WeightFile(
                "v3_sd15_mm.ckpt",
                1673262583,
                "2412711886f61091846f53204aabc38aa6e09356d62a9808abe4daa802168343",
            ),
        ),
        "animatediff_models",
        "Apache-2.0",
        "guoyww/animatediff",
        "temporal layers, none for the mid block, for the start of a training at full size",
    ),
    Entry(
        "vexpress",
        tuple(
            WeightFile(f"{stem}.bin")
            for stem in ("denoising_unet", "motion_module", "reference_net", "v_kps_guider", "audio_projection")
        ),
        "svp/vexpress",
        RESEARCH,
        "tk93/V-Express",
        "V-Express' trained model; it also needs sd-vae-ft-mse and wav2vec2-base-960h",
    ),
    Entry(
        "sd-vae-ft-mse",
        (
            WeightFile(
                "vae-ft-mse-840000-ema-pruned.safetensors",
                334641190,
                "735e4c3a447a3255760d7f86845f09f937809baa529c17370d83e4c3758f3c75",
            ),
        ),
        "vae",
        "MIT",
        "stabilityai/sd-vae-ft-mse-original",
        "the VAE of models at full size, better at faces than the one in sd15",
    ),
    Entry(
        "whisper-tiny",
        (
            WeightFile("config.json", 1983, "ffdccec4f3211f4c63310f2b7098f309fe70f3952cedc5e4d11e43f5b2379b98"),
            WeightFile(
                "model.safetensors", 151061672, "7ebd0e69e78190ffe1438491fa05cc1f5c1aa3a4c4db3bc1723adbb551ea2395"
            ),
            WeightFile(
                "preprocessor_config.json", 184990, "9b5cd03a36fbb8a627c64d98a5b5b126ead95a77720723944487311f0110b666"
            ),
        ),
        "audio_encoders/whisper-tiny",
        "Apache-2.0",
        "openai/whisper-tiny",
        "the audio features of sd15 models",
    ),
    Entry(
        "wav2vec2-base-960h",
        (
            WeightFile("config.json", 1596, "d3ec255c063d9f95057b553b19c20135b259875834a4fe9deb218a6be25b4cf3"),
            WeightFile(
                "model.safetensors", 377607901, "8aa76ab2243c81747a1f832954586bc566090c83a0ac167df6f31f0fa917d74a"
            ),
            WeightFile(
                "preprocessor_config.json", 159, "b225d617c025463b9e157e06afea8b90dc7078fc70b013c533328423e0486b4a"
            ),
        ),
        "audio_encoders/wav2vec2-base-960h",
        "Apache-2.0",
        "facebook/wav2vec2-base-960h",
        "the audio features of V-Express models",
    ),
    Entry(
        "liveportrait",
        (
            WeightFile(
                "appearance_feature_extractor.safetensors",
                3361936,
                "38bef5de50a92bf1fc66e8c511051a19dfacdf80c37f8713425ec15dc9ca7d34",
            ),
            WeightFile(
                "motion_extractor.safetensors",
                112496256,
                "3568cd410e29d046771acb55ecfdfe4c7c197d345bd8b7f95942ef63130b6c9e",
            ),
            WeightFile(
                "spade_generator.safetensors",
                221771768,
                "ca04fbec765745e9eae836d2d7522c274647b277ce5f25104fa1705b75222212",
            ),
            WeightFile(
                "stitching_retargeting_module.safetensors",
                911836,
                "60725cf3523ae413880da28ed583c9e84c5c25695a0cef1b77210ea31cc424ea",
            ),
            WeightFile(
                "warping_module.safetensors",
                182158564,
                "f7b7834bd6039b4088f72e5161e60ad366f68a3763df8a3eac0bc0f9d46fdbbf",
            ),
        ),
        "liveportrait",
        "MIT",
        "Kijai/LivePortrait_safetensors",
        "rendering photographs from motions (Load LivePortrait, Animate Portrait)",
    ),
    Entry(
        "liveportrait-pth",
        (
            *(
                WeightFile(f"{stem}.pth", remote=f"liveportrait/base_models/{stem}.pth")
                for stem in ("appearance_feature_extractor", "motion_extractor", "spade_generator", "warping_module")
            ),
            WeightFile(
                "stitching_retargeting_module.pth",
                remote="liveportrait/retargeting_models/stitching_retargeting_module.pth",
            ),
        ),
        "liveportrait/pth",
        "MIT",
        "KwaiVGI/LivePortrait",
        "the same as liveportrait, in the original files of its authors",
    ),
    Entry(
        "joyvasa",
        (
            WeightFile(
                "motion_generator_hubert_chinese.pt", remote="motion_generator/motion_generator_hubert_chinese.pt"
            ),
            WeightFile("motion_template.pkl", remote="motion_template/motion_template.pkl"),
        ),
        "joyvasa",
        "MIT",
        "jdh-algo/JoyVASA",
        "motions from a voice (Load Motion Generator); its HuBERT is in the file",
    ),
    Entry(
        "chinese-hubert-base",
        (WeightFile("config.json"), WeightFile("pytorch_model.bin"), WeightFile("preprocessor_config.json")),
        "joyvasa/chinese-hubert-base",
        "MIT",
        "TencentGameMate/chinese-hubert-base",
        "JoyVASA files without an audio encoder of their own; the published one has it",
    ),
    Entry(
        "kdtalker",
        (
            WeightFile("KDTalker.pth", remote="ckpts/KDTalker.pth"),
            WeightFile(
                "wav2lip.pth",
                435807851,
                "b78b681b68ad9fe6c6fb1debc6ff43ad05834a8af8a62ffc4167b7b34ef63c37",
                "ckpts/wav2lip.pth",
            ),
            WeightFile(
                "norm.npz",
                5580,
                "9422e503e75df9d1bd455d8e0f9f5e2826b12956cdedbb5566097c0151bddafb",
                url="https://raw.githubusercontent.com/chaolongy/KDTalker/f78bf4c9c48d5ee639f45249be86977f7ef5a8dd/dataset_process/norm.npz",
            ),
        ),
        "kdtalker",
        RESEARCH,
        "ChaolongYang/KDTalker",
        "motions from a voice (Load Motion Generator), with lively head movements; it also needs liveportrait",
    ),
    Entry(
        "deep3d",
        (WeightFile("epoch_20.pth", 288860037, "6d17a6b23457b521801baae583cb6a58f7238fe6721fc3d65d76407460e9149b"),),
        "svp/deep3d",
        None,
        "vinthony/SadTalker",
        "expression coefficients of real faces (Deep3DFaceRecon), for style priors and their training",
    ),
    Entry(
        "buffalo_l",
        (
            WeightFile("det_10g.onnx", 16923827, "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91"),
            WeightFile("2d106det.onnx", 5030888, "f001b856447c413801ef5c42091ed0cd516fcd21f2d6b79635b1e733a7109dbf"),
            WeightFile("1k3d68.onnx", 143607619, "df5c06b8a0c12e422b2ed8947b8869faa4105387f199c477af038aa01f9a45cc"),
        ),
        "insightface/models/buffalo_l",
        RESEARCH,
        None,
        "tracking of real faces with InsightFace, also several in one image",
        "https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_l.zip",
    ),
    Entry(
        "mediapipe",
        (
            WeightFile(
                "face_landmarker.task", 3758596, "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
            ),
        ),
        "svp/mediapipe",
        "Apache-2.0",
        None,
        "tracking of real faces with MediaPipe",
        "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    ),
    Entry(
        "yunet",
        (
            WeightFile(
                "face_detection_yunet_2023mar.onnx",
                232589,
                "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
            ),
        ),
        "svp/yunet",
        "MIT",
        "opencv/face_detection_yunet",
        "tracking of real faces with OpenCV's YuNet",
    ),
    Entry(
        "syncnet",
        (
            WeightFile(
                "syncnet_v2.model",
                54573114,
                "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
                "auxiliary/syncnet_v2.model",
            ),
        ),
        "svp/evaluation",
        None,
        "ByteDance/LatentSync-1.6",
        "the synchrony figures (offset, confidence) of an evaluation",
    ),
    Entry(
        "inception",
        (
            WeightFile(
                "pt_inception-2015-12-05-6726825d.pth",
                95628359,
                "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            ),
        ),
        "svp/evaluation",
        None,
        None,
        "the FID figure of an evaluation",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    ),
    Entry(
        "i3d",
        (WeightFile("i3d_torchscript.pt", remote="auxiliary/i3d_torchscript.pt"),),
        "svp/evaluation",
        None,
        "ByteDance/LatentSync-1.6",
        "the FVD figure of an evaluation",
    ),
    Entry(
        "lpips",
        (WeightFile("vgg16.pt"),),
        "svp/evaluation",
        None,
        None,
        "the LPIPS figure of an evaluation (TorchScript, VGG)",
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/vgg16.pt",
    ),
)
ENTRIES = {entry.name: entry for entry in ZOO}


def entry_named(name: str) -> Entry:
    """The entry with a name. PortraitError lists the known names."""
    if name not in ENTRIES:
        raise PortraitError(f"there is no entry '{name}' in the model zoo; known are {', '.join(ENTRIES)}")
    return ENTRIES[name]


def file_in(file: WeightFile, folder: str, roots: Sequence[Path | str]) -> Path | None:
    """The first path of a file in the models folders: below `folder`, or directly in one of them."""
    paths = [Path(root) / subfolder / file.name for root in roots for subfolder in (folder, "")]
    return next((path for path in paths if path.is_file()), None)


def locate(name: str, roots: Sequence[Path | str]) -> Path | None:
    """The file of an entry in the models folders, or the folder with all of its files; None if it is not there.

    The search goes through the roots in order, and in each root through the entry's folder and then the root itself.
    """
    entry = entry_named(name)
    for root in roots:
        for folder in (Path(root) / entry.folder, Path(root)):
            if all((folder / file.name).is_file() for file in entry.files):
                return folder / entry.files[0].name if len(entry.files) == 1 else folder
    return None


def missing_file_error(
    name: str, folders: Sequence[Path | str], missing: Sequence[str] = (), models: Path | str | None = None
) -> PortraitError:
    """The error for an entry that is not in `folders`: missing files, their folder, and how to get them.

    missing: names of the missing files, all of the entry's if empty. models: the models folder in the download command, None
    for `models` in the working folder.
    """
    entry = entry_named(name)
    files = ", ".join(missing or [file.name for file in entry.files])
    searched = ", ".join(str(folder) for folder in folders) or "no folder"
    option = f' --models "{models}"' if models else ""
    command = f"run `svp download {name}{option}` or " if entry.repository else ""
    by_hand = "download and unpack" if entry.source.endswith(".zip") else "download from"
    return PortraitError(
        f"{files} not found in {searched}: {command}{by_hand} {entry.source} ({size_text(entry.bytes)}, licence: "
        f"{entry.licence or 'not stated'}) into {models or 'models'}/{entry.folder}; it is needed for {entry.enables}"
    )


def size_text(count: int | None) -> str:
    """1817888431 -> 1.82 GB"""
    if count is None:
        return "size not known"
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"
