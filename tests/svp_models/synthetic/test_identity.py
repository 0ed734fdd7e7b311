from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.synthetic.identity import (
    CLOTHES_STYLES,
    HAIR_STYLES,
    IDENTITY_NAMES,
    IDENTITY_SIZE,
    appearance,
    sample_identity,
)
from svp_portrait.svp_models.synthetic.renderer import FaceRenderer

REST = np.array([0, 0, 0, 0, 0, 1], dtype=np.float32)
STILL = np.zeros(2, dtype=np.float32)


def picture(identity: np.ndarray) -> np.ndarray:
    return FaceRenderer(identity).render(np.zeros(64, np.float32), REST, STILL, STILL, 96).image


# Some parameters only show on people who wear the thing they describe.
NEEDS = {
    "hair_parting": {"hair_style": -0.5},
    "beard_length": {"beard": 0.9},
    "glasses_size": {"glasses": 0.9},
    "glasses_hue": {"glasses": 0.9},
    "earring_hue": {"earrings": 0.9, "hair_style": -0.9},
    "ear_size": {"hair_style": -0.9},
    "ear_height": {"hair_style": -0.9},
    "earrings": {"hair_style": -0.9},
    "hair_length": {"hair_style": 0.9},
    "hair_fringe": {"hair_style": 0.1},
    "hair_wave": {"hair_style": 0.3},
    "hair_shine": {"hair_style": 0.1},
    "clothes_accent": {"clothes_style": -0.6},
    "background_accent": {"background_kind": -0.5},
}


def test_there_are_eighty_names() -> None:
    assert len(set(IDENTITY_NAMES)) == IDENTITY_SIZE


@pytest.mark.parametrize("name", IDENTITY_NAMES)
def test_every_parameter_changes_the_picture(name: str) -> None:
    low = np.zeros(IDENTITY_SIZE, dtype=np.float32)
    for other, value in NEEDS.get(name, {}).items():
        low[IDENTITY_NAMES.index(other)] = value
    high = low.copy()
    low[IDENTITY_NAMES.index(name)], high[IDENTITY_NAMES.index(name)] = -0.9, 0.9
    change = np.abs(picture(low).astype(int) - picture(high).astype(int)).max(axis=2)
    assert (change > 5).sum() >= 4, f"{name} changes too little"


def test_samples_are_in_range_repeatable_and_varied() -> None:
    people = [sample_identity(np.random.default_rng(seed)) for seed in range(60)]
    assert all(person.dtype == np.float32 and person.shape == (80,) and np.abs(person).max() <= 1 for person in people)
    np.testing.assert_array_equal(people[3], sample_identity(np.random.default_rng(3)))
    looks = [appearance(person) for person in people]
    assert {look.hair_style for look in looks} == set(HAIR_STYLES)
    assert {look.clothes_style for look in looks} == set(CLOTHES_STYLES)
    brightness = [sum(look.skin) for look in looks]
    assert max(brightness) > 2 * min(brightness)


def test_colours_are_valid() -> None:
    for seed in range(30):
        look = appearance(sample_identity(np.random.default_rng(seed)))
        for colour in (look.skin, look.skin_shadow, look.hair, look.lips, look.iris, look.clothes, look.background):
            assert all(0 <= channel <= 255 for channel in colour)
