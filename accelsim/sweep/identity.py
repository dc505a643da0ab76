"""What the figures of a point depend on, as keys: of its content, never of names or of when it was run.

A run is a network at a scheme on a machine but for its prices; a point is a run at prices. Both keys hold a
digest of the code they were computed with: another version computes anew, and never mixes with this one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import PRICE_KEYS, Arch
from accelsim.machine.arch_file import changed, load_arch
from accelsim.open import open_workload
from accelsim.quantize.workload import Workload
from accelsim.sweep.space import Point

_RUN = ("compute", "formats", "machine", "mapping", "quantize", "sim", "synthetic", "trace", "workload")
_RUN_FILES = ("network.py", "sizing.py", "sweep/evaluate.py", "sweep/record.py")
_PRICES = ("costs", "report")


@dataclass(frozen=True)
class Resolved:
    """key, run_key: of the point and of its run; workload_digest, costs_digest: of what its files hold; arch:
    None where `error` says what is wrong with the point."""

    point: Point
    key: str
    run_key: str = ""
    workload_digest: str = ""
    costs_digest: str = ""
    arch: Arch | None = None
    error: str = ""


def resolve(points: Iterable[Point]) -> Iterable[Resolved]:
    """Each with its keys. What many points share is read once a call: files may change between calls."""
    files = _Files()
    for point in points:
        try:
            yield _resolved(point, files)
        except AccelsimError as error:
            facts = ["refused", *code_digests(), point.labels(), point.gated_fraction, str(error)]
            yield Resolved(point, digest_of(facts), error=str(error))


@cache
def code_digests() -> tuple[str, str]:
    """Of what simulates, and of what prices with its tables."""
    root = Path(__file__).parents[1]
    digests = []
    for folders, files in ((_RUN, _RUN_FILES), (_PRICES, ())):
        paths = [
            path
            for name in folders
            for suffix in ("py", "csv")
            for path in (root / name).rglob(f"*.{suffix}")
        ]
        digest = hashlib.sha256()
        for path in sorted([*paths, *(root / name for name in files)]):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
        digests.append(digest.hexdigest()[:16])
    return digests[0], digests[1]


@lru_cache(maxsize=16)
def workload_of(network: str, digest: str = "") -> Workload:
    """Opened; digest: which one is meant, should the file change. Raises AccelsimError."""
    workload = open_workload(network)
    if digest and workload.sha256 != digest:
        raise AccelsimError(f"trace {network}: is not what it was when the sweep began, expected it to stay")
    return workload


class _Files:
    """What points name, read once."""

    def __init__(self) -> None:
        self.scheme, self.arch = cache(Scheme.parse), cache(load_arch)
        self.sha256 = cache(lambda network: open_workload(network).sha256)
        self.costs = cache(_costs_digest)
        self._machines: dict[str, Arch] = {}

    def machine(self, point: Point) -> Arch:
        text = json.dumps([point.arch, point.changes])
        if text not in self._machines:
            base = self.arch(point.arch)
            self._machines[text] = changed(base, dict(point.changes)) if point.changes else base
        return self._machines[text]


def _resolved(point: Point, files: _Files) -> Resolved:
    arch, scheme, sha256 = files.machine(point), files.scheme(point.scheme), files.sha256(point.network)
    arch.check_scheme(scheme)
    run_code, price_code = code_digests()
    parameters = arch.model_dump(mode="json", exclude={"name"})
    timed = {key: value for key, value in parameters.items() if key not in PRICE_KEYS}
    prices = {key: value for key, value in parameters.items() if key in PRICE_KEYS}
    run_key = digest_of([run_code, sha256, str(scheme), timed, point.gated_fraction])
    costs_digest = files.costs(point.costs)
    key = digest_of([run_key, price_code, prices, costs_digest])
    return Resolved(point, key, run_key, sha256, costs_digest, arch)


def _costs_digest(costs: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in costs:
        path = Path(name)
        try:
            files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
            for file in files:
                digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
        except OSError as error:
            raise AccelsimError(f"costs {name}: cannot be read: {error.strerror or error}") from None
    return digest.hexdigest() if costs else ""


def digest_of(facts: list[Any]) -> str:
    """32 hex digits of plain values."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
