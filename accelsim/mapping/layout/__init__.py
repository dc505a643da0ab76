"""A layer laid on the PEs by a mapping: blocks, tiles, positions, fetches (docs/program.md)."""
