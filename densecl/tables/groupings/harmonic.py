"""`--group harmonic`: old and new classes weigh alike."""

from collections.abc import Sequence

from densecl.metrics.iou import harmonic_mean
from densecl.tables.groupings import Grouping


class Harmonic(Grouping):
    """With-bg, and the harmonic mean of base and added (DKD's hIoU)."""

    extra = "harmonic"

    def extra_value(self, base: float | None, added: float | None, after_steps: Sequence[float | None]) -> float | None:
        """Harmonic mean of base and added."""
        return harmonic_mean(base, added)
