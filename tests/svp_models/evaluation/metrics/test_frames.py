import numpy as np
import pytest

from svp_portrait.svp_models.evaluation.metrics.frames import (
    colour_drift,
    frame_roughness,
    laplacian_variance,
    mean_colours,
    mean_ssim,
    psnr,
    psnr_of_errors,
    region_masks,
    sharpness,
    squared_errors,
    ssim_maps,
    ssim_per_frame,
    still_flicker,
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


def test_psnr_of_known_noise():
    """Gaussian noise of standard deviation s has the mean squared error s^2 + 1/12 once it is rounded."""
    noise = np.random.default_rng(0).normal(0, 8, (4, 64, 64, 3))
    true = np.full((4, 64, 64, 3), 128, np.uint8)
    noisy = np.rint(128 + noise).astype(np.uint8)
    assert psnr(noisy, true) == pytest.approx(10 * np.log10(255**2 / (64 + 1 / 12)), abs=0.1)


def test_errors_per_frame_pool_to_the_whole_and_know_masks():
    true = np.zeros((2, 8, 8, 3), np.uint8)
    made = true.copy()
    made[0, :2] = 4
    errors = squared_errors(made, true)
    assert errors.tolist() == [4.0, 0.0]  # a quarter of the pixels is off by 4
    assert psnr_of_errors(errors) == pytest.approx(psnr(made, true))
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 0] = True
    inside = squared_errors(made, true, masks)
    assert inside[0] == 16 and np.isnan(inside[1])
    assert psnr_of_errors(inside) == pytest.approx(20 * np.log10(255 / 4))


def test_ssim_per_frame_and_around_pixels_agree_with_the_mean():
    rng = np.random.default_rng(3)
    true = rng.integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    made = true.copy()
    made[1] = 255 - made[1]
    values = ssim_per_frame(made, true)
    assert values.mean() == pytest.approx(mean_ssim(made, true), abs=1e-6)
    assert values[0] == pytest.approx(1) and values[1] < 0
    assert ssim_maps(made, true)[:, 5:-5, 5:-5].mean((1, 2)) == pytest.approx(values, abs=1e-5)


@pytest.fixture
def face():
    """A face of 100 pixels from outer eye corner to eye corner in a picture of 200: n 68 2."""
    points = np.zeros((2, 68, 2)) + (100, 100)
    points[:, 36:48] = (100, 90)
    points[:, 36], points[:, 45] = (50, 90), (150, 90)
    points[:, 17:27] = (100, 70)
    points[:, 17], points[:, 26] = (45, 70), (155, 70)
    points[:, 48:68] = (100, 150)
    points[:, 48], points[:, 54] = (75, 150), (125, 150)
    return points


def test_regions_are_boxes_around_their_landmarks(face):
    masks = region_masks(face, 200, 200)
    assert masks["mouth"][0].sum() == (50 + 2 * 10) * 20  # 0.1 of 100 pixels on all sides
    assert masks["mouth"][0, 145, 70] and not masks["mouth"][0, 145, 60]
    assert (masks["eyes"] & masks["brows"]).sum() == 0
    assert np.sum(list(masks.values()), axis=0).tolist() == np.ones((2, 200, 200)).tolist()


def test_a_blurred_mouth_is_less_sharp_there_alone(face):
    rng = np.random.default_rng(4)
    true = rng.integers(0, 256, (2, 200, 200, 3), dtype=np.uint8)
    masks = region_masks(face, 200, 200)
    made = np.where(masks["mouth"][..., None], (true // 2) + 64, true).astype(np.uint8)  # half of the contrast

    def ratio(mask):
        return sharpness(laplacian_variance(made, mask), laplacian_variance(true, mask))

    assert ratio(masks["mouth"]) == pytest.approx(0.25, abs=0.03)  # the variance falls with the square
    assert ratio(masks["eyes"]) == pytest.approx(1)
    assert sharpness(laplacian_variance(true), laplacian_variance(true)) == 1


def test_the_laplacian_of_a_line_in_closed_form():
    """A white column has -2 along itself and 1 on both sides: mean 0, mean square 6 w^2 / width."""
    picture = np.zeros((1, 16, 12, 3), np.uint8)
    picture[:, :, 5] = 200
    assert laplacian_variance(picture)[0] == pytest.approx(6 * 200**2 / 12, rel=1e-4)


def test_flicker_counts_only_where_truth_stands_still():
    true = np.zeros((3, 4, 4, 3), np.uint8)
    true[1:, :, 2:] = 90  # the right half moves once
    made = true.copy()
    made[1, 0, 0] = 8  # of 8 still pixels in the first step and 16 in the second, one goes up and down by 8
    made[1, 0, 3] = 200  # where truth moves, nothing counts in the first step
    assert still_flicker(made, true) == pytest.approx((8 + 8 + 110) / 24)
    assert np.isnan(still_flicker(np.stack([made[0], made[1]]), np.stack([true[0], true[0] + 1])))


def test_flicker_is_planted_and_found():
    rng = np.random.default_rng(5)
    true = np.repeat(rng.integers(50, 200, (1, 32, 32, 3), dtype=np.uint8), 12, axis=0)
    made = true.copy()
    made[7] += 6
    assert still_flicker(true, true) == 0
    assert still_flicker(made, true) == pytest.approx(2 * 6 / 11)
    assert int(np.argmax(frame_roughness(made))) == 7
    assert frame_roughness(made)[[6, 7, 8]].tolist() == [6, 12, 6]


def test_colour_drift_is_what_truth_does_not_do():
    true = np.zeros((8, 2, 2, 3), np.uint8)
    true[:] = np.arange(8)[:, None, None, None] * 4  # truth brightens as well
    made = true.copy()
    made[6:, ..., 0] += 30
    made[6:, ..., 1] += 40
    assert colour_drift(mean_colours(true), mean_colours(true)) == 0
    assert colour_drift(mean_colours(made), mean_colours(true)) == pytest.approx(50)
