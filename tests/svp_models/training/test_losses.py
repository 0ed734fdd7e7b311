import math

import pytest
import torch

from svp_portrait.svp_models.training.losses import (
    face_region_weight,
    image_loss,
    info_nce,
    inverse_distance_similarity,
    region_weight,
)


def test_similarity_is_the_inverse_of_distance_plus_one():
    first = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    similarity = inverse_distance_similarity(first, first)
    torch.testing.assert_close(similarity, torch.tensor([[1.0, 1 / 6], [1 / 6, 1.0]]), atol=2e-4, rtol=0)


def test_info_nce_in_closed_form():
    # Two of one label at distance 1, one of another at distances 2 and 3 on a line.
    codes = torch.tensor([[0.0], [1.0], [3.0]])
    positive, far, near = math.exp(1 / 2 / 0.5), math.exp(1 / 4 / 0.5), math.exp(1 / 3 / 0.5)
    expected = (math.log((positive + far) / positive) + math.log((positive + near) / positive)) / 2
    loss = info_nce(codes, torch.tensor([7, 7, 9]), temperature=0.5)
    assert loss.item() == pytest.approx(expected, abs=1e-3)


def test_info_nce_falls_when_clusters_part():
    labels = torch.tensor([0, 0, 1, 1])
    codes = torch.tensor([[0.0], [0.1], [0.2], [0.3]])
    apart = torch.tensor([[0.0], [0.1], [9.2], [9.3]])
    assert info_nce(apart, labels, 0.1) < info_nce(codes, labels, 0.1)


def test_info_nce_without_positives_is_refused():
    with pytest.raises(ValueError, match="positives"):
        info_nce(torch.zeros(3, 2), torch.tensor([0, 1, 2]), 0.1)


def test_image_loss_in_closed_form():
    target = torch.rand(1, 3, 16, 16) * 2 - 1
    weight = torch.ones(1, 1, 16, 16)
    assert image_loss(target, target, weight, 0.5).item() == pytest.approx(0, abs=1e-5)
    wrong = target.clone()
    wrong[..., :8] += 0.5
    # half of the pixels are off by 0.5, and so is the one gradient of fifteen across the edge
    assert image_loss(wrong, target, weight, 0.0).item() == pytest.approx(0.25 + 0.5 / 15, abs=1e-5)
    weight[..., :8] = 5
    assert image_loss(wrong, target, weight, 0.0).item() == pytest.approx(5 * 0.25 + 0.5 / 15, abs=1e-5)
    flat = torch.zeros(1, 3, 16, 16)  # without structure SSIM compares means alone: (2 m n + c) / (m^2 + n^2 + c)
    ssim = (2 * 0.5 * 0.75 + 1e-4) / (0.5**2 + 0.75**2 + 1e-4)
    loss = image_loss(flat + 0.5, flat, torch.ones_like(weight), 2.0).item()
    assert loss == pytest.approx(0.5 + 2 * (1 - ssim), abs=1e-3)


def test_region_weight_marks_the_box_of_the_points():
    points = torch.tensor([[[0.3, 0.3], [0.6, 0.42]]])
    weight = region_weight(points, 10, extra=2.0, margin=0.0)[0, 0]
    expected = torch.ones(10, 10)
    expected[3, 3:6] = 3  # cell centres 0.35, 0.45, 0.55 across and 0.35 down lie within
    torch.testing.assert_close(weight, expected)


def test_the_mouth_has_its_weight_and_that_of_the_face():
    landmarks = torch.full((1, 68, 2), 0.05)
    landmarks[:, 17:48] = torch.linspace(0.2, 0.6, 31)[None, :, None]  # brows, nose and eyes
    landmarks[:, 48:] = torch.linspace(0.5, 0.8, 20)[None, :, None]
    weight = face_region_weight(landmarks, 10, face=2.0, mouth=3.0, margin=0.0)[0, 0]
    assert [weight[cell, cell].item() for cell in (0, 3, 6, 9)] == [1.0, 3.0, 6.0, 1.0]
