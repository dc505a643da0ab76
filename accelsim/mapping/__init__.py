"""Where and when: what each PE does with a layer, chosen among candidates. Knows no values and no prices."""
