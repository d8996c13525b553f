"""Intervals and paired tests against scipy.stats, against printed tables and against their meaning."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from densecl.tables.intervals import interval, paired

VALUES = st.lists(st.floats(-100, 100, allow_nan=False).map(lambda value: round(value, 3)), min_size=2, max_size=12)


def test_the_interval_of_three_values_by_hand():
    # mean 2, s = 1, t(0.975, 2) = 4.303 in every printed table
    assert interval([1, 2, 3]) == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert interval([1, 2, 3], 0.9) == pytest.approx(2.919986 / 3**0.5, rel=1e-6)


@given(VALUES, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_is_that_of_scipy_stats(values, level):
    low, high = stats.t.interval(level, len(values) - 1, loc=np.mean(values), scale=stats.sem(values) or 1e-300)
    assert interval(values, level) == pytest.approx((high - low) / 2, rel=1e-9, abs=1e-9)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    trials = rng.normal(3.0, 2.0, (2000, 4))
    covered = np.mean([abs(row.mean() - 3.0) <= interval(list(row)) for row in trials])
    assert 0.935 < covered < 0.965  # 0.95 within three standard errors


def test_one_value_has_no_interval_and_equal_values_an_empty_one():
    assert interval([]) is None
    assert interval([0.5]) is None
    assert interval([0.5, 0.5, 0.5]) == 0


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, float("nan")])
def test_a_level_lies_between_0_and_1(level):
    with pytest.raises(ValueError, match="level"):
        interval([1, 2], level)


@given(st.lists(st.tuples(*[st.integers(-1000, 1000)] * 2), min_size=2, max_size=10))
def test_the_paired_test_is_that_of_scipy_stats(pairs):
    ours, others = ({seed: pair[side] / 8 for seed, pair in enumerate(pairs)} for side in (0, 1))
    differences = {ours[seed] - others[seed] for seed in ours}
    found = paired(ours, others)
    if differences == {0.0}:
        assert found == 1.0
    elif len(differences) == 1:
        assert found == 0.0
    else:
        assert found == pytest.approx(stats.ttest_rel(list(ours.values()), list(others.values())).pvalue, rel=1e-9)


def test_the_paired_test_by_hand():
    # differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t = 3.4641, two-sided p at 2 degrees of freedom
    t = 2 * 3**0.5
    assert paired({0: 1, 1: 2, 2: 3}, {0: 0, 1: 0, 2: 0}) == pytest.approx(1 - t / (t**2 + 2) ** 0.5)


def test_seeds_are_paired_by_number_not_by_place():
    ours = {3: 0.9, 1: 0.5, 2: 0.7, 8: 0.1}
    others = {1: 0.4, 2: 0.65, 3: 0.7, 9: 0.0}
    assert paired(ours, others) == pytest.approx(stats.ttest_rel([0.5, 0.7, 0.9], [0.4, 0.65, 0.7]).pvalue)
    assert paired(ours, others) == paired(others, ours)


def test_without_two_common_seeds_there_is_no_test():
    assert paired({}, {}) is None
    assert paired({0: 1.0, 1: 2.0}, {1: 3.0, 2: 4.0}) is None


def test_differences_that_are_equal_but_for_rounding_leave_no_doubt():
    ours = {0: 0.1, 1: 0.2, 2: 0.3}
    assert paired(ours, {seed: value + 0.1 for seed, value in ours.items()}) == 0.0
    assert paired(ours, dict(ours)) == 1.0
