"""SCALE-Sim topologies as people keep them: what is read, what is ignored with a word, what is refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Said

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.open import open_workload
from accelsim.quantize.reference import convolve
from accelsim.synthetic.workload import SyntheticWorkload, write_recipe
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import Layer

SHARED = Path(__file__).resolve().parents[2] / "shared"
SHIPPED, CASES = SHARED / "data" / "workloads", SHARED / "cases"
NAMES = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides"
CONV_HEADER = NAMES + ",\n"
PLAIN = Geometry(N=1, C=16, H=8, W=8, K=16, R=3, S=3)


def read(path: Path | str, **options: Any) -> tuple[SyntheticWorkload, list[str]]:
    """The workload, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        workload = open_workload(path, **options)
    assert isinstance(workload, SyntheticWorkload)
    said = [str(warning.message) for warning in caught]
    assert all(text.startswith(f"trace {path}: ") for text in said)
    return workload, [text.removeprefix(f"trace {path}: ") for text in said]


def synthetic(path: str, **sizes: int) -> SyntheticWorkload:
    workload, said = read(path, **sizes)
    assert not said
    return workload


def macs(trace: SyntheticWorkload) -> int:
    return sum(info.geometry.macs for info in trace.layers)


READ = {
    "plain": (CONV_HEADER + "a, 8, 8, 3, 3, 16, 16, 1,\n", PLAIN, []),
    "quoted": (
        ",".join(f'"{name}"' for name in NAMES.split(", ")) + '\n"a","8",8,3,3,16,16,1\n', PLAIN, [],
    ),
    "tabs": (NAMES.replace(", ", "\t") + "\na\t8\t8\t3\t3\t16\t16\t1\n", PLAIN, []),
    "semicolons": (NAMES.replace(",", ";") + ";\na;8;8;3;3;16;16;1;\n", PLAIN, []),
    "plural, lower case, underscores": (
        "layer,ifmap_height,ifmap_width,filter_height,filter_width,channels,num_filters,stride\n"
        "a,8,8,3,3,16,16,1\n", PLAIN, [],
    ),
    "another order": (
        "Layer name, Channels, Num Filter, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Strides\n"
        "a, 16, 16, 8, 8, 3, 3, 1\n", PLAIN, [],
    ),
    "batch": (NAMES + ", Batch Size,\na, 8, 8, 3, 3, 16, 16, 1, 4,\n",
              Geometry(N=4, C=16, H=8, W=8, K=16, R=3, S=3), []),
    "strides": (
        NAMES.replace("Strides", "Stride Height, Stride Width") + "\na, 9, 9, 3, 3, 16, 16, 2, 3\n",
        Geometry(N=1, C=16, H=9, W=9, K=16, R=3, S=3, stride=(2, 3)), [],
    ),
    "kind": (NAMES.replace("name,", "name, Layer Type,") + "\na, Conv, 8, 8, 3, 3, 16, 16, 1,\n", PLAIN, []),
    "depthwise": (
        NAMES.replace("name,", "name, Layer Type,") + "\na, DW, 8, 8, 3, 3, 16, 1, 1,\n",
        Geometry(N=1, C=16, H=8, W=8, K=16, R=3, S=3, groups=16), [],
    ),
    "dense sparsity": (NAMES + ", Sparsity,\na, 8, 8, 3, 3, 16, 16, 1, 4:4,\n", PLAIN, []),
    "no header": (
        "a, 8, 8, 3, 3, 16, 16, 1,\n", PLAIN,
        ["there is no header: columns are taken for Layer name, ifmap height, ifmap width, filter height, "
         "filter width, channels, num filter, strides"],
    ),
    "a name twice": (
        NAMES.replace("IFMAP Width", "IFMAP Height") + "\na, 8, 8, 3, 3, 16, 16, 1,\n", PLAIN,
        ["line 1: a column's name is given twice, columns are taken in their usual order"],
    ),
    "other columns": (
        NAMES + ",,,Eh,Ew,e2\n,,,,,,,,,,,,\na, 8, 8, 3, 3, 16, 16, 1,,,8,8,64\n", PLAIN,
        ["columns that are not known are ignored: 'Eh', 'Ew', 'e2'"],
    ),
    "comments": (
        "# a network\n" + CONV_HEADER + "a, 8, 8, 3, 3, 16, 16, 1,#dw\n// the end\n", PLAIN,
        ["comments are ignored, of line 1, 3, 4"],
    ),
    "notes": (
        CONV_HEADER + "a, 8, 8, 3, 3, 16, 16, 1, looks odd\n", PLAIN,
        ["notes in columns without a name are ignored, of line 2"],
    ),
    "titles": (
        CONV_HEADER + "\nNetA,\n" + CONV_HEADER + "a, 8, 8, 3, 3, 16, 16, 1,\n", PLAIN,
        ["rows without sizes are ignored: line 3, 4"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_files_as_people_keep_them(kind: str, tmp_path: Path) -> None:
    text, geometry, said = READ[kind]
    path = tmp_path / "net.txt"
    path.write_text(text)
    workload, found = read(path)
    assert [(info.name, info.geometry) for info in workload.layers] == [("a", geometry)]
    assert found == said


def test_layers_are_depthwise_by_name_unless_told_otherwise(tmp_path: Path, cli: Callable[..., Said]) -> None:
    names = ["conv1", "conv2_DP", "Conv3_dw", "adapt", "dp-4"]
    filters = [64, 1, 1, 1, 64]
    rows = [f"{name}, 30, 30, 3, 3, 64, {k}, 1,\n" for name, k in zip(names, filters, strict=True)]
    path = tmp_path / "net.csv"
    path.write_text(CONV_HEADER + "".join(rows) + "dw_last, 8, 8, 3, 3, 1, 1, 1,\n")
    workload, said = read(path)
    assert [info.geometry.groups for info in workload.layers] == [1, 64, 64, 1, 1, 1]
    assert [info.geometry.K for info in workload.layers] == [64, 64, 64, 1, 64, 1]
    assert said == [
        "taken for depthwise by name and Num Filter 1: conv2_DP, Conv3_dw "
        "(with depthwise 'never' they are dense)"
    ]
    dense, said = read(path, depthwise="never")
    assert {info.geometry.groups for info in dense.layers} == {1} and not said
    with pytest.raises(AccelsimError, match=r"^depthwise is 'no', expected by-name or never$"):
        open_workload(path, depthwise="no")  # type: ignore[arg-type]
    with pytest.raises(AccelsimError, match="depthwise is given, expected a topology file"):
        open_workload("resnet50", depthwise="never")
    found = cli("trace", "synth", path, "--out", tmp_path / "net.json")
    assert found.status == 0 and found.err.startswith("warning: trace ") and found.err.count("\n") == 1
    found = cli("trace", "synth", path, "--depthwise", "never", "--out", tmp_path / "net.json")
    assert found.status == 0 and not found.err
    assert macs(open_workload(tmp_path / "net.json")) == macs(dense)  # type: ignore[arg-type]


def test_columns_and_options_do_not_contradict(tmp_path: Path) -> None:
    path = tmp_path / "net.csv"
    path.write_text(NAMES + ", Batch\na, 8, 8, 3, 3, 16, 16, 1, 4\n")
    assert open_workload(path).provenance["batch"] == 4
    with pytest.raises(AccelsimError, match="batch is 2, expected none: the file has a column of it"):
        open_workload(path, batch=2)


@pytest.mark.parametrize(
    ("file", "total"), [("resnet50_scalesim.csv", 3_479_536_384), ("resnet50_exact_v1.csv", 3_857_973_248)]
)
def test_shipped_topologies(file: str, total: int) -> None:
    """Their README: 3.48e9 by SCALE-Sim's formula, 3.86e9 at ResNet-50 v1's true sizes."""
    if not (SHIPPED / file).is_file():
        pytest.skip(f"{SHIPPED / file} is not on this machine")
    trace = synthetic(str(SHIPPED / file))
    assert len(trace.layers) == 54
    by_formula = 0
    for line in (SHIPPED / file).read_text().splitlines()[1:]:
        h, w, r, s, c, k, step = (int(cell) for cell in line.split(",")[1:8])
        by_formula += math.ceil((h - r + step) / step) * math.ceil((w - s + step) / step) * r * s * c * k
    assert macs(trace) == by_formula == total


def test_conv_rows_have_scalesims_output_size(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    cases = [
        (h, w, r, s, step)
        for step in (1, 2, 3, 4)
        for h, w in ((7, 8), (9, 10), (11, 12))
        for r, s in ((1, 3), (3, 2), (5, 7))
    ]
    rows = [f"L{i},{h},{w},{r},{s},4,8,{step},\n" for i, (h, w, r, s, step) in enumerate(cases)]
    path.write_text(CONV_HEADER + "".join(rows))
    for info, (h, w, r, s, step) in zip(synthetic(str(path), batch=2).layers, cases, strict=True):
        g = info.geometry
        assert (g.N, g.C, g.K, g.H, g.W, g.R, g.S) == (2, 4, 8, h, w, r, s)
        assert (g.P, g.Q) == (math.ceil((h - r + step) / step), math.ceil((w - s + step) / step))
        if step == 1:
            assert g.padding == (0, 0)


def test_gemm_rows_names_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "gemm.csv"
    path.write_text("Layer, M, N, K,\n\n q proj, 128, 768, 512,\nq proj,64,10,20\n,,,\n")
    trace = synthetic(str(path), seed=4)
    assert [info.name for info in trace.layers] == ["q_proj", "q_proj_2"]
    assert trace.layers[0].geometry == Geometry(N=1, C=512, H=1, W=128, K=768)
    assert trace.layers[0].op == "linear" and trace.recipe.seed == 4 and trace.name == "gemm"
    again = open_workload(write_recipe(trace, tmp_path / "g.json"))
    one, other = (own.quantized_layer("q_proj_2", Scheme.parse("4/4/4/4"), 16) for own in (trace, again))
    np.testing.assert_array_equal(one.weight_words, other.weight_words)
    np.testing.assert_array_equal(one.input_words, other.input_words)


BAD_TOPOLOGIES = {
    "": "line 1: is '', expected the header",
    "a,b,c\n": "line 1: is 'a, b, c', expected the header 'Layer name, ifmap height",
    NAMES.replace("Channels, ", "") + "\n": "channels is missing",
    CONV_HEADER: "has no layer after its header",
    NAMES + ", Channels\n": "line 1: column 'channels' is given twice, expected once",
    CONV_HEADER + "a,8,8,3,3,3,16,1,\nb,8,8,3,3,3,16,\n": "line 3: strides is '', expected a whole number",
    CONV_HEADER + "a,8,8,3,3,3,16,1,5,\n": "line 2: has '5' in a column without a name",
    CONV_HEADER + "fc, 1, 1, 1, ,1 2, 2, 1,\n": "line 2: filter width is '', expected a whole number from 1",
    CONV_HEADER + "a,8,8,3,x,3,16,1,\n": "line 2: filter width is 'x', expected a whole number from 1",
    CONV_HEADER + "a,8,8,3,3,3,16,0,\n": "line 2: strides is '0', expected a whole number from 1",
    CONV_HEADER + "a,8,8,3,3,-3,16,1,\n": "line 2: channels is '-3', expected",
    CONV_HEADER + "\na,2,8,5,3,3,16,1,\n": "line 3: the 5x3 filter is larger than the 2x8 ifmap",
    CONV_HEADER + "a,3,3,5,5,3,16,3,\n": "line 2: the 5x5 filter is larger than the 3x3 ifmap",
    CONV_HEADER + ",8,8,3,3,3,16,1,\n": "line 2: layer '': expected a name",
    NAMES + ", Sparsity\na,8,8,3,3,3,16,1,2:4\n": "line 2: sparsity is '2:4', expected a dense layer",
    NAMES + ", Type\na,8,8,3,3,3,16,1,pool\n": "line 2: layer type is 'pool', expected one of conv,",
    NAMES + ", Type\na,8,8,3,3,3,16,1,dw\n": "line 2: a depthwise layer has num filter 16, expected 1 or",
    "Layer, M, N, K,\na,1,2,\n": "line 2: k is '', expected",
    "Layer, M, N, K,\na,99999999999999999999999,2,3,\n": "line 2: m is '99999",
    CONV_HEADER + '"a,8,8,3,3,3,16,1\n\x00': "line 2: is '",
}


@pytest.mark.parametrize("text", BAD_TOPOLOGIES)
def test_bad_topologies_name_file_and_line(text: str, cli: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(text)
    said = cli("trace", "info", "bad.csv")
    assert said.status == 2, said
    assert said.err.startswith("error: trace bad.csv: ") and BAD_TOPOLOGIES[text] in said.err
    assert said.err.count("\n") == 1


def test_topologies_take_no_sequence_length(cli: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("Layer, M, N, K,\na,1,2,3,\n")
    for option in ("--seq", "--batch"):
        said = cli("trace", "synth", "g.csv", option, 2, "--out", "x.json")
        assert said.status == 2 and f"{option[2:]} is 2, expected none" in said.err
    assert cli("trace", "synth", "g.csv", "--seed", 2, "--out", "x.json").status == 0


FROM_THE_FIELD = {
    "col_batch.csv": 262_144, "col_layer_type.csv": 82_944, "col_notes.csv": 150_528,
    "dp_name.csv": 1_806_336, "dp_name_as_meant.json": 1_806_336, "head_plural.csv": 49_152,
    "no_header.csv": 82_944, "padding_4_list.json": 1_728, "quoted.csv": 82_944, "row_comment.csv": 324,
    "row_section_title.csv": 83_584, "topology_as_txt.txt": 82_944,
    "col_sparsity.csv": "sparsity is '2:4'", "row_double_comma.csv": "line 2: filter width is ''",
    "filter_over_ifmap_s1.csv": "the 5x5 filter is larger than the 3x3 ifmap",
    "linear_with_3x3.json": "is a linear with kernel 3x3",
    "matmul_stride.json": "is a matmul with stride 2x2",
}  # fmt: skip


@pytest.mark.parametrize("name", FROM_THE_FIELD)
def test_files_from_the_field(name: str) -> None:
    if not (CASES / name).is_file():
        pytest.skip(f"{CASES / name} is not on this machine")
    expected = FROM_THE_FIELD[name]
    if isinstance(expected, str):
        with pytest.raises(AccelsimError) as error:
            open_workload(CASES / name)
        assert expected in str(error.value)
    else:
        assert macs(read(CASES / name)[0]) == expected


# --- padding of four numbers, and products of matrices ----------------------------------------------------


@pytest.mark.parametrize("padding", [(0, 1, 0, 1), (2, 0, 0, 1), (1, 2, 1, 2), (0, 0, 3, 0)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), ((1, 3), 2)])
def test_four_paddings_are_zeros_around_the_input(padding: Any, stride: Any, dilation: Any) -> None:
    top, left, bottom, right = padding
    sizes = {"C": 4, "K": 3, "R": 3, "S": 2, "stride": stride, "dilation": dilation}
    own = Geometry(N=2, H=6, W=7, padding=list(padding), **sizes)
    around = Geometry(N=2, H=6 + top + bottom, W=7 + left + right, **sizes)
    assert (own.P, own.Q) == (around.P, around.Q)
    random = np.random.default_rng(0)
    inputs, weight = random.standard_normal((2, 4, 6, 7)), random.standard_normal((3, 4, 3, 2))
    padded = np.pad(inputs, ((0, 0), (0, 0), (top, bottom), (left, right)))
    np.testing.assert_array_equal(convolve(inputs, weight, own), convolve(padded, weight, around))
    # Where a tap is in the padding, and which position it meets elsewhere.
    found, wanted = own.tap_positions(), around.tap_positions()
    n, rest = np.divmod(wanted, around.H * around.W)
    h, w = np.divmod(rest, around.W)
    inside = (h >= top) & (h < top + 6) & (w >= left) & (w < left + 7)
    np.testing.assert_array_equal(found, np.where(inside, (n * 6 + h - top) * 7 + w - left, -1))


def test_padding_alike_on_both_sides_is_kept_as_two() -> None:
    assert Geometry(N=1, C=1, H=4, W=4, K=1, padding=[1, 2, 1, 2]).padding == (1, 2)
    assert Geometry(N=1, C=1, H=4, W=4, K=1, padding=(1, 2, 1, 3)).padding_after == (1, 3)
    for bad in ((1, 2, 3), (1, 2, 3, -1), [1, 2, 3, 4, 5]):
        with pytest.raises(
            AccelsimError, match=r"padding is .*, expected a whole number from 0, two, or four"
        ):
            Geometry(N=1, C=1, H=4, W=4, K=1, padding=bad)
    with pytest.raises(AccelsimError, match="stride is"):
        Geometry(N=1, C=1, H=4, W=4, K=1, stride=[1, 1, 1, 1])


@pytest.mark.parametrize("op", ["linear", "matmul"])
@pytest.mark.parametrize(
    ("sizes", "what"),
    [
        ({"R": 3}, "kernel 3x1"), ({"stride": 2}, "stride 2x2"), ({"padding": 1}, "padding 1x1"),
        ({"padding": [0, 0, 1, 0]}, "padding 0x0x1x0"), ({"dilation": (1, 2)}, "dilation 1x2"),
    ],
)  # fmt: skip
def test_a_product_of_matrices_has_no_kernel(op: str, sizes: Any, what: str) -> None:
    geometry = Geometry(N=1, C=16, H=8, W=8, K=16, **sizes)
    with pytest.raises(AccelsimError, match=rf"^layer l: is a {op} with {what}, expected op conv, or none$"):
        Layer("l", op, geometry)
    Layer("l", "conv", geometry)
