"""One machine: its parameters, its dataflows, what it does and how long that takes. Knows no layer."""
