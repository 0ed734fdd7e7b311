"""One bar for several pieces of work, and work in chunks."""

from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.io.progress import BAR, in_chunks, shared


def test_pieces_take_their_shares_of_one_bar():
    seen = []
    first, second, third = shared(lambda done, total: seen.append((done, total)), 1, 0.5, 2.5)
    for piece, total in ((first, 2), (second, 1), (third, 5)):
        for done in range(1, total + 1):
            piece(done, total)
    expected = [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1]
    assert seen == [(round(BAR * each), BAR) for each in expected]


def test_shares_of_a_share():
    seen = []
    outer = shared(lambda done, total: seen.append(done / total), 1, 9)
    for piece in shared(outer[1], 2, 1):
        for done in range(1, 101):
            piece(done, 100)
    assert seen == sorted(seen) and seen[0] == pytest.approx(0.106, abs=1e-4) and seen[-1] == 1
    assert seen[99] == pytest.approx(0.7, abs=2e-4)


def test_without_a_bar_there_is_nothing_to_call():
    assert shared(None, 1, 2) == [None, None]


def test_chunks_are_joined_and_counted():
    sizes, seen = [], []

    def work(chunk):
        sizes.append(len(chunk))
        return 2 * chunk

    rows = torch.arange(14.0).view(7, 2)
    assert torch.equal(in_chunks(work, rows, 3, lambda *each: seen.append(each)), 2 * rows)
    assert sizes == [3, 3, 1] and seen == [(3, 7), (6, 7), (7, 7)]


def test_an_exception_from_the_callback_ends_the_work():
    sizes = []

    def work(chunk):
        sizes.append(len(chunk))
        return chunk

    def stop(done, total):
        raise InterruptedError(f"{done} of {total}")

    with pytest.raises(InterruptedError, match="3 of 7"):
        in_chunks(work, torch.zeros(7), 3, stop)
    assert sizes == [3]
