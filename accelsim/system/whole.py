"""Files and folders that are there whole, or not at all, whenever the program ends.

What is under way stands in a scratch folder beside its target, `.TARGET.XXXXXXXX.accelsim-part`, which its
maker keeps locked. A scratch folder without a lock is what a killed run left: the next one removes it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from accelsim.errors import AccelsimError

SUFFIX = ".accelsim-part"
_OLD = "old"  # in a scratch folder: holds what the target was, under its name, where it could not be swapped
_MOST_CHARACTERS = 100  # of the target's name in that of its scratch folder
_ATTEMPTS = 20
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)

_live: set[Path] = set()
_moving = threading.RLock()  # held while something takes its place, and from the removal at an interrupt on


@contextmanager
def writing(what: str, target: Path) -> Iterator[None]:
    """Folders above `target` are made, and go again where nothing was put into them. Raises AccelsimError,
    which names `what`, where anything cannot be written."""
    made = [parent for parent in (target.parent, *target.parent.parents) if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise AccelsimError(f"{what} {target}: cannot be written: {error.strerror or error}") from None
    finally:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()  # only where nothing was put into it


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target`, whose parent must exist; gone when left. Raises OSError."""
    _sweep(target.parent)
    folder, lock = _locked_folder(target)
    try:
        yield folder
    finally:
        _remove(folder)
        _live.discard(folder)
        os.close(lock)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Yields where to write the file that takes the place of `target` on success. Raises OSError."""
    target = Path(os.path.realpath(target))
    with scratch_folder(target) as scratch:
        yield scratch / target.name
        with _moving:
            os.replace(scratch / target.name, target)


@contextmanager
def whole_files(target: Path) -> Iterator[Path]:
    """Yields a folder whose files, at any depth, are moved to `target` one by one when all are there; what
    else is there stays. Raises OSError."""
    target = Path(os.path.realpath(target))
    with scratch_folder(target) as scratch:
        yield scratch
        with _moving:
            for file in sorted(path for path in scratch.rglob("*") if path.is_file()):
                to = target / file.relative_to(scratch)
                to.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, to)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yields a new folder that takes the place of `target` on success. Raises OSError."""
    target = Path(os.path.realpath(target))
    with scratch_folder(target) as scratch:
        new = scratch / "new"
        new.mkdir()
        yield new
        with _moving:
            _take_place(new, target, scratch)


def remove_scratch() -> None:
    """Remove all that is under way, from any thread; nothing takes its place any more. For a program that
    ends at once."""
    _moving.acquire()
    for folder in list(_live):
        _remove(folder)


def _take_place(new: Path, target: Path, scratch: Path) -> None:
    try:
        os.rename(new, target)  # where nothing is, or an empty folder
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    if _swap(new, target):
        return
    (scratch / _OLD).mkdir()
    os.rename(target, scratch / _OLD / target.name)
    os.rename(new, target)


def _swap(one: Path, other: Path) -> bool:
    """One takes the other's place in a single step; False where system or file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    paths = os.fsencode(one), os.fsencode(other)
    return rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0


def _locked_folder(target: Path) -> tuple[Path, int]:
    for attempt in range(_ATTEMPTS):
        folder = target.parent / f".{target.name[:_MOST_CHARACTERS]}.{os.urandom(4).hex()}{SUFFIX}"
        _live.add(folder)
        try:
            folder.mkdir(0o700)
            lock = os.open(folder, os.O_RDONLY)
            _lock(lock, wait=True)
            if folder.exists():
                return folder, lock
            # Another run took it for left behind before it was locked.
            os.close(lock)
            _live.discard(folder)
        except OSError as error:
            _live.discard(folder)
            others = isinstance(error, FileExistsError | FileNotFoundError) and target.parent.is_dir()
            # Some file systems, /proc for one, say at every attempt that there is no such folder.
            if not others or attempt + 1 == _ATTEMPTS:
                raise
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _lock(folder: int, *, wait: bool) -> bool:
    """False where another run has it, or the file system has no locks."""
    with suppress(OSError):
        fcntl.flock(folder, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return True
    return False


def _sweep(parent: Path) -> None:
    """Remove what killed runs left in a folder."""
    with suppress(OSError):
        names = [name for name in os.listdir(parent) if name.startswith(".") and name.endswith(SUFFIX)]
        for name in names:
            with suppress(OSError):
                lock = os.open(parent / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    if _lock(lock, wait=False):
                        _remove(parent / name)
                finally:
                    os.close(lock)


def _remove(folder: Path) -> None:
    # Other threads may still write into it.
    for _ in range(_ATTEMPTS):
        for old in (folder / _OLD).glob("*"):
            if not os.path.lexists(folder.parent / old.name):
                with suppress(OSError):
                    os.rename(old, folder.parent / old.name)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
