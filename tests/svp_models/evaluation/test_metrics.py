import numpy as np
import pytest

from svp_portrait.svp_models.evaluation.metrics import (
    clustering_strength,
    correlation,
    cosine,
    keypoint_error,
    lagged_correlation,
    largest_change,
    mean_ssim,
    mouth_opening,
    psnr,
    share_of_way,
)


def test_psnr_in_closed_form():
    black = np.zeros((1, 4, 4, 3), np.uint8)
    assert psnr(black + 255, black) == pytest.approx(0)
    assert psnr(black + 16, black) == pytest.approx(20 * np.log10(255 / 16))
    assert psnr(black, black) == np.inf


def test_ssim_of_flat_pictures_in_closed_form():
    # Without structure only the luminance term is left: (2 a b + C1) / (a^2 + b^2 + C1), C1 = 0.01^2.
    dark, light = np.full((1, 32, 32, 3), 51, np.uint8), np.full((1, 32, 32, 3), 153, np.uint8)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert mean_ssim(dark, light) == pytest.approx(expected, abs=1e-4)
    assert mean_ssim(light, light) == pytest.approx(1)


def test_ssim_of_one_window_written_out():
    """11 x 11 pixels are one place of the window: weighted means, variances and covariance, C1 = 0.01^2, C2 = 0.03^2."""
    rng = np.random.default_rng(2)
    first, second = (rng.integers(0, 256, (1, 11, 11, 3), dtype=np.uint8) for _ in range(2))
    bell = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights = np.outer(bell, bell)[..., None] / bell.sum() ** 2  # h w 1

    def mean(values):
        return (weights * values).sum((0, 1))

    x, y = first[0] / 255, second[0] / 255
    a, b = mean(x), mean(y)
    spread = mean(x**2) - a**2 + mean(y**2) - b**2
    both = (2 * a * b + 1e-4) * (2 * (mean(x * y) - a * b) + 9e-4) / ((a**2 + b**2 + 1e-4) * (spread + 9e-4))
    assert mean_ssim(first, second) == pytest.approx(both.mean(), abs=1e-5)


def test_ssim_falls_with_noise():
    rng = np.random.default_rng(0)
    true = rng.integers(64, 192, (2, 48, 48, 3), dtype=np.uint8)
    weak, strong = ((true + rng.integers(-n, n + 1, true.shape)).astype(np.uint8) for n in (5, 50))
    assert 1 > mean_ssim(weak, true) > mean_ssim(strong, true)


def test_mouth_opening_is_measured_in_eye_distances():
    landmarks = np.zeros((1, 68, 2))
    landmarks[0, 62], landmarks[0, 66] = (5, 10), (5, 14)
    landmarks[0, 36], landmarks[0, 45] = (0, 0), (8, 0)
    assert mouth_opening(landmarks)[0] == pytest.approx(0.5)


def test_lag_of_a_delayed_series_is_found():
    series = np.random.default_rng(1).normal(size=60)
    late = np.concatenate([np.zeros(3), series[:-3]])
    curve = lagged_correlation(late, series, 5)
    assert np.argmax(curve) - 5 == 3
    assert curve[8] == pytest.approx(1)


def test_correlation_of_a_constant_or_of_too_few_is_zero():
    assert correlation(np.ones(5), np.arange(5)) == correlation(np.arange(5), np.ones(5)) == 0
    assert correlation(np.ones(1), np.ones(1)) == 0
    assert lagged_correlation(np.arange(3.0), np.arange(3.0), 5)[[0, 5, 10]].tolist() == pytest.approx([0, 1, 0])


def test_keypoint_error_is_a_fraction_of_the_width():
    assert keypoint_error(np.full((2, 8, 2), (3.0, 4.0)), np.zeros((2, 8, 2)), 100) == pytest.approx(0.05)


def test_clustering_strength_is_the_ratio_of_distances():
    # two emotions of one person: centres 10 apart, codes 1 from their centre; another person's do not matter
    codes = np.array([[0, 1], [0, -1], [10, 1], [10, -1], [500, 0], [500, 4]], float)
    people, moods = ["a"] * 4 + ["b"] * 2, ["sad", "sad", "happy", "happy", "sad", "sad"]
    assert clustering_strength(codes, people, moods) == {"sad": 10.0, "happy": 10.0}


def test_clustering_strength_leaves_out_what_says_nothing():
    codes = np.array([[0.0], [1.0], [9.0]])
    assert clustering_strength(codes, ["a"] * 3, ["sad", "sad", "happy"]) == {"sad": pytest.approx(17.0)}
    assert clustering_strength(codes, ["a"] * 3, ["sad"] * 3) == {}


def test_cosine_of_known_angles():
    assert cosine(np.array([1.0, 0]), np.array([3.0, 3])) == pytest.approx(np.sqrt(0.5))
    assert cosine(np.array([1.0, 2]), np.array([-2.0, -4])) == pytest.approx(-1)
    assert cosine(np.zeros(2), np.ones(2)) == 0


def test_share_of_the_way_is_measured_along_it():
    way = np.array([[3.0, 0.0], [0.0, 1.0]])
    assert share_of_way(way, way) == pytest.approx(1)
    assert share_of_way(-0.5 * way, way) == pytest.approx(-0.5)
    assert share_of_way(way[:, ::-1], way) == 0
    assert share_of_way(np.array([[3.0, 9.0], [0.0, 0.0]]), way) == pytest.approx(0.9)  # 9 / (9 + 1)
    assert share_of_way(np.ones((1, 2)), np.zeros((1, 2))) == 0


def test_largest_change_is_that_of_neighbours():
    assert largest_change(np.array([[0.0, 0], [3, 4], [3, 4], [0, 4]])) == pytest.approx(5)
    assert largest_change(np.ones((1, 4))) == 0
