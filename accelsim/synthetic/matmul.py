"""A single product of matrices: what a PE is measured on by itself."""

from __future__ import annotations

from pathlib import Path

from accelsim.synthetic.assembly import Assembly
from accelsim.synthetic.distributions import Distribution
from accelsim.synthetic.parameters import TRANSFORMER
from accelsim.synthetic.recipe import Recipe
from accelsim.synthetic.workload import SyntheticWorkload

MATMUL = "matmul"
ROWS, REDUCTION, COLUMNS = 1024, 1024, 1024


def matmul(weights: float = 1.0, activations: float = 1.0) -> SyntheticWorkload:
    """One product of two matrices, both signed and Gaussian.

    weights, activations: the share of either that is not 0, wherever.
    """
    net = Assembly()
    rows, reduction, columns = ROWS, REDUCTION, COLUMNS
    source = net.input("input", (1, reduction, 1, rows))
    net.linear("product", source, columns, "head", rows=rows, bias=None)
    shares = {"weight": weights, "head": activations}
    used = {
        name: TRANSFORMER[name]
        if share == 1
        else Distribution("sparse", {"std": 1.0, "zero_fraction": 1 - share})
        for name, share in shares.items()
    }
    recipe = Recipe(MATMUL, 0, {"network": MATMUL}, used, net.graph(), tuple(net.layers))
    return SyntheticWorkload(recipe, Path(MATMUL))
