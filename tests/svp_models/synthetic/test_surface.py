"""The bent sheet: nodes that move are found again, the face's points carry their texture, light comes from its side."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from svp_portrait.svp_models.motion.coefficients import expression_vector
from svp_portrait.svp_models.synthetic.geometry import FaceGeometry, Pose, project
from svp_portrait.svp_models.synthetic.identity import IDENTITY_NAMES
from svp_portrait.svp_models.synthetic.natural_look import Light
from svp_portrait.svp_models.synthetic.surface import FaceSheet, Relief, Sheet, Span

STILL = np.zeros(2, np.float32)


def test_an_affine_move_of_the_nodes_is_inverted_exactly() -> None:
    sheet = Sheet(Span(-1, 1, -1, 1, density=40), 9, 9)
    places = sheet.nodes @ np.array([[30.0, 4.0], [-3.0, 28.0]]) + [50, 45]
    cells = sheet.inverse(places, (20, 20, 80, 68), 6)
    x, y = np.meshgrid(20 + 6 * (np.arange(10) + 0.5), 20 + 6 * (np.arange(8) + 0.5))
    back = (np.stack([x, y], axis=-1) - [50, 45]) @ np.linalg.inv([[30.0, 4.0], [-3.0, 28.0]])
    wanted = (back + 1) * 4  # face units -> indices of nodes
    inside = (np.abs(back) < 0.95).all(axis=-1)
    np.testing.assert_allclose(cells[inside], wanted[inside], atol=0.02)


def test_a_texture_follows_the_points_of_the_face() -> None:
    """Dots at the brows and the mouth's corners of the texture are found at those landmarks of a moved, smiling face."""
    geometry = FaceGeometry(dict.fromkeys(IDENTITY_NAMES, 0.0), version=2)
    span = Span(-1.75, 1.75, -2.0, 1.8, density=64)
    sheet = FaceSheet(geometry, span)
    solid, _ = geometry.deform(expression_vector(corner_up=0.8, brow_outer_up=0.7), STILL, STILL)
    pose = Pose(14, -5, 6, 0.02, 0.01, 1.05)
    landmarks = project(solid, pose, 256)
    bending = sheet.bent(sheet.places(solid, pose, 256), (0, 0, 256, 256), 6)
    for index in (19, 24, 30, 48, 54, 8):
        dot = np.zeros(span.shape, np.float32)
        x, y = span.pixels(geometry.neutral[index]) - 0.5
        rows, columns = np.mgrid[: span.shape[0], : span.shape[1]]
        dot[:] = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
        seen = bending.remap(dot, (0, 0, 256, 256), cv2.BORDER_CONSTANT)
        rows, columns = np.mgrid[:256, :256] + 0.5
        weight = seen**8  # the peak: a steep nose stretches one side of its dot
        found = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
        # The nose's tip is a point, and a smile folds the skin at the corners, which lips cover: neither is met exactly.
        assert np.abs(found - landmarks[index]).max() < (3.2 if index in (30, 48, 54) else 1.2), index


def test_light_stays_where_it_is_while_the_head_turns() -> None:
    """Lit from the image's right alone: the right cheek is brighter, and both darken as the head turns to the left."""
    shape = dict.fromkeys(IDENTITY_NAMES, 0.0)
    relief = Relief(FaceSheet(FaceGeometry(shape, version=2), Span(-1.75, 1.75, -2.0, 1.8, density=60)), shape, age=0.3)
    one, none = np.ones(3, np.float32), np.zeros(3, np.float32)
    right = np.float32([np.sin(0.9), 0, np.cos(0.9)])
    light = Light(right, one, -right, none, none, wrap=0.0, exposure=1.0, gloss=0.0, sharpness=10.0)

    def cheeks(yaw: float) -> np.ndarray:
        columns = [round((x + 1.75) / 3.5 * (relief.SIDE - 1)) for x in (-0.55, 0.55)]
        return relief.shading(Pose(yaw, 0, 0, 0, 0, 1), light)[round(2.3 / 3.8 * (relief.SIDE - 1)), columns, 0]

    turned_left, straight, turned_right = cheeks(-20), cheeks(0), cheeks(20)
    assert straight[1] > 1.5 * straight[0]
    assert (turned_left < straight).all() and (straight < turned_right).all()
    soft = replace(light, key=np.float32([0, 0, 1]), ambient=one * 0.2, exposure=0.7)
    face = relief.shading(Pose(0, 0, 0, 0, 0, 1), relief.exposed(soft))[relief.front][:, 1]
    assert abs(face.mean() - 0.7) < 0.02
