"""What the operating system does for us: files that are there whole or not at all, and other programs.

Knows nothing of what is written or run; signals meet it in cli/interrupt.py.
"""
