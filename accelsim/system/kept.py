"""What runs leave on disk for later ones: a folder of small files that may go at any time.

Files are there whole or not at all, also where many processes write at once, and a folder that cannot be
made, read or written is one that holds nothing: nobody is told, and everything is found anew. So it is with
a file that is not as it was written: in front of its data stands a digest of its name and of them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ENVIRONMENT = "ACCELSIM_CACHE_DIR"
MAX_BYTES = 64 << 20
_BLOCK = 4096  # what a file takes on disk is a multiple of it
_SEAL_BYTES = 32
_ROUND = 256  # files that a process writes between two looks at the size


def kept_folder() -> Path | None:
    """$ACCELSIM_CACHE_DIR, else accelsim in $XDG_CACHE_HOME, else ~/.cache/accelsim; None where there is no
    home folder, or $ACCELSIM_CACHE_DIR is empty."""
    own = os.environ.get(ENVIRONMENT)
    if own is not None:
        return Path(own).absolute() if own else None
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):  # the XDG specification ignores others
        return Path(shared) / "accelsim"
    try:
        return Path.home() / ".cache" / "accelsim"
    except RuntimeError:
        return None


@cache
def sources_digest(rooms: tuple[str, ...], packages: tuple[str, ...] = ()) -> str:
    """Of the sources in these rooms and files of the package, and of other packages, which are not imported
    for it: other versions of them find other files."""
    root = Path(__file__).parents[1]
    folders = [root / name for name in rooms]
    for name in packages:
        spec = find_spec(name)
        folders += [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    digest = hashlib.sha256()
    for folder in folders:
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*.py")):
            digest.update(str(path.relative_to(folder.parent)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _seal(name: str, data: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + data).digest()


class Kept:
    """Files of one kind by name. max_bytes: of all of them on disk; the oldest go where there are more."""

    def __init__(self, kind: str, max_bytes: int = MAX_BYTES) -> None:
        folder = kept_folder()
        self._folder = None if folder is None else folder / kind
        self._max_bytes = max_bytes
        self._written = 0

    def read(self, name: str) -> bytes | None:
        """None where there is no such file, or where it is not as it was written."""
        if self._folder is None:
            return None
        try:
            content = (self._folder / name).read_bytes()
        except OSError:
            return None
        seal, data = content[:_SEAL_BYTES], content[_SEAL_BYTES:]
        return data if seal == _seal(name, data) else None

    def write(self, name: str, data: bytes) -> None:
        """Put it there, in the place of what bears that name."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._written % _ROUND == 0:
                self._make_room()
            self._written += 1
            number, part = tempfile.mkstemp(suffix=".part", dir=self._folder)
        except OSError:
            self._folder = None  # nor will there be room for the next
            return
        try:
            with open(number, "wb") as file:
                file.write(_seal(name, data) + data)
            os.replace(part, self._folder / name)
        except OSError:
            with suppress(OSError):
                os.unlink(part)
            self._folder = None
        except BaseException:  # an interrupt
            with suppress(OSError):
                os.unlink(part)
            raise

    def _make_room(self) -> None:
        """Half of it where it is full, so that it is not looked for at every start."""
        assert self._folder is not None
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(OSError):  # another process was faster
                    status = entry.stat(follow_symlinks=False)
                    size = -(-status.st_size // _BLOCK) * _BLOCK
                    found.append((status.st_mtime_ns, size, entry.path))
        held = sum(size for _, size, _ in found)
        if held <= self._max_bytes:
            return
        for _, size, path in sorted(found):
            if held <= self._max_bytes // 2:
                break
            with suppress(OSError):
                os.unlink(path)
            held -= size
