from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.emotions import (
    ACTION_UNITS,
    EMOTION_NAMES,
    RECIPES,
    emotion_style,
    emotion_weights,
    liveportrait_emotion,
)
from svp_portrait.svp_models.motion.keypoints import KeypointMotion, drive_relative, keypoints_of_motion
from svp_portrait.svp_models.motion.style import LIVEPORTRAIT_LIPS, TransferWeights, apply_style
from svp_portrait.svp_models.types import LIVEPORTRAIT, Motion


def still(frames: int = 4) -> Motion:
    return Motion(
        torch.zeros(frames, 3), torch.zeros(frames, 2), torch.ones(frames), torch.zeros(frames, 63), 25.0, LIVEPORTRAIT
    )


def offset(text: str, strength: float = 1.0) -> torch.Tensor:
    """21 3, what a still face gets."""
    return apply_style(still(), emotion_style(text, strength), LIVEPORTRAIT_LIPS).expression[0].unflatten(0, (21, 3))


def test_every_emotion_has_a_recipe_of_known_action_units():
    assert tuple(RECIPES) == EMOTION_NAMES
    assert {unit for recipe in RECIPES.values() for unit in recipe} <= set(ACTION_UNITS)
    assert not offset("neutral").any()
    whole = [offset(name).flatten() for name in EMOTION_NAMES[1:]]
    cosines = [torch.cosine_similarity(a, b, dim=0).item() for i, a in enumerate(whole) for b in whole[:i]]
    assert max(cosines) < 0.8, "two emotions look the same"


def test_happy_is_the_published_smile():
    """(20,y) -0.01, (14,y) -0.02, (17,y) +0.0065, (17,z) +0.003, (13,y) (16,y) -0.00275, (3,y) (7,y) -0.0035."""
    wanted = torch.zeros(21, 3)
    wanted[20, 1], wanted[14, 1], wanted[17, 1], wanted[17, 2] = -0.01, -0.02, 0.0065, 0.003
    wanted[[13, 16], 1], wanted[[3, 7], 1] = -0.00275, -0.0035
    assert torch.allclose(offset("happy"), wanted, atol=1e-8)


def test_brows_and_mouth_move_as_the_emotion_does():
    assert offset("surprised")[1, 1] > 0 and offset("surprised")[2, 1] < 0, "brows up, as the slider has them"
    assert offset("surprised")[19, 1] > 0, "the jaw drops"
    assert offset("angry")[1, 0] > 0 > offset("angry")[2, 0], "brows come together"
    assert offset("sad")[20, 1] > 0 and offset("sad")[14, 1] > 0, "the corners go down"
    assert offset("contempt")[2, 1] != -offset("contempt")[1, 1], "one-sided"


@pytest.mark.parametrize("emotion", EMOTION_NAMES)
def test_offsets_are_linear_in_strength(emotion):
    for strength in (0.0, 0.3, 0.5):
        assert torch.allclose(offset(emotion, strength), strength * offset(emotion), atol=1e-7)
        assert torch.allclose(offset(f"{emotion} {strength}"), strength * offset(emotion), atol=1e-7)


def test_mixtures_add_up():
    wanted = 0.7 * offset("happy") + 0.3 * offset("surprised")
    assert torch.allclose(offset("happy 0.7, surprised 0.3"), wanted, atol=1e-7)
    assert torch.allclose(offset("Happy 0.7; surprised 0.3", 0.5), wanted / 2, atol=1e-7)


def test_an_emotion_leaves_the_movements():
    spoken = still(40)
    spoken.expression.copy_(torch.randn(40, 63, generator=torch.Generator().manual_seed(0)) * 0.01)
    moved = apply_style(spoken, emotion_style("fear"), LIVEPORTRAIT_LIPS)
    shift = liveportrait_emotion("fear").parts.sum(0)
    assert torch.allclose(moved.expression, spoken.expression + shift, atol=1e-6)


def test_temperature_varies_every_part_by_itself():
    style = emotion_style("happy")
    drawn = (
        apply_style(still(), style, LIVEPORTRAIT_LIPS, TransferWeights(temperature=1), seed=5)
        .expression[0]
        .unflatten(0, (21, 3))
    )
    cheeks, corners = drawn[13, 1] / -0.00275, drawn[14, 1] / -0.02
    assert cheeks != pytest.approx(corners) and drawn[20, 1] / -0.01 == pytest.approx(corners.item(), rel=1e-4)
    assert 0.4 < cheeks < 1.6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("joyful", "unknown emotion 'joyful': choose from neutral, angry"),
        ("happy much", "the strength of happy is 'much': write a number"),
        ("happy 1.5", "the strength of happy is 1.5: choose 0 to 1"),
        ("happy, happy 0.2", "the emotion happy stands there twice"),
        (" , ", "there is no emotion"),
    ],
)
def test_texts_that_mean_nothing_say_so(text, message):
    with pytest.raises(PortraitError, match=message):
        emotion_weights(text)


def test_names_alone_are_whole():
    assert emotion_weights("happy\nsad 0.25") == {"happy": 1.0, "sad": 0.25}
    with pytest.raises(PortraitError, match=r"the strength of the emotion is 1.5: choose 0 to 1"):
        emotion_style("happy", 1.5)


def test_a_portrait_driven_relatively_shows_the_emotion():
    """Points move by the offset, in the head's size, from the first frame on; the voice's movements come on top."""
    generator = torch.Generator().manual_seed(1)
    face = torch.randn(1, 21, 3, generator=generator)
    source = KeypointMotion(
        *(torch.zeros(1) for _ in range(3)), torch.zeros(1, 3), torch.tensor([1.5]), torch.zeros(1, 21, 3), face
    )
    spoken = still(6)
    spoken.expression.copy_(torch.randn(6, 63, generator=generator) * 0.01)
    happy = apply_style(spoken, emotion_style("happy"), LIVEPORTRAIT_LIPS)
    plain = drive_relative(source, keypoints_of_motion(spoken))
    moved = drive_relative(source, keypoints_of_motion(happy), keypoints_of_motion(happy.compared))
    assert torch.allclose(moved - plain, (1.5 * offset("happy")).expand(6, -1, -1), atol=1e-5)
