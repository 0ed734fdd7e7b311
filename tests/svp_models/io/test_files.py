from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.io import files

RESERVE = """
import sys
from svp_portrait.svp_models.io.files import reserved_file, whole_file
for number in range(20):
    with reserved_file(sys.argv[1], "clip", "txt") as path, whole_file(path, clear=False) as temporary:
        temporary.write_text(f"{sys.argv[2]} {number}")
"""
KILLED = """
import os, signal, sys
from svp_portrait.svp_models.io.files import reserved_file, whole_file, working_folder
with working_folder() as folder, reserved_file(sys.argv[1], "clip", "txt") as path, whole_file(path) as temporary:
    temporary.write_text("half")
    (folder / "preview.png").write_text("half")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
WORKER = """
import sys
from svp_portrait.svp_models.io.files import locked_folder
with locked_folder(sys.argv[1], "svp prepare"):
    print("ready", flush=True)
    sys.stdin.read()
"""


def python(code: str, *arguments, **options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, **options)


def test_a_whole_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for text in ("first", "second"):
        with files.whole_file(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_file_that_fails_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.whole_file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_whole_files_have_the_rights_that_the_user_gives_new_files(tmp_path):
    with files.whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("")
    (tmp_path / "b.txt").write_text("")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_the_longest_possible_name_can_be_written(tmp_path):
    path = tmp_path / ("ä" * (files.longest_name(tmp_path) // 2))
    with files.whole_file(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole" and len(os.listdir(tmp_path)) == 1


def test_eight_processes_get_names_of_their_own(tmp_path):
    processes = [python(RESERVE, tmp_path, index) for index in range(8)]
    assert [process.wait(60) for process in processes] == [0] * 8
    assert sorted(os.listdir(tmp_path)) == [f"clip_{number:05}_.txt" for number in range(1, 161)]
    assert len({path.read_text() for path in tmp_path.iterdir()}) == 160


def test_threads_get_names_of_their_own(tmp_path):
    """Also when they clear leftovers while the others have made a temporary file and not locked it yet."""

    def work(folder: Path, index: int) -> None:
        for number in range(20):
            with files.reserved_file(folder, "clip", "txt") as path, files.whole_file(path) as temporary:
                temporary.write_text(f"{index} {number}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for folder in (tmp_path / str(attempt) for attempt in range(5)):
            threads = [threading.Thread(target=work, args=(folder, index)) for index in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(os.listdir(folder)) == [f"clip_{number:05}_.txt" for number in range(1, 161)]
            assert len({path.read_text() for path in folder.iterdir()}) == 160
    finally:
        sys.setswitchinterval(interval)


def test_a_reserved_name_is_given_back_when_nothing_was_written(tmp_path):
    with pytest.raises(OSError, match="full"), files.reserved_file(tmp_path, "clip", "mp4") as path:
        assert path.name == "clip_00001_.mp4" and path.stat().st_size == 0
        raise OSError("full")
    assert os.listdir(tmp_path) == []


def test_a_dangling_link_is_a_taken_name(tmp_path):
    (tmp_path / "clip_00001_.mp4").symlink_to(tmp_path / "elsewhere")
    with files.reserved_file(tmp_path, "clip", "mp4") as path:
        assert path.name == "clip_00002_.mp4"


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "temp").mkdir()
    out = tmp_path / "out"
    killed = python(KILLED, out, stdout=subprocess.PIPE)
    working = Path(killed.communicate()[0].strip())
    assert killed.returncode == -9 and (working / "preview.png").exists() and len(os.listdir(out)) == 3
    (out / ".notes.part").write_text("of somebody else")
    (out / "empty.txt").touch()
    with files.working_folder() as folder, files.reserved_file(out, "clip", "txt") as path:
        assert not working.exists() and folder.is_dir()
        assert path.name == "clip_00001_.txt"
    assert sorted(os.listdir(out)) == [".notes.part", "empty.txt"] and os.listdir(tmp_path / "temp") == []


def test_files_in_use_are_no_leftovers(tmp_path):
    with files.reserved_file(tmp_path, "clip", "txt") as path, files.whole_file(path) as temporary:
        files.clear_leftovers(tmp_path)
        assert path.exists() and temporary.exists()
        killed_rival = tmp_path / f".{path.name}.{'0' * 32}.part"
        killed_rival.touch()
        files.clear_leftovers(tmp_path)
        assert path.exists() and not killed_rival.exists()


def test_a_working_folder_in_use_stays(tmp_path):
    with files.working_folder() as first, files.working_folder() as second:
        assert first.is_dir() and second.is_dir() and first != second
    assert not first.exists() and not second.exists()


def test_a_locked_folder_names_who_works_there(tmp_path):
    process = python(WORKER, tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(PortraitError, match=rf"svp prepare \(process {process.pid} on .*since 20"):
        with files.locked_folder(tmp_path, "svp train"):
            pass
    process.communicate("")
    with files.locked_folder(tmp_path, "svp train"):
        assert os.listdir(tmp_path) == [files.FOLDER_LOCK]
    assert os.listdir(tmp_path) == []


def test_a_folder_whose_process_was_killed_is_free(tmp_path):
    process = python(WORKER, tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    process.kill()
    process.wait()
    with files.locked_folder(tmp_path, "svp train"):
        pass


def test_folders_that_can_be_written_are_found_out_without_a_trace(tmp_path):
    (tmp_path / "file").touch()
    assert files.writable_problem(tmp_path) is None
    assert files.writable_problem(tmp_path / "new" / "folder") is None
    assert sorted(os.listdir(tmp_path)) == ["file"]
    assert "file is a file" in files.writable_problem(tmp_path / "file" / "below")
    assert "nothing can be written" in files.writable_problem(tmp_path / ("x" * 300))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")
def test_a_folder_that_looks_writable_but_is_not():
    assert "nothing can be written" in files.writable_problem("/proc/x")
