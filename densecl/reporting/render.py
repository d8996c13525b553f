"""Tables as text: for the terminal, as Markdown, CSV or LaTeX (booktabs)."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from densecl.errors import SettingError
from densecl.reporting.columns import Column
from densecl.reporting.table import Cell, Row, Table, rounded

Format = Literal["terminal", "markdown", "csv", "latex"]
UNLIMITED = 10_000  # columns
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"\textsuperscript{\dag}",
}


def render(tables: Sequence[Table], format: str = "terminal", *, width: int | None = None, colour: bool = False) -> str:
    """`tables` as text that ends in a newline.

    Args:
        tables: of `densecl.reporting.table.rows`.
        format: terminal, markdown, csv (all tables in one; fractions of 1 and seconds, unrounded) or latex.
        width: columns of the terminal; None does not limit lines.
        colour: whether the terminal understands escape codes; without, the best value has a star instead of bold type.

    Raises:
        SettingError: an unknown format.
    """
    if format not in get_args(Format):
        raise SettingError(f"unknown format '{format}'", f"choose one of {', '.join(get_args(Format))}")
    if format == "csv":
        return _csv(tables)
    if format == "terminal":
        return "\n".join(_terminal(table, width or UNLIMITED, colour) for table in tables)
    return "\n".join((_markdown if format == "markdown" else _latex)(table) for table in tables)


def humanise(seconds: float) -> str:
    """`42s`, `3m 05s`, `2h 07m` or `5d 03h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    minutes = round(seconds / 60)
    if minutes < 6000:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d {hours % 24:02d}h"


def _shown(column: Column, cell: Cell, compact: bool = False) -> str:
    """A cell's text, without a mark for the best."""
    if cell.mean is None:
        return "-"
    if column.kind == "time":
        return humanise(cell.mean)
    share = column.kind == "share"
    if cell.difference is not None:
        return f"{100 * cell.mean:.1f} ({100 * cell.difference:+.1f})"
    text = f"{rounded(column, cell.mean):.1f}" if share else f"{cell.mean:.4g}"
    if cell.std is None or compact:
        return text
    return f"{text} ±{100 * cell.std:.1f}" if share else f"{text} ±{cell.std:.2g}"


def _label(row: Row) -> str:
    if row.source:
        return f"reported by {row.source}"
    parts = [
        row.strategy + ("†" if row.oracle is not None else ""),
        row.note,
        f"({row.progress})" if row.progress else "",
    ]
    return " ".join(part for part in parts if part)


def _seeds(row: Row) -> str:
    """How many seeds; nothing for what papers report."""
    return "" if row.source else str(len(row.seeds))


def _remarks(table: Table, best: str, compact: bool = False) -> list[str]:
    """What to know beside the numbers; `best` says how the best values are marked."""
    remarks = list(table.notes)
    cells = [cell for row in table.rows for cell in row.cells]
    if any(cell.std is not None for cell in cells):
        remarks.insert(
            1, "mean over seeds; a wider screen shows ±" if compact else "mean ± standard deviation (n-1) over seeds"
        )
    return [*remarks, *([best] if any(cell.best for cell in cells) else [])]


def _terminal(table: Table, width: int, colour: bool) -> str:
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        emoji=False,
        highlight=False,
    )
    wide = console.options.update(width=UNLIMITED)
    for gap, compact in ((2, False), (1, False), (2, True), (1, True)):  # the last one folds names if it has to
        grid = _grid(table, colour, gap, compact)
        if console.measure(grid, options=wide).maximum <= width:
            break
    with console.capture() as capture:
        console.print(Text(_title(table), style="bold"))
        console.print(grid)
        for remark in _remarks(table, "best in bold" if colour else "* is the best", compact):
            console.print(Text(remark, style="dim"))
    return "".join(line.rstrip() + "\n" for line in capture.get().splitlines())


def _title(table: Table) -> str:
    shared = _shared_backbone(table)
    return f"{table.benchmark} · {shared}" if shared else table.benchmark


def _shared_backbone(table: Table) -> str | None:
    """The backbone of all rows: named once above a terminal's table, where columns are dear."""
    names = {row.backbone for row in table.rows}
    return names.pop() if len(names) == 1 else None


def _grid(table: Table, colour: bool, gap: int, compact: bool) -> RichTable:
    grid = RichTable(box=None, pad_edge=False, header_style="", padding=(0, gap, 0, 0))
    grid.add_column("strategy", overflow="fold")
    own_backbone = _shared_backbone(table) is None
    if own_backbone:
        grid.add_column("backbone", overflow="fold")
    grid.add_column("seeds", justify="right", no_wrap=True)
    for column in table.columns:
        grid.add_column(column.heading, justify="right", no_wrap=True)
    for row in table.rows:
        cells = [Text(_label(row)), *([Text(row.backbone)] if own_backbone else []), Text(_seeds(row))]
        for column, cell in zip(table.columns, row.cells, strict=True):
            star = "*" if cell.best and not colour else ""
            cells.append(Text(star + _shown(column, cell, compact), style="bold" if cell.best else ""))
        grid.add_row(*cells)
    return grid


def _markdown(table: Table) -> str:
    headings = ["strategy", "backbone", "seeds", *(column.heading for column in table.columns)]
    lines = [f"### {_escape_markdown(table.benchmark)}", "", _pipes(map(_escape_markdown, headings))]
    lines.append(_pipes(["---", "---", *["---:"] * (len(headings) - 2)]))
    for row in table.rows:
        cells = [_escape_markdown(_label(row)), _escape_markdown(row.backbone), _seeds(row)]
        for column, cell in zip(table.columns, row.cells, strict=True):
            text = _shown(column, cell)
            cells.append(f"**{text}**" if cell.best else text)
        lines.append(_pipes(cells))
    remarks = "; ".join(_escape_markdown(remark) for remark in _remarks(table, "best in bold"))
    return "\n".join([*lines, "", remarks, ""])


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text)


def _csv(tables: Sequence[Table]) -> str:
    headings = list(dict.fromkeys(column.heading for table in tables for column in table.columns))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    compared = any(row.source for table in tables for row in table.rows)
    endings = ("", " std", " difference") if compared else ("", " std")
    measured = [f"{heading}{ending}" for heading in headings for ending in endings]
    own = ["source"] if compared else []
    writer.writerow(["benchmark", "strategy", "settings", "backbone", "seeds", "progress", "oracle", *own, *measured])
    for table in tables:
        for row in table.rows:
            seeds = " ".join(map(str, row.seeds))
            line = [table.benchmark, row.strategy, row.note, row.backbone, seeds, row.progress, row.oracle or ""]
            line += [row.source] if compared else []
            cells = {column.heading: cell for column, cell in zip(table.columns, row.cells, strict=True)}
            for heading in headings:
                cell = cells.get(heading, Cell(None))
                values = (cell.mean, cell.std, cell.difference)[: len(endings)]
                line += ["" if value is None else repr(round(value, 6)) for value in values]
            writer.writerow(line)
    return stream.getvalue()


def _latex(table: Table) -> str:
    headings = ["strategy", "backbone", "seeds", *(column.heading for column in table.columns)]
    caption = f"{table.benchmark}: {'; '.join(_remarks(table, 'best in bold'))}"
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{_escape_latex(caption)}.}}",
        f"  \\begin{{tabular}}{{ll{'r' * (len(headings) - 2)}}}",
        "    \\toprule",
        f"    {' & '.join(re.sub(r'(?<=[0-9])-(?=[0-9])', '--', _escape_latex(heading)) for heading in headings)} \\\\",
        "    \\midrule",
    ]
    for row in table.rows:
        cells = [_escape_latex(_label(row)), _escape_latex(row.backbone), _seeds(row)]
        for column, cell in zip(table.columns, row.cells, strict=True):
            text = _escape_latex(_shown(column, cell))
            cells.append(f"\\textbf{{{text}}}" if cell.best else text)
        lines.append(f"    {' & '.join(cells)} \\\\")
    return "\n".join([*lines, "    \\bottomrule", "  \\end{tabular}", "\\end{table}", ""])


def _escape_latex(text: str) -> str:
    return "".join(LATEX.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text)
