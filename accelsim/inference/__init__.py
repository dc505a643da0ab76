"""A network's tensors on the machine: integers from layer to layer, without time (docs/inference.md)."""
