"""A timeline as Perfetto's own trace: the events of timeline.json as protocol buffers.

The few messages that it takes are encoded here by hand (protobuf.dev, Encoding; field numbers are those of
perfetto_trace.proto in Perfetto). Texts are interned: written once, then named by number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

# Fields of TracePacket, TrackDescriptor, ProcessDescriptor, TrackEvent, DebugAnnotation and InternedData.
_PACKET = 1
_TIMESTAMP, _SEQUENCE, _EVENT, _INTERNED, _FLAGS, _DESCRIPTOR = 8, 10, 11, 12, 13, 60
_UUID, _NAME, _PROCESS, _PARENT, _ORDERING, _RANK = 1, 2, 3, 5, 11, 12
_PID, _PROCESS_NAME = 1, 6
_ANNOTATION, _TYPE, _NAME_IID, _TRACK = 4, 9, 10, 11
_KEY_IID, _INTEGER, _DOUBLE, _TEXT_IID = 1, 4, 5, 17
_NAMES, _KEYS, _TEXTS = 2, 3, 29
_BEGIN, _END, _EXPLICIT = 1, 2, 3
_CLEARED, _NEEDS_INTERNED = 1, 2
_SEQUENCE_ID = 1
_NS_PER_US = 1000
_TRACKS = 100_000  # the number of a track is that of its process times this, and its place there


def write_perfetto(events: Iterable[Mapping[str, Any]], path: Path) -> None:
    """events: as in a Chrome trace (`M` and `X`), slices of a track in order of time; times in us."""
    interned = _Interned()
    with path.open("wb") as out:
        _packet(out, _integer(_FLAGS, _CLEARED))
        ranks = 0
        for event in events:
            args = event["args"]
            if event["name"] == "process_name":
                _packet(out, _bytes(_DESCRIPTOR, _process(event["tid"], event["pid"], args["name"])))
                ranks = 0
            elif event["name"] == "thread_name":
                ranks += 1
                parent = event["pid"] * _TRACKS
                _packet(out, _bytes(_DESCRIPTOR, _track(event["tid"], parent, args["name"], ranks)))
            elif event["ph"] == "X":
                _slice(out, event, interned)


class _Interned:
    """Numbers of texts; what has not been written yet is `new`."""

    def __init__(self) -> None:
        self._numbers: dict[int, dict[str, int]] = {_NAMES: {}, _KEYS: {}, _TEXTS: {}}
        self.new = b""

    def number(self, kind: int, text: str) -> int:
        numbers = self._numbers[kind]
        found = numbers.get(text)
        if found is None:
            found = numbers[text] = len(numbers) + 1
            self.new += _bytes(kind, _integer(1, found) + _text(2, text))
        return found


def _slice(out: BinaryIO, event: Mapping[str, Any], interned: _Interned) -> None:
    begin = round(event["ts"] * _NS_PER_US)
    end = round((event["ts"] + event["dur"]) * _NS_PER_US)
    body = _integer(_TYPE, _BEGIN) + _integer(_TRACK, event["tid"])
    body += _integer(_NAME_IID, interned.number(_NAMES, event["name"]))
    for key, value in event["args"].items():
        own = _integer(_KEY_IID, interned.number(_KEYS, key))
        if isinstance(value, str):
            own += _integer(_TEXT_IID, interned.number(_TEXTS, value))
        elif isinstance(value, float):
            own += _varint(_DOUBLE << 3 | 1) + struct.pack("<d", value)
        else:
            own += _integer(_INTEGER, value)
        body += _bytes(_ANNOTATION, own)
    texts, interned.new = interned.new, b""
    flags = _integer(_FLAGS, _NEEDS_INTERNED)
    known = _bytes(_INTERNED, texts) if texts else b""
    _packet(out, known + flags + _integer(_TIMESTAMP, begin) + _bytes(_EVENT, body))
    body = _integer(_TYPE, _END) + _integer(_TRACK, event["tid"])
    _packet(out, flags + _integer(_TIMESTAMP, end) + _bytes(_EVENT, body))


def _process(uuid: int, pid: int, name: str) -> bytes:
    process = _integer(_PID, pid) + _text(_PROCESS_NAME, name)
    return _integer(_UUID, uuid) + _bytes(_PROCESS, process) + _integer(_ORDERING, _EXPLICIT)


def _track(uuid: int, parent: int, name: str, rank: int) -> bytes:
    return _integer(_UUID, uuid) + _text(_NAME, name) + _integer(_PARENT, parent) + _integer(_RANK, rank)


def _packet(out: BinaryIO, body: bytes) -> None:
    out.write(_bytes(_PACKET, body + _integer(_SEQUENCE, _SEQUENCE_ID)))


# Wire format: a field is its number with the kind of its value, then the value.


def _varint(value: int) -> bytes:
    if value < 0x80:
        return value.to_bytes(1, "little")
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _integer(field: int, value: int) -> bytes:
    """An integer, negative ones in two's complement of 64 bits."""
    return _varint(field << 3) + _varint(value & (1 << 64) - 1)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode("utf-8", "backslashreplace"))
