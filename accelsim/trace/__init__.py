"""Traces on disk: read, checked, found, written. May know layers and their quantization, no machine."""
