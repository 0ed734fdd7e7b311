"""One bar for several pieces of work, work in chunks, and work in a second thread: in order, few items at a time, and what fails on
either side ends both."""

from __future__ import annotations

from threading import Event, current_thread

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.io.progress import BAR, in_background, in_chunks, shared

LONG = 20  # seconds after which a test gives up


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


def test_items_keep_their_order_in_one_other_thread():
    done = []
    with in_background(lambda item: done.append((item, current_thread().name))) as hand_over:
        for item in range(50):
            hand_over(item)
    assert [item for item, _ in done] == list(range(50))
    assert len({name for _, name in done}) == 1 and done[0][1] != current_thread().name


def test_the_next_item_is_made_while_the_first_is_worked_on():
    made = Event()
    seen = []
    with in_background(lambda item: seen.append(made.wait(LONG))) as hand_over:
        hand_over(0)
        made.set()
    assert seen == [True]


@pytest.mark.parametrize("waiting", [0, 1, 3])
def test_no_more_than_so_many_wait(waiting):
    begun, go_on, handed, most = Event(), Event(), [], []

    def work(item):
        begun.set()
        assert go_on.wait(LONG)
        most.append(len(handed) - item)  # this one, those that wait, and the one that is being handed over

    def items():
        for item in range(8):
            handed.append(item)
            if item > waiting:
                assert begun.wait(LONG)
                go_on.set()
            yield item

    with in_background(work, waiting) as hand_over:
        for item in items():
            hand_over(item)
    assert len(most) == 8 and max(most) <= waiting + 2


def test_an_error_is_passed_on_and_nothing_follows_it():
    done, failing = [], PortraitError("the disk is full")

    def work(item):
        if item == 2:
            raise failing
        done.append(item)

    handed = []
    with pytest.raises(PortraitError, match="the disk is full") as caught, in_background(work) as hand_over:
        for item in range(100):
            hand_over(item)
            handed.append(item)
    assert caught.value is failing and done == [0, 1] and len(handed) <= 5


def test_an_error_of_the_last_item_is_raised_at_the_end():
    with pytest.raises(ZeroDivisionError), in_background(lambda item: 1 // item) as hand_over:
        hand_over(0)


def test_a_cancel_drops_what_waits():
    begun, go_on, done = Event(), Event(), []

    def work(item):
        begun.set()
        assert go_on.wait(LONG)
        done.append(item)

    with pytest.raises(KeyboardInterrupt), in_background(work, waiting=2) as hand_over:
        try:
            for item in range(3):
                hand_over(item)
            assert begun.wait(LONG)
            raise KeyboardInterrupt
        finally:
            go_on.set()
    assert done in ([0], [0, 1])  # the second may have begun before the end of the block
