"""Number formats and precision schemes: what a bit pattern means. Knows no layer and no machine."""
