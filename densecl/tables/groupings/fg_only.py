"""`--group fg-only`: classes alone."""

from densecl.tables.groupings import Grouping


class ForegroundOnly(Grouping):
    """Background counts nowhere (MiB)."""

    background = ()
