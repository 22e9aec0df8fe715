"""Results as Markdown tables."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ltnet_pl.bench.renders import Renders
from ltnet_pl.bench.results import Result
from ltnet_pl.bench.rows import Row
from ltnet_pl.bootstrap import Difference, difference
from ltnet_pl.metrics import AZIMUTH_BINS
from ltnet_pl.report.tables import MISSING, markdown


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        title: Its head.
        value: Its number for a row's results, one per seed; NaN where there is none.
        digits: Digits after the point.
        best: `max`, `min`, or None where no value is better.
        spread: Show the standard deviation over seeds.
    """

    title: str
    value: Callable[[Result], float]
    digits: int
    best: Callable[[Sequence[float]], float] | None = None
    spread: bool = False

    def mean(self, results: Sequence[Result]) -> float:
        """Mean over seeds, of those that have a value."""
        known = [value for value in map(self.value, results) if not math.isnan(value)]
        return statistics.fmean(known) if known else math.nan

    def text(self, results: Sequence[Result]) -> str:
        """The cell."""
        known = [value for value in map(self.value, results) if not math.isnan(value)]
        if not known:
            return MISSING
        shown = f"{statistics.fmean(known):.{self.digits}f}"
        if self.spread and len(known) > 1:
            shown += f" ± {statistics.stdev(known):.{self.digits}f}"
        return shown


def columns(results: Sequence[Result], milliseconds: Mapping[str, float], timing: str) -> list[Column]:
    """The columns that any of these results fill; the number of seeds only where it is not one for every row.

    Args:
        results: All results of the tables.
        milliseconds: Time of one image by row.
        timing: On what that was measured.
    """
    trunks = list(dict.fromkeys(key.partition("_")[2] for r in results for key in r.label if key.startswith("lpips_")))
    titles = {"squeeze": "SqueezeNet", "alex": "AlexNet", "vgg": "VGG16"}
    seeds = Counter(r.row for r in results)
    all_columns = [
        *([Column("seeds", lambda r: seeds[r.row], 0)] if any(count > 1 for count in seeds.values()) else []),
        Column("PSNR", _of("label", "psnr"), 2, max, spread=True),
        *(Column(f"{change}°", _of("label", f"psnr_{change}"), 2, max) for change in AZIMUTH_BINS),
        Column("SSIM", _of("label", "ssim"), 4, max, spread=True),
        *(Column(f"LPIPS ({titles.get(t, t)})", _of("label", f"lpips_{t}"), 4, min, spread=True) for t in trunks),
        *(Column(f"MPS ({titles.get(t, t)})", _of("label", f"mps_{t}"), 4, max, spread=True) for t in trunks),
        Column("guide PSNR", _of("guide", "psnr"), 2, max, spread=True),
        Column("guide costs (dB)", lambda r: _of("label", "psnr")(r) - _of("guide", "psnr")(r), 2),
        Column("identity PSNR", _of("identity", "psnr"), 2),
        Column("parameters (M)", lambda r: r.parameters / 1e6, 3),
        Column("multiply-adds (G)", lambda r: (r.operations["network"] + r.operations.get("cues", 0)) / 1e9, 1),
        Column("of them cues (G)", _of("operations", "cues", 1e-9), 1),
        Column(f"ms ({timing})", lambda r: milliseconds.get(r.row, math.nan), 0),
        Column("training (min)", lambda r: r.seconds / 60 if r.threads else math.nan, 1),
    ]
    return [column for column in all_columns if not all(math.isnan(column.value(r)) for r in results)]


def _of(part: str, key: str, scale: float = 1.0) -> Callable[[Result], float]:
    """Reads one number of a result; NaN where it is absent."""

    def read(result: Result) -> float:
        values: Mapping[str, Any] = getattr(result, part) or {}
        return scale * float(values.get(key, math.nan))

    return read


def table(results: Mapping[str, Sequence[Result]], shown: Sequence[Column]) -> str:
    """One table: a line per row, its seeds averaged, the best of a column bold.

    Args:
        results: Results of each row, one per seed.
        shown: The columns.
    """
    body = [[name, *(column.text(of) for column in shown)] for name, of in results.items()]
    for at, column in enumerate(shown, start=1):
        means = {name: column.mean(of) for name, of in results.items()}
        known = [value for value in means.values() if not math.isnan(value)]
        if column.best is None or len(known) < 2:
            continue
        # compared as printed: a difference that the table does not show decides nothing
        best = f"{column.best(known):.{column.digits}f}"
        for line in body:
            if f"{means[line[0]]:.{column.digits}f}" == best:
                line[at] = f"**{line[at]}**"
    return markdown(["row", *(column.title for column in shown)], body)


def readings_table(results: Mapping[str, Sequence[Result]]) -> str | None:
    """How well the light streams of these rows read; None where none has one."""
    with_stream = {name: of for name, of in results.items() if any(r.readings for r in of)}
    if not with_stream:
        return None
    shown = [
        Column("direction right (%)", _of("readings", "direction", 100), 1, max),
        Column("within 45° (%)", _of("readings", "within_45", 100), 1, max),
        Column("temperature, five classes (%)", _of("readings", "temperature", 100), 1, max),
        Column("median mired error", _of("readings", "mired"), 1, min),
    ]
    return table(with_stream, shown)


def differences_table(
    results: Mapping[str, Sequence[Result]], against: Mapping[str, str | None], renders: Renders | None = None
) -> tuple[str, list[str]]:
    """Each row against another, with intervals from a bootstrap over scenes.

    Seeds are compared where both results are of the same code, and of the same data or of renders of the same pictures. Where no
    seed is, the code being the only difference, the line says ``other code`` and no numbers.

    Args:
        results: Results of each row, one per seed.
        against: The row that each is held against; None for none.
        renders: What is known of the renders that they are of.

    Returns:
        The table, and what could not be compared.
    """
    trunk = next((key for of in results.values() for r in of for key in r.per_scene["label"] if key.startswith("lpips_")), None)
    kinds = {"psnr": ("PSNR (dB)", 2), "ssim": ("SSIM", 4), **({trunk: ("LPIPS", 4)} if trunk else {})}
    body, notes = [], []
    for name, of in results.items():
        other = against[name]
        if other is None:
            continue
        reference = {r.seed: r for r in results[other]}
        common = [r for r in of if r.seed in reference and _same_data(r, reference[r.seed], renders)]
        if not common:
            notes.append(f"{name}: not compared; it has no seed in common with {other} on the same data.")
            continue
        alike = [r for r in common if r.code == reference[r.seed].code]
        line = [f"{name} - {other}", ", ".join(str(r.seed) for r in alike or common)]
        if not alike:
            body.append([*line, *(MISSING for _ in kinds), "other code"])
            continue
        verdict = MISSING
        for kind, (_, digits) in kinds.items():
            if not all(kind in x.per_scene["label"] for r in alike for x in (r, reference[r.seed])):
                line.append(MISSING)
                continue
            own, others = ([x.per_scene["label"][kind] for x in of] for of in (alike, [reference[r.seed] for r in alike]))
            found = difference(own, others)
            line.append(_interval(found, digits))
            if kind == "psnr":
                verdict = "claimed" if found.claimed else "not distinguishable"
        body.append([*line, verdict])
    head = ["rows", "seeds", *(title for title, _ in kinds.values()), "PSNR"]
    return (markdown(head, body) if body else ""), notes


def _same_data(one: Result, other: Result, renders: Renders | None) -> bool:
    return one.data == other.data or (renders is not None and renders.same(one.data, other.data))


def _interval(found: Difference, digits: int) -> str:
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def report(
    command: str,
    rows: Sequence[Row],
    results: Mapping[str, Sequence[Result]],
    against: Mapping[str, str | None],
    notes: Sequence[str],
    milliseconds: Mapping[str, float],
    timing: str,
    renders: Renders | None = None,
) -> str:
    """All tables of a tier as Markdown.

    Args:
        command: What prints them.
        rows: The rows, in their order.
        results: Results by row, one per seed; rows without any are left out.
        against: The row that each is held against in the table of differences; None for none.
        notes: What a reader must know of single results.
        milliseconds: Time of one image by row.
        timing: On what that was measured.
        renders: What is known of the renders that the results are of.
    """
    known = {row.name: list(results[row.name]) for row in rows if results.get(row.name)}
    everything = [r for of in known.values() for r in of]
    if not everything:
        return "\n".join(["no results to show", *(f"* {note}" for note in notes)]) + "\n"
    shown = columns(everything, milliseconds, timing)
    machines = sorted({r.machine for r in everything})
    dates = sorted({r.date for r in everything})
    source = f"`{command}` ({'; '.join(machines)}; {dates[0]}{f' to {dates[-1]}' if len(dates) > 1 else ''})"
    parts = ["## All rows", source, table(known, shown)]
    groups = dict.fromkeys(row.group for row in rows if row.name in known)
    if len(groups) > 1:
        for group in groups:
            members = [row for row in rows if row.group == group and row.name in known]
            wanted = {row.name for row in members} | {against[row.name] for row in members}
            part = {name: of for name, of in known.items() if name in wanted}
            questions = [f"* {row.name}: {row.question}" for row in members]
            parts += [f"## {group[0].upper()}{group[1:]}", source, table(part, shown), "\n".join(questions) + "\n"]
    readings = readings_table(known)
    if readings:
        parts += ["## Readings of the light stream, inputs and guides of the test pairs", source, readings]
    differences, incomparable = differences_table(known, against, renders)
    if differences:
        title = "## Differences, label light, with 95 % intervals of a bootstrap over test scenes"
        parts += [title, source, differences]
    absent = sorted({reason for r in everything for reason in r.absent.values()})
    parts.append("\n".join(f"* {note}" for note in (*notes, *incomparable, *absent)))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"
