"""Regenerates the datapath cost table from Liberty files: generators, synthesis, gate-level simulation.

liberty ─► library ─► roles ─► campaign (blocks) ─► synthesis ─► netlist
                                                                    │
   clock ► table ◄── run ◄── simulator ◄── timing ◄── circuit ◄─────┘
"""

from accelsim.characterise.run import Characterised, characterise

__all__ = ["Characterised", "characterise"]
