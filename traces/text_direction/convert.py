"""Write weights.safetensors: the tensors of the ONNX file in the PyPI package rapidocr 3.10.0, as they are.

pip install --no-deps rapidocr==3.10.0; pip install onnx
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).parent
MODEL = "ch_ppocr_mobile_v2.0_cls_mobile.onnx"
MODEL_SHA256 = "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c"


def model_file() -> Path:
    package = find_spec("rapidocr")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("model missing: pip install --no-deps rapidocr==3.10.0")
    path = Path(package.submodule_search_locations[0]) / "models" / MODEL
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != MODEL_SHA256:
        raise SystemExit(f"{path}: sha256 is {digest}, expected {MODEL_SHA256}")
    return path


def read_weights() -> dict[str, np.ndarray]:
    """Every constant that is a weight, by its name in the file: those of one float and shapes are not."""
    import onnx
    from onnx import numpy_helper

    nodes = [node for node in onnx.load(model_file()).graph.node if node.op_type == "Constant"]
    constants = {node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in nodes}
    return {
        name: np.ascontiguousarray(value)
        for name, value in sorted(constants.items())
        if value.dtype == np.float32 and value.size > 1
    }


def main() -> None:
    weights = read_weights()
    save_file(
        weights, HERE / "weights.safetensors", {"from": f"rapidocr 3.10.0, {MODEL}", "licence": "Apache-2.0"}
    )
    print(f"{len(weights)} tensors, {sum(value.size for value in weights.values()):,} values")


if __name__ == "__main__":
    main()
