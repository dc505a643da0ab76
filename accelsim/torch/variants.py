"""Quantized words in the trace of a model: made by rule, or fitted to the model as `simulate` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from accelsim.capture.write import Progress
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.inference.layer import HardwareLayer
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.quantize.arrays import Preset, QuantizeOptions
from accelsim.quantize.layers import calibrated_output_gamma, quantize_layer
from accelsim.torch.calibrate import Calibrated
from accelsim.torch.simulate import METHODS, simulate
from accelsim.trace.manifest import variant_key
from accelsim.workload.layer import FloatLayer, QuantizedLayer


@dataclass(frozen=True, kw_only=True)
class Variants:
    """What is stored beside the floats.

    preset: how words are chosen; arch: the machine whose vectors they are cut into, and on which they are
    fitted; overrides: by which it differs from what it is called. Raises AccelsimError for what could be
    stored, but not used.
    """

    schemes: tuple[Scheme, ...]
    preset: Preset
    arch: Arch
    overrides: tuple[str, ...]
    options: QuantizeOptions

    def __post_init__(self) -> None:
        keys = self.keys
        for index, key in enumerate(keys):
            if key in keys[:index]:
                first = self.schemes[keys.index(key)]
                raise AccelsimError(
                    f"schemes: {first} and {self.schemes[index]} are both stored as {key}, expected one"
                )
        if not self.fitted:
            return
        for scheme in self.schemes:
            self.arch.check_scheme(scheme)
        for name, value, usual in (
            ("fold", self.arch.fold, "auto"),
            ("scale_rounding", self.arch.scale_rounding, "up"),
        ):
            if value != usual:
                raise AccelsimError(
                    f"arch {self.arch.name}: {name} is '{value}', for which words are made anew by rule, "
                    f"expected '{usual}' with quantize '{self.preset}'"
                )

    @property
    def fitted(self) -> bool:
        return METHODS[self.preset] is not None

    @property
    def keys(self) -> list[str]:
        return [variant_key(scheme, self.arch.vector_size) for scheme in self.schemes]

    def described(self) -> dict[str, Any]:
        """What provenance says of the words, which their own options cannot where they are fitted."""
        methods = METHODS[self.preset]
        return {
            "variants": self.keys,
            "preset": self.preset,
            "methods": None if methods is None else asdict(methods),
            "options": asdict(self.options),
            "arch": self.arch.name,
            "overrides": list(self.overrides),
        }

    def by_rule(self, layers: Sequence[FloatLayer]) -> list[QuantizedLayer]:
        """What `accelsim trace quantize` makes of the floats."""
        size = self.arch.vector_size
        return [quantize_layer(own, scheme, size, self.options) for scheme in self.schemes for own in layers]

    def fitted_to(
        self, calibrated: Calibrated, layers: Sequence[FloatLayer], progress: Progress | None
    ) -> list[QuantizedLayer]:
        """Words fitted to the model on its calibration inputs, and of each layer's input those it takes."""
        found = []
        for done, scheme in enumerate(self.schemes):
            if progress is not None:
                progress(f"{scheme} words", done, len(self.schemes))
            simulated = simulate(
                calibrated, scheme=scheme, arch=self.arch, options=self.options, quantize=self.preset
            )
            found += [words_of(simulated.layers[own.name], own) for own in layers]
        return found


def variants_of(
    schemes: Sequence[str | Scheme],
    preset: Preset,
    arch: str | Path | Arch,
    overrides: Sequence[str],
    options: QuantizeOptions | None,
) -> Variants:
    """Variants as they are asked for. Raises AccelsimError."""
    machine = arch if isinstance(arch, Arch) else load_arch(arch, list(overrides))
    return Variants(
        schemes=tuple(own if isinstance(own, Scheme) else Scheme.parse(own) for own in schemes),
        preset=preset,
        arch=machine,
        overrides=tuple(overrides),
        options=(options or QuantizeOptions()).on_machine(machine.fold, machine.scale_rounding),
    )


def words_of(hardware: HardwareLayer, layer: FloatLayer) -> QuantizedLayer:
    """A hardware layer with a recorded layer's operands, as words that no quantize options describe.

    The gain of a weight operand that is computed at run time is in weight_gamma, where it is exact.
    """
    hardware = hardware.of_size(layer.layer)
    weights = hardware.weight_words(layer.weight) if layer.weight_is_activation else None
    words = hardware.filled(hardware.input_words(layer.input), weights)
    gamma = calibrated_output_gamma(layer, words.output, words.vector_size, hardware.options)
    return replace(words, output_gamma=gamma, provenance={})
