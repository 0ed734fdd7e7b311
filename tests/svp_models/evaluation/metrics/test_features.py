import numpy as np
import pytest
from scipy import linalg
from sklearn.metrics.pairwise import polynomial_kernel

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.evaluation.metrics.features import FeatureStatistics, frechet_distance, kernel_distance


def exact(mean, covariance, count=1000):
    """Statistics with exactly this mean and covariance."""
    mean, covariance = np.asarray(mean, float), np.asarray(covariance, float)
    return FeatureStatistics(count, count * mean, (count - 1) * covariance + count * np.outer(mean, mean))


def test_frechet_distance_of_two_gaussians_in_closed_form():
    first = exact([0, 0], [[4, 0], [0, 9]])
    second = exact([3, 4], [[1, 0], [0, 25]])
    assert frechet_distance(first, second) == pytest.approx(25 + (2 - 1) ** 2 + (3 - 5) ** 2)
    assert frechet_distance(second, first) == pytest.approx(30)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_that_of_the_matrix_root():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(90, 12)) @ rng.normal(size=(12, 12)), rng.normal(1, 2, (70, 12))
    one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = linalg.sqrtm(one @ other).real
    expected = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(one + other - 2 * root)
    assert frechet_distance(FeatureStatistics.of(first), FeatureStatistics.of(second)) == pytest.approx(expected)


@pytest.fixture
def published():
    """The features of which torchmetrics 1.9 gave the distances below."""
    random = np.random.RandomState(5)
    return random.randn(60, 6), random.randn(50, 6) * 1.5 + 0.3


def test_frechet_distance_is_that_of_torchmetrics(published):
    first, second = map(FeatureStatistics.of, published)
    assert frechet_distance(first, second) == pytest.approx(3.095932913319725)


def test_kernel_distance_is_that_of_torchmetrics(published):
    assert kernel_distance(published[0][:50], published[1]) == pytest.approx(1.7325884242647502)


def test_kernel_distance_takes_the_polynomial_kernel_without_its_diagonal():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(8, 5)), rng.normal(0.5, 1, (11, 5))
    same, others, between = (
        polynomial_kernel(*pair, degree=3, gamma=1 / 5, coef0=1)
        for pair in ((first, first), (second, second), (first, second))
    )
    off = [values[~np.eye(len(values), dtype=bool)].mean() for values in (same, others)]
    assert kernel_distance(first, second) == pytest.approx(sum(off) - 2 * between.mean())


def test_statistics_do_not_depend_on_how_a_set_was_cut():
    features = np.random.default_rng(2).normal(size=(50, 4))
    whole = FeatureStatistics.of(features)
    parts = FeatureStatistics.of(features[:13]) + FeatureStatistics.of(features[13:])
    assert parts.covariance == pytest.approx(whole.covariance)
    assert whole.covariance == pytest.approx(np.cov(features, rowvar=False))
    assert frechet_distance(parts, whole) == pytest.approx(0, abs=1e-9)


def test_fewer_features_than_dimensions_are_no_harm():
    features = np.random.default_rng(3).normal(size=(4, 32))
    assert frechet_distance(FeatureStatistics.of(features), FeatureStatistics.of(features)) == pytest.approx(
        0, abs=1e-6
    )


def test_a_single_feature_has_no_distribution():
    with pytest.raises(PortraitError, match="1 feature is too few"):
        frechet_distance(FeatureStatistics.of(np.ones((1, 3))), FeatureStatistics.of(np.ones((2, 3))))
    with pytest.raises(PortraitError, match="1 and 2 features are too few"):
        kernel_distance(np.ones((1, 3)), np.ones((2, 3)))
