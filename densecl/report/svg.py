"""A matplotlib figure as SVG of a page: in the colours of its theme, with its own ids and a name for screen readers."""

import html
import io
import re
import warnings
from typing import TYPE_CHECKING, Any

import matplotlib

from densecl.report.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = "#8a8a8b"  # stands for the theme's colour of faint lines
BLACK = "#000000"  # stands for the colour of the text around
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, readable, searchable
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.hashsalt": "densecl",  # equal figures give equal bytes
    "image.composite_image": False,
    "font.size": 10.0,
    "axes.linewidth": 0.8,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "grid.alpha": 0.35,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
}


def inline(figure: "Figure", prefix: str, title: str) -> str:
    """The figure, drawn under `SETTINGS`, as an `<svg>` element.

    `prefix` starts every id, so that figures of one page share none; `title` is for readers who do not see the figure.
    """
    stream = io.StringIO()
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the browser has fonts for it
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    head, body = text.split(">", 1)
    # the figure's own style sheet would hold for the whole page
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>|<metadata>.*?</metadata>", "", body, count=2, flags=re.DOTALL)
    body = re.sub(r"<g id=\"[^\"]*\"(/?)>", r"<g\1>", body).replace("<g/>", "")  # nobody asks for a group by name
    body = re.sub(r"(?<=[ \"(-])\d+\.\d{3,}(?=[ \")])", lambda number: f"{float(number[0]):.2f}", body)
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r"url\(#", f"url(#{prefix}-", body)
    body = re.sub(r'xlink:href="#', f'href="#{prefix}-', body)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r" font-family: [^;\"]*;| transform=\"rotate\(-?0 [^)]*\)\"", "", body)
    body = re.sub(r"\s*\n\s*", " ", body)
    for index, colour in enumerate(COLOURS[:-1]):  # colours as variables of the page's style sheet
        body = body.replace(colour, f"var(--s{index})")
    body = body.replace(GRID, "var(--grid)").replace(BLACK, "currentColor")
    box = re.search(r'viewBox="([^"]*)"', head)
    assert box is not None  # matplotlib always writes one
    width = float(box[1].split()[2])
    name = html.escape(title)
    opening = f'<svg viewBox="{box[1]}" style="--width:{width:.0f}px" role="img" aria-label="{name}">'
    return f"{opening}<title>{name}</title>{body.rstrip()}"
