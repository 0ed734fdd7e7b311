"""The rearranged arithmetic is that of the plain one, with fewer products; every part is measured beside it."""

from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.evaluation.bench_liveportrait import (
    SIZES,
    bench_liveportrait,
    plain_generator,
    plain_volumes,
    random_networks,
)

TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def networks():
    return random_networks(TINY)


@torch.no_grad()
def test_the_plain_arithmetic_is_liveportraits_too(liveportrait_networks, liveportrait_io, close):
    io = liveportrait_io
    close(plain_generator(liveportrait_networks.generator, io["warped"]), io["frame"])
    plain = plain_volumes(liveportrait_networks.warping)
    close(plain(io["feature_3d"], io["stitched_keypoints"][1:], io["source_keypoints"]).warped, io["warped"])


def test_every_case_agrees_with_its_plain_one(networks):
    rows = {row["case"]: row for row in bench_liveportrait(networks, TINY.side, repeats=1)}
    assert {"matmul", "appearance", "motion", "warping", "generator", "frame", "4 frames together"} <= set(rows)
    for row in list(rows.values())[1:]:
        assert row["seconds"] > 0 and row["gflop"] > 0
        assert row.get("relative_error", 0) < 1e-5, row["case"]
    for name in ("generator", "warping", "frame", "block enlarged by 4"):
        assert rows[name]["gflop"] <= rows[name]["plain_gflop"], name
    assert (
        rows["shared convolution of features enlarged by 4"]["gflop"]
        < 0.25 * (rows["shared convolution of features enlarged by 4"]["plain_gflop"])
    )
