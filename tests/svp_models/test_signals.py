from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from svp_portrait.svp_models.optional_deps import Library
from svp_portrait.svp_models.signals import (
    Interrupted,
    cancelling,
    ending_at_once,
    exit_code,
    leave_to_parent,
    postponed,
)

IMPORTING = """
import time
from svp_portrait.svp_models.signals import ending_at_once
with ending_at_once():
    print("ready", flush=True)
    try:
        time.sleep(60)
    finally:
        print("not reached")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_cancels_with_the_code_of_the_shell(number, code):
    with pytest.raises(Interrupted) as caught, cancelling():
        os.kill(os.getpid(), number)
    assert exit_code(caught.value) == code


def test_a_second_signal_does_not_disturb_the_cleaning_up():
    cleaned = False
    with pytest.raises(Interrupted) as caught, cancelling():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            cleaned = True
    assert cleaned and caught.value.number == signal.SIGTERM


def test_a_swallowed_signal_is_raised_again():
    with cancelling() as check:
        check()
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            check()


def test_handlers_are_put_back_and_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cancelling():
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_leave_the_handlers_alone():
    def work() -> None:
        with ending_at_once(), cancelling():
            found.append(signal.getsignal(signal.SIGTERM))

    found: list = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ending_at_once_says_one_line(number, code):
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORTING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert (out, err, process.returncode) == ("", "svp: interrupted, nothing half-written was left\n", code)


def test_a_worker_leaves_ctrl_c_to_its_parent():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        leave_to_parent()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_signal_during_an_import_amid_work_waits_for_its_end(tmp_path, monkeypatch):
    """A compiled module does not survive an exception in the middle of its import."""
    (tmp_path / "slowly_imported.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.05)\nDONE = True\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Interrupted) as caught, cancelling():
        Library("slowly_imported").DONE  # noqa: B018
    assert caught.value.number == signal.SIGTERM and sys.modules.pop("slowly_imported").DONE


def test_without_a_signal_an_import_is_as_ever():
    before = signal.getsignal(signal.SIGTERM)
    with postponed():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
