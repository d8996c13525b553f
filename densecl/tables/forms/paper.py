r"""Tables of several benchmarks side by side as LaTeX: booktabs, graphicx and xcolor."""

import re
from collections.abc import Sequence
from itertools import groupby

from densecl.records.layout import UPPER_BOUND, main_name
from densecl.tables.columns import Cell, Column
from densecl.tables.forms.cells import FEWER, FOREIGN, NARROW, cell_text, footnotes, remarks, shared_backbone
from densecl.tables.forms.latex import escape, fitted, heading, number, opening
from densecl.tables.table import Row, Table

WIDE = 6  # columns of numbers, of more a deviation beside each would be too small to read


def environment(table: Table, spread: str, cite: bool) -> str:
    """A `table*`: over both columns where there are two."""
    backbone, numbers = shared_backbone(table), footnotes(table, 0)
    shown = spread if len(table.columns) <= WIDE else None
    spans = [(over, len([*columns])) for over, columns in groupby(table.columns, key=lambda column: column.over)]
    told = (text if text != NARROW else "mean over seeds" for text in remarks(table, "best in bold", shown))
    notes = [f"{'; '.join(map(_note, told))}."]
    notes += [f"\\textsuperscript{{{at}}} {_note(note)}" for note, at in numbers.items()]
    text = [
        *opening("table*", table, backbone),
        *fitted(
            f"l{'l' * (backbone is None)}{'r' * len(table.columns)}",
            [
                *_headings(table.columns, spans, backbone is None),
                "    \\midrule",
                *_lines(table, shown, numbers, cite, backbone is None),
            ],
        ),
        "  \\par\\smallskip",
        "  \\begin{minipage}{\\textwidth}\\raggedright",
        *(f"    {note}\\par" for note in notes),
        "  \\end{minipage}",
        "\\end{table*}",
        "",
    ]
    return "\n".join(text)


def _headings(columns: Sequence[Column], spans: Sequence[tuple[str, int]], backbones: bool) -> list[str]:
    """The splits over their columns, a rule below each, and the ranges of classes."""
    left = 1 + backbones
    above, rules, at = [""] * left, "", left + 1
    for over, width in spans:
        above.append(f"\\multicolumn{{{width}}}{{c}}{{{heading(escape(over))}}}")
        rules += f"\\cmidrule(lr){{{at}-{at + width - 1}}}"
        at += width
    below = ["method", *(["backbone"] * backbones)]
    below += [heading(escape(column.heading.removeprefix(f"{column.over} "))) for column in columns]
    return [f"    {' & '.join(above)} \\\\", f"    {rules}", f"    {' & '.join(below)} \\\\"]


def _lines(table: Table, spread: str | None, numbers: dict[str, int], cite: bool, backbones: bool) -> list[str]:
    """A line for each row, published ones in grey; joint and what it follows below a rule of its own."""
    result: list[str] = []
    for index, row in enumerate(table.rows):
        last = all(main_name(other.runs[0].strategy) == UPPER_BOUND for other in table.rows[index:] if other.runs)
        if last and index and "    \\midrule" not in result:
            result.append("    \\midrule")
        line = [_name(row, numbers, cite), *([escape(row.backbone)] * backbones)]
        line += [_cell(column, cell, spread) for column, cell in zip(table.columns, row.cells, strict=True)]
        if row.source:
            line = [f"\\textcolor{{gray}}{{{text}}}" for text in line]
        result.append(f"    {{}}{' & '.join(line)} \\\\")
    return result


def _name(row: Row, numbers: dict[str, int], cite: bool) -> str:
    if row.source:
        return escape(f"{row.strategy}, as in {row.source}")
    marks = "†" * (row.oracle is not None) + FOREIGN * row.foreign + FEWER * row.has_fewer_seeds
    note = f"\\textsuperscript{{{numbers[row.note]}}}" if row.note in numbers else ""
    keys = f"~\\cite{{{','.join(row.cites)}}}" if cite and row.cites else ""
    return f"{escape(row.strategy + marks)}{note}{keys}"


def _note(text: str) -> str:
    """A note that may be broken behind signs: names can be longer than a line."""
    return re.sub(r"(\\[_&%#$])", r"\1\\allowbreak{}", escape(text))


def _cell(column: Column, cell: Cell, spread: str | None) -> str:
    text = number(escape(cell_text(column, cell._replace(difference=None), spread)))
    return f"\\textbf{{{text}}}" if cell.best else f"\\underline{{{text}}}" if cell.second else text
