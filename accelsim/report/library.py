"""What a machine is priced by: tables of the package or a folder, and prices of a user's own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

from accelsim.arguments import expect, path_of
from accelsim.costs import CostLibrary
from accelsim.costs.own import OwnPrice, read_own_csv
from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch
from accelsim.report.accelergy import read_accelergy
from accelsim.report.inventory import PART_NAMES, technology_of

Costs = str | Path | Sequence[str | Path]
"""A folder of cost tables, files of prices (CSV, or Accelergy's YAML) of the machine's parts, or both."""


def library_of(arch: Arch, costs: Costs | None) -> CostLibrary:
    """Prices at the machine's node and supply. Raises AccelsimError for what is neither folder nor prices."""
    folders: list[Path] = []
    own: list[OwnPrice] = []
    for path in _paths(costs):
        if path.is_dir():
            folders.append(path)
        elif not path.is_file():
            raise AccelsimError(
                f"costs {path}: no such folder or file, expected a folder of cost tables, or prices in a "
                f".csv or .yaml file"
            )
        elif path.suffix == ".csv":
            own += read_own_csv(path)
        elif path.suffix in (".yaml", ".yml"):
            own += read_accelergy(path, arch.clock_ghz)
        else:
            raise AccelsimError(f"costs {path}: suffix is '{path.suffix}', expected .csv, .yaml or .yml")
    if len(folders) > 1:
        raise AccelsimError(f"costs: {', '.join(map(str, folders))} are two folders of tables, expected one")
    library = CostLibrary(technology_of(arch), folders[0] if folders else None, own)
    library.own.check_parts(PART_NAMES)
    return library


class Libraries:
    """Libraries by technology, the last few that were asked for: reading tables and fitting laws to them
    takes as long as pricing several machines."""

    _MOST = 32

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, CostLibrary] = OrderedDict()

    def of(self, arch: Arch, costs: Sequence[str] = (), digest: str = "") -> CostLibrary:
        """As `library_of`. digest: of what the files in `costs` hold."""
        # Only prices of a user's own may depend on the clock (report/accelergy.py).
        own = (tuple(costs), digest, arch.clock_ghz) if costs else ()
        key = technology_of(arch), own
        if key not in self._known:
            self._known[key] = library_of(arch, costs or None)
            while len(self._known) > self._MOST:
                self._known.popitem(last=False)
        return self._known[key]


def tables_folder(costs: Costs | None) -> Path | None:
    """The folder of cost tables, for what is priced on several machines. Raises AccelsimError for others."""
    given = _paths(costs)
    for path in given:
        if not path.is_dir():
            what = "a file" if path.is_file() else "no such folder"
            raise AccelsimError(f"costs {path}: {what}, expected a folder of cost tables")
    if len(given) > 1:
        raise AccelsimError(f"costs: {', '.join(map(str, given))} are {len(given)} folders, expected one")
    return given[0] if given else None


def _paths(costs: Costs | None) -> list[Path]:
    if costs is None:
        return []
    if isinstance(costs, (str, Path)):
        return [path_of(costs, "costs")]
    expect(costs, Iterable, "costs", "a path, or a list of paths")
    return [path_of(path, "costs: one") for path in costs]
