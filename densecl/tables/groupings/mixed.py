"""`--group mixed`: background counts once."""

from densecl.tables.groupings import Grouping


class Mixed(Grouping):
    """Background counts in all, not in base (WILSON)."""

    background = ("all",)
