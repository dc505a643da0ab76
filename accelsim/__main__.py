"""`python -m accelsim` is the command line."""

from accelsim.cli.main import main

main()
