"""`--group with-bg`: background is one of the classes of step 0."""

from densecl.tables.groupings import Grouping


class WithBackground(Grouping):
    """Background counts in base and all (PLOP, SSUL, RCIL, DKD)."""
