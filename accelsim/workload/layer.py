"""What must be computed: layers as exported and as quantized operands. Knows no hardware.

What a layer is, whatever its tensors and number formats, is one record, `Layer`; every other record of a
layer holds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from accelsim.arguments import expect, shown
from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import activation_name
from accelsim.formats.operand import Operand
from accelsim.formats.scheme import Scheme
from accelsim.workload.geometry import Geometry
from accelsim.workload.storage import UNREAD, Use
from accelsim.workload.words import cut_words

OPS = ("conv", "linear", "matmul")
ACTIVATIONS = ("none", "relu")


ROW_OPS = ("softmax", "layer_norm", "rms_norm")
"""Work that cannot start before whole rows of its input are there."""


@dataclass(frozen=True)
class NodeWork:
    """What a node of the graph asks of the global PE.

    elements: of its time; read, written: elements that go from and to the global buffer; use: of its result.
    """

    op: str
    elements: int
    read: int
    written: int
    use: Use = UNREAD

    @property
    def needs_rows(self) -> bool:
        """True for work that cannot start before whole rows of outputs are there."""
        return self.op in ROW_OPS


@dataclass(frozen=True)
class Layer:
    """What one layer is.

    op: one of OPS; activation: one of ACTIVATIONS, done by the PPU; input_signed: False promises that the
    input is never negative; weight_is_activation: the weight operand is computed at run time (attention).
    Raises AccelsimError for a product of matrices with a kernel, stride, padding or dilation.
    """

    name: str
    op: str
    geometry: Geometry
    activation: str = "none"
    input_signed: bool = True
    weight_is_activation: bool = False

    def __post_init__(self) -> None:
        expect(self.name, str, "layer: name", "a text")
        where = f"layer {self.name[:80]}"
        expect(self.geometry, Geometry, f"{where}: geometry", "a Geometry")
        for what, choices in (("op", OPS), ("activation", ACTIVATIONS)):
            own = getattr(self, what)
            if not isinstance(own, str) or own not in choices:
                raise AccelsimError(f"{where}: {what} is {shown(own)}, expected one of {', '.join(choices)}")
        for what in ("input_signed", "weight_is_activation"):
            expect(getattr(self, what), bool, f"{where}: {what}", "True or False")
        if self.op == "conv":
            return
        g = self.geometry
        for what, sizes, none in (
            ("kernel", (g.R, g.S), 1), ("stride", g.stride, 1), ("padding", g.padding, 0),
            ("dilation", g.dilation, 1),
        ):  # fmt: skip
            if any(size != none for size in sizes):
                raise AccelsimError(
                    f"layer {self.name}: is a {self.op} with {what} {'x'.join(map(str, sizes))}, expected op "
                    f"conv, or none"
                )


class HasLayer:
    """Whatever holds a layer as `layer` can be asked what it is."""

    if TYPE_CHECKING:

        @property
        def layer(self) -> Layer: ...

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def op(self) -> str:
        return self.layer.op

    @property
    def geometry(self) -> Geometry:
        return self.layer.geometry

    @property
    def activation(self) -> str:
        return self.layer.activation

    @property
    def input_signed(self) -> bool:
        return self.layer.input_signed

    @property
    def weight_is_activation(self) -> bool:
        return self.layer.weight_is_activation


@dataclass(frozen=True, eq=False)
class FloatLayer(HasLayer):
    """One layer as exported, before quantization. Raises AccelsimError for tensors that are no arrays.

    weight: float32[K, C/groups, R, S]; input: float32[N, C, H, W]; bias: float32[K] or None;
    calibration_input: like input with any N (conv) or any W (linear, matmul), or None;
    calibration_weight: float32[any, any, R, S], only with weight_is_activation: the weight-side operand that
    belongs to calibration_input (the pair may hold more heads or sequences than the layer), or None.
    """

    layer: Layer
    weight: NDArray[np.float32]
    input: NDArray[np.float32]
    bias: NDArray[np.float32] | None = None
    calibration_input: NDArray[np.float32] | None = None
    calibration_weight: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.layer, Layer):
            raise AccelsimError(f"float layer: layer is a {type(self.layer).__name__}, expected a Layer")
        tensors = ("weight", "input", "bias", "calibration_input", "calibration_weight")
        for name in tensors:
            value = getattr(self, name)
            optional = name not in ("weight", "input")
            if not isinstance(value, np.ndarray) and not (optional and value is None):
                kind = type(value).__name__
                raise AccelsimError(f"layer {self.name}: {name} is a {kind}, expected a numpy array")


@dataclass(frozen=True)
class OutputFormat:
    """What the PPU writes: an activation's operand, and its fraction bits F (docs/numerics.md)."""

    operand: Operand

    @property
    def fraction_bits(self) -> int:
        """F = min(8, 23 - Amag - as) of integers; negative when the format does not fit the PPU. Of scales
        with an exponent as many as the largest value leaves of 23, and one less where that is a power of two
        (docs/numerics.md, Block formats)."""
        if self.operand.scale.kind == "e8m0":
            return 22
        if self.operand.scale.kind == "e4m3":
            return 23 - int(self.operand.largest).bit_length()
        magnitude = self.operand.bits - self.operand.element.signed
        return min(8, 23 - magnitude - self.operand.scale.bits)

    def to_dict(self) -> dict[str, object]:
        """As traces and dumps describe it. Raises AccelsimError for an operand that has no name."""
        element, scale = self.operand.element, self.operand.scale
        if not self.operand.is_integer:
            sign = {} if element.signed else {"signed": False}
            return {"scheme": activation_name(self.operand), **sign}
        return {"bits": element.bits, "signed": element.signed, "scale_bits": scale.bits}


@dataclass(frozen=True, kw_only=True)
class LayerSpec(HasLayer):
    """A layer at a scheme, without its tensors: what mapping and timing depend on.

    output: the format that the layer was quantized for; stored: those in which its output is stored, by
    default that one; global_pe: work of the nodes that the layer hosts, in order (docs/residency.md).

    vector_size: codes a word, V of the machine that executes it, or as made and stored the scheme's block.
    A reduction is filled up to whole blocks, where those are larger than words, and to whole words, where
    those are larger: V and block divide one another.

    Input words are numbered ((n*H + h)*W + w)*groups*Cv + group*Cv + cv with Cv = words_per_position; in a
    packed im2col layer (pixel*groups + group)*G + g.
    """

    layer: Layer
    scheme: Scheme
    vector_size: int
    fold: str
    output: OutputFormat
    global_pe: tuple[NodeWork, ...] = ()
    stored: tuple[Operand, ...] = ()

    @cached_property
    def weight_operand(self) -> Operand:
        return self.scheme.weight.in_blocks(self.vector_size)

    @cached_property
    def input_operand(self) -> Operand:
        """The scheme's activation operand, as the input's sign wants it."""
        return self.scheme.activation.of_sign(self.input_signed).in_blocks(self.vector_size)

    @cached_property
    def output_operand(self) -> Operand:
        return self.output.operand.in_blocks(self.vector_size)

    @cached_property
    def written_operands(self) -> tuple[Operand, ...]:
        """What the PPU writes of each output, one format or two."""
        return tuple(own.in_blocks(self.vector_size) for own in self.stored) or (self.output_operand,)

    @cached_property
    def written_bits(self) -> tuple[tuple[int, int, int], ...]:
        """Of each of these formats: bits of a code, of a scale, and outputs that share it (0: no scales)."""
        return tuple(
            (own.bits, own.scale.bits, (own.block or 0) if own.scale.bits else 0)
            for own in self.written_operands
        )

    @cached_property
    def written_scale_bits(self) -> int:
        """The most that one of the formats has; 0: the PPU writes no scales."""
        return max(own.scale.bits for own in self.written_operands)

    @cached_property
    def written_block(self) -> int:
        """Outputs that share a scale in what the PPU writes, the most of its formats; 0: no scales."""
        return max(block for _, _, block in self.written_bits)

    @cached_property
    def block(self) -> int:
        """Codes that share a scale."""
        return self.scheme.block or self.vector_size

    @cached_property
    def words_per_block(self) -> int:
        """Words that a block larger than a word spreads over; 1 for others."""
        return max(1, self.block // self.vector_size)

    @cached_property
    def blocks_per_word(self) -> int:
        """Blocks, each with its scale, in a word that is larger than a block; 1 in others."""
        return max(1, self.vector_size // self.block)

    def run_bits(self, operand: Operand, words: int) -> int:
        """Bits of so many words that follow each other, a multiple of `words_per_block`."""
        return words // self.words_per_block * operand.bits_of(max(self.block, self.vector_size))

    @cached_property
    def packed_im2col(self) -> bool:
        return self.geometry.packed_im2col(self.block, self.fold)

    @cached_property
    def G(self) -> int:
        taps = self.geometry.R * self.geometry.S
        if self.packed_im2col:
            return self._words_of(taps * self.geometry.channels_per_group)
        return taps * self.words_per_position

    @cached_property
    def words_per_position(self) -> int:
        """Cv: words of one group at one input position (not of packed im2col layers)."""
        return self._words_of(self.geometry.channels_per_group)

    def _words_of(self, codes: int) -> int:
        """Words of so many codes, filled up."""
        return -(-codes // max(self.block, self.vector_size)) * self.words_per_block

    def in_vectors(self, vector_size: int) -> LayerSpec:
        """The layer in words of so many codes. Raises AccelsimError where they and blocks do not fit."""
        if max(self.block, vector_size) % min(self.block, vector_size):
            raise AccelsimError(
                f"layer {self.name}: words of {vector_size} codes in blocks of {self.block}, expected one to "
                "divide the other"
            )
        return replace(self, vector_size=vector_size)

    @cached_property
    def taps(self) -> NDArray[np.int32]:
        return self.geometry.tap_positions()

    @property
    def pieces(self) -> int:
        """What a reduction can be cut into: vectors, or whole blocks where those are larger."""
        return (self.G if self.packed_im2col else self.words_per_position) // self.words_per_block

    def check_parts(self, c_split: int) -> None:
        """Raise AccelsimError where the reduction has fewer vectors to cut than parts."""
        if not 1 <= c_split <= self.pieces:
            what = "vectors" if self.words_per_block == 1 else "blocks"
            raise AccelsimError(
                f"layer {self.name}: mapping c_split is {c_split}, expected at most {self.pieces}, its {what}"
            )

    def parts(self, c_split: int) -> list[NDArray[np.int64]]:
        """The g of each part of the reduction cut over `c_split` PEs, ascending (docs/program.md).

        A packed im2col layer's vectors are cut as they stand, another's channels, at all taps; no block is
        cut. Raises AccelsimError where there are fewer to cut than parts.
        """
        self.check_parts(c_split)
        pieces = self.pieces
        words = np.arange(pieces * self.words_per_block).reshape(pieces, -1)
        parts = [part.reshape(-1) for part in np.array_split(words, c_split)]
        if self.packed_im2col:
            return parts
        taps = np.arange(self.geometry.R * self.geometry.S)[:, None] * self.words_per_position
        return [(taps + part).reshape(-1) for part in parts]

    def gather(self, group: int, pixels: NDArray[np.int64]) -> NDArray[np.int32]:
        """int32[len(pixels), G]: the input word each pixel multiplies at each g, -1 in spatial padding."""
        geometry = self.geometry
        if self.packed_im2col:
            base = (pixels * geometry.groups + group)[:, None] * self.G
            return (base + np.arange(self.G)).astype(np.int32)
        cv = self.words_per_position
        position = self.taps[pixels][:, :, None]
        word = (position * geometry.groups + group) * cv + np.arange(cv, dtype=np.int32)
        return np.where(position < 0, -1, word).reshape(len(pixels), -1).astype(np.int32)


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantizedLayer(HasLayer):
    """One layer in hardware words, ready for the array. A word is one vector of V codes with its scale.

    weight_words: int8[K, G, V]; weight_scales: uint16[K, G] or None; weight_gamma: float64[K];
    input_words: uint8 or int8 [words, V]; input_scales: uint16[words] or None; input_gamma: float;
    Scales of words with several blocks have one more dimension, the blocks of a word; words of a larger block
    all have its scale.
    output_gamma: what a unit of the PPU's codes (with scales: of code times scale) is worth. sum_exponent: of
    block formats that lanes execute the e of numerics.md, else None.
    y = psum * 2^(sh+p) * weight_gamma[k] * input_gamma + bias[k]. Of formats other than integers codes are
    uint8 and scales what their kind is stored as (formats/element.py, scale.py); where a format has no gamma,
    gammas are 1, and where it has one a tensor, all weight_gamma[k] are equal.
    provenance: {"options": ...}, the quantize options; without them the words were made elsewhere.
    """

    spec: LayerSpec
    weight_words: NDArray[Any]
    weight_scales: NDArray[Any] | None
    weight_gamma: NDArray[np.float64]
    input_words: NDArray[Any]
    input_scales: NDArray[Any] | None
    input_gamma: float
    output_gamma: float
    bias: NDArray[np.float32] | None
    sum_exponent: int | None = None
    provenance: dict[str, object] = field(default_factory=dict)

    @property
    def layer(self) -> Layer:
        return self.spec.layer

    @property
    def scheme(self) -> Scheme:
        return self.spec.scheme

    @property
    def vector_size(self) -> int:
        return self.spec.vector_size

    @property
    def output(self) -> OutputFormat:
        return self.spec.output

    def in_vectors(self, vector_size: int) -> QuantizedLayer:
        """The same words, one block each, in words of `vector_size`: parts of a block, or several of them.

        Raises AccelsimError where they and blocks do not fit.
        """
        spec = self.spec.in_vectors(vector_size)
        if vector_size == self.vector_size:
            return self
        per_tap = 1 if spec.packed_im2col else self.geometry.R * self.geometry.S
        weights = cut_words(self.weight_words, self.weight_scales, vector_size, per_tap)
        per_position = self.spec.G if spec.packed_im2col else self.spec.words_per_position
        positions = len(self.input_words) // per_position
        inputs = cut_words(self.input_words, self.input_scales, vector_size, positions)
        return replace(
            self,
            spec=spec,
            weight_words=weights[0],
            weight_scales=weights[1],
            input_words=inputs[0],
            input_scales=inputs[1],
        )
