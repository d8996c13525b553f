"""Intervals of means over seeds, and the paired test of two rows. Pure; scipy is imported when used.

Only `scipy.special` is: its distribution functions are those of `scipy.stats`, which takes a second to import.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Unit = TypeVar("Unit", bound=Hashable)


def interval(values: Sequence[float], level: float = 0.95) -> float | None:
    """Half the width of Student's t interval of the mean: `t((1 + level) / 2, n - 1) * s / sqrt(n)`.

    s is the standard deviation (n - 1). None for fewer than 2 values, which have no spread.

    Raises:
        ValueError: `level` does not lie between 0 and 1, both excluded.
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level} does not lie between 0 and 1")
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    _, error = _mean_and_error(values)
    return float(stdtrit(len(values) - 1, (1 + level) / 2)) * error


def paired(ours: Mapping[Unit, float], others: Mapping[Unit, float]) -> float | None:
    """Two-sided p of the paired t-test over common seeds, as `scipy.stats.ttest_rel` gives it; values are by seed.

    None for fewer than 2 common seeds; 1.0 where all differences are 0; 0.0 where all are equal and not 0.
    """
    common = sorted(ours.keys() & others.keys(), key=repr)
    if len(common) < 2:
        return None
    differences = [ours[unit] - others[unit] for unit in common]
    if not any(differences):
        return 1.0
    mean, error = _mean_and_error(differences)
    if error <= 1e-14 * max(abs(value) for unit in common for value in (ours[unit], others[unit])):  # rounding alone
        return 0.0
    from scipy.special import stdtr

    return 2 * float(stdtr(len(common) - 1, -abs(mean) / error))


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    count = len(values)
    mean = math.fsum(values) / count
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)
