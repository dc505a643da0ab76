"""accelsim: a cycle-level, bit-exact simulator of DNN inference accelerators."""

__version__ = "0.1.0"
