"""Published figures beside modelled ones: data with their sources, how each is modelled, and what is missed.

Nothing here sets a price or a parameter of the machine. Entered by api only.
"""
