"""A layer laid on the PEs by a mapping: blocks, tiles, positions, fetches (docs/machine.md section 4)."""
