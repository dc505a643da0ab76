"""Prices of a user's own, in place of those from the tables: part by part, for the machine's node and supply.

A CSV file in the columns of `accelsim costs --csv`, or Accelergy's ERT and ART (accelergy.py). Nothing is
scaled: what is given is what one instance of the part costs on this machine.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from accelsim.costs.component import ComponentCost
from accelsim.costs.listing import COLUMNS
from accelsim.costs.technology import Technology
from accelsim.errors import AccelsimError, listed

UNITS: Mapping[str, Mapping[str, float]] = {
    "energy": {"pJ": 1.0, "fJ": 1e-3, "nJ": 1e3},
    "area": {"um2": 1.0, "mm2": 1e6},
    "leakage": {"uW": 1.0, "nW": 1e-3, "mW": 1e3},
    "delay": {"ps": 1.0, "ns": 1e3},
}
"""Of each quantity; the first is that of `OwnPrice.value`."""
Row = TypeVar("Row")
_NEEDED = ("component", "quantity", "value", "unit")


@dataclass(frozen=True)
class OwnPrice:
    """One figure of one instance. quantity: `energy` (of an action), `area`, `leakage` or `delay`; value: pJ,
    um2, uW or ps; where: file and line, for messages."""

    component: str
    quantity: str
    action: str
    value: float
    where: str
    source: str = ""
    evidence: str = "own"
    node_nm: float | None = None
    vdd_v: float | None = None

    @property
    def name(self) -> str:
        return f"{self.component} {self.quantity}" + (f" of {self.action}" if self.action else "")


class OwnPrices:
    """Prices by part. Raises AccelsimError for one that is given twice, or for another node or supply."""

    def __init__(self, prices: Iterable[OwnPrice], technology: Technology) -> None:
        self._by_part: dict[str, dict[tuple[str, str], OwnPrice]] = {}
        for price in prices:
            own = self._by_part.setdefault(price.component, {})
            other = own.setdefault((price.quantity, price.action), price)
            if other is not price:
                raise AccelsimError(
                    f"{price.where}: {price.name} is given in {other.where} too, expected once"
                )
            for name, given, wanted in (
                ("node_nm", price.node_nm, technology.node_nm),
                ("vdd_v", price.vdd_v, technology.voltage_v),
            ):
                if given is not None and given != wanted:
                    raise AccelsimError(
                        f"{price.where}: {name} is {given:g}, expected {wanted:g} as of the machine, or none"
                    )

    def check_parts(self, known: Collection[str]) -> None:
        """Raise AccelsimError for a price of what no machine has."""
        for part, prices in self._by_part.items():
            if part not in known:
                where = next(iter(prices.values())).where
                raise AccelsimError(
                    f"{where}: component '{part}' is unknown, expected one of {listed(sorted(known), part)}"
                )

    def applied(self, part: str, cost: ComponentCost) -> ComponentCost:
        """The part's cost with what is given of it. Raises AccelsimError for an action that it has not."""
        own = self._by_part.get(part)
        if not own:
            return cost
        energy_pj = dict(cost.energy_pj)
        area_um2, leakage_uw, delay_ps = cost.area_um2, cost.leakage_uw, cost.delay_ps
        for price in own.values():
            if price.quantity == "energy":
                if price.action not in energy_pj:
                    raise AccelsimError(
                        f"{price.where}: {part} has no action '{price.action}' on this machine, expected one "
                        f"of {listed(energy_pj, price.action)}"
                    )
                energy_pj[price.action] = price.value
            elif price.quantity == "area":
                area_um2 = price.value
            elif price.quantity == "leakage":
                leakage_uw = price.value
            else:
                delay_ps = price.value
        energies = [price for price in own.values() if price.quantity == "energy"]
        others = [] if len(energies) == len(energy_pj) else [cost.source]
        given = dict.fromkeys(price.source or price.where for price in own.values())
        return replace(
            cost,
            area_um2=area_um2,
            leakage_uw=leakage_uw,
            energy_pj=energy_pj,
            delay_ps=delay_ps,
            source="; ".join([*given, *others]),
            evidence=energies[0].evidence if energies else cost.evidence,
            # A price that is given holds whatever the operands.
            activity={a: law for a, law in cost.activity.items() if ("energy", a) not in own},
            scaling=(*cost.scaling, *(f"{price.name}: as given in {price.where}" for price in own.values())),
        )


def read_own_csv(path: Path) -> list[OwnPrice]:
    """Prices of a CSV file. Raises AccelsimError naming line and column."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AccelsimError(f"prices {path}: cannot be read ({type(error).__name__})") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = next(_rows(csv.reader(text.splitlines()[:1]), path), [])
    for column in _NEEDED:
        if column not in header:
            raise AccelsimError(f"prices {path}: column '{column}' is missing, expected {', '.join(COLUMNS)}")
    found = []
    for row in _rows(reader, path):
        where = f"prices {path} line {reader.line_num}"
        if None in row or None in row.values():
            raise AccelsimError(f"{where}: has not as many fields as the header, expected {len(row)}")
        found.append(_own_price({key: value.strip() for key, value in row.items()}, where))
    if not found:
        raise AccelsimError(f"prices {path}: no rows, expected at least one")
    return found


def _rows(reader: Iterator[Row], path: Path) -> Iterator[Row]:
    try:
        yield from reader
    except csv.Error as error:
        raise AccelsimError(f"prices {path}: is no CSV ({error})") from None


def _own_price(row: Mapping[str, str], where: str) -> OwnPrice:
    quantity, _, action = (part.strip() for part in row["quantity"].partition(","))
    if quantity not in UNITS or bool(action) != (quantity == "energy"):
        raise AccelsimError(
            f"{where}: quantity is '{row['quantity']}', expected 'energy, ACTION', area, leakage or delay"
        )
    units = UNITS[quantity]
    if row["unit"] not in units:
        raise AccelsimError(f"{where}: unit is '{row['unit']}', expected {' or '.join(units)}")
    optional = {name: row.get(name, "") for name in ("node_nm", "vdd_v")}
    return OwnPrice(
        row["component"],
        quantity,
        action,
        number(row["value"], f"{where}: value") * units[row["unit"]],
        where,
        row.get("source", ""),
        row.get("status", "") or "own",
        **{name: number(text, f"{where}: {name}") for name, text in optional.items() if text},
    )


def number(given: object, where: str) -> float:
    """A finite number of at least 0. Raises AccelsimError."""
    try:
        value = math.nan if isinstance(given, bool) else float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise AccelsimError(f"{where} is '{str(given)[:60]}', expected a number of at least 0")
    return value
