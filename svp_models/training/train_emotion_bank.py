"""Training of an emotion bank on the style priors of labelled clips: `svp train emotion-bank`.

Entries move by averages to the codes that are nearest to them; the attention learns by the likelihood of codes, given emotion and
strength. Codes are sampled from the clips' priors, so that the deviation holds clips and people as well as moments.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.emotion_bank import save_emotion_bank
from ..errors import PortraitError
from ..io.progress import Progress
from ..io.strict_config import LARGEST_SEED, Checked, limited, required
from ..model import PortraitModel
from ..networks.emotion_bank import NEUTRAL, EmotionBank, EmotionBankConfig
from ..synthetic.performance import EMOTIONS
from .config import DataRecipe, Recipe, StartModel, check_name
from .dataset import Expressions, stack
from .logger import Report
from .recipe import load_toml
from .run import Run
from .train_style import EVALUATION_BATCH, padded

START = 8192  # codes from which the entries begin, at most
REPORTS = 5  # during the training


@dataclass(frozen=True)
class BankSettings(Checked):
    """entries, query_size: see EmotionBankConfig. segments: of each clip, whose priors are learnt from; min_frames: shortest.
    strengths: of the intensities 1 to 3; clips without an intensity count as 3. between: share of the codes that are mixed with
    one of the next weaker intensity, or a neutral one, so that strengths between the labels are learnt. decay: of the entries'
    moving averages."""

    steps: int = limited(3000, 1, 10**7)
    batch_size: int = limited(256, 2, 10**6)
    learning_rate: float = limited(3e-3, 1e-12, 100)
    entries: int = limited(64, 2, 4096)
    query_size: int = limited(32, 1, 1024)
    segments: int = limited(2, 1, 1000)
    min_frames: int = limited(20, 1, 10**6)
    strengths: tuple[float, float, float] = limited((0.45, 0.72, 1.0), 0.01, 1)
    between: float = limited(0.5, 0, 1)
    decay: float = limited(0.99, 0, 1, below=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.strengths) != sorted(set(self.strengths)) or self.strengths[-1] != 1:
            raise PortraitError(f"strengths are {self.strengths}: rising ones that end with 1 are needed")


@dataclass(frozen=True)
class EmotionBankRecipe(Checked):
    """A training of the emotion bank of a model."""

    name: str = limited(least=1, most=200)
    data: DataRecipe = required()
    seed: int = limited(0, 0, LARGEST_SEED)
    model: StartModel = field(default_factory=StartModel)
    bank: BankSettings = field(default_factory=BankSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name)


def load_bank_recipe(path: Path | str, overrides: Sequence[str] = ()) -> EmotionBankRecipe:
    """A recipe file with `section.key=value` overrides."""
    return load_toml(path, EmotionBankRecipe, overrides)


@dataclass(frozen=True)
class LabelledPriors:
    """Style priors of clips: mu, sigma n d_s; emotion n, numbers of EMOTIONS; strength n, 0 for neutral ones."""

    mu: Tensor
    sigma: Tensor
    emotion: Tensor
    strength: Tensor

    def draw(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Codes of the priors of these numbers, m d_s."""
        return self.mu[index] + self.sigma[index] * torch.randn(len(index), self.mu.shape[1], generator=generator)


@torch.no_grad()
def labelled_priors(
    model: PortraitModel, expressions: Expressions, settings: BankSettings, rng: np.random.Generator
) -> LabelledPriors:
    """The priors of segments of all clips that have an emotion, as the model's extractor reads them."""
    extractor, clips = model.networks.style_extractor.eval(), expressions.clips
    limit, device = extractor.max_frames, next(extractor.parameters()).device
    samples, emotions, strengths = [], [], []
    for number, info in enumerate(clips.info):
        if not info.emotion:
            continue
        audio, expression = clips.features(number), expressions(number, rng)
        for _ in range(settings.segments):
            most = min(len(expression), limit)
            length = int(rng.integers(min(settings.min_frames, most), most + 1))
            rows = slice(start := int(rng.integers(len(expression) - length + 1)), start + length)
            samples.append(padded(audio[rows], expression[rows], limit))
            emotion = EMOTIONS.index(info.emotion)
            emotions.append(emotion)
            strengths.append(0.0 if emotion == NEUTRAL else settings.strengths[(info.intensity or 3) - 1])
    mus, sigmas = [], []
    for start in range(0, len(samples), EVALUATION_BATCH):
        batch = {key: value.to(device) for key, value in stack(samples[start : start + EVALUATION_BATCH]).items()}
        mu, sigma = extractor(batch["audio"], batch["expression"], batch["mask"])
        mus.append(mu.float().cpu())
        sigmas.append(sigma.float().cpu())
    if not mus:
        raise PortraitError("no clip of the data set has an emotion: an emotion bank learns from labelled ones")
    return LabelledPriors(torch.cat(mus), torch.cat(sigmas), torch.tensor(emotions), torch.tensor(strengths))


class CodeSampler:
    """Batches of style codes with their emotions and strengths: emotions are equally frequent, and so are an emotion's strengths."""

    def __init__(self, priors: LabelledPriors, between: float):
        self.priors, self.between = priors, between
        found: dict[int, dict[float, list[int]]] = defaultdict(lambda: defaultdict(list))
        for index, (emotion, strength) in enumerate(
            zip(priors.emotion.tolist(), priors.strength.tolist(), strict=True)
        ):
            found[emotion][strength].append(index)
        if NEUTRAL not in found:
            raise PortraitError("no clip of the data set is neutral: an emotion's strength 0 would be unknown")
        if len(found) < 2:
            raise PortraitError("all clips of the data set are neutral: an emotion bank learns from emotional ones")
        self.emotions = sorted(found)
        groups = [found[emotion][strength] for emotion in self.emotions for strength in sorted(found[emotion])]
        self.rows = torch.tensor([row for group in groups for row in group])
        starts: list[int] = [0]
        steps: list[list[tuple[float, int, int, float, int, int]]] = []
        for emotion in self.emotions:
            own: list[tuple[float, int, int, float, int, int]] = []
            for strength in sorted(found[emotion]):
                first, count = starts[-1], len(found[emotion][strength])
                starts.append(first + count)
                weaker = own[-1][:3] if own else (0.0, 0, len(found[NEUTRAL][0.0]))  # neutral ones are the first rows
                own.append((strength, first, count, *weaker))
            steps.append(own)
        self.counts = np.array([len(own) for own in steps])
        # Of every emotion and strength: strength, first and number of its clips among the rows; the same of the next weaker ones.
        self.steps = np.array([step for own in steps for step in own])

    def batch(self, size: int, rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Codes m d_s, emotions m and strengths m."""
        draws = rng.random((size, 5)).T
        place = (draws[0] * len(self.emotions)).astype(int)
        step = (np.cumsum(self.counts) - self.counts)[place] + (draws[1] * self.counts[place]).astype(int)
        strength, first, count, weaker_strength, weaker_first, weaker_count = self.steps[step].T
        emotions = np.array(self.emotions)[place]
        mixed = (emotions != NEUTRAL) & (draws[2] < self.between)
        part = np.where(mixed, draws[2] / max(self.between, 1e-9), 1.0)
        upper, lower = (first + draws[3] * count).astype(int), (weaker_first + draws[4] * weaker_count).astype(int)
        high, low = (self.priors.draw(self.rows[index], generator) for index in (upper, lower))
        weight = torch.from_numpy(part).float()
        strengths = torch.from_numpy(weaker_strength + part * (strength - weaker_strength)).float()
        return low + weight[:, None] * (high - low), torch.from_numpy(emotions), strengths


def fit_emotion_bank(
    priors: LabelledPriors, settings: BankSettings, seed: int, report: Report = print, progress: Progress | None = None
) -> EmotionBank:
    """Trains a bank on labelled priors; the same seed gives the same bank. It knows the emotions that the priors show.
    progress(done, total) after every step."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    size = priors.mu.shape[1]
    sampler = CodeSampler(priors, settings.between)
    names = tuple(EMOTIONS[emotion] for emotion in sampler.emotions)
    numbers = torch.zeros(len(EMOTIONS), dtype=torch.long)
    numbers[sampler.emotions] = torch.arange(len(names))  # the bank's own
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bank = EmotionBank(EmotionBankConfig(names, size, settings.entries, settings.query_size))
    bank.start(sampler.batch(min(START, 16 * settings.batch_size), rng, generator)[0], generator)
    optimizer = torch.optim.Adam(bank.parameters(), settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for step in range(settings.steps):
        codes, emotions, strengths = sampler.batch(settings.batch_size, rng, generator)
        error = bank.update(codes, settings.decay)
        loss = negative_log_likelihood(bank, codes, numbers[emotions], strengths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % max(1, settings.steps // REPORTS) == 0:
            report(
                f"step {step + 1}: negative log-likelihood {loss.item():.3f} a number, quantisation error {error:.2f}"
            )
        if progress is not None:
            progress(step + 1, settings.steps)
    return bank.eval()


def negative_log_likelihood(bank: EmotionBank, codes: Tensor, emotions: Tensor, strengths: Tensor) -> Tensor:
    """Of codes m d_s under the bank's Gaussians, less the constant: a mean over codes and numbers, in the bank's unit."""
    mu, sigma = bank(emotions, strengths)
    return (0.5 * ((codes - mu) / sigma).square() + (sigma / bank.unit).log()).mean()


@torch.no_grad()
def named_share(bank: EmotionBank, priors: LabelledPriors) -> float:
    """The share of priors whose mean is nearest to that which the bank gives to their own emotion at their strength. An emotion
    that the bank does not know is never found."""
    names = bank.config.emotions
    wanted = [EMOTIONS[emotion] for emotion in priors.emotion.tolist()]
    right = 0
    for strength in priors.strength.unique():
        rows = (priors.strength == strength).nonzero().flatten()
        means, _ = bank(torch.arange(len(names)), torch.full((len(names),), float(strength) or 1.0))
        nearest = torch.cdist(priors.mu[rows], means).argmin(1).tolist()
        right += sum(names[found] == wanted[row] for found, row in zip(nearest, rows.tolist(), strict=True))
    return right / len(priors.mu)


@dataclass(frozen=True)
class EmotionBankRun:
    """A recipe in a folder, which holds what the data needs (predictions, decoded frames)."""

    recipe: EmotionBankRecipe
    folder: Path
    report: Report = print
    progress: Progress | None = None
    jobs: int = 1

    def train(self, output: Path) -> Path:
        """Trains the bank and writes it to `output`."""
        recipe, settings = self.recipe, self.recipe.bank
        source = Recipe(recipe.name, recipe.data, recipe.seed, recipe.model)
        run = Run(source, self.folder, self.report, self.progress, self.jobs)
        with run.locked():
            model = run.first_model()
            splits = {}
            for number, split in enumerate(("train", "test")):
                expressions = run.expressions(run.clips(split, model), model)
                rng = np.random.default_rng((recipe.seed, number))
                splits[split] = labelled_priors(model, expressions, settings, rng)
                self.report(f"{split}: {len(splits[split].mu)} style priors of {len(expressions.clips.info)} clips")
            bank = fit_emotion_bank(splits["train"], settings, recipe.seed, self.report, self.progress)
            share = named_share(bank, splits["test"])
            about = {
                "recipe": recipe.name,
                "seed": str(recipe.seed),
                "step": str(settings.steps),
                "data_version": expressions.clips.version,
                "test_share": f"{share:.4f}",
            }
            save_emotion_bank(output, bank, model.style_space, about)
        self.report(f"{output}: {share:.1%} of the test priors are nearest to their own emotion's mean")
        return output
