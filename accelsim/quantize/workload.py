"""What can be simulated: anything that says which layers there are, and gives each of them at a scheme."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from accelsim.formats.scheme import Scheme
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.workload.graph import Graph
from accelsim.workload.layer import FloatLayer, Layer, LayerSpec, QuantizedLayer

Tell = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and of how much."""


class Workload(Protocol):
    """A trace, a recipe, a topology. Layers are known by name; a name that is none raises AccelsimError.

    name: what results are filed under; model: what the network is called; synthetic: tensors are made up;
    sha256: of its content, so that equal ones are the same workload; provenance: where it comes from;
    size_bytes: of the file that holds it.
    """

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def synthetic(self) -> bool: ...

    @property
    def sha256(self) -> str: ...

    @property
    def provenance(self) -> Mapping[str, Any]: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def layers(self) -> tuple[Layer, ...]:
        """In the order in which they run."""
        ...

    @property
    def graph(self) -> Graph: ...

    def layer(self, name: str) -> Layer: ...

    def outline(
        self, name: str, scheme: Scheme, vector_size: int, options: QuantizeOptions | None = None
    ) -> LayerSpec:
        """Sizes and formats of a layer at a scheme; reads, draws and quantizes nothing."""
        ...

    def quantized_layer(
        self, name: str, scheme: Scheme, vector_size: int, options: QuantizeOptions | None = None
    ) -> QuantizedLayer:
        """The layer's hardware words. options: how floats are quantized, by default as stored, else as usual.

        Raises AccelsimError where they cannot be made.
        """
        ...

    def quantized_parts(
        self,
        name: str,
        scheme: Scheme,
        vector_size: int,
        options: QuantizeOptions | None = None,
        tell: Tell | None = None,
    ) -> Iterator[QuantizedLayer]:
        """The words a part of the layer at a time, where all at once would not fit: each part is a layer with
        some of the pixels and channels. tell: called with what is done of them."""
        ...

    def tensors_of(self, name: str) -> str:
        """The layer whose tensors are this one's too: itself, but for made-up layers that say so."""
        ...

    def floats(self, name: str) -> FloatLayer | None:
        """What error is measured against, or None where the layer has no such reference."""
        ...
