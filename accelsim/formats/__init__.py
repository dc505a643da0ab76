"""Number formats as data: an element is what codes are worth, a scale what a block of them is multiplied by,
an operand both together, a scheme one operand for weights and one for activations; `catalogue` has the rows.
Knows no layer, no tensor's gamma and no machine: only facts that follow from the name of a format enter.
"""
