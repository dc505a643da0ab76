"""What exports share, whatever a model is written in: steps of a captured model, their operands, the trace.

Knows no framework: tensors are NumPy arrays here. Each framework has a room of its own above this one.
"""
