"""Result folders as one page of HTML that needs no network (docs/report.md).

May enter what reads the tables: it computes and prices nothing.
"""

from accelsim.page.write import write_report

__all__ = ["write_report"]
