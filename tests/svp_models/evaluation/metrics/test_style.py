import numpy as np
import pytest

from svp_portrait.svp_models.evaluation.metrics.style import (
    clustering_strength,
    cosine,
    emotion_recovery,
    identity_similarity,
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
