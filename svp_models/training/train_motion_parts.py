"""Training of what stands beside the motion generator: style predictor, lip expert, movement detector; and KDTalker's network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.motion_clips import MotionClips
from ..diffusion.noise_schedule import add_noise
from ..motion.built_in import predict_style
from ..motion.flow_matching import logit_normal, noisy_at, target_at
from ..motion.kdtalker import SCHEDULE as KDTALKER_SCHEDULE
from ..networks.motion_experts import LipExpert, MovementDetector
from ..networks.motion_generators.kdtalker import KDTalkerNetwork
from ..networks.style_predictor import StylePredictor
from ..synthetic.movements import class_of
from .dataset import Sample, SampleIndex, stack, torch_generator
from .motion_recipe import KDTalkerPhase, LipExpertPhase, MovementDetectorPhase, StylePredictorPhase

LEAST_SPREAD = 1e-3
POSE = slice(68, 74)  # of the numbers of the 'svp' space
TEST_BATCH = 64


class _Part:
    """What the phases share: clips of both splits and random segments of them."""

    name = ""

    def __init__(self, module: nn.Module, clips: MotionClips, test: MotionClips, frames: int):
        self.module, self.clips, self.test, self.frames = module, clips, test, frames

    def segment(self, clips: MotionClips, rng: np.random.Generator) -> tuple[int, int, int]:
        """(clip, first frame, frames) of a random segment."""
        clip = int(rng.integers(len(clips.info)))
        length = min(self.frames, clips.info[clip].frames)
        return clip, int(rng.integers(clips.info[clip].frames - length + 1)), length

    def sample(self, index: SampleIndex) -> Sample:
        """A sample of the training clips."""
        return self.sample_of(self.clips, index.rng())

    def sample_of(self, clips: MotionClips, rng: np.random.Generator) -> Sample:
        raise NotImplementedError

    def test_batch(self, count: int = TEST_BATCH) -> Sample:
        """Fixed samples of the test clips."""
        return stack([self.sample_of(self.test, np.random.default_rng(number)) for number in range(count)])

    def validate(self) -> dict[str, float]:
        """The module's figures on test clips."""
        device = next(self.module.parameters()).device
        loss, values = self.module({key: value.to(device) for key, value in self.test_batch().items()})
        return {"loss": float(loss), **{name: float(value) for name, value in values.items()}}

    def write_sample(self, folder: Path, step: int) -> None:
        """Nothing: figures are enough."""


class StylePredictorTraining(_Part):
    """The phase of the style predictor: the style of a clip from its voice."""

    name = "style_predictor"

    def __init__(self, network: StylePredictor, clips: MotionClips, test: MotionClips, config: StylePredictorPhase):
        super().__init__(StylePredictorModule(network), clips, test, 1)
        self.network, self.config = network, config
        codes, voices = (
            np.asarray(rows, np.float64) for rows in (clips.arrays["style"][:, 0], clips.arrays["prosody"])
        )
        scales = ((network.mean, network.spread, codes), (network.prosody_mean, network.prosody_spread, voices))
        with torch.no_grad():
            for mean, spread, rows in scales:
                mean.copy_(torch.from_numpy(rows.mean(axis=0)))
                spread.copy_(torch.from_numpy(rows.std(axis=0)).clamp(min=LEAST_SPREAD))

    def sample_of(self, clips: MotionClips, rng: np.random.Generator) -> Sample:
        config, clip = self.config, int(rng.integers(len(clips.info)))
        generator = torch_generator(rng)
        style = self.network.standardize(clips.row("style", clip)[0])
        voice, portrait = clips.row("prosody", clip), clips.row("portrait", clip)
        if clips is self.clips:
            noise = torch.randn(voice.shape, generator=generator) * self.network.prosody_spread.cpu()
            voice = voice + config.prosody_noise * noise
            portrait = portrait + config.portrait_noise * torch.randn(portrait.shape, generator=generator)
        return {
            "prosody": voice,
            "portrait": portrait,
            "portrait_given": torch.tensor(bool(rng.random() >= config.portrait_drop_prob)),
            "style": style,
            "noise": torch.randn(style.shape, generator=generator),
            "level": logit_normal((), config.level_mean, config.level_deviation, generator),
        }

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss, and how often a predicted style is nearest to the mean style of the voice's own emotion."""
        figures = super().validate()
        device = next(self.module.parameters()).device
        emotions = np.array([info.emotion for info in self.clips.info])
        names = sorted(set(emotions.tolist()))
        codes = torch.from_numpy(np.array(self.clips.arrays["style"][:, 0]))
        centres = torch.stack([codes[torch.from_numpy(emotions == name)].mean(0) for name in names])
        right = []
        for clip in range(len(self.test.info)):
            voice = self.test.row("prosody", clip)[None].to(device)
            found = predict_style(self.network, voice, None, torch.Generator().manual_seed(clip)).cpu()
            nearest = names[int(torch.cdist(found, centres).argmin())]
            right.append(nearest == self.test.info[clip].emotion)
        return {**figures, "emotion_acc": float(np.mean(right))}


class StylePredictorModule(nn.Module):
    """Batch -> squared error of the prediction."""

    def __init__(self, network: StylePredictor):
        super().__init__()
        self.network = network

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        level = batch["level"]
        noisy = noisy_at(batch["style"], batch["noise"], level[:, None])
        condition = self.network.encode(batch["prosody"], batch["portrait"], batch["portrait_given"])
        prediction = self.network(noisy, level, condition)
        error = (prediction - target_at(batch["style"], batch["noise"], level[:, None])).square()
        return error.mean(), {}


class LipExpertTraining(_Part):
    """The phase of the lip expert: half of the samples are in step, the others are shifted in time or of another clip."""

    name = "lip_expert"

    def __init__(self, network: LipExpert, clips: MotionClips, test: MotionClips, config: LipExpertPhase):
        super().__init__(LipExpertModule(network), clips, test, config.frames)
        self.config = config

    def sample_of(self, clips: MotionClips, rng: np.random.Generator) -> Sample:
        config, (clip, first, length) = self.config, self.segment(clips, rng)
        in_step, moved, other = rng.random() < 0.5, first, clip
        if not in_step and rng.random() < config.other_clip_prob:
            other = int(rng.integers(len(clips.info)))
        elif not in_step:
            lag = int(rng.integers(config.least_lag, config.most_lag + 1)) * (1 if rng.random() < 0.5 else -1)
            last = clips.info[clip].frames - length
            moved = first + lag if 0 <= first + lag <= last else first - lag
            moved = min(max(moved, 0), last)
            in_step = abs(moved - first) < config.least_lag
        siblings = clips.groups[clips.info[clip].group]
        mu, _ = clips.row("style", int(rng.choice(siblings)))
        return {
            "expression": clips.motion(other, slice(moved, moved + length))[:, :64],
            "voice": clips.voice(clip, first, length),
            "style": mu,
            "in_step": torch.tensor(float(in_step or (other == clip and moved == first))),
        }


class LipExpertModule(nn.Module):
    """Batch -> binary cross-entropy, and how often the mean over the frames is right."""

    def __init__(self, network: LipExpert):
        super().__init__()
        self.network = network

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        logit = self.network(batch["expression"], batch["voice"], batch["style"]).mean(dim=1)
        right = ((logit > 0) == (batch["in_step"] > 0.5)).float().mean()
        return functional.binary_cross_entropy_with_logits(logit, batch["in_step"]), {"accuracy": right}


class MovementDetectorTraining(_Part):
    """The phase of the movement detector: the class of every frame from the pose."""

    name = "movement_detector"

    def __init__(self, network: MovementDetector, clips: MotionClips, test: MotionClips, config: MovementDetectorPhase):
        super().__init__(MovementDetectorModule(network), clips, test, config.frames)

    def sample_of(self, clips: MotionClips, rng: np.random.Generator) -> Sample:
        clip, first, length = self.segment(clips, rng)
        moments = (first + torch.arange(length) + 0.5) / clips.fps
        classes = torch.zeros(length, dtype=torch.long)
        for phrase in clips.info[clip].phrases:
            classes[(moments >= phrase.start) & (moments < phrase.end)] = class_of(phrase.text)
        return {"pose": clips.motion(clip, slice(first, first + length))[:, POSE], "classes": classes}


class MovementDetectorModule(nn.Module):
    """Batch -> cross-entropy of the frames' classes, and how many are right."""

    def __init__(self, network: MovementDetector):
        super().__init__()
        self.network = network

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        scores, classes = self.network(batch["pose"]).flatten(0, 1), batch["classes"].flatten()
        right = (scores.argmax(dim=1) == classes).float().mean()
        return functional.cross_entropy(scores, classes), {"accuracy": right}


class KDTalkerTraining(_Part):
    """KDTalker's network on the same clips: it predicts the noise, beside the voice and a reference motion."""

    name = "kdtalker"

    def __init__(self, network: KDTalkerNetwork, clips: MotionClips, test: MotionClips, config: KDTalkerPhase):
        super().__init__(KDTalkerModule(network, clips), clips, test, config.frames)
        self.network = network

    def sample_of(self, clips: MotionClips, rng: np.random.Generator) -> Sample:
        clip, first, length = self.segment(clips, rng)
        motion = clips.motion(clip, slice(first, first + length))
        return {
            "motion": motion,
            "voice": clips.voice(clip, first, length),
            "portrait": clips.row("portrait", clip),
            "reference": clips.motion(clip, slice(max(first - 1, 0), max(first, 1)))[0],
            "noise": torch.randn(motion.shape, generator=torch_generator(rng)),
            "timestep": torch.tensor(int(rng.integers(KDTALKER_SCHEDULE.train_steps))),
        }


class KDTalkerModule(nn.Module):
    """Batch -> squared error of the noise (Yang et al. 2025, eq. 4). Motions are on the scale of their mean and spread."""

    mean: Tensor
    spread: Tensor

    def __init__(self, network: KDTalkerNetwork, clips: MotionClips):
        super().__init__()
        numbers = np.asarray(clips.arrays["motion"], np.float32).reshape(-1, network.config.channels)
        self.network = network
        self.register_buffer("mean", torch.from_numpy(numbers.mean(axis=0, dtype=np.float64)).float())
        spread = torch.from_numpy(numbers.std(axis=0, dtype=np.float64)).float()
        self.register_buffer("spread", spread.clamp(min=LEAST_SPREAD))

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        clean, noise = (batch["motion"] - self.mean) / self.spread, batch["noise"]
        noisy = add_noise(clean, noise, batch["timestep"], KDTALKER_SCHEDULE)
        face, reference = self.face(batch["portrait"]), (batch["reference"] - self.mean) / self.spread
        found = self.network(noisy, batch["timestep"], batch["voice"], face, reference)
        return (found - noise).square().mean(), {}

    def face(self, portrait: Tensor) -> Tensor:
        """The face at rest as KDTalker reads it, b c: numbers of the expression, the others 0."""
        centred = (portrait - self.mean[: portrait.shape[-1]]) / self.spread[: portrait.shape[-1]]
        return functional.pad(centred, (0, self.network.config.channels - portrait.shape[-1]))
