"""`python -m accelsim` is the command line."""

from accelsim.cli import main

main()
