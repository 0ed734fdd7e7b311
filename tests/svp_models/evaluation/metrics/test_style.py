import numpy as np
import pytest

from svp_portrait.svp_models.evaluation.metrics.style import (
    clustering_strength,
    code_distances,
    cosine,
    emotion_recovery,
    identity_similarity,
    probe_r2,
    share_of_way,
)


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


def test_emotions_that_were_recognised():
    share, table = emotion_recovery(["happy", "sad", "sad", "angry"], ["happy", "sad", "happy", "angry"])
    assert share == 0.75
    assert table["happy"] == {"happy": 0.5, "sad": 0.5, "angry": 0}
    assert table["sad"]["sad"] == table["angry"]["angry"] == 1
    assert emotion_recovery([], []) == (0.0, {})


def test_identity_similarity_is_the_mean_cosine():
    assert identity_similarity(np.array([[2.0, 0], [0, 5]]), np.array([1.0, 0])) == pytest.approx(0.5)


def test_distances_of_codes_by_what_their_clips_share():
    codes = np.array([[0.0, 0], [0, 1], [3, 0], [3, 1], [40, 0]])
    people, moods = ["a", "a", "b", "b", "a"], ["sad"] * 4 + ["happy"]
    found = code_distances(codes, people, moods)
    assert found["clips"] == pytest.approx(1.0)
    assert found["people"] == pytest.approx((3 + np.sqrt(10)) / 2)
    assert found["emotions"] == pytest.approx(np.mean([40, np.hypot(40, 1), 37, np.hypot(37, 1)]))
    assert set(code_distances(codes[:2], people[:2], moods[:2])) == {"clips"}


def test_a_linear_probe_finds_what_codes_hold_and_nothing_else():
    rng = np.random.default_rng(0)
    codes, test_codes = rng.normal(5, 2, (500, 6)), rng.normal(5, 2, (400, 6))
    slope, noise, test_noise = rng.normal(size=6), rng.normal(size=500), rng.normal(size=400)
    half = np.std(codes @ slope)  # noise of this size leaves half of the variance
    values = np.stack([codes @ slope, codes @ slope + half * noise, noise, np.full(500, np.nan)], axis=1)
    test_values = np.stack(
        [test_codes @ slope, test_codes @ slope + half * test_noise, test_noise, np.full(400, np.nan)], axis=1
    )
    whole, part, nothing, unknown = probe_r2(codes, values, test_codes, test_values)
    assert whole > 0.999 and part == pytest.approx(0.5, abs=0.08) and nothing < 0.02 and np.isnan(unknown)
    values[::2, 0] = np.nan  # known for half of the clips
    assert probe_r2(codes, values, test_codes, test_values)[0] > 0.999
    assert np.isnan(probe_r2(codes, values, test_codes, np.ones((400, 4)))).all()
