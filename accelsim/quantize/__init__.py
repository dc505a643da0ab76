"""Floats to hardware words, and the float reference that error is measured against. Knows no machine."""
