"""How a face analyser errs: what makes expressions that were never drawn like those that are read from pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ReadingError:
    """How an analyser errs, by coefficient (64): standard deviations of its error's mean over a clip and around that."""

    bias: np.ndarray
    noise: np.ndarray

    @classmethod
    def between(cls, read: list[np.ndarray], true: list[np.ndarray]) -> ReadingError:
        """Measured on clips, n x 64 each."""
        errors = [each - other for each, other in zip(read, true, strict=True)]
        return cls(np.std([each.mean(0) for each in errors], axis=0), np.mean([each.std(0) for each in errors], axis=0))

    def spoil(self, performed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Performed expressions n x 64 as the analyser would have read them from pictures."""
        bias = rng.standard_normal(performed.shape[-1]) * self.bias
        return (performed + bias + rng.standard_normal(performed.shape) * self.noise).astype(np.float32)
