"""`--group step-average`: every step counts, not the last one alone."""

from statistics import fmean

from densecl.tables.groupings import Grouping, Means


class StepAverage(Grouping):
    """With-bg, and the mean of all over the steps."""

    extra = "average"
    extra_over_steps = True

    def extra_value(self, means: Means) -> float | None:
        """Mean over the steps; None where a step was not scored."""
        known = [value for value in means.after_steps if value is not None]
        return fmean(known) if known and len(known) == len(means.after_steps) else None
