"""The distributions of the built-in networks; docs/workloads.md says where each number comes from."""

from __future__ import annotations

from accelsim.synthetic.distributions import Distribution


def _gaussian(std: float, spread: float = 0.0, share: float = 0.0, gain: float = 1.0) -> Distribution:
    own = {"std": std, "channel_spread": spread, "outlier_share": share, "outlier_gain": gain}
    return Distribution("gaussian", own)


OUTLIERS = {"outlier_share": 0.01, "outlier_gain": 10.0}

CONVOLUTIONAL = {
    "weight": Distribution("laplace", {"std": 1.0, "channel_spread": 0.3}),
    "bias": _gaussian(0.1),
    # Normalised pixels: (0 - 0.485) / 0.229 to (1 - 0.406) / 0.225, the limits of the three channels.
    "image": Distribution("clipped", {"std": 1.0, "low": -2.118, "high": 2.64}),
    "relu": Distribution("rectified", {"std": 1.0, "zero_fraction": 0.5, "channel_spread": 0.3}),
    "linear": _gaussian(1.0, 0.3),
    "pooled": Distribution("half_gaussian", {"std": 1.0, "channel_spread": 0.3}),
}

TRANSFORMER = {
    "weight": _gaussian(1.0, 0.2),
    "bias": _gaussian(0.1),
    "image": CONVOLUTIONAL["image"],
    "hidden": _gaussian(1.0, 0.3, **{"share": OUTLIERS["outlier_share"], "gain": OUTLIERS["outlier_gain"]}),
    "head": _gaussian(1.0),
    "probabilities": Distribution("softmax", {"logit_std": 1.5, "causal": 0.0}),
    "gelu": Distribution("gelu", {"std": 1.0, "channel_spread": 0.3, **OUTLIERS}),
}

DECODER = {
    **{name: TRANSFORMER[name] for name in ("weight", "hidden", "head")},
    "probabilities": Distribution("softmax", {"logit_std": 1.5, "causal": 1.0}),
    "all_probabilities": TRANSFORMER["probabilities"],  # of a token after all that it attends to
    "gated": Distribution("gated_silu", {"std": 1.0, "channel_spread": 0.3, **OUTLIERS}),
}
