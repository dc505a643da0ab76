"""Counts times prices: tables, plots and files of a run. The only room that knows both."""
