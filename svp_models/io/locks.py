"""Locks on open files: the system releases them however the process ends."""

from __future__ import annotations

import os
from pathlib import Path

if os.name == "nt":
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
