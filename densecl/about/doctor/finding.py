"""What the doctor says of one thing."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """One thing looked at.

    Attributes:
        level: ok; note: absent, and not needed by every run; problem: will be in the way; error: nothing can be run.
        part: what it belongs to. text: what is there. advice: what to do.
    """

    level: Literal["ok", "note", "problem", "error"]
    part: str
    text: str
    advice: str = ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
