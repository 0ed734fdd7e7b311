"""Distances of two sets of features: Frechet (FID, FVD) and kernel (KID, KVD).

What the distance is called depends on the features: FID is the one of the Inception features it was published with, FVD and KVD
those of I3D. A distance of other features has no such name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import PortraitError


@dataclass(frozen=True)
class FeatureStatistics:
    """Count, sum (d) and sum of outer products (d x d) of features, float64: all that a Frechet distance needs of a set."""

    count: int
    total: NDArray[np.float64]
    products: NDArray[np.float64]

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> FeatureStatistics:
        """features: n x d."""
        rows = np.asarray(features, np.float64)
        return cls(len(rows), rows.sum(0), rows.T @ rows)

    def __add__(self, other: FeatureStatistics) -> FeatureStatistics:
        return FeatureStatistics(self.count + other.count, self.total + other.total, self.products + other.products)

    @property
    def mean(self) -> NDArray[np.float64]:
        return self.total / self.count

    @property
    def covariance(self) -> NDArray[np.float64]:
        """d x d, over count - 1 as in the published FID."""
        if self.count < 2:
            raise PortraitError(
                f"{self.count} feature is too few for a distance of distributions: at least 2 are needed"
            )
        return (self.products - np.outer(self.total, self.total) / self.count) / (self.count - 1)


def frechet_distance(first: FeatureStatistics, second: FeatureStatistics) -> float:
    """Squared Frechet distance of the Gaussians of two sets of features, 0 or more: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2).

    Source: Heusel et al. 2017 (FID), Unterthiner et al. 2018 (FVD). The trace of the root is the sum of the roots of the
    eigenvalues of A C2 A with A = C1^1/2, which is symmetric even where the covariances are singular.
    """
    shift = first.mean - second.mean
    one, other = first.covariance, second.covariance
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    common = np.sqrt(np.linalg.eigvalsh(root @ other @ root).clip(min=0)).sum()
    return float(max(0.0, shift @ shift + np.trace(one) + np.trace(other) - 2 * common))


def kernel_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Squared MMD of two sets of features (n x d, m x d) under the kernel (x y / d + 1)^3, without bias; may be below 0.

    Source: Binkowski et al. 2018 (KID), Unterthiner et al. 2018 (KVD, of I3D features).
    """
    if min(len(first), len(second)) < 2:
        raise PortraitError(
            f"{len(first)} and {len(second)} features are too few for a kernel distance: at least 2 of both are needed"
        )

    def kernel(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float64]:
        return (np.asarray(x, np.float64) @ np.asarray(y, np.float64).T / x.shape[1] + 1) ** 3

    def inside(x: NDArray[np.floating]) -> float:
        values = kernel(x, x)
        return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))

    return inside(first) + inside(second) - 2 * float(kernel(first, second).mean())
