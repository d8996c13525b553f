"""A table of any headings and texts, for views whose rows are no configurations or whose cells are no scores."""

from typing import NamedTuple


class Line(NamedTuple):
    """The texts of a row; those of `below` stand under the table, or in last columns."""

    cells: tuple[str, ...]
    below: tuple[str, ...] = ()


class Listing(NamedTuple):
    """A titled table; its first `words` columns are text, all others numbers."""

    title: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    words: int = 1
    below: tuple[str, ...] = ()  # headings of what stands below the rows
    remarks: tuple[str, ...] = ()


def letter(index: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    return (letter(index // 26 - 1) if index >= 26 else "") + chr(ord("A") + index % 26)
