"""The command line: parse, call, print. Everything it does can be called from `accelsim.api`."""
