"""Figures of results: one drawing of each thing, on axes that are given or on new ones (docs/plots.md).

style        colours, hatches, axes, labels, files      style.py
breakdown    energy and area by part                    breakdown.py, parts.py
savings      what schemes save, published figures too   savings.py
layers       roofline, stalls, utilization, SQNR        layers.py
timeline     what happens when                          timeline.py
pareto       points of a sweep, and their front         pareto.py
of a result  `run.plot`, `comparison.plot`              of_run.py, of_comparison.py
to files     those of a result folder                   files.py
"""
