"""All figures of one clip: made frames against true ones, read a few at a time, so that memory does not grow with the clip.

Nothing here depends on how many frames are read at once: what is summed up is per frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..errors import PortraitError
from ..face.detection import FaceTrack
from ..io.resampling import interpolate_missing
from ..media.audio import to_mono
from ..types import Audio
from .feature_networks import WINDOW, FeatureNetworks, syncnet_boxes, syncnet_face
from .metrics import frames as pixels
from .metrics import landmarks as points
from .metrics import series, style, sync

CHUNK = 16  # frames in memory at a time, of either clip
NO_LANDMARKS = "the face analyser detects no 68 landmarks"
NO_POSE = "the face analyser detects no angles of the head"
NO_FACE = "no face was found in made and true frames alike"
STILL_LIDS = "the lids of the true clip hardly move"
# Standard deviation of the eye aspect ratio: below that a correlation compares the errors of landmarks.
LEAST_LID_MOVEMENT = 0.02
NO_NETWORKS = FeatureNetworks()
FRAMES_OF_A_LAG = 6  # lags up to a sixth of the clip are tried: beyond, too little is left to compare


@dataclass(frozen=True)
class ClipFigures:
    """What one clip says. figures: name -> value, see `figures.FIGURES`; series: name -> one value a frame; features: of
    networks, name -> n x d; missing: figure -> why it is not there."""

    figures: dict[str, float] = field(default_factory=dict)
    series: dict[str, list[float]] = field(default_factory=dict)
    features: dict[str, np.ndarray] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass
class PixelSums:
    """Per-frame values of a clip that is read in parts: error, structure and sharpness by region, changes, colours."""

    tolerance: int
    values: dict[str, list[np.ndarray]] = field(default_factory=dict)
    tail: tuple[np.ndarray, np.ndarray] | None = None  # the last two frames of either clip

    def add(self, made: np.ndarray, true: np.ndarray, landmarks: np.ndarray | None) -> None:
        """made, true: n h w 3; landmarks: the true ones, n 68 2 (NaN: no face), or None."""
        if made.shape != true.shape:
            raise PortraitError(
                f"made frames are {made.shape[2]} x {made.shape[1]}, true ones {true.shape[2]} x {true.shape[1]}: bring them to "
                "one size"
            )
        known = None if landmarks is None else np.nan_to_num(landmarks, nan=-1e6)
        masks = {} if known is None else pixels.region_masks(known, made.shape[1], made.shape[2])
        maps = pixels.ssim_maps(made, true)
        edge = pixels.SSIM_WINDOW // 2
        inner = maps[:, edge:-edge, edge:-edge] if min(maps.shape[1:]) > 2 * edge else maps
        self._keep("ssim", inner.mean((1, 2), dtype=np.float64))
        errors, edges = pixels.error_maps(made, true), [pixels.laplacian(frames) for frames in (made, true)]
        for prefix, mask in [("", None), *((f"{name}_", mask) for name, mask in masks.items())]:
            self._keep(f"{prefix}error", pixels.masked_means(errors, mask))
            self._keep(f"{prefix}made_edges", pixels.variances(edges[0], mask))
            self._keep(f"{prefix}true_edges", pixels.variances(edges[1], mask))
            if mask is not None:
                self._keep(f"{prefix}ssim", pixels.masked_means(maps, mask))
        self._keep("made_colours", pixels.mean_colours(made))
        self._keep("true_colours", pixels.mean_colours(true))
        self._add_changes(made, true)

    def _add_changes(self, made: np.ndarray, true: np.ndarray) -> None:
        before = self.tail or (made[:0], true[:0])
        made, true = (np.concatenate(pair) for pair in zip(before, (made, true), strict=True))
        new = slice(max(0, len(before[0]) - 1), None)  # the first change between old frames is known already
        changes, counts = pixels.still_changes(made, true, self.tolerance)
        self._keep("changes", changes[new])
        self._keep("still", counts[new])
        self._keep("roughness", pixels.frame_roughness(made)[1:-1])
        self.tail = made[-2:].copy(), true[-2:].copy()

    def _keep(self, name: str, value: np.ndarray) -> None:
        self.values.setdefault(name, []).append(value)

    def all(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate(parts) for name, parts in self.values.items()}


def measure_clip(
    made: Iterable[np.ndarray],
    true: Iterable[np.ndarray],
    made_track: FaceTrack | None,
    true_track: FaceTrack | None,
    fps: float,
    audio: Audio | None = None,
    networks: FeatureNetworks = NO_NETWORKS,
    joins: Sequence[int] = (),
    tolerance: int = 0,
    portrait: np.ndarray | None = None,
) -> ClipFigures:
    """Figures of made frames against true ones, both h w 3 uint8 of one size and frame rate; the longer clip is cut.

    made_track, true_track: the faces in them, None leaves out what needs them; true landmarks give the regions. audio: what the
    face says. joins: first frames of the windows the clip was made in. tolerance: of 255, up to which true pixels stand still.
    portrait: embedding of the portrait, for the identity.
    """
    sums = PixelSums(tolerance)
    collected: dict[str, list[np.ndarray]] = {}
    landmarks = None if true_track is None else known_landmarks(true_track)
    sound = None if audio is None else to_mono(audio, sync.SAMPLE_RATE).numpy()
    boxes = None
    if networks.syncnet is not None and sound is not None and made_track is not None and made_track.present.any():
        found = filled_landmarks(made_track)
        boxes = None if found is None else syncnet_boxes(found)
    start = 0
    for some, others in paired_chunks(made, true):
        part = slice(start, start + len(some))
        sums.add(some, others, None if landmarks is None else landmarks[part])
        _collect(collected, networks, some, others, None if boxes is None else boxes[part])
        if networks.embedding is not None and made_track is not None and portrait is not None:
            here = made_track.present[part]
            rows = networks.embeddings(some[here], made_track.five_points[part][here]) if here.any() else None
            if rows is not None:
                collected.setdefault("embedding", []).append(rows)
        start += len(some)
    if not start:
        raise PortraitError("there are 0 frames to measure: at least one made frame with a true one is needed")
    result = ClipFigures(missing=dict(networks.missing))
    _pixel_figures(result, sums.all(), joins, start)
    tracks = [None if track is None else _first(track, start) for track in (made_track, true_track)]
    _face_figures(result, tracks[0], tracks[1], fps, sound)
    _network_figures(result, collected, networks, sound, fps, portrait)
    return replace(result, figures={key: value for key, value in result.figures.items() if np.isfinite(value)})


def paired_chunks(made: Iterable[np.ndarray], true: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Up to CHUNK frames of both clips at a time, until the shorter one ends."""
    some, others = [], []
    for one, other in zip(made, true, strict=False):  # one of the clips may be longer
        some.append(one)
        others.append(other)
        if len(some) == CHUNK:
            yield np.stack(some), np.stack(others)
            some, others = [], []
    if some:
        yield np.stack(some), np.stack(others)


def known_landmarks(track: FaceTrack) -> np.ndarray | None:
    """n 68 2, NaN where no face is; None where the analyser detects none."""
    if track.landmarks is None:
        return None
    return np.where(track.present[:, None, None], track.landmarks.astype(np.float64), np.nan)


def filled_landmarks(track: FaceTrack) -> np.ndarray | None:
    """n 68 2, filled in between neighbours where no face is; None without any landmarks."""
    if track.landmarks is None or not track.present.any():
        return None
    return interpolate_missing(track.landmarks.astype(np.float64), track.present)[0]


def _first(track: FaceTrack, count: int) -> FaceTrack:
    rows: dict[str, Any] = {name: value[:count] for name, value in vars(track).items() if isinstance(value, np.ndarray)}
    return replace(track, **rows)


def _collect(
    collected: dict[str, list[np.ndarray]],
    networks: FeatureNetworks,
    made: np.ndarray,
    true: np.ndarray,
    boxes: np.ndarray | None,
) -> None:
    if networks.inception is not None:
        collected.setdefault("inception", []).append(networks.inception_features(made))
    if networks.i3d is not None:
        assert CHUNK % WINDOW == 0
        if len(made) >= WINDOW:
            collected.setdefault("i3d", []).append(networks.i3d_features(made))
    if networks.lpips is not None:
        collected.setdefault("lpips", []).append(networks.lpips_distances(made, true))
    if boxes is not None:
        faces = [syncnet_face(frame, box) for frame, box in zip(made, boxes, strict=True)]
        collected.setdefault("faces", []).append(np.stack(faces))


def _pixel_figures(result: ClipFigures, values: dict[str, np.ndarray], joins: Sequence[int], frames: int) -> None:
    figures = result.figures
    for prefix in ("", "mouth_", "eyes_", "brows_", "rest_"):
        if f"{prefix}error" in values:
            figures[f"{prefix}psnr"] = pixels.psnr_of_errors(values[f"{prefix}error"])
            inside = values[f"{prefix}ssim"]
            figures[f"{prefix}ssim"] = float(np.nanmean(inside)) if np.isfinite(inside).any() else float("nan")
            edges = values[f"{prefix}made_edges"], values[f"{prefix}true_edges"]
            figures[f"{prefix}sharpness"] = pixels.sharpness(*edges)
    still = int(values["still"].sum())
    if still:
        figures["still_flicker"] = float(values["changes"].sum() / still)
    else:
        result.missing["still_flicker"] = "nothing stands still in the true frames"
    figures["colour_drift"] = pixels.colour_drift(values["made_colours"], values["true_colours"])
    rough = np.zeros(frames)
    rough[1 : 1 + len(values["roughness"])] = values["roughness"]
    result.series["error"] = values["error"].tolist()
    result.series["roughness"] = rough.tolist()
    if joins:
        figures["seams"] = series.seam_ratio(rough, joins)
    else:
        result.missing["seams"] = "where the windows of the clip join is not known"


def _face_figures(
    result: ClipFigures, made: FaceTrack | None, true: FaceTrack | None, fps: float, sound: np.ndarray | None
) -> None:
    figures, lacking = result.figures, result.missing
    if made is None or true is None:
        return
    figures["faces"] = float(made.present.mean())
    both = made.present & true.present
    names = ("f_lmd", "m_lmd", "f_lmd_256", "m_lmd_256", "mouth_corr", "lid_corr", "blink_rate", "jitter", "voice_lag")
    if made.landmarks is None or true.landmarks is None or not both.any():
        lacking |= dict.fromkeys((*names, "voice_corr"), NO_FACE if not both.any() else NO_LANDMARKS)
    else:
        here, there = made.landmarks[both], true.landmarks[both]
        for prefix, which in (("f", None), ("m", points.MOUTH)):
            figures[f"{prefix}_lmd"] = points.landmark_distance(here, there, which)
            figures[f"{prefix}_lmd_256"] = points.landmark_distance_256(here, there, made.width, which)
        full, truth = filled_landmarks(made), filled_landmarks(true)
        assert full is not None and truth is not None
        opening, lids = points.mouth_opening(full), points.lid_opening(full)
        figures["mouth_corr"] = series.correlation(opening, points.mouth_opening(truth))
        true_lids = points.lid_opening(truth)
        if true_lids.std() >= LEAST_LID_MOVEMENT:
            figures["lid_corr"] = series.correlation(lids, true_lids)
        else:
            lacking["lid_corr"] = STILL_LIDS
        figures["blink_rate"] = points.blink_rate(lids, fps)
        figures["jitter"] = series.jitter(full / points.eye_distance(truth).mean())
        result.series.update(mouth=opening.tolist(), lids=lids.tolist())
        drop = points.lower_lip_drop(full)
        if sound is not None and np.ptp(drop):
            energy = sync.speech_energy(sound, len(drop), fps)
            result.series["voice"] = energy.tolist()
            reach = min(sync.SHIFT, len(drop) // FRAMES_OF_A_LAG)
            if reach:
                lag, value = sync.lip_sync(drop, energy, fps, reach)
                figures |= {"voice_lag": float(lag), "voice_corr": value}
            else:
                lacking |= dict.fromkeys(
                    ("voice_lag", "voice_corr"), f"{len(drop)} frames are too few to find a lag in"
                )
    if made.pose is None or not made.present.any():
        lacking |= dict.fromkeys(("pose_diversity", "beat_alignment"), NO_POSE)
        return
    angles = interpolate_missing(made.pose.astype(np.float64), made.present)[0]
    figures["pose_diversity"] = series.pose_diversity(angles)
    if sound is not None:
        beats = series.onsets(sync.speech_energy(sound, len(angles), fps))
        figures["beat_alignment"] = series.beat_alignment(series.motion_beats(angles), beats)


def _network_figures(
    result: ClipFigures,
    collected: dict[str, list[np.ndarray]],
    networks: FeatureNetworks,
    sound: np.ndarray | None,
    fps: float,
    portrait: np.ndarray | None,
) -> None:
    for name in ("inception", "i3d", "embedding"):
        if name in collected:
            result.features[name] = np.concatenate(collected[name])
    if "lpips" in collected:
        result.figures["lpips"] = float(np.concatenate(collected["lpips"]).mean())
    if "embedding" in collected and portrait is not None:
        result.figures["identity"] = style.identity_similarity(np.concatenate(collected["embedding"]), portrait)
    if "faces" not in collected:
        return
    assert networks.syncnet is not None and sound is not None
    faces = np.concatenate(collected["faces"])
    at = np.minimum((np.arange(int(len(faces) / fps * sync.FPS)) + 0.5) / sync.FPS * fps, len(faces) - 1).astype(int)
    crops = torch.from_numpy(faces[at]).movedim(-1, 1)
    offset, confidence = sync.offset_and_confidence(
        sync.sync_distances(*sync.syncnet_features(networks.syncnet, crops, sound))
    )
    result.figures.update(sync_offset=float(offset), sync_confidence=confidence)
