"""A suite: what `svp evaluate SUITE.toml` measures, its clips, and which portrait and style belong to which clip.

name = "mead"
protocol = "style_transfer"          # or reconstruction, or videos
dataset = "data/mead"                # of `svp prepare`; for videos: truth = "folder of true videos"

[[systems]]
name = "SVP"
style = "sampled"                    # for videos: videos = "folder of made videos, named as the true ones"

[networks]
syncnet = "models/svp/evaluation/syncnet_v2.model"
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..data.manifest import SampleEntry, open_manifest
from ..data.schema import BACKENDS
from ..errors import PortraitError
from ..io.strict_config import LARGEST_SEED, Checked, config_from_dict, limited, one_of, shown
from ..synthetic.speakers import SPLITS
from .feature_networks import NetworkFiles
from .figures import RECONSTRUCTION, STYLE_TRANSFER, VIDEOS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FIGURES_VERSION = 2  # changes with everything that changes a figure
PROTOCOLS = (RECONSTRUCTION, STYLE_TRANSFER, VIDEOS)
STYLES = ("sampled", "mean", "none", "voice", "face", "other emotion")
NEAREST_CLIP = "nearest training clip"
BASELINES = ("still portrait", "warped portrait", "VAE alone", "mute voice", NEAREST_CLIP)
TRUTH = "truth"
VIDEO_ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
LANDMARKS_ENDING = ".landmarks.npz"  # beside a video: its landmarks (n 68 2, pixels), instead of a face analyser
NO_FACES = "none"


@dataclass(frozen=True)
class SystemConfig(Checked):
    """A system. videos: folder of its finished videos, in the protocol `videos`; else model: a model file (empty: the built-in
    one), style: one of STYLES, steps and cfg: None for the model's own."""

    name: str = limited(least=1, most=80)
    videos: str = limited("", least=0, most=4096)
    model: str = limited("", least=0, most=4096)
    style: str = one_of("sampled", *STYLES)
    steps: int | None = limited(None, 1, 1000)
    cfg: float | None = limited(None, 0, 100)


@dataclass(frozen=True)
class SuiteConfig(Checked):
    """All that decides the figures. Paths are relative to the suite's file.

    truth: folder of true videos; dataset, split: of prepared shards; clips, frames: at most so many, 0 for all; size: pixels per
    side that all frames are brought to, 0: the truth's (videos) or the model's; face_analyzer: one of BACKENDS, or none;
    tolerance: of 255, up to which true pixels stand still (compressed videos are never quite still); baselines: of BASELINES;
    reencode: H.264 rate factor of made frames before they are measured, 0 measures them as they are.
    """

    name: str = limited(least=1, most=80)
    protocol: str = one_of(VIDEOS, *PROTOCOLS)
    systems: tuple[SystemConfig, ...] = ()
    truth: str = limited("", least=0, most=4096)
    dataset: str = limited("", least=0, most=4096)
    split: str = one_of("test", *SPLITS)
    clips: int = limited(0, 0, 10**6)
    frames: int = limited(0, 0, 10**6)
    size: int = limited(0, 0, 8192)
    face_analyzer: str = one_of("built-in", *BACKENDS, NO_FACES)
    tolerance: int = limited(0, 0, 255)
    baselines: tuple[str, ...] = one_of(("still portrait", "warped portrait", "VAE alone"), *BASELINES)
    reencode: int = limited(0, 0, 51)
    seed: int = limited(0, 0, LARGEST_SEED)
    networks: NetworkFiles = field(default_factory=NetworkFiles)

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [system.name for system in self.systems]
        taken = {TRUTH, *(self.baselines if self.protocol != VIDEOS else ())}
        wrong = [name for name in names if names.count(name) > 1 or name in taken]
        if wrong:
            raise PortraitError(f"systems has the name {wrong[0]!r} twice: every system needs a name of its own")
        if not names:
            raise PortraitError("systems is empty: name at least one under [[systems]]")
        if self.protocol == VIDEOS:
            lacking = [system.name for system in self.systems if not system.videos]
            if not self.truth or lacking:
                what = f"videos of {lacking[0]!r}" if self.truth else "truth"
                raise PortraitError(f"{what} is missing: the protocol 'videos' needs a folder of videos for it")
        elif not self.dataset:
            raise PortraitError(f"dataset is missing: the protocol {self.protocol!r} needs a folder of prepared shards")

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of the table's rows, in order."""
        own = tuple(system.name for system in self.systems)
        return (*own, TRUTH) if self.protocol == VIDEOS else (*self.baselines, *own, TRUTH)


@dataclass(frozen=True)
class ClipJob:
    """One clip. id: its name, also of its files; videos: system -> path, the true one under TRUTH; keys: of shards' samples: the
    clip, and those that the portrait and the style come from, and one of another emotion (may be the style's own)."""

    id: str
    videos: tuple[tuple[str, str], ...] = ()
    keys: tuple[str, ...] = ()


def read_suite(path: Path) -> SuiteConfig:
    """A suite from a TOML file; PortraitError names what is wrong in it."""
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PortraitError(f"{path}: there is no such file: name a suite (TOML) or demo") from error
    except (ValueError, OSError) as error:  # no TOML, no UTF-8, a folder
        raise PortraitError(f"{path}: not a suite that can be read ({error})") from error
    systems = values.get("systems", [])
    if not isinstance(systems, list):
        raise PortraitError(f"{path}: systems is {shown(systems)}: write [[systems]] for each of them")
    base = path.parent
    values["systems"] = [
        _with_paths(config_from_dict(SystemConfig, system, f"{path}: systems[{number}]"), base, "videos", "model")
        for number, system in enumerate(systems)
    ]
    config = _with_paths(config_from_dict(SuiteConfig, values, f"{path}:"), base, "truth", "dataset")
    return replace(config, networks=_with_paths(config.networks, base, *asdict(config.networks)))


def _with_paths(config: Any, base: Path, *names: str) -> Any:
    """The config with the paths of these names taken from `base` on; empty ones stay empty."""
    return replace(config, **{name: str(base / getattr(config, name)) for name in names if getattr(config, name)})


def list_jobs(config: SuiteConfig) -> list[ClipJob]:
    """The clips of a suite in the order of their names; at most config.clips of them, spread evenly."""
    jobs = _video_jobs(config) if config.protocol == VIDEOS else _shard_jobs(config)
    if config.clips and config.clips < len(jobs):
        jobs = [jobs[index * len(jobs) // config.clips] for index in range(config.clips)]
    return jobs


def _video_jobs(config: SuiteConfig) -> list[ClipJob]:
    true = videos_in(Path(config.truth))
    made = {system.name: videos_in(Path(system.videos)) for system in config.systems}
    for name, videos in made.items():
        if not set(videos) & set(true):
            raise PortraitError(
                f"{config.truth} has {len(true)} videos, those of {name!r} {len(videos)}, and no name is in both: give a made "
                "video the name of the true one"
            )
    return [
        ClipJob(
            stem,
            ((TRUTH, str(path)), *((name, str(videos[stem])) for name, videos in made.items() if stem in videos)),
        )
        for stem, path in sorted(true.items())
        if any(stem in videos for videos in made.values())
    ]


def videos_in(folder: Path) -> dict[str, Path]:
    """The videos of a folder and those below it, by their paths without the ending."""
    if not folder.is_dir():
        raise PortraitError(f"{folder}: there is no such folder")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_ENDINGS and path.is_file())
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(found)}


def _shard_jobs(config: SuiteConfig) -> list[ClipJob]:
    samples = [entry for _, entry in open_manifest(config.dataset).samples(config.split)]
    if not samples:
        raise PortraitError(f"{config.dataset}: the split {config.split!r} has 0 clips: choose another one")
    pair = style_pair if config.protocol == STYLE_TRANSFER else reconstruction_pair
    jobs = []
    for entry in sorted(samples, key=lambda entry: entry.key):
        chosen = pair(entry, samples, config.seed)
        jobs.append(ClipJob(entry.key, keys=(entry.key, *(other.key for other in chosen))))
    return jobs


def reconstruction_pair(clip: SampleEntry, samples: Sequence[SampleEntry], seed: int) -> tuple[SampleEntry, ...]:
    """Portrait, style and other emotion of a reconstructed clip: its own first frame, and another clip of the person with the
    emotion (its own where there is none)."""
    own = [entry for entry in samples if entry.identity == clip.identity and entry.key != clip.key]
    alike = [entry for entry in own if entry.emotion == clip.emotion]
    other = [entry for entry in own if entry.emotion != clip.emotion]
    return clip, _picked(alike, clip, seed) or clip, _picked(other, clip, seed) or clip


def style_pair(clip: SampleEntry, samples: Sequence[SampleEntry], seed: int) -> tuple[SampleEntry, ...]:
    """Portrait, style and other emotion of a style transfer: the portrait is of the person in another emotion (a sad clip from a
    happy portrait), the style of somebody else with the clip's emotion; where nobody is, of the person itself."""
    own = [entry for entry in samples if entry.identity == clip.identity and entry.key != clip.key]
    strangers = [entry for entry in samples if entry.identity != clip.identity and entry.emotion == clip.emotion]
    moody = [entry for entry in own if entry.emotion != clip.emotion]
    alike = [entry for entry in own if entry.emotion == clip.emotion]
    style = _picked(strangers, clip, seed) or _picked(alike, clip, seed) or clip
    others = [entry for entry in samples if entry.identity == style.identity and entry.emotion != clip.emotion]
    return _picked(moody or own, clip, seed) or clip, style, _picked(others, clip, seed) or style


def _picked(entries: Sequence[SampleEntry], clip: SampleEntry, seed: int) -> SampleEntry | None:
    """One of the entries by a hash, which does not depend on their order or number of clips; None of none."""

    def order(entry: SampleEntry) -> bytes:
        return blake2b(f"{seed} {clip.key} {entry.key}".encode()).digest()

    return min(entries, key=order, default=None)


def job_key(config: SuiteConfig, job: ClipJob) -> str:
    """What a finished clip's figures depend on: of another key they are measured again."""
    values = asdict(replace(config, name="-", clips=0))
    files = [path for _, path in job.videos] + [system.model for system in config.systems if system.model]
    files += [path for path in asdict(config.networks).values() if path]
    stamps = {
        path: (Path(path).stat().st_size, Path(path).stat().st_mtime_ns) for path in files if Path(path).is_file()
    }
    text = json.dumps([FIGURES_VERSION, values, asdict(job), stamps], sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()
