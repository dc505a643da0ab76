"""The bits of a workload's values as tables, and the folder they are written to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.report.folder import BITS_TABLES, result_folder
from accelsim.report.results import write_csv
from accelsim.report.shown import Shown, shown_bits

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.compute.bits import LayerBits

SCHEMA = 1


@dataclass(frozen=True, repr=False)
class BitsResult:
    """What the values of a workload at one scheme ask of a machine's PEs (docs/bits.md).

    summary: what bits.json holds; layers: one row a layer; widths: one row a (layer, accumulator_bits);
    histograms: one row a (layer, quantity, bits); codes: one row a (layer, operand, magnitude). Fractions are
    0 to 1; NaN stands where there is nothing to measure.
    """

    summary: dict[str, Any]
    layers: pd.DataFrame
    widths: pd.DataFrame
    histograms: pd.DataFrame
    codes: pd.DataFrame

    @classmethod
    def of(
        cls, arch: Arch, scheme: Scheme, layers: Sequence[LayerBits], about: Mapping[str, object]
    ) -> BitsResult:
        import pandas as pd

        summary = {
            "schema": SCHEMA,
            **about,
            "arch": arch.name,
            "scheme": str(scheme),
            "macs": sum(own.layer.geometry.macs for own in layers),
            "accumulator_bits": layers[0].own.accumulator_bits,
            "overflow": arch.overflow,
            "overflows": sum(own.own.overflows for own in layers),
            "partial_sum_bits": max(own.partial_sum_bits for own in layers),
            "psum_bits": max(own.psum_bits for own in layers),
            "lossless_bits": max(own.lossless_bits for own in layers),
            "arch_parameters": arch.model_dump(),
        }
        widths = [
            {"layer": own.layer.name, "outputs": own.outputs, **asdict(at)}
            for own in layers
            for at in own.widths
        ]
        frames = [
            pd.DataFrame([_layer_row(own) for own in layers]),
            pd.DataFrame(widths, columns=[*_WIDTH_COLUMNS]),
            _counted(layers, "quantity", "bits", [own.histograms for own in layers]),
            _counted(layers, "operand", "magnitude", [own.codes for own in layers]),
        ]
        # A column of which every value is unknown holds None otherwise.
        for frame in frames[:2]:
            for name in frame.columns[frame.isna().all()]:
                frame[name] = np.nan
        return cls(summary, *frames)

    def __repr__(self) -> str:
        return self._shown().text()

    def _repr_html_(self) -> str:
        return self._shown().html()

    def _shown(self) -> Shown:
        return shown_bits(self.summary, self.layers)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer."""
        return self.layers

    def by_width(self) -> pd.DataFrame:
        """One row an accumulator width, over all layers.

        overflows: their sum; layers_that_overflow; overflowing_output_fraction: of the outputs of all layers;
        least_sqnr_wide_db: of the layer that suffers most, NaN where none does; sqnr_float_db: MAC-weighted
        mean over the layers that have a float output.
        """
        import pandas as pd

        rows = []
        macs = self.layers.set_index("layer")["macs"]
        for bits, own in self.widths.groupby("accumulator_bits"):
            known = own[own["sqnr_float_db"].notna()]
            weights = macs[known["layer"]].to_numpy()
            mean = float(np.average(known["sqnr_float_db"], weights=weights)) if len(known) else None
            rows.append(
                {
                    "accumulator_bits": bits,
                    "overflows": int(own["overflows"].sum()),
                    "layers_that_overflow": int((own["overflows"] > 0).sum()),
                    "overflowing_output_fraction": own["overflowing_outputs"].sum() / own["outputs"].sum(),
                    "least_sqnr_wide_db": own["sqnr_wide_db"].min(),
                    "sqnr_float_db": mean,
                }
            )
        return pd.DataFrame(rows)

    def write(self, out: str | Path) -> Path:
        """Write bits.json and the tables as CSV. Raises AccelsimError when `out` cannot be written."""
        with result_folder(out) as folder:
            text = json.dumps(self.summary, indent=1, allow_nan=False)
            (folder / "bits.json").write_text(text + "\n", encoding="utf-8")
            for name in BITS_TABLES:
                write_csv(getattr(self, name), folder / f"{name}.csv")
        return Path(out)


_WIDTH_COLUMNS = (
    "layer",
    "accumulator_bits",
    "overflows",
    "overflowing_outputs",
    "outputs",
    "sqnr_wide_db",
    "sqnr_float_db",
)


def _layer_row(own: LayerBits) -> dict[str, Any]:
    zeros = own.zeros
    return {
        "layer": own.layer.name,
        "macs": own.layer.geometry.macs,
        "outputs": own.outputs,
        "steps": own.steps,
        "c_split": own.c_split,
        "accumulator_bits": own.own.accumulator_bits,
        "overflows": own.own.overflows,
        "partial_sum_bits": own.partial_sum_bits,
        "psum_bits": own.psum_bits,
        "lossless_bits": own.lossless_bits,
        "dot_product_bits": own.dot_product_bits,
        "scale_product_bits": own.scale_product_bits,
        "product_bits": own.product_bits,
        "sqnr_float_db": own.own.sqnr_float_db,
        "zero_weight_code_fraction": zeros.weight_codes,
        "zero_activation_code_fraction": zeros.activation_codes,
        "zero_weight_scale_fraction": zeros.weight_scales,
        "zero_activation_scale_fraction": zeros.activation_scales,
        "zero_scale_product_fraction": zeros.scale_products,
        "rounded_scale_product_fraction": zeros.rounded_scale_products,
        "gated_fraction": zeros.gated_steps,
        "padding_fraction": zeros.padding_steps,
        "zero_operand_fraction": zeros.operand_macs,
    }


def _counted(
    layers: Sequence[LayerBits], what: str, key: str, found: Sequence[Mapping[str, np.ndarray]]
) -> pd.DataFrame:
    """Rows (layer, `what`, `key`, count) of every count up to the last that is not 0."""
    import pandas as pd

    rows = [
        (own.layer.name, name, at, int(counts[at]))
        for own, histograms in zip(layers, found, strict=True)
        for name, counts in histograms.items()
        for at in range(int(np.flatnonzero(counts).max(initial=-1)) + 1)
    ]
    return pd.DataFrame(rows, columns=["layer", what, key, "count"])
