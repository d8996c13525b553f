"""The look of a row in all figures of a benchmark: a colour, a marker and a dash."""

from typing import NamedTuple

# Okabe and Ito's colours for all kinds of colour vision, without yellow (lost on white); black follows the text
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("", "5 2", "1.5 1.5", "6 2 1.5 2")  # as in SVG, in units of the line
LOSS, GAIN, GREY = COLOURS[1], COLOURS[5], "#8a8a8b"  # of heat maps and of pictures of what changed, on light and dark


class Marker(NamedTuple):
    """A marker as the legend draws it: the path in a field of 34 x 14."""

    name: str
    path: str


DRAWN = {  # by the sign that matplotlib knows it by
    "o": Marker("disc", "M13 7a4 4 0 1 1 8 0a4 4 0 1 1 -8 0"),
    "s": Marker("square", "M13.4 3.4h7.2v7.2h-7.2z"),
    "^": Marker("up", "M17 2.6l4.4 8h-8.8z"),
    "D": Marker("diamond", "M17 2.2l4.8 4.8l-4.8 4.8l-4.8-4.8z"),
    "v": Marker("down", "M17 11.4l4.4-8h-8.8z"),
    "P": Marker("plus", "M15.4 2.6h3.2v2.8h2.8v3.2h-2.8v2.8h-3.2v-2.8h-2.8v-3.2h2.8z"),
    "X": Marker(
        "cross", "M13 4.6l1.6-1.6l2.4 2.4l2.4-2.4l1.6 1.6l-2.4 2.4l2.4 2.4l-1.6 1.6l-2.4-2.4l-2.4 2.4l-1.6-1.6l2.4-2.4z"
    ),
}


class Style(NamedTuple):
    """The look of one row; no two of the first 28 share colour and dash, or colour and marker."""

    colour: int
    marker: str
    dash: str


def style(index: int) -> Style:
    """The look of the row at a position."""
    again, colour = divmod(index, len(COLOURS))
    return Style(colour, list(DRAWN)[(colour + again) % len(DRAWN)], DASHES[again % len(DASHES)])
