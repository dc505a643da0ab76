"""The event model: time only, in cycles. Knows no values and no prices."""
