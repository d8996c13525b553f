"""`--group harmonic`: old and new classes weigh alike."""

from densecl.metrics.iou import harmonic_mean
from densecl.tables.groupings import Grouping, Means


class Harmonic(Grouping):
    """With-bg, and the harmonic mean of base and added (DKD's hIoU)."""

    extra = "harmonic"

    def extra_value(self, means: Means) -> float | None:
        """Harmonic mean of base and added."""
        return harmonic_mean(means.base, means.added)
