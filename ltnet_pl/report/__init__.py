"""Tested runs as a table and as one self-contained HTML page.

A run is a folder as ``docs/design.md`` describes it; each of its tested rows becomes one row of the table. The page holds
everything it shows, pictures included, and asks no other machine for anything.
"""

from ltnet_pl.report.page import report
from ltnet_pl.report.runs import Row, read_rows
from ltnet_pl.report.tables import table

__all__ = ["Row", "read_rows", "report", "table"]
