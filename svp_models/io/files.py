"""Files that appear whole or not at all, and names and folders that only one process uses at a time.

    with whole_file(path) as temporary:          # any file of a given name; replaces what is there
        save(temporary)
    with reserved_file(folder, "clip", "mp4") as path:    # clip_00001_.mp4 or the next free number, never overwritten
        save(path)
    with working_folder() as folder: ...         # a folder of this process in the system's temp folder
    with locked_folder(folder, "svp prepare"): ...        # one process at a time; for another one the error names the first
    clear_leftovers(folder)                      # temporary files of processes that were killed
    writable_problem(folder), check_outputs(path)         # before the work begins: a sentence or None; an error

`whole_file` and `reserved_file` clear the leftovers in the folders that they write into. A lock on the temporary file says
whether its process still writes: the system releases it however the process ends, while process numbers are used again
after a restart and are not the same in two containers.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import PortraitError

TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{32}\.part")
LEFT_ALONE = 24 * 3600  # seconds; without locks on files, a temporary one that is younger may be in use
LONGEST_NAME = 255  # bytes, where the system does not say
WORKING = "svp-work-"  # a working folder begins with this
OWNER = ".owner"  # the locked file in it
FOLDER_LOCK = ".svp-lock"


@contextmanager
def whole_file(path: Path | str, clear: bool = True) -> Iterator[Path]:
    """The name of an empty file beside `path` to write to: it takes the place of `path` when the block ends well.

    Whatever ends the block otherwise leaves nothing behind. The folder is made where it is missing. OSError is left to the
    caller, who knows what was being written. clear=False leaves the leftovers in the folder: for the second file of many.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if clear:
        clear_leftovers(path.parent)
    with _temporary(path) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def reserved_file(folder: Path | str, stem: str, suffix: str, first: int = 1, clear: bool = True) -> Iterator[Path]:
    """`folder/stem_00001_.suffix` with the lowest number from `first` on that nobody has, for this process alone.

    The file is there from the beginning, empty, so that whoever counts files counts it too; write it with `whole_file` or
    `VideoWriter`, which put the finished file in its place. If it is still empty at the end it is removed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if clear:
        clear_leftovers(folder)
    for number in itertools.count(first):
        path = folder / f"{stem}_{number:05}_.{suffix}"
        if os.path.lexists(path):
            continue
        with ExitStack() as reserved:
            with _one_at_a_time(folder):  # nobody may take the new names for leftovers, half made as they are
                reserved.enter_context(_temporary(path))  # says that the empty file is in use, until this process ends
                if not _taken(path):
                    continue
                reserved.callback(_remove_empty, path)
            yield path
        return


def clear_leftovers(folder: Path | str) -> None:
    """Removes temporary files, and the empty files that they reserved, whose process is gone."""
    with _one_at_a_time(Path(folder)):
        temporary = [
            (path, match["name"]) for path in _listed(Path(folder)) if (match := TEMPORARY.fullmatch(path.name))
        ]
        abandoned = {(path, name) for path, name in temporary if _abandoned(path)}
        in_use = {name for path, name in temporary if (path, name) not in abandoned}
        for path, name in abandoned:
            if name not in in_use:
                _remove_empty(path.with_name(name))


def working_name() -> Path:
    """A path for a `working_folder` that has yet to be made."""
    return Path(tempfile.gettempdir(), f"{WORKING}{uuid.uuid4().hex}")


@contextmanager
def working_folder(folder: Path | None = None) -> Iterator[Path]:
    """A new folder in the system's temp folder, removed at the end; those of killed processes are removed at the beginning.

    folder: its `working_name`, if somebody has to know it before.
    """
    folder = folder or working_name()
    for path in _listed(folder.parent):
        if path.name.startswith(WORKING) and _own_folder(path):
            _remove_working_folder(path)
    made, handle = folder.with_name(f".{folder.name}"), None
    try:
        made.mkdir(mode=0o700)
        handle = opened_locked(made / OWNER)
        if not LOCKS_FILES:
            os.close(handle)
        made.rename(folder)  # only now, so that nobody finds it without its lock
        yield folder
    finally:
        for path in (made, folder):
            shutil.rmtree(path, ignore_errors=True)
        if LOCKS_FILES and handle is not None:
            os.close(handle)


@contextmanager
def locked_folder(folder: Path | str, work: str) -> Iterator[None]:
    """Keeps a folder to one process at a time: for another one PortraitError names the first. work: what is done there, for
    example `svp prepare`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FOLDER_LOCK
    about = {
        "work": work,
        "process": os.getpid(),
        "host": platform.node(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    handle = None
    try:
        handle = _lock_file(path)
        if handle is None:
            raise PortraitError(f"{folder}: {_owner(path)} works in this folder: wait for it or choose another folder")
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(about).encode())
        yield
    finally:
        if handle is not None:
            with suppress(OSError):  # on Windows an open file stays; it locks nothing once it is closed
                path.unlink()
            os.close(handle)


def writable_problem(folder: Path | str) -> str | None:
    """Why nothing can be written into a folder, or into one that has yet to be made; None if it can be. It is tried."""
    wanted = Path(folder).absolute()
    try:
        above = _existing(wanted)
        if not above.is_dir():
            return f"{above} is a file, a folder is needed: choose another one"
        trial = tempfile.mkdtemp(prefix=".svp-", dir=above)
        try:
            Path(trial, *wanted.relative_to(above).parts).mkdir(parents=True, exist_ok=True)
        finally:
            shutil.rmtree(trial, ignore_errors=True)
    except (OSError, ValueError) as error:
        return f"nothing can be written into {wanted} ({reason(error)}): choose another folder or change its rights"
    return None


def check_outputs(*paths: Path | None) -> None:
    """Raises PortraitError for the first file that cannot be written where it is asked for: before the work, not after it."""
    for path in paths:
        if path is None:
            continue
        if os.path.isdir(path):  # also of a name that no file can have
            raise PortraitError(f"{path}: it is a folder: name a file")
        if len(os.fsencode(path.name)) > longest_name(path.parent):
            raise PortraitError(f"{path}: the name is too long: shorten it")
        if problem := writable_problem(path.parent):
            raise PortraitError(f"{path}: {problem}")


def longest_name(folder: Path | str) -> int:
    """Bytes that the name of a file may have in a folder, or in the one above that exists."""
    try:
        return os.pathconf(_existing(Path(folder).absolute()), "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows has no such call
        return LONGEST_NAME


def reason(error: Exception) -> str:
    """What an error says, without number and file name."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Names in a folder are reserved and cleared by one thread of one process at a time, where the system can lock folders."""
    handle = None
    try:
        if LOCKS_FILES:
            with suppress(OSError):
                handle = os.open(folder, os.O_RDONLY)
        if handle is not None:
            lock(handle, wait=True)
        yield
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A hidden empty file beside `path`, locked while the block lasts."""
    ending = f".{uuid.uuid4().hex}.part"
    room = longest_name(path.parent) - len(ending) - 1
    temporary = path.with_name(f".{os.fsdecode(os.fsencode(path.name)[:room])}{ending}")
    handle = None
    try:  # before the file is there, so that no signal comes between
        handle = opened_locked(temporary)
        if not LOCKS_FILES:  # an open file could not be replaced there
            os.close(handle)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        if LOCKS_FILES and handle is not None:
            os.close(handle)


def _taken(path: Path) -> bool:
    """Makes an empty file; False if somebody else has made one of that name."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    return True


def _lock_file(path: Path) -> int | None:
    """Opens and locks a file that its owner removes when it is done; None if another process has it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not lock(handle):
            os.close(handle)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(handle)):
                return handle
        os.close(handle)  # removed by its owner in between


def _existing(path: Path) -> Path:
    """The path, or the first of the folders above it that is there."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []  # not there or not readable: nothing of ours


def _abandoned(path: Path) -> bool:
    """Removes a temporary file whose process is gone; tells whether it did."""
    with suppress(OSError):  # somebody else has removed it, or may and we may not
        if not LOCKS_FILES:
            if time.time() - path.stat().st_mtime < LEFT_ALONE:
                return False
            path.unlink()
            return True
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if stat.S_ISREG(os.fstat(handle).st_mode) and lock(handle):
                path.unlink()
                return True
        finally:
            os.close(handle)
    return False


def _remove_empty(path: Path) -> None:
    with suppress(FileNotFoundError):
        if path.is_file() and not path.stat().st_size:
            path.unlink()


def _own_folder(path: Path) -> bool:
    """In a temp folder that all users share, only what this user has made is looked at."""
    with suppress(OSError):
        found = path.lstat()
        return stat.S_ISDIR(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())
    return False


def _remove_working_folder(path: Path) -> None:
    owner = path / OWNER
    young = time.time() - path.stat().st_mtime < LEFT_ALONE
    if _abandoned(owner) or (not owner.exists() and not young):
        shutil.rmtree(path, ignore_errors=True)


def _owner(path: Path) -> str:
    """Who has locked a folder, from the lock file."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return f"{about['work']} (process {about['process']} on {about['host']}, since {about['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


if sys.platform == "win32":
    import msvcrt

    LOCKS_FILES = False  # a file that is open can be neither moved nor removed, so temporary files are not locked
    FAR = 2**30  # a byte beyond the contents, because a locked one cannot be read

    def lock(handle: int, wait: bool = False) -> bool:
        """Locks an open file for this process; False if another one has it."""
        os.lseek(handle, FAR, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(handle, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    LOCKS_FILES = True

    def lock(handle: int, wait: bool = False) -> bool:
        """Locks an open file for this process; False if another one has it, or if the file system knows no locks."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            return False
        return True


def opened_locked(path: Path) -> int:
    """A new empty file, opened and locked; one that is there already raises FileExistsError.

    Between the two steps somebody who clears leftovers may take the file for one: then it is made again.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if not LOCKS_FILES:
            return handle
        lock(handle, wait=True)
        try:
            if os.path.samestat(os.stat(path), os.fstat(handle)):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)
