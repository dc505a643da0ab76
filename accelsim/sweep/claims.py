"""Who is at work on a store: a locked file each, of which the system lets go when its process ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class Owner:
    """A sweep at work. Other processes see that it is alive until it is closed or its process ends, however
    that ends. Raises OSError where the folder cannot be written."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            is_alive(folder, path.name)  # what has ended leaves
        while True:
            self.name = os.urandom(8).hex()
            self._path = folder / self.name
            self._lock = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if self._path.exists():
                return
            os.close(self._lock)  # another took it for left behind before it was locked

    def close(self) -> None:
        with suppress(OSError):
            self._path.unlink()
        os.close(self._lock)


def is_alive(folder: Path, name: str) -> bool:
    """False for an owner that has ended; nothing of it is then left."""
    try:
        lock = os.open(folder / name, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        with suppress(OSError):
            (folder / name).unlink()
        return False
    finally:
        os.close(lock)
