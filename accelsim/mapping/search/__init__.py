"""Which mapping: candidates, the compiled model that runs them, and the choice (docs/mapping.md)."""
