"""What must be computed: geometry, layers and their operands. Knows no file and no machine."""
