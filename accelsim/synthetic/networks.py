"""Networks by name: `resnet50`, `bert-base`, `bert-base@seq=384,batch=4`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from accelsim.errors import AccelsimError, listed
from accelsim.synthetic.assembly import Assembly
from accelsim.synthetic.convolutional import mobilenet_v2, resnet18, resnet50
from accelsim.synthetic.decoders import (
    llama_2_7b,
    llama_2_7b_decode,
    llama_3_8b,
    llama_3_8b_decode,
    llama_block,
    llama_block_decode,
)
from accelsim.synthetic.distributions import Distribution
from accelsim.synthetic.parameters import CONVOLUTIONAL, DECODER, TRANSFORMER
from accelsim.synthetic.recipe import MAX_SEED, Recipe
from accelsim.synthetic.transformers import bert_base, bert_large, vit_b16
from accelsim.trace.json_fields import show

MAX_BATCH, MAX_SEQ = 1 << 12, 1 << 16


@dataclass(frozen=True)
class _Network:
    """seq: the default sequence length, 0 for a network whose input has a fixed size."""

    build: Callable[..., Assembly]
    distributions: Mapping[str, Distribution]
    seq: int = 0


NETWORKS = {
    "resnet18": _Network(resnet18, CONVOLUTIONAL),
    "resnet50": _Network(resnet50, CONVOLUTIONAL),
    "mobilenet_v2": _Network(mobilenet_v2, CONVOLUTIONAL),
    "bert-base": _Network(bert_base, TRANSFORMER, 128),
    "bert-large": _Network(bert_large, TRANSFORMER, 128),
    "vit-b16": _Network(vit_b16, TRANSFORMER),
    "llama-block": _Network(llama_block, DECODER, 512),
    "llama-block-decode": _Network(llama_block_decode, DECODER, 4096),
    "llama-2-7b": _Network(llama_2_7b, DECODER, 512),
    "llama-2-7b-decode": _Network(llama_2_7b_decode, DECODER, 4096),
    "llama-3-8b": _Network(llama_3_8b, DECODER, 512),
    "llama-3-8b-decode": _Network(llama_3_8b_decode, DECODER, 4096),
}


@dataclass(frozen=True)
class Request:
    """What was asked for; None means the default. Raises AccelsimError for numbers out of range."""

    seq: int | None = None
    batch: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        limits = {"seq": (1, MAX_SEQ), "batch": (1, MAX_BATCH), "seed": (0, MAX_SEED)}
        for key, (least, greatest) in limits.items():
            value = getattr(self, key)
            if value is not None and (type(value) is not int or not least <= value <= greatest):
                raise AccelsimError(
                    f"{key} is {show(value)}, expected a whole number from {least} to {greatest}"
                )

    def given(self) -> dict[str, int]:
        return {key: value for key, value in vars(self).items() if value is not None}

    def suffix(self) -> str:
        """'' or '@seq=384,batch=4', as `split_name` reads it."""
        given = ",".join(f"{key}={value}" for key, value in self.given().items())
        return f"@{given}" if given else ""


def split_name(text: str) -> tuple[str, Request]:
    """'bert-base@seq=384' as name and request. Raises AccelsimError for an unknown or repeated key."""
    name, at, rest = text.partition("@")
    values: dict[str, int] = {}
    for item in rest.split(",") if at else ():
        key, equals, number = item.partition("=")
        if key not in Request.__dataclass_fields__ or not equals or key in values or not _whole(number):
            raise AccelsimError(
                f"trace {show(text)}: has {show(item)}, expected NAME@KEY=NUMBER,... with each KEY of "
                f"{', '.join(Request.__dataclass_fields__)} at most once"
            )
        values[key] = int(number)
    try:
        return name, Request(**values)
    except AccelsimError as error:
        raise AccelsimError(f"trace {show(text)}: {error}") from None


def network(name: str, request: Request) -> Recipe:
    """A network as a recipe. Raises AccelsimError for an unknown name, and for seq where it has none."""
    if name not in NETWORKS:
        raise AccelsimError(f"network {show(name)}: unknown, expected one of {listed(NETWORKS, name)}")
    own = NETWORKS[name]
    if request.seq is not None and not own.seq:
        takers = ", ".join(other for other, facts in NETWORKS.items() if facts.seq)
        raise AccelsimError(
            f"network {name}: seq is {request.seq}, expected none: its input has one size; for {takers}"
        )
    batch = request.batch or 1
    seed = request.seed or 0
    sizes = {"batch": batch, **({"seq": request.seq or own.seq} if own.seq else {})}
    built = own.build(**sizes)
    used = {part for layer in built.layers for part in (layer.weight, layer.input, layer.bias)}
    return Recipe(
        model=name,
        seed=seed,
        provenance={"network": name, **sizes, "tensors": "random, see docs/workloads.md"},
        distributions={key: value for key, value in own.distributions.items() if key in used},
        graph=built.graph(),
        layers=tuple(built.layers),
    )


def _whole(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 20
