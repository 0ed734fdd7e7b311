"""Emotions by their names and by strangers' styles: what is recognised in the frames that a model makes of a relaxed portrait."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..diffusion.style import MAX_STRENGTH, emotion_prior, sample_style
from ..networks.emotion_bank import NEUTRAL, EmotionBank
from ..synthetic.performance import EMOTIONS, classify_emotion, emotion_amount
from ..synthetic.speakers import speaker
from ..types import Style
from .evaluator import Case, Evaluator, audio_of
from .figures import Row, Table
from .metrics.style import emotion_recovery

STRENGTHS = tuple(float(value) for value in np.linspace(0, MAX_STRENGTH, 5))
LABEL, STRANGER = "label", "stranger"  # where the style comes from
NO_BANK = "no emotion bank is of the model's style space: svp train emotion-bank makes one"
KEYS = {LABEL: "label_emotion_acc", STRANGER: "stranger_emotion_acc"}


@dataclass
class EmotionStudy:
    """Collects case after case; `figures` sums up.

    bank: of the model, None where it has none; sweeps: how many of the cases, from the first, are generated at all STRENGTHS;
    found: where the style comes from -> (recognised, wanted) of every clip; amounts: of the emotion in the frames, at every strength,
    by emotion.
    """

    evaluator: Evaluator
    bank: EmotionBank | None
    sweeps: int
    seed: int
    found: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    amounts: list[tuple[str, list[float]]] = field(default_factory=list)
    count: int = 0

    def steps(self, cases: int) -> int:
        """How often the evaluator's on_step is called for that many cases, where the emotions come in turn."""
        swept = sum(number % len(EMOTIONS) != NEUTRAL for number in range(min(cases, self.sweeps)))
        return cases if self.bank is None else 2 * cases + swept * len(STRENGTHS)

    def add(self, case: Case, frames: int, seed: int) -> None:
        """frames: of every clip that is generated; seed: of the noise behind them."""
        evaluator, emotion, number = self.evaluator, case.clip.emotion, self.count
        self.count += 1
        rng = np.random.default_rng((self.seed, number, len(KEYS)))
        who, turn = rng.integers(2**31, size=2).tolist()
        seconds = len(case.style_clip.images) / case.clip.fps
        other = evaluator.make(speaker(who, "test"), emotion, turn, seconds, case.clip.fps)
        style = sample_style(evaluator.prior_of(other), case.seed)
        self._recognise(STRANGER, self._expression(case, style, frames, seed), emotion)
        if self.bank is None:
            return
        self._recognise(LABEL, self._expression(case, self._named(case, emotion, 1.0), frames, seed), emotion)
        if number < self.sweeps and emotion != EMOTIONS[NEUTRAL]:
            at = (self._expression(case, self._named(case, emotion, value), frames, seed) for value in STRENGTHS)
            self.amounts.append((emotion, [emotion_amount(expression, emotion) for expression in at]))

    def _named(self, case: Case, emotion: str, strength: float) -> Style:
        assert self.bank is not None
        prior = emotion_prior(self.bank, self.evaluator.model.style_space, {emotion: 1.0}, strength)
        return sample_style(prior, case.seed)

    def _expression(self, case: Case, style: Style, frames: int, seed: int) -> np.ndarray:
        """Of the relaxed portrait with a style, n 64."""
        made = self.evaluator.generate(case.portrait, case.clip, audio_of(case.clip), style, frames, seed)
        return self.evaluator.expression(made)

    def _recognise(self, source: str, expression: np.ndarray, emotion: str) -> None:
        self.found.setdefault(source, []).append((classify_emotion(expression)[0], emotion))

    def figures(self) -> dict[str, object]:
        """The keys that the study adds; `svp evaluate demo --help` explains them."""
        result: dict[str, object] = {}
        confusion = {}
        for source, pairs in self.found.items():
            share, table = emotion_recovery([found for found, _ in pairs], [wanted for _, wanted in pairs])
            result[KEYS[source]] = share
            confusion[source] = {
                wanted: {name: shares.get(name, 0.0) for name in EMOTIONS} for wanted, shares in table.items()
            }
        result["emotion_confusion"] = confusion
        if self.amounts:
            curves = np.array([curve for _, curve in self.amounts])  # cases x strengths
            means = curves.mean(0)
            result["strength_amounts"] = {f"{value:g}": float(m) for value, m in zip(STRENGTHS, means, strict=True)}
            result["strength_monotone"] = float(bool((np.diff(means) > 0).all()))
            result["strength_monotone_clips"] = float((np.diff(curves) > 0).all(1).mean())
        if self.bank is None:
            result["missing"] = {KEYS[LABEL]: NO_BANK}
        return result

    def tables(self) -> Iterator[Table]:
        """Confusion by source, and the amounts by strength."""
        titles = {LABEL: "Emotions by their names", STRANGER: "Emotions by strangers' styles"}
        confusion = self.figures()["emotion_confusion"]
        assert isinstance(confusion, dict)
        for source, shares in confusion.items():
            rows = tuple(Row(wanted, values, competes=False) for wanted, values in shares.items())
            note = "Rows are wanted, columns recognised: shares of the clips."
            yield Table(titles[source], EMOTIONS, rows, note)
        if self.amounts:
            columns = tuple(f"{value:g}" for value in STRENGTHS)
            rows = tuple(
                Row(emotion, dict(zip(columns, curve, strict=True)), competes=False) for emotion, curve in self.amounts
            )
            note = (
                "How much of the emotion is read from the frames, 1 is a strong one, by the strength that is asked for."
            )
            yield Table("Emotions by strength", columns, rows, note)
