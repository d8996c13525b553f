"""Bars and the words beside them, made to fit into the width of a terminal."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

WIDEST, NARROWEST = 24, 8  # columns of a bar; none is drawn that would be narrower
PERCENT = 4  # columns of `100%`
GAP = "  "
_UNICODE, _ASCII = ("━", "╸", "─"), ("#", ">", "-")


def fit(parts: Sequence[str], width: int, gap: str = GAP) -> str:
    """As many of the parts, from the first on, as fit whole into `width` columns; the first is cut if need be."""
    text = ""
    for part in parts:
        longer = f"{text}{gap}{part}" if text else part
        if cell_len(longer) > width:
            break
        text = longer
    return text or _cut(parts[0] if parts else "", width)


def bar(share: float, width: int, plain: bool = False) -> Text:
    """A bar of `width` columns of which `share` (0 to 1) is done; `plain`: in ASCII.

    What is done and what is not differ in form as well as in colour.
    """
    full, half, rest = _ASCII if plain else _UNICODE
    halves = round(2 * width * min(1.0, max(0.0, share)))
    done = full * (halves // 2) + half * (halves % 2)
    return Text(done, style="cyan").append(rest * (width - len(done)), style="bright_black")


class Row(NamedTuple):
    """`label ━━━━━━╸───── 41%  parts`: what it is, how much is done (0 to 1), and words, the most important first."""

    label: str
    share: float
    parts: Sequence[str]


def rows(found: Sequence[Row], width: int, plain: bool = False) -> list[Text]:
    """Lines with bars of one length, none wider than `width`.

    What does not fit is left out: first the bars shrink, then the last words go, then the bars.
    """
    labels = max((cell_len(each.label) for each in found), default=0)
    room = width - labels - 1 - PERCENT
    wanted = [_wanted(each.parts, room) for each in found]
    length = min([WIDEST, *(room - 1 - words for words in wanted)])
    lines = []
    for each, words in zip(found, wanted, strict=True):
        share = min(1.0, max(0.0, each.share))
        line = Text(no_wrap=True, overflow="ellipsis").append(f"{each.label:<{labels}} ", style="bold")
        if length >= NARROWEST:
            line.append_text(bar(share, length, plain)).append(" ")
        line.append(f"{100 * share:{PERCENT - 1}.0f}%")
        space = words if length >= NARROWEST else room
        if space > len(GAP):
            line.append(GAP + fit(each.parts, space - len(GAP)))
        line.truncate(max(1, width), overflow="ellipsis")
        lines.append(line)
    return lines


def _wanted(parts: Sequence[str], room: int) -> int:
    """Columns of as many parts as leave room for a bar, with the gap before them."""
    words = [cell_len(GAP + GAP.join(parts[: k + 1])) for k in range(len(parts))]
    return max((length for length in words if length + 1 + NARROWEST <= room), default=0)


def _cut(text: str, width: int) -> str:
    cut = Text(text)
    cut.truncate(max(0, width), overflow="ellipsis")
    return cut.plain
