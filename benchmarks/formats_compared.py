"""Number formats of today on one array: cycles, energy and area of ResNet-50, BERT-base and a Llama block.

    python benchmarks/formats_compared.py [NETWORK ...]   minutes; writes what docs/formats_compared.md shows
    python benchmarks/formats_compared.py --page          only the page and the picture anew, from the rows

`accelsim compare NETWORK --scheme ...` with its values computed, so that energy in the lanes follows the bits
that change in them. Rows go to formats_compared.csv beside this file, the table to docs/formats_compared.md
and the picture to docs/pictures/formats.svg.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

import accelsim
from accelsim.report.plots.style import axes_for, legend_beside, look_of, name_ticks

HERE = Path(__file__).resolve().parent
ROWS, PAGE = HERE / "formats_compared.csv", HERE.parent / "docs/formats_compared.md"
PICTURE = HERE.parent / "docs/pictures/formats.svg"
ACCURACY = HERE / "accuracy.csv"
NETWORKS = ("resnet50", "bert-base", "llama-block@seq=128")
SCHEMES = ("8/8/-/-", "4/4/4/6", "mxint8", "mxfp4", "nvfp4", "4/4/8/8@32")
FIGURES = ("cycles", "energy_datapath_uj", "energy_pe_uj", "energy_system_uj", "area_pe_um2")
_TABLE = re.compile(r"(?<=<!-- table: benchmarks/formats_compared.py -->\n).*?(?=<!-- end -->)", re.DOTALL)


def measure(networks: list[str]) -> None:
    """Rows of these networks anew; those of others stay."""
    known = {} if not ROWS.exists() else {(row["network"], row["scheme"]): row for row in read()}
    for network in networks:
        for scheme in SCHEMES:
            run = accelsim.run(network, scheme=scheme, keep_tensors=False)
            known[network, scheme] = row_of(network, scheme, run.summary)
            print(network, scheme, f"{run.summary['cycles']:,} cycles", flush=True)
    with ROWS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["network", "scheme", "bits_per_weight", *FIGURES], lineterminator="\n")
        writer.writeheader()
        writer.writerows(known[network, scheme] for network in NETWORKS for scheme in SCHEMES)


def row_of(network: str, scheme: str, summary: dict[str, Any]) -> dict[str, Any]:
    own = accelsim.Scheme.parse(scheme)
    block = own.block or accelsim.load_arch("magnet16").vector_size
    energy = {
        f"energy_{scope}_uj": f"{summary['energy_pj'][scope] / 1e6:.6g}"
        for scope in ("datapath", "pe", "system")
    }
    return {
        "network": network,
        "scheme": scheme,
        "bits_per_weight": f"{own.weight.in_blocks(block).word_bits / block:g}",
        "cycles": summary["cycles"],
        **energy,
        "area_pe_um2": f"{summary['area_um2']['pe']:.6g}",
    }


def read() -> list[dict[str, str]]:
    with ROWS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def resnet20() -> dict[str, float]:
    """Top-1 of ResNet-20 by scheme, words by the plain rules (docs/accuracy.md)."""
    rows = pd.read_csv(ACCURACY, dtype=str, keep_default_na=False)
    plain = (rows["network"] == "resnet20") & (rows["quantize"] == "plain") & (rows["vector_size"] == "16")
    rows = rows[plain & (rows[["options", "overrides", "prepare", "wider"]] == "").all(axis=1)]
    return {
        row["scheme"]: float(row["value"]) for row in rows.to_dict("records") if row["chained"] == "False"
    }


def table() -> str:
    """Of the page: each figure as a share of 8/8/-/-'s on the same network."""
    rows, top1 = {(row["network"], row["scheme"]): row for row in read()}, resnet20()
    head = ["scheme", "bits a weight", "area of a PE"]
    head += [f"{name} {what}" for name in NETWORKS for what in ("cycles", "PE energy", "system energy")]
    lines = [
        "| " + " | ".join([*head, "top-1 of ResNet-20 (%)"]) + " |",
        "|---" * (len(head) + 1) + "|",
    ]
    for scheme in SCHEMES:
        first = rows[NETWORKS[0], scheme]
        cells = [scheme, first["bits_per_weight"], share(rows, NETWORKS[0], scheme, "area_pe_um2")]
        for name in NETWORKS:
            cells += [
                share(rows, name, scheme, own) for own in ("cycles", "energy_pe_uj", "energy_system_uj")
            ]
        lines.append("| " + " | ".join([*cells, f"{top1[scheme]:.1f}"]) + " |")
    return "\n".join(lines)


def share(rows: dict[tuple[str, str], dict[str, str]], network: str, scheme: str, figure: str) -> str:
    return f"{float(rows[network, scheme][figure]) / float(rows[network, SCHEMES[0]][figure]):.3f}"


def draw(picture: Path) -> None:
    """A panel a figure, a group of bars a network."""
    frame = pd.DataFrame(read())
    panels = {"energy_pe_uj": "energy of the PEs", "energy_system_uj": "energy with DRAM", "cycles": "cycles"}
    style: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": "accelsim", "font.size": 8}
    with plt.rc_context(style):
        figure, axes = plt.subplots(1, 3, figsize=(11.0, 3.2), layout="constrained", sharey=True)
        for own, (column, text) in zip(axes, panels.items(), strict=True):
            axes_for(own, 3.6, 3.2)
            values = frame.pivot(index="network", columns="scheme", values=column).astype(float)
            values = values.div(values[SCHEMES[0]], axis=0)
            for number, scheme in enumerate(SCHEMES):
                at = [place + (number - (len(SCHEMES) - 1) / 2) * 0.13 for place in range(len(NETWORKS))]
                own.bar(
                    at, values.loc[list(NETWORKS), scheme], width=0.12, label=scheme, **look_of(number).bar()
                )
            own.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
            name_ticks(own, NETWORKS)
            own.set_title(f"{text}, {SCHEMES[0]} = 1", fontsize=9, loc="left")
        legend_beside(axes[-1])
        figure.savefig(picture, metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--page", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if unknown := set(options.networks) - set(NETWORKS):
        parser.error(f"no network {', '.join(sorted(unknown))}, expected some of {', '.join(NETWORKS)}")
    if not options.page:
        measure(options.networks or list(NETWORKS))
    if PAGE.exists():
        PAGE.write_text(_TABLE.sub(lambda _: f"\n{table()}\n\n", PAGE.read_text("utf-8")), encoding="utf-8")
    draw(PICTURE)


if __name__ == "__main__":
    main()
