"""Workloads without weights: true geometry, tensors drawn from stated distributions (docs/workloads.md)."""
