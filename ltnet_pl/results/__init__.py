"""Many runs as one frame, and what a paper needs of it: tables over seeds, curves, and differences with their intervals.

`collect` reads a folder of runs or a W&B sweep; `table` groups and averages its rows; `compare` holds one row against another,
paired by scene. Notebooks stand on these functions. They need the extra ``notebooks``.
"""

from ltnet_pl.results.collecting import collect, curves
from ltnet_pl.results.comparing import Comparison, compare
from ltnet_pl.results.frames import load, save, varying
from ltnet_pl.results.tables import Table, table

__all__ = ["Comparison", "Table", "collect", "compare", "curves", "load", "save", "table", "varying"]
