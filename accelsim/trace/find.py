"""Where traces are: a file by its path, or a bundled one by its name."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from accelsim.errors import AccelsimError, listed
from accelsim.trace.file import SUFFIX
from accelsim.trace.manifest import METADATA_KEY, show


def trace_folders() -> tuple[Path, ...]:
    """Where bundled traces are looked for: in the installed package, or beside it in a checkout; then in the
    current folder."""
    package = Path(__file__).resolve().parents[1]
    installed, checkout = package / "traces", package.parent / "traces"
    return (installed if installed.is_dir() else checkout, Path("traces"))


def bundled_traces() -> dict[str, Path]:
    """Stem -> path of every bundled trace; the first folder wins."""
    found: dict[str, Path] = {}
    for folder in trace_folders():
        for path in sorted(folder.glob(f"**/*{SUFFIX}")):
            # A damaged trace is listed: opening it says what is wrong. Weights beside it are not.
            if has_manifest(path, if_damaged=True):
                found.setdefault(path.name.removesuffix(SUFFIX), path)
    return found


def has_manifest(path: Path, *, if_damaged: bool) -> bool:
    """True for a trace, False for another safetensors file; `if_damaged` where it is neither for certain."""
    try:
        with safe_open(path, framework="numpy") as file:
            return METADATA_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return if_damaged


def find_trace(name_or_path: str | Path) -> Path:
    """Path of a trace given as a file or as the name of a bundled one. Raises AccelsimError listing names."""
    text = str(name_or_path)
    is_folder = False
    try:
        if Path(text).is_file():
            return Path(text)
        is_folder = Path(text).is_dir()
    except (OSError, ValueError):  # too long a name, an embedded NUL byte
        pass
    bundled = bundled_traces()
    if text in bundled:
        return bundled[text]
    if is_folder:
        raise AccelsimError(f"trace {show(text)}: is a folder, expected a file or a bundled trace's name")
    names = listed(sorted(bundled), text) or "none found"
    raise AccelsimError(f"trace {show(text)}: no such file or bundled trace; bundled: {names}")
