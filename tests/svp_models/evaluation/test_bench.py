"""Products are counted, works take turns, and a row tells what plain arithmetic takes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from svp_portrait.svp_models.evaluation.bench import Case, gflop, interleaved, matmul_rate, measure, peak_bytes

META = torch.device("meta")


def test_products_are_counted_and_works_take_turns():
    a = torch.rand(10, 20)
    assert gflop(lambda: a @ a.T) == pytest.approx(2 * 10 * 20 * 10 / 1e9)
    order = []
    times = interleaved([lambda: order.append("a"), lambda: order.append("b")], 2)
    assert order == ["a", "b"] * 3 and [len(found) for found in times] == [2, 2]


@torch.no_grad()
def test_attention_counts_with_and_without_data():
    for device in ("cpu", "meta"):
        query, key = torch.ones(2, 3, 7, 8, device=device), torch.ones(2, 3, 11, 8, device=device)
        work = gflop(lambda query=query, key=key: functional.scaled_dot_product_attention(query, key, key))
        assert work == pytest.approx(2 * 2 * 2 * 3 * 7 * 11 * 8 / 1e9), device


def test_a_row_compares_with_plain_arithmetic():
    a, b, x = torch.rand(300, 400), torch.rand(400, 500), torch.rand(500, 2)
    row = measure(Case("product", lambda: a @ (b @ x), lambda: (a @ b) @ x, frames=2, bytes=True), 1.0, 2)
    assert row["plain_gflop"] == pytest.approx((300 * 400 * 500 + 300 * 500 * 2) / 1e9, abs=1e-4)
    assert row["relative_error"] < 1e-6 and row["seconds"] >= 0 and row["speedup"] > 0
    assert row["tensor_mb"] == round(4 * (400 * 2 + 300 * 2) / 1e6, 1)


def test_nothing_is_timed_where_nothing_is_computed():
    a = torch.rand(300, 400, device=META)
    row = measure(Case("product", lambda: a @ a.T), 1.0, 2, META)
    assert row == {"case": "product", "gflop": round(2 * 300 * 400 * 300 / 1e9, 4)}


def test_bytes_are_those_at_one_time():
    assert peak_bytes(lambda: torch.ones(1000).add(1).add(1)) == 2 * 4000


def test_the_rate_of_the_machine_is_a_number():
    assert matmul_rate() > 0
