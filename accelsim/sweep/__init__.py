"""Many points of a space of workloads, schemes, machines and prices, each computed once (docs/sweep.md).

space     a YAML file as points                              space.py
identity  what a point's figures depend on, as keys          identity.py
evaluate  simulate what is not known, price the rest         evaluate.py, record.py
store     what is known, on disk, and who is at work on it   store.py, claims.py
sweep     hands tasks to workers and keeps what comes back   run.py, groups.py, workers.py
tune      searches what is too much to sweep                 tuner.py, front.py
"""

from accelsim.sweep.run import Swept, outlook, sweep
from accelsim.sweep.space import Space
from accelsim.sweep.store import Store
from accelsim.sweep.tuner import Tuned, tune

__all__ = ["Space", "Store", "Swept", "Tuned", "outlook", "sweep", "tune"]
