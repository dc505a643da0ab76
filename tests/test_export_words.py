"""Words that an export stores beside floats: those of accelsim.torch.simulate, bit for bit."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'accelsim[torch]'")

from accelsim_kernels import reference  # noqa: E402
from torch import nn  # noqa: E402
from torch_models import Attention, Small  # noqa: E402

import accelsim  # noqa: E402
import accelsim.torch  # noqa: E402
from accelsim.compute.lanes import lane_spec  # noqa: E402
from accelsim.errors import AccelsimError  # noqa: E402
from accelsim.formats.scheme import Scheme  # noqa: E402
from accelsim.inference.layer import TensorFormat  # noqa: E402
from accelsim.quantize.arrays import PRESETS, QuantizeOptions  # noqa: E402
from accelsim.quantize.layers import quantize_layer  # noqa: E402
from accelsim.quantize.reference import dequantize_output  # noqa: E402
from accelsim.torch.simulate import METHODS  # noqa: E402
from accelsim.trace.write import quantize_trace  # noqa: E402

pytestmark = pytest.mark.kept

FIRST = {"small": ["stem"], "attention": ["qkv.0", "qkv.1", "qkv.2"]}
"""Layers that read the model's inputs."""


def given(name: str) -> tuple[nn.Module, Any, list[Any]]:
    """(model, inputs, calibration)."""
    torch.manual_seed(2)
    if name == "small":
        images = torch.relu(torch.randn(132, 16, 8, 8))
        return Small().eval(), images[:4], [images[4:68], images[68:]]
    tokens = torch.randn(52, 12, 32)
    return Attention().eval(), tokens[:4], [tokens[4:]]


@pytest.mark.parametrize(
    ("quantize", "name"),
    [
        ("default", "small"),
        ("default", "attention"),
        pytest.param("best", "small", marks=pytest.mark.slow),
        ("best", "attention"),
    ],
)
def test_a_run_of_the_trace_takes_the_words_of_simulate(name: str, quantize: Any, tmp_path: Path) -> None:
    model, inputs, calibration = given(name)
    schemes = ["8/8/-/-", "4/4/4/4"]
    path = accelsim.torch.export(
        model,
        inputs,
        tmp_path / "net.safetensors",
        calibration=iter(calibration),
        schemes=schemes,
        quantize=quantize,
    )
    comparison = accelsim.compare(path, schemes=schemes)
    trace = accelsim.Trace.open(path)
    for scheme in schemes:
        simulated = accelsim.torch.simulate(model, inputs, scheme, calibration=calibration, quantize=quantize)
        steps = outputs_of(simulated, inputs)
        gains = set()
        for activity in comparison[scheme].activities:
            layer = activity.layer.name
            hardware, floats, found = simulated.layers[layer], trace.float_layer(layer), activity.computed
            assert found.operands is not None and found.values is not None
            computed = floats.weight if floats.weight_is_activation else None
            words = hardware.filled(
                hardware.input_words(floats.input),
                None if computed is None else hardware.weight_words(computed),
            )
            for tensor in ("weight_words", "weight_scales", "weight_gamma", "input_words", "input_scales"):
                np.testing.assert_array_equal(getattr(found.operands, tensor), getattr(words, tensor))
            assert found.operands.input_gamma == words.input_gamma
            zeros = np.zeros(words.geometry.K, np.float32)
            own = zeros if words.bias is None else words.bias
            np.testing.assert_array_equal(zeros if found.operands.bias is None else found.operands.bias, own)
            by_rule = quantize_layer(floats, Scheme.parse(scheme), 16)
            assert found.operands.output_gamma == by_rule.output_gamma
            psums, _ = hardware.accumulate(words)
            np.testing.assert_array_equal(found.values.psums, psums)
            output = TensorFormat(found.operands.output.operand, found.operands.output_gamma)
            codes, scales = hardware.written(words, psums, output)
            np.testing.assert_array_equal(found.values.output, codes)
            if scales is not None:
                np.testing.assert_array_equal(found.values.output_scales, scales)
            gains.add(hardware.gain)
            if layer in FIRST[name]:  # what it reads in simulate is the float input too
                y = dequantize_output(found.values.psums, found.operands).astype(np.float32)
                y = np.maximum(y, 0) if words.activation == "relu" else y
                np.testing.assert_array_equal(y, steps[layer])
        assert (gains != {1.0}) == (name == "attention")
        # The kernels' NumPy twin on the file's own words.
        activity = comparison[scheme].activities[0]
        own = trace.quantized_layer(activity.layer.name, Scheme.parse(scheme), 16)
        assert own.provenance == {}
        psums, _ = reference.accumulate_reference(
            own.weight_words,
            own.weight_scales,
            own.input_words,
            own.input_scales,
            own.spec.gather(0, np.arange(own.geometry.pixels)),
            lane_spec(simulated.design.arch, own.scheme),
        )
        np.testing.assert_array_equal(activity.psums, psums)


def outputs_of(simulated: Any, inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    """What each layer of `simulated` makes of the inputs, float32[pixels, K]."""
    seen = {}
    captured, (piece,), _ = simulated.calibrated.parts(inputs)
    executor = simulated.executor((captured, piece))

    def compute(steps: Any) -> Any:
        (step,) = steps
        result = executor(step)
        if step.call is not None and step.call.name in simulated.layers:
            g = step.call.layer.geometry
            y = result.reshape(g.N, g.K, -1).transpose(1, 2) if step.call.layer.op == "conv" else result
            seen[step.call.name] = y.reshape(-1, g.K).numpy() if y.numel() == g.pixels * g.K else None
        return [result]

    from accelsim.torch.walk import walk

    walk([(captured.runner.traced, piece)], compute)
    return seen


def test_fitted_words_are_better_and_said_to_be_fitted(tmp_path: Path, cli: Any) -> None:
    model, inputs, calibration = given("small")
    found = {}
    for quantize in PRESETS:
        path = tmp_path / f"{quantize}.safetensors"
        accelsim.torch.export(
            model, inputs, path, calibration=calibration, schemes=["3/4/4/4"], quantize=quantize
        )
        run = accelsim.run(path, scheme="3/4/4/4")
        found[quantize] = run.summary["sqnr_db"]
        said = accelsim.Trace.open(path).provenance["exported"]["quantized"]
        methods = METHODS[quantize]
        assert said == {
            "variants": ["3/4/4/4@16"],
            "preset": quantize,
            "methods": None if methods is None else asdict(methods),
            "options": asdict(QuantizeOptions()),
            "arch": "magnet16",
            "overrides": [],
        }
        shown = cli("trace", "info", path)
        assert ("3/4/4/4@16 (external)" in shown.out) == (quantize != "plain") and quantize in shown.out
    assert found["plain"] + 0.2 < found["default"] < found["best"]
    # The floats are there too: words by rule are a question of options.
    again = accelsim.run(path, scheme="3/4/4/4", options=QuantizeOptions())
    assert again.summary["sqnr_db"] == found["plain"]


def test_plain_words_are_those_of_trace_quantize(tmp_path: Path) -> None:
    model, inputs, calibration = given("attention")
    floats, words = tmp_path / "floats.safetensors", tmp_path / "words.safetensors"
    options = QuantizeOptions(gamma_calibration="percentile")
    schemes = ["4/4/4/4", "mxfp4"]
    accelsim.torch.export(model, inputs, floats, calibration=calibration)
    accelsim.torch.export(
        model, inputs, words, calibration=calibration, schemes=schemes, quantize="plain", options=options
    )
    quantize_trace(floats, tmp_path / "q.safetensors", [Scheme.parse(s) for s in schemes], 16, options)
    wanted = accelsim.Trace.open(tmp_path / "q.safetensors").manifest.layers
    assert accelsim.Trace.open(words).manifest.layers == wanted


def test_words_are_of_the_machine_asked_for(tmp_path: Path) -> None:
    model, inputs, calibration = given("small")
    path = tmp_path / "net.safetensors"
    narrow = ["vector_size=8", "accumulator_bits=14"]
    accelsim.torch.export(model, inputs, path, calibration=calibration, schemes=["4/4/4/4"], overrides=narrow)
    trace = accelsim.Trace.open(path)
    assert trace.variants == ("4/4/4/4@8",)
    said = trace.provenance["exported"]["quantized"]
    assert said["preset"] == "default" and said["overrides"] == narrow
    flat = ["fold=never", "scale_rounding=nearest"]
    accelsim.torch.export(model, inputs, path, schemes=["4/4/4/4"], overrides=flat)
    own = accelsim.Trace.open(path).info("stem").quantized["4/4/4/4@16"]
    assert own.options == QuantizeOptions(fold="never", activation_scale_rounding="up_from_zero")
    assert own.fold == "never"
    assert accelsim.Trace.open(path).provenance["exported"]["quantized"]["preset"] == "plain"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schemes": "4/4/4/4"}, r"schemes is '4/4/4/4', expected a list"),
        ({"schemes": ["4/4"]}, "4/4"),
        ({"quantize": "best"}, "without schemes to store"),
        ({"options": QuantizeOptions()}, "without schemes to store"),
        ({"schemes": ["4/4/4/4"], "quantize": "worst"}, "'worst', expected one of plain, default, best"),
        ({"schemes": ["4/4/4/4", "4/4/4/4:sp4"]}, "are both stored as 4/4/4/4@16, expected one"),
        ({"schemes": ["mxfp4"], "quantize": "best"}, "mxfp4"),
        ({"schemes": ["4/4/4/4"], "quantize": "best", "overrides": ["fold=never"]}, "fold is 'never'"),
        (
            {"schemes": ["4/4/4/4"], "quantize": "best", "overrides": ["scale_rounding=nearest"]},
            "scale_rounding is 'nearest'",
        ),
        ({"schemes": ["4/4/4/4"], "quantize": "best", "calibration": None}, "was not calibrated"),
        (
            {"schemes": ["8/8/-/-"], "overrides": ["accumulator_bits=14", "overflow=error"]},
            "accumulations overflow",
        ),
    ],
)
def test_what_cannot_be_is_said_and_nothing_is_written(arguments: Any, message: str, tmp_path: Path) -> None:
    model, inputs, calibration = given("small")
    with pytest.raises(AccelsimError, match=message):
        accelsim.torch.export(
            model, inputs, tmp_path / "net.safetensors", **{"calibration": calibration, **arguments}
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_whatever_stops_an_export_leaves_the_older_trace(
    stop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs, calibration = given("small")
    path = tmp_path / "net.safetensors"
    accelsim.torch.export(model, inputs, path)
    before = path.read_bytes()

    def stopped(*arguments: Any) -> Any:
        raise stop

    monkeypatch.setattr("accelsim.torch.variants.calibrated_output_gamma", stopped)
    with pytest.raises(stop):
        accelsim.torch.export(model, inputs, path, calibration=calibration, schemes=["4/4/4/4"])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# --- the command line ---------------------------------------------------------------------------------------

SCRIPT = """
import torch
torch.manual_seed(0)
from torch import nn
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
inputs = torch.randn(1, 3, 5, 5)
calibration = [torch.randn(32, 3, 5, 5)]
"""


def test_a_killed_export_leaves_nothing(tmp_path: Path) -> None:
    script, out = tmp_path / "net.py", tmp_path / "out"
    script.write_text(SCRIPT + "calibration = [*calibration] * 16\n")  # words take seconds to fit
    out.mkdir()
    command = [sys.executable, "-m", "accelsim", "export", script, "--out", out / "net.safetensors"]
    process = subprocess.Popen(
        [*map(str, command), "--scheme", "4/4/4/4", "--scheme", "8/8/-/-", "--quantize", "preset=best"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
    )
    while not list(out.iterdir()) and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None  # it is at work
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    assert not list(out.iterdir())


def test_presets_on_the_command_line(tmp_path: Path, cli: Any) -> None:
    (tmp_path / "net.py").write_text(SCRIPT)
    out = tmp_path / "net.safetensors"
    export = ("export", tmp_path / "net.py", "--out", out)
    said = cli(*export, "--scheme", "4/4/4/4", "--scheme", "8/8/-/-", "--quantize", "preset=best")
    assert said.status == 0, said.err
    assert accelsim.Trace.open(out).variants == ("4/4/4/4@16", "8/8/-/-@16")
    first = accelsim.Trace.open(out)
    assert first.provenance["exported"]["quantized"]["preset"] == "best"
    stored = cli("compare", out, "--scheme", "4/4/4/4", "--out", tmp_path / "stored", "--no-plots")
    by_rule = cli(
        *("compare", out, "--scheme", "4/4/4/4", "--quantize", "preset=plain"),
        *("--out", tmp_path / "rule", "--no-plots"),
    )
    assert stored.status == by_rule.status == 0
    rows = [(tmp_path / folder / "comparison.csv").read_text() for folder in ("stored", "rule")]
    assert rows[0] != rows[1]
    keys = ("--scheme", "4/4/4/4", "--quantize", "preset=plain", "--quantize", "weight_calibration=max")
    assert cli(*export, *keys).status == 0
    own = accelsim.Trace.open(out).info("0").quantized["4/4/4/4@16"]
    assert own.options == QuantizeOptions(weight_calibration="max")


def test_a_program_with_calibration_files(tmp_path: Path, cli: Any) -> None:
    from safetensors.torch import save_file

    names: dict[str, Any] = {}
    exec(SCRIPT, names)
    torch.export.save(torch.export.export(names["model"].eval(), (names["inputs"],)), tmp_path / "net.pt2")
    files = []
    for number in range(2):
        files += ["--calibration", str(tmp_path / f"{number}.safetensors")]
        save_file({"input": names["calibration"][0][number * 16 : number * 16 + 16].clone()}, files[-1])
    out, script_out = tmp_path / "net.safetensors", tmp_path / "script.safetensors"
    words = ("--scheme", "4/4/4/4", "--quantize", "preset=default")
    said = cli("export", tmp_path / "net.pt2", "--out", out, *files, *words)
    assert said.status == 0, said.err
    (tmp_path / "net.py").write_text(SCRIPT)
    assert cli("export", tmp_path / "net.py", "--out", script_out, *words).status == 0
    assert accelsim.Trace.open(out).manifest.layers == accelsim.Trace.open(script_out).manifest.layers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scheme", "4/4/4/4", "--quantize", "preset=worst"], "NAME one of plain, default, best"),
        (["--scheme", "4/4/4/4", "--quantize", "present=best"], "KEY one of preset, weight_calibration"),
        (["--quantize", "preset=best"], "are for --scheme, which is not given"),
        (["--scheme", "4/4"], "4/4"),
        (["--calibration", "more.safetensors"], "a script defines `calibration`"),
        (["--vector-size", "8"], "--vector-size is for an .onnx"),
    ],
)
def test_bad_options_of_export_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, cli: Any
) -> None:
    (tmp_path / "net.py").write_text(SCRIPT)
    said = cli("export", tmp_path / "net.py", "--out", tmp_path / "net.safetensors", *arguments)
    assert said.status == 2 and message in said.err and said.err.count("error:") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["net.py"]


@pytest.mark.parametrize("preset", ["default", "best", "worst"])
@pytest.mark.parametrize("command", ["run", "compare", "trace quantize", "map", "bits"])
def test_a_trace_of_floats_is_not_the_model(
    command: str, preset: str, trace: Path, tmp_path: Path, cli: Any
) -> None:
    arguments: list[Any] = [*command.split(), trace, *(["first"] if command == "map" else [])]
    if command == "trace quantize":
        arguments += ["--scheme", "4/4/4/4"]
    if command != "map":
        arguments += ["--out", tmp_path / "out"]
    said = cli(*arguments, "--quantize", f"preset={preset}")
    assert said.status == 2 and len(said.err.splitlines()) == 1 and not list(tmp_path.iterdir())
    if preset == "worst":
        assert "NAME one of plain, default, best" in said.err
    else:
        assert f"accelsim export MODEL --scheme SCHEME --quantize preset={preset}" in said.err


def test_an_onnx_has_no_model_to_fit(tmp_path: Path, cli: Any) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    said = cli("export", tmp_path / "net.onnx", "--out", tmp_path / "a", "--scheme", "4/4/4/4")
    assert said.status == 2 and "expected `accelsim trace quantize` after the export" in said.err
