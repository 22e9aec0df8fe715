"""Runs as tables: grouped by what was chosen, averaged over what was repeated."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from ltnet_pl import InputError
from ltnet_pl.files import better
from ltnet_pl.report.tables import CHOOSE, MISSING, Cell, markdown, metric_text
from ltnet_pl.results.frames import ABOUT, expect_columns, is_config, needed, said, varying

if TYPE_CHECKING:
    import pandas as pd

_LATEX = {"±": r"$\pm$", "–": "--", "∞": r"$\infty$", "°": r"$^\circ$"}  # noqa: RUF001 - the dash of `MISSING`
_BOLD = "font-weight: bold"


@dataclass(frozen=True, repr=False, eq=False)
class Table:
    """A table ready to be set; a notebook shows it as HTML.

    Args:
        head: Titles of the columns.
        body: The rows, a cell for each column.
        names: How many columns, from the left, hold names; the others hold numbers.
        notes: What a reader must know beside the numbers.
        numbers: Means, deviations and counts as numbers, one row each, columns ``<metric>``, ``<metric> std``, ``<metric> n``.
    """

    head: tuple[str, ...]
    body: tuple[tuple[Cell, ...], ...]
    names: int
    notes: tuple[str, ...]
    numbers: pd.DataFrame

    def markdown(self) -> str:
        """The table and its notes as Markdown; the best of a column is bold."""
        body = [[f"**{cell.text}**" if cell.best else cell.text for cell in line] for line in self.body]
        return "\n\n".join([markdown(self.head, body).rstrip("\n"), *(f"* {note}" for note in self.notes)]) + "\n"

    def html(self) -> str:
        """The table and its notes as HTML elements, with all text escaped; the best of a column is bold."""
        text: str = self._style("html").set_table_attributes('class="results"').to_html()
        return text + "".join(f"<p>{html.escape(note)}</p>\n" for note in self.notes)

    def latex(self) -> str:
        r"""The table as a LaTeX ``tabular`` with the lines of the package ``booktabs``; the best of a column is bold.

        Notes become comments.
        """
        text: str = self._style("latex").to_latex(
            hrules=True, convert_css=True, column_format="l" * self.names + "r" * (len(self.head) - self.names)
        )
        for sign, command in _LATEX.items():
            text = text.replace(sign, command)
        return text + "".join(f"% {note}\n" for note in self.notes)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.html()

    def __repr__(self) -> str:
        return self.markdown()

    def _style(self, kind: str) -> Any:
        """The cells as a pandas Styler: best cells bold, everything escaped."""
        pd = needed("pandas")
        cells = pd.DataFrame([[cell.text for cell in line] for line in self.body], columns=self.head)
        marks = [[_BOLD if cell.best else "" for cell in line] for line in self.body]
        marks = pd.DataFrame(marks, index=cells.index, columns=cells.columns)
        # two tables of one page must not share the names of their cells
        name = blake2b(repr((self.head, self.body)).encode(), digest_size=4).hexdigest()
        style = cells.style.set_uuid(name).hide(axis="index").apply(lambda _: marks, axis=None)
        return style.format(escape=kind).format_index(escape=kind, axis=1)


class _Line(NamedTuple):
    """A row before it is printed: its names, how many runs it has, and the values of each column that these have."""

    names: tuple[str, ...]
    runs: int
    of: dict[str, list[float]]


def table(
    frame: pd.DataFrame,
    rows: str | Sequence[str] | Mapping[str, str],
    columns: str | Sequence[str] | Mapping[str, str],
    by: str | None = "seed",
) -> Table:
    """Means over what was repeated, a row for each value of what was chosen.

    Args:
        frame: What `collect` returned, or some rows of it.
        rows: Columns that tell the rows apart, such as ``model.net.init_args.field``; a mapping also gives their titles.
        columns: Columns of numbers to show, such as ``test/psnr``; likewise.
        by: What the runs of a row differ in and is averaged over. Runs of one row that are alike in it are refused, since they
            differ in something that the table does not say. None averages over all runs of a row, whatever they differ in.

    Returns:
        The rows in the order in which they come in the frame. A cell is the mean, with ± the standard deviation (of the sample,
        n - 1) where there are two runs or more; a value that not all runs of the row have is followed by their number. The best
        mean of a column, as printed, is bold where it is known which direction is better and at least two rows have a value:
        high PSNR, SSIM, MPS and accuracies, low LPIPS, losses and errors.

    Raises:
        InputError: If no run logs a metric, if a column is missing or holds no numbers, or if the rows do not tell the runs
            apart.
    """
    chosen, shown = _titles(rows, "rows"), _titles(columns, "columns")
    if frame.empty:
        raise InputError("the frame has no runs; expected at least one: loosen what selects them")
    expect_columns(frame, [*chosen, *([by] if by else [])], "rows")
    expect_columns(frame, shown, "columns")
    for key in shown:
        if frame[key].dtype.kind not in "iuf":
            raise InputError(f"columns {key!r} holds {said(frame[key].dropna().iloc[0])!r}, not numbers; name it in rows")
    groups = [(values, group) for values, group in frame.groupby(list(chosen), dropna=False, sort=False)]
    if by:
        for values, group in groups:
            _expect_apart(group, dict(zip(chosen, values, strict=True)), by)
    lines = [
        _Line(
            tuple(MISSING if _is_missing(value) else said(value) for value in values),
            len(group),
            {key: _known(group, key) for key in shown},
        )
        for values, group in groups
    ]
    best = {key: _best(key, [line.of[key] for line in lines]) for key in shown}
    body = tuple(
        (
            *(Cell(name) for name in line.names),
            *(_cell(key, line.of[key], line.runs, best[key]) for key in shown),
            Cell(str(line.runs)),
        )
        for line in lines
    )
    count = "runs" if by is None else f"{by}s" if by in ABOUT else by.rpartition(".")[2]
    head = (*chosen.values(), *shown.values(), count)
    for title in head:
        if head.count(title) > 1:
            raise InputError(f"two columns have the title {title!r}; expected titles that differ: give them as a mapping")
    return Table(head, body, len(chosen), tuple(_notes(frame, lines, shown)), _numbers(chosen, shown, lines))


def direction(key: str) -> Callable[[Sequence[float]], float] | None:
    """`max` or `min`, whichever is the better value of a column; None where that is not known.

    Example:
        >>> direction("test/psnr"), direction("best/val/loss"), direction("last/train/ssim"), direction("seconds")
        (<built-in function max>, <built-in function min>, <built-in function min>, None)
    """
    *stage, metric = key.split("/")
    if not stage:
        return None
    # what training logs are parts of the loss, also where a metric has the same name
    return min if "train" in stage else CHOOSE.get(better(metric))


def _titles(keys: str | Sequence[str] | Mapping[str, str], flag: str) -> dict[str, str]:
    """Titles by key; of a configuration's key its last part, where that is enough."""
    if isinstance(keys, Mapping):
        found = dict(keys)
    else:
        given = [keys] if isinstance(keys, str) else list(keys)
        short = [key.rpartition(".")[2] if is_config(key) else key for key in given]
        found = {key: last if short.count(last) == 1 else key for key, last in zip(given, short, strict=True)}
    if not found:
        raise InputError(f"{flag} is empty; expected the name of at least one column of the frame")
    return found


def _is_missing(value: Any) -> bool:
    return bool(needed("pandas").isna(value))


def _known(group: pd.DataFrame, key: str) -> list[float]:
    return [float(value) for value in group[key].dropna()]


def _expect_apart(group: pd.DataFrame, values: Mapping[str, Any], by: str) -> None:
    """Refuse two runs of one row that are alike in what is averaged over."""
    twice = group[group[by].duplicated(keep=False)]
    if twice.empty:
        return
    alike = twice[twice[by].isna()] if twice[by].isna().any() else twice[twice[by] == twice[by].iloc[0]]
    ignored = {by, *(key for key in alike if alike[key].isna().all())}
    differ = [str(key) for key in varying(alike) if is_config(key) and key not in ignored]
    where = ", ".join(f"{key} = {MISSING if _is_missing(value) else said(value)}" for key, value in values.items())
    runs = " and ".join(map(str, alike["run"].iloc[:2]))
    remedy = f"they differ in {', '.join(differ[:5])}, so add that to rows, or select" if differ else "select one of them"
    raise InputError(
        f"the runs {runs} are both of {by} {alike[by].iloc[0]} and in the row {where}; expected one run for each {by}: {remedy}; "
        "by=None averages over all runs"
    )


def _text(key: str, value: float) -> str:
    """A number as the column prints it."""
    metric = key.rpartition("/")[2]
    # what a loss is has no scale of its own, and gets digits by its size
    if "/" in key and "train" not in key.split("/") and metric != "loss" and better(metric) is not None:
        return metric_text(metric, value)
    if math.isnan(value) or math.isinf(value):
        return metric_text("", value)
    return f"{value:,.0f}" if key in ("steps", "parameters", "seconds") else f"{value:#.4g}"


def _cell(key: str, values: Sequence[float], runs: int, best: str | None) -> Cell:
    if not values:
        return Cell(MISSING)
    mean = _text(key, statistics.fmean(values))
    deviation = _deviation(values)
    spread = "" if math.isnan(deviation) else f" ± {_text(key, deviation)}"
    return Cell(mean + spread + (f" ({len(values)})" if len(values) < runs else ""), mean == best)


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample; NaN where it has none."""
    return statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else math.nan


def _best(key: str, groups: Sequence[Sequence[float]]) -> str | None:
    """The best mean of a column as printed: a difference that the table does not show decides nothing."""
    choose, means = direction(key), [statistics.fmean(values) for values in groups if values]
    return _text(key, choose(means)) if choose and len(means) > 1 else None


def _notes(frame: pd.DataFrame, lines: Sequence[_Line], shown: Mapping[str, str]) -> list[str]:
    notes = []
    unfinished = frame[~frame["status"].isin(["finished", "tested"])] if "status" in frame else frame.iloc[:0]
    if len(unfinished):
        names = [f"{run} ({status})" for run, status in zip(unfinished["run"], unfinished["status"], strict=True)]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        notes.append(f"Not finished, but counted: {', '.join(names[:3])}{more}.")
    if any(line.of[key] and len(line.of[key]) < line.runs for line in lines for key in shown):
        notes.append("A number in brackets says how many runs of the row have a value.")
    return notes


def _numbers(chosen: Mapping[str, str], shown: Mapping[str, str], lines: Sequence[_Line]) -> pd.DataFrame:
    records = []
    for line in lines:
        record: dict[str, Any] = dict(zip(chosen, line.names, strict=True))
        for key in shown:
            values = line.of[key]
            record[key] = statistics.fmean(values) if values else math.nan
            record[f"{key} std"] = _deviation(values)
            record[f"{key} n"] = len(values)
        records.append(record)
    frame: pd.DataFrame = needed("pandas").DataFrame(records)
    return frame
