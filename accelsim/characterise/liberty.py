"""Reads Liberty text (.lib, .lib.gz) into a tree of groups; nothing is interpreted here."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from accelsim.characterise.verilog import is_identifier
from accelsim.errors import AccelsimError

_TOKEN = re.compile(
    r"""\s*(?:/\*.*?\*/\s*)*(?:
        (?P<close>\})\s*;?
      | (?P<name>[\w\[\].]+)\s*(?:
            :\s*(?P<value>"(?:[^"\\]|\\.)*"\s*(?=[;\n}])|[^;{}\n]+)(?:;|\n|(?=\}))
          | \((?P<argument>[^()]*(?:\([^()]*\)[^()]*)*)\)\s*(?P<end>\{|;|\n|(?=\}))
        )
      | (?P<stray>;)
    )""",
    re.DOTALL | re.VERBOSE,
)
_DEEPEST = 32
# Groups whose names go to other tools; of a pin also bit-selects and lists of names.
_NAMED = ("cell", "pin", "ff", "latch")
_BIT = re.compile(r"\[\d+(:\d+)?\]$")
_MAX_BYTES = 256 << 20
_LARGEST = 1e12  # in any unit
_BETWEEN_NUMBERS = str.maketrans('",\\\n', "    ")


class Group:
    """`kind (argument) { name : value; name (values); ... }` with its inner groups in order."""

    __slots__ = ("argument", "attributes", "groups", "kind", "lists")

    def __init__(self, kind: str, argument: str) -> None:
        self.kind, self.argument = kind, argument
        self.attributes: dict[str, str] = {}
        self.lists: dict[str, str] = {}
        self.groups: list[Group] = []

    def all(self, kind: str) -> Iterator[Group]:
        return (group for group in self.groups if group.kind == kind)

    def first(self, *kinds: str) -> Group | None:
        """The first inner group of the first of these kinds that is there."""
        return next((group for kind in kinds for group in self.all(kind)), None)

    def numbers(self, name: str) -> list[float] | None:
        """The numbers of a complex attribute such as `index_1 ("1, 2")`; None when absent."""
        text = self.lists.get(name)
        if text is None:
            return None
        try:
            return [finite(number) for number in text.translate(_BETWEEN_NUMBERS).split()]
        except ValueError:
            raise AccelsimError(
                f"liberty {self.kind} ({self.argument[:40]}): {name} ({text[:40]}) are not numbers"
            ) from None


def finite(text: str) -> float:
    """Raises ValueError for what is no number, too large or too small a one to compute with, or a word."""
    value = float(text)
    if not abs(value) <= _LARGEST:
        raise ValueError(text)
    return value


def read_liberty(path: str | Path) -> Group:
    """The `library` group of one file. Raises AccelsimError when it cannot be read or is not Liberty."""
    return parse_liberty(liberty_text(path), str(path))


def liberty_text(path: str | Path) -> str:
    """A file's text, unpacked. Raises AccelsimError when it cannot be read."""
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise AccelsimError(f"liberty {path}: is larger than {_MAX_BYTES >> 20} MB, expected a library")
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                data = file.read(_MAX_BYTES + 1)
            if len(data) > _MAX_BYTES:
                raise AccelsimError(f"liberty {path}: unpacks to more than {_MAX_BYTES >> 20} MB")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise AccelsimError(f"liberty {path}: broken gzip file ({error}), expected a whole one") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AccelsimError(f"liberty {path}: cannot be read: {reason}") from None
    return data.decode("utf-8", errors="replace")


def parse_liberty(text: str, where: str) -> Group:
    """The `library` group of a Liberty text."""
    text = text.replace("\\\r\n", " ").replace("\\\n", " ")
    open_groups: list[Group] = []
    position = 0
    while token := _TOKEN.match(text, position):
        position = token.end()
        if token["stray"]:
            continue
        if token["close"]:
            if not open_groups:
                break
            closed = open_groups.pop()
            if not open_groups:
                return closed
        elif token["end"] == "{":
            group = Group(token["name"], token["argument"].strip().strip('"'))
            if group.kind in _NAMED:
                _check_names(group, where)
            if len(open_groups) == _DEEPEST:
                break
            if open_groups:
                open_groups[-1].groups.append(group)
            elif group.kind != "library":
                break
            open_groups.append(group)
        elif not open_groups:
            break
        elif token["value"] is not None:
            open_groups[-1].attributes[token["name"]] = token["value"].strip().strip('"')
        else:
            open_groups[-1].lists[token["name"]] = token["argument"]
    if not open_groups:
        raise AccelsimError(f"liberty {where}: not a Liberty file, expected `library (...) {{`")
    inside = " of ".join(f"{group.kind} ({group.argument[:40]})" for group in open_groups[:-4:-1])
    line = text.count("\n", 0, position) + 1
    raise AccelsimError(f"liberty {where}: near line {line}, inside {inside}: not Liberty, or cut short")


def _check_names(group: Group, where: str) -> None:
    """They go into Verilog and into what Yosys and abc read: one that is more than a name could say more."""
    one = group.kind == "cell"
    for name in [group.argument] if one else group.argument.replace('"', " ").replace(",", " ").split():
        plain = _BIT.sub("", name) if group.kind == "pin" else name
        if not is_identifier(plain):
            raise AccelsimError(f"liberty {where}: {group.kind} ({name[:60]}): expected a name as in Verilog")
