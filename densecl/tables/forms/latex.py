r"""Tables as LaTeX that pdflatex takes: with booktabs, and for benchmarks side by side what `paper.py` says.

Characters that LaTeX reads as commands are escaped, and those that its fonts do not hold are written by name, in plain
ASCII where there is no name, since an unknown character stops pdflatex.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence

from densecl.tables.forms.cells import footnotes, lines, remarks, shared_backbone, words
from densecl.tables.table import Table

NAMED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "≥": r"$\ge$",
    "≤": r"$\le$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "†": r"\textsuperscript{\dag}",
    "‡": r"\textsuperscript{\ddag}",
    "§": r"\textsuperscript{\S}",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    '"': "''",  # its own sign needs another font encoding
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
PAGE = 110  # characters of LaTeX in a line of a table, above which notes go below
ACCENTED = re.compile("[À-ÖØ-öø-ÿ]")  # letters that LaTeX's own fonts compose


def write(tables: Sequence[Table], spread: str = "std", cite: bool = False) -> str:
    r"""All tables, one environment each, for a document that uses the packages of the first line.

    `cite` puts a \cite behind names, where benchmarks stand side by side.
    """
    from densecl.tables.forms import paper  # which escapes as this file does

    wide = [any(column.over for column in table.columns) for table in tables]
    packages = "booktabs,graphicx,xcolor" if any(wide) else "booktabs"
    texts = [
        paper.environment(table, spread, cite) if several else _environment(table, spread)
        for table, several in zip(tables, wide, strict=True)
    ]
    return "\n".join([f"% \\usepackage{{{packages}}}", *texts])


def opening(environment: str, table: Table, backbone: str | None) -> list[str]:
    """The first lines of a table, with the caption; `backbone` is that of all rows."""
    title = escape(table.benchmark if backbone is None else f"{table.benchmark}, {backbone}")
    look = ["  \\centering", "  \\footnotesize", "  \\setlength{\\tabcolsep}{3pt}"]
    return [f"\\begin{{{environment}}}", *look, f"  \\caption{{{title}}}"]


def fitted(form: str, lines: Sequence[str]) -> list[str]:
    """A tabular of columns `form`, made smaller where it is wider than the text, whatever the style of the document."""
    return [
        "  \\sbox2{%",
        f"  \\begin{{tabular}}{{@{{}}{form}@{{}}}}",
        "    \\toprule",
        *lines,
        "    \\bottomrule",
        "  \\end{tabular}}%",
        "  \\ifdim\\wd2>\\textwidth\\resizebox{\\textwidth}{!}{\\usebox2}\\else\\usebox2\\fi",
    ]


def _environment(table: Table, spread: str) -> str:
    backbone = shared_backbone(table)
    numbers = footnotes(table)
    body = _body(table, spread, numbers)
    if max(sum(map(len, line)) for line in body) > PAGE:
        numbers = footnotes(table, 0)
        body = _body(table, spread, numbers)
    left = "l" * words(table, backbone is None)
    notes = ["; ".join(escape(remark) for remark in remarks(table, "best in bold", spread)) + "."]
    notes += [f"{_reference(number)} {escape(note)}" for note, number in numbers.items()]
    text = [
        *opening("table", table, backbone),
        f"  \\begin{{tabular}}{{@{{}}{left}{'r' * (len(body[0]) - len(left))}@{{}}}}",
        "    \\toprule",
        f"    {' & '.join(body[0])} \\\\",
        "    \\midrule",
        *(f"    {{}}{' & '.join(line)} \\\\" for line in body[1:]),  # {}: else [ after \\ begins an option
        "    \\bottomrule",
        "  \\end{tabular}",
        "  \\par\\smallskip",
        "  \\begin{minipage}{\\linewidth}",
        *(f"    {note}\\par" for note in notes),
        "  \\end{minipage}",
        "\\end{table}",
        "",
    ]
    return "\n".join(text)


def _body(table: Table, spread: str, numbers: Mapping[str, int]) -> list[list[str]]:
    """The cells of all lines, headings first, with minus signs and dashes as LaTeX sets them."""
    backbones = shared_backbone(table) is None
    cells = lines(
        table, numbers, spread, backbones=backbones, escape=escape, reference=_reference, best="\\textbf{{{}}}".format
    )
    first = 1 if table.by_class else 3 if backbones else 2  # column of numbers
    headings = [heading(name) for name in cells[0]]
    named = 1 + table.by_class * (backbones + 1)  # lines
    return [
        headings,
        *cells[1:named],
        *(line[:first] + [number(text) for text in line[first:]] for line in cells[named:]),
    ]


def _reference(number: int) -> str:
    return f"\\textsuperscript{{{number}}}"


def heading(text: str) -> str:
    """A heading with dashes between the ends of ranges."""
    return re.sub(r"(?<=[0-9])-(?=[0-9])", "--", text)


def number(text: str) -> str:
    """The text of a cell with minus signs and dashes as LaTeX sets them."""
    return "--" if text == "-" else re.sub(r"-(?=[0-9.])", "$-$", text)


def escape(text: str) -> str:
    """`text` as LaTeX shows it literally; two hyphens stay two."""
    return re.sub(r"-(?=-)", "-{}", "".join(map(_escape, text)))


def _escape(character: str) -> str:
    if character in NAMED or character.isascii() or ACCENTED.match(character):
        return NAMED.get(character, character)
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(map(_escape, plain)) or "?"
