"""Layers with schemes of their own, and which of them it would help most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'accelsim[torch]'")

from torch import nn  # noqa: E402
from torch_models import Attention, Small  # noqa: E402

import accelsim.torch  # noqa: E402
from accelsim.errors import AccelsimError  # noqa: E402
from accelsim.formats.scheme import Scheme  # noqa: E402
from accelsim.quantize.reference import sqnr_db  # noqa: E402


@pytest.fixture(scope="module")
def calibrated() -> Any:
    torch.manual_seed(0)
    images = torch.relu(torch.randn(64, 16, 8, 8))
    return accelsim.torch.calibrate(Small().eval(), images[:8], [images])


def names(calibrated: Any) -> list[str]:
    return [call.name for call in calibrated.first.layers]


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("quantize", ["plain", "default"])
def test_all_layers_alike_are_one_scheme(calibrated: Any, chained: bool, quantize: Any) -> None:
    """Whatever the scheme of the others, which there are none of: but for tensors that no layer reads."""
    x = torch.relu(torch.randn(8, 16, 8, 8))
    common = {"chained": chained, "quantize": quantize, "residual": "8/-" if chained else None}
    own = accelsim.torch.simulate(
        calibrated, scheme="4/4/4/4", layer_schemes=dict.fromkeys(names(calibrated), "4/8/6/10"), **common
    )
    one = accelsim.torch.simulate(calibrated, scheme="4/8/6/10", **common)
    torch.testing.assert_close(own(x), one(x), rtol=0, atol=0)


def test_a_layer_alone_has_the_words_of_its_scheme(calibrated: Any) -> None:
    """Layer by layer: its words and its products are those of a model that has the scheme throughout."""
    chosen, *others = names(calibrated)[::-1]
    mixed = accelsim.torch.simulate(
        calibrated, scheme="4/4/4/4", layer_schemes={chosen: Scheme.parse("8/8/-/-")}, quantize="plain"
    )
    pure = {
        scheme: accelsim.torch.simulate(calibrated, scheme=scheme, quantize="plain")
        for scheme in ("4/4/4/4", "8/8/-/-")
    }
    for name in (chosen, *others):
        own, wanted = mixed.layers[name], pure["8/8/-/-" if name == chosen else "4/4/4/4"].layers[name]
        assert own.words.spec == wanted.words.spec
        np.testing.assert_array_equal(own.words.weight_words, wanted.words.weight_words)
        assert own.words.input_gamma == wanted.words.input_gamma


def test_a_tensor_is_stored_for_its_widest_reader() -> None:
    """The other layer takes it in its own format, made anew from what the stored codes are worth."""

    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = nn.Linear(32, 32), nn.Linear(32, 16), nn.Linear(32, 16)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = torch.relu(self.stem(x))
            return self.a(y), self.b(y)

    torch.manual_seed(2)
    x = torch.randn(64, 32)
    calibrated = accelsim.torch.calibrate(Fork(), x[:16], [x])
    for wide, (first, second) in {"b": ("requantized", "codes"), "a": ("codes", "requantized")}.items():
        model = accelsim.torch.simulate(
            calibrated, scheme="4/4/4/4", layer_schemes={wide: "4/8/6/10"}, chained=True, quantize="plain"
        )
        own, _ = model.formats["stem"]
        assert (own.operand.bits, own.operand.scale.bits, own.operand.element.signed) == (8, 10, False)
        found = model(x)
        assert (model.coverage.how["a"], model.coverage.how["b"]) == (first, second)
        # Next to nothing is lost by 8 bits on the way, so that layers make what they make of floats.
        apart = accelsim.torch.simulate(
            calibrated, scheme="4/4/4/4", layer_schemes={wide: "4/8/6/10"}, quantize="plain"
        )(x)
        for one, other in zip(apart, found, strict=True):
            assert (sqnr_db(one.numpy(), other.numpy()) or 99) > 25


def test_a_computed_weight_operand_is_stored_for_its_layer() -> None:
    torch.manual_seed(1)
    batches = [torch.randn(16, 12, 32)]
    calibrated = accelsim.torch.calibrate(Attention().eval(), batches[0], batches)
    matmul = next(call for call in calibrated.first.layers if call.layer.weight_is_activation)
    model = accelsim.torch.simulate(
        calibrated, scheme="4/4/4/4", layer_schemes={matmul.name: "8/8/-/-"}, chained=True, quantize="plain"
    )
    model(batches[0])
    assert model.coverage.how[matmul.name] == "codes, weight operand codes"
    plain = accelsim.torch.simulate(calibrated, scheme="4/4/4/4", chained=True, quantize="plain")
    differ = [name for name, own in model.formats.items() if own[0].operand != plain.formats[name][0].operand]
    assert differ and all(model.formats[name][0].operand.bits == 8 for name in differ)


def test_gains_are_those_of_one_layer_after_another(calibrated: Any) -> None:
    told: list[tuple[int, int]] = []
    gains = accelsim.torch.layer_gains(
        calibrated, "3/3/4/4", "8/8/-/-", progress=lambda what, done, of: told.append((done, of))
    )
    assert sorted(gains) == sorted(names(calibrated)) and list(gains.values()) == sorted(
        gains.values(), reverse=True
    )
    assert told == [(done, len(gains)) for done in range(len(gains))]
    outputs = [torch.cat([calibrated.model(x) for x in batches(calibrated)])]
    for own in ({}, {next(iter(gains)): "8/8/-/-"}):
        model = accelsim.torch.simulate(calibrated, scheme="3/3/4/4", layer_schemes=own, quantize="plain")
        outputs.append(torch.cat([model(x) for x in batches(calibrated)]))
    exact, plain, better = (output.detach().numpy() for output in outputs)
    found = (sqnr_db(exact, better) or 0.0) - (sqnr_db(exact, plain) or 0.0)
    assert found == pytest.approx(next(iter(gains.values())), abs=1e-3) and found > 0.5


def batches(calibrated: Any) -> list[torch.Tensor]:
    return [torch.utils._pytree.tree_leaves(inputs)[0] for _, inputs in calibrated.batches]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"nothing": "4/4/4/4"}, r"^simulate: layer_schemes has 'nothing', expected one of \w"),
        ({"stem": "4/4"}, "4/4"),
        ({"stem": "4/4/fp/fp"}, "4/4/fp/fp"),
    ],
)
def test_bad_layer_schemes(calibrated: Any, own: dict[str, str], message: str) -> None:
    with pytest.raises(AccelsimError, match=message):
        accelsim.torch.simulate(calibrated, scheme="4/4/4/4", layer_schemes=own)
