"""The `report` command: reads, prints the table, writes the page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ltnet_pl import InputError, __version__
from ltnet_pl.files import TILES, atomic_write
from ltnet_pl.report.figures import confusions, contact_sheet, draw_curves, line_of, training_curves
from ltnet_pl.report.runs import Row, read_rows
from ltnet_pl.report.tables import MISSING, absences, explanations, grids, psnr_text, warnings

OPEN_SHEETS = 4
"""Contact sheets that are unfolded when the page opens; more would bury what comes after them."""

NUMBER_WIDTH = 12
"""Most characters of a column of numbers on the terminal; its heading is folded to that."""


def report(runs: list[str], output: str = "report.html", title: str | None = None) -> None:
    """Turn tested runs into a table and one HTML page that needs no other file.

    The table is printed, and the page is written: the table, training curves, the best, median and worst cases with error maps,
    how well the lights were read, and the configurations.

    Args:
        runs: Run folders that `test` has written to, or single rows of them (``RUN/test/ROW``).
        output: The HTML file to write.
        title: Heading of the page.

    Raises:
        InputError: If a run is missing or was not tested, or if one of its files is broken.
    """
    target = Path(output)
    if target.is_dir():
        raise InputError(f"--output {output} is a folder; expected the name of a file, such as {target / 'report.html'}")
    rows = read_rows(runs)
    content = page(rows, title or "Relighting report")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"--output {output}: {target.parent} is a file; expected a folder: choose another name") from error
    with atomic_write(target) as file:
        file.write(content.encode())
    show(rows)
    print(f"report: {target}")


def show(rows: Sequence[Row]) -> None:
    """Print the tables and their notes on the terminal."""
    console = Console()
    for grid in grids(rows):
        view = Table(title=grid.caption, title_justify="left", title_style="bold")
        for i, head in enumerate(grid.head):
            view.add_column(Text(head), justify="right" if i else "left", overflow="fold", max_width=NUMBER_WIDTH if i else None)
        for row in grid.rows:
            view.add_row(*(Text(cell.text, style="bold green" if cell.best else "") for cell in row))
        # in a pipe or a log there is no width to keep to, and a folded number cannot be read
        width = None if console.is_terminal else console.measure(view, options=console.options.update(max_width=10_000)).maximum
        (console if width is None else Console(width=width)).print(view)
    for line in warnings(rows):
        console.print(Text(f"Warning: {line}", style="bold red"), soft_wrap=True)
    for line in absences(rows):
        console.print(Text(line), soft_wrap=True)


def page(rows: Sequence[Row], title: str) -> str:
    """The whole HTML page as text, the same for the same files.

    Args:
        rows: What `read_rows` returned.
        title: Heading.

    Raises:
        InputError: If a log, a panel or a configuration is broken.
    """
    runs = run_names(rows)
    curves = {name: training_curves(folder) for name, folder in runs.items()}
    logged = {name: found for name, found in curves.items() if found}
    template = resources.files("ltnet_pl.report").joinpath("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["psnr"] = psnr_text
    return environment.from_string(template).render(
        title=title,
        version=__version__,
        grids=grids(rows),
        warnings=warnings(rows),
        absences=absences(rows),
        explanations=explanations(rows),
        tested=[_tested(row) for row in rows],
        # drawn from numbers alone, so the template need not escape it
        curves=draw_curves(logged),
        legend=[(name, *line_of(i)) for i, name in enumerate(logged)],
        unlogged=[name for name in runs if name not in logged],
        tiles=TILES,
        open_sheets=OPEN_SHEETS,
        sheets=[(row.name, contact_sheet(row)) for row in rows],
        readings=[(row.name, found) for row in rows if (found := confusions(row))],
        configs=[(name, _config(folder)) for name, folder in runs.items()],
    )


def run_names(rows: Sequence[Row]) -> dict[str, Path]:
    """Run folders by the names of their rows, in the order of the rows."""
    folders = dict.fromkeys(row.run for row in rows)
    return {", ".join(row.name for row in rows if row.run == folder): folder for folder in folders}


def _tested(row: Row) -> list[str]:
    """One line of the table of what was tested and how."""
    summary = row.summary
    values = [summary["net"], summary.get("light"), summary["pairs"], summary.get("seed"), summary.get("checkpoint")]
    return [row.name, *(MISSING if value is None else str(value) for value in values)]


def _config(run: Path) -> str | None:
    """The run's configuration as text; None where the run has none."""
    path = run / "config.yaml"
    if not path.is_file():
        return None
    try:
        loaded: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is broken ({error}); expected the configuration that `fit` or `test` wrote") from error
    text: str = yaml.safe_dump(loaded, sort_keys=False, allow_unicode=True, width=110)
    return text
