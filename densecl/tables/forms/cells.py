"""The parts that all forms share: the text of a cell, the lines of a table, remarks and numbered footnotes."""

from collections.abc import Callable, Mapping

from densecl.tables.columns import FEWEST, LEVEL, Cell, Column, rounded
from densecl.tables.table import FOREIGN, Table
from densecl.terminal import humanise

SPREADS: Mapping[str, str] = {
    "std": "mean ± standard deviation (n-1) over seeds",
    "interval": "mean ± half of its 95 % interval over seeds (Student's t)",
}
NARROW = "mean over seeds; a wider screen or fewer --columns show ±"
CLOSE = "≈"
FEWER = "‡"
FEWER_SEEDS = "fewer seeds than other rows have"
LONG = 40  # characters of a note that still stands beside the name of a row


def cell_text(column: Column, cell: Cell, spread: str | None = "std") -> str:
    """A cell's text, without a mark for the best; `spread` None leaves ± out."""
    if cell.mean is None:
        return "-"
    if column.kind == "time":
        return humanise(cell.mean)
    share = column.kind == "share"
    if cell.difference is not None:
        if share:
            return f"{100 * cell.mean:.1f} ({100 * cell.difference:+.1f})"
        return f"{cell.mean:.4g} ({cell.difference:+.3g})"
    mark = CLOSE if cell.close else ""
    text = mark + (f"{rounded(column, cell.mean):.1f}" if share else f"{cell.mean:.4g}")
    width = None if spread is None else cell.std if spread == "std" else cell.half
    if width is None:
        return text
    return f"{text} ±{100 * width:.1f}" if share else f"{text} ±{width:.2g}"


def footnotes(table: Table, longest: int = LONG) -> dict[str, int]:
    """A number for each note that has more than `longest` characters, in the order of rows."""
    long = dict.fromkeys(row.note for row in table.rows if len(row.note) > longest)
    return {note: number for number, note in enumerate(long, start=1)}


def shared_backbone(table: Table) -> str | None:
    """The backbone, if it is that of all rows: then it is named once, above the table."""
    names = {row.backbone for row in table.rows}
    return names.pop() if len(names) == 1 else None


def lines(
    table: Table,
    numbers: Mapping[str, int],
    spread: str | None,
    *,
    backbones: bool,  # with a column of them
    escape: Callable[[str], str],  # writes text so that the form shows it literally
    reference: Callable[[int], str],  # writes the number of a footnote
    best: Callable[[str], str],  # marks the best value of a column
    second: Callable[[str], str] = str,  # marks the second-best one, where it is to be
) -> list[list[str]]:
    """The text of all cells, line by line, headings first; `numbers` are those of footnotes, by the note of a row.

    Of a table by class the lines are its columns, below those of names.
    """
    names = ["strategy", *(["backbone"] if backbones else []), "seeds"]
    result = [[escape(text) for text in (*names, *(column.heading for column in table.columns))]]
    for row in table.rows:
        number = numbers.get(row.note)
        own = [
            row.strategy + ("†" if row.oracle is not None else "") + (FOREIGN if row.foreign else ""),
            row.note if number is None else "",
            f"({row.progress})" if row.progress else "",
        ]
        name = f"reported by {row.source}" if row.source else " ".join(part for part in own if part)
        line = [escape(name) + ("" if number is None else reference(number))]
        line += [escape(row.backbone)] if backbones else []
        line.append("" if row.source else escape(f"{len(row.seeds)}{FEWER if row.has_fewer_seeds else ''}"))
        for column, cell in zip(table.columns, row.cells, strict=True):
            text = escape(cell_text(column, cell, spread))
            line.append(best(text) if cell.best else second(text) if cell.second else text)
        result.append(line)
    return [list(line) for line in zip(*result, strict=True)] if table.by_class else result


def words(table: Table, backbones: bool) -> int:
    """The columns of words at the left of the `lines` of a table."""
    return 1 if table.by_class else 1 + backbones


def remarks(table: Table, best: str, spread: str | None = "std", second: str = "second underlined") -> list[str]:
    """The lines below a table; `best` and `second` say how such values are marked."""
    result = list(table.notes)
    cells = [cell for row in table.rows for cell in row.cells]
    if any(cell.std is not None for cell in cells):
        result.insert(1, NARROW if spread is None else SPREADS[spread])
    if any(row.has_fewer_seeds for row in table.rows):
        result.append(f"{FEWER} {FEWER_SEEDS}")
    if any(cell.best for cell in cells):
        result.append(best)
    if any(cell.second for cell in cells):
        result.append(second)
    if any(cell.close for cell in cells):
        result.append(
            f"{CLOSE} cannot be told from the best: paired t-test over at least {FEWEST} common seeds, "
            f"p ≥ {LEVEL:g}, not corrected for the number of rows"
        )
    return result
