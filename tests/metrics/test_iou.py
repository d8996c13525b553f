"""Means over groups of classes and forgetting, by hand and against a per-pixel count."""

import subprocess
import sys

import numpy as np
import pytest

from densecl.metrics.iou import fold_unseen, foreground_mean, forgetting, iou_from_confusion, step_metrics

# Background 0, labels 1-4 arriving as (1, 2), (3,), (4,). Rows are the truth.
MATRIX = np.array(
    [
        [50, 2, 0, 1, 0],
        [4, 10, 1, 0, 0],
        [3, 0, 12, 0, 0],
        [6, 1, 0, 8, 0],
        [5, 0, 2, 1, 7],
    ]
)
STEPS = ((1, 2), (3,), (4,))


def pixels(matrix: np.ndarray) -> list[tuple[int, int]]:
    """(true, predicted) of every pixel behind a matrix."""
    return [(int(t), int(p)) for (t, p), n in np.ndenumerate(matrix) for _ in range(n)]


def iou_by_pixels(pairs, label):
    both = sum(t == label and p == label for t, p in pairs)
    either = sum(label in (t, p) for t, p in pairs)
    return both / either if either else None


def test_iou_is_the_hand_count_and_nan_for_absent_classes():
    matrix = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    iou = iou_from_confusion(matrix)
    assert iou[:2].tolist() == [3 / 6, 4 / 7]
    assert np.isnan(iou[2])


def test_unseen_rows_become_background_or_vanish_and_the_matrix_is_kept():
    before = MATRIX.copy()
    background = fold_unseen(MATRIX, 2, "background")
    assert background[0].tolist() == [61, 3, 2, 10, 7]
    assert background[1:3].tolist() == MATRIX[1:3].tolist()
    assert not background[3:].any()
    assert background.sum() == MATRIX.sum()
    ignored = fold_unseen(MATRIX, 2, "ignore")
    assert ignored[:3].tolist() == MATRIX[:3].tolist()
    assert not ignored[3:].any()
    assert np.array_equal(before, MATRIX)
    assert np.array_equal(fold_unseen(MATRIX, 4, "background"), MATRIX)
    with pytest.raises(ValueError, match="unseen is 'void'"):
        fold_unseen(MATRIX, 2, "void")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("unseen", ["background", "ignore"])
@pytest.mark.parametrize("has_background", [True, False])
def test_groups_equal_a_count_over_pixels(step, unseen, has_background):
    seen = [label for labels in STEPS[: step + 1] for label in labels]
    pairs = [(t if t <= max(seen) else 0, p) for t, p in pixels(MATRIX) if t <= max(seen) or unseen == "background"]
    zero = [0] if has_background else []
    groups = {
        "all": zero + seen,
        "base": [*zero, 1, 2],
        "added": [label for label in seen if label > 2],
        "previous": [*zero, *(label for labels in STEPS[:step] for label in labels)] if step else [],
        "current": list(STEPS[step]),
    }
    expected = {
        name: pytest.approx(np.mean([iou_by_pixels(pairs, label) for label in labels])) if labels else None
        for name, labels in groups.items()
    }
    assert step_metrics(MATRIX, STEPS, step, has_background=has_background, unseen=unseen) == expected


def test_last_step_by_hand():
    iou = [50 / (53 + 68 - 50), 10 / (15 + 13 - 10), 12 / (15 + 15 - 12), 8 / (15 + 10 - 8), 7 / (15 + 7 - 7)]
    metrics = step_metrics(MATRIX, STEPS, 2, has_background=True, unseen="background")
    assert metrics == {
        "all": pytest.approx(sum(iou) / 5),
        "base": pytest.approx(sum(iou[:3]) / 3),
        "added": pytest.approx(sum(iou[3:]) / 2),
        "previous": pytest.approx(sum(iou[:4]) / 4),
        "current": pytest.approx(iou[4]),
    }
    assert foreground_mean(iou, range(5)) == pytest.approx(sum(iou[1:]) / 4)  # as MiB's table counts


def test_first_step_has_no_previous_and_nothing_added():
    metrics = step_metrics(MATRIX, STEPS, 0, has_background=True, unseen="background")
    assert metrics["previous"] is None
    assert metrics["added"] is None
    assert metrics["all"] == metrics["base"]


def test_classes_absent_everywhere_are_left_out():
    matrix = np.zeros((4, 4), dtype=np.int64)
    matrix[0, 0], matrix[1, 1], matrix[1, 0] = 4, 1, 1
    metrics = step_metrics(matrix, ((1, 2), (3,)), 1, has_background=True, unseen="ignore")
    assert metrics["all"] == pytest.approx((4 / 5 + 1 / 2) / 2)
    assert metrics["current"] is None
    assert foreground_mean([0.5, float("nan"), 0.25], [0, 1, 2]) == 0.25
    assert foreground_mean([0.5, float("nan")], [0, 1]) is None
    assert foreground_mean([0.5], []) is None


def test_a_class_that_is_only_predicted_counts_zero_or_is_skipped():
    matrix = np.array([[6, 0, 2], [0, 4, 0], [0, 0, 0]])  # the truth has no 2
    np.testing.assert_allclose(iou_from_confusion(matrix), [6 / 8, 1, 0])
    np.testing.assert_allclose(iou_from_confusion(matrix, "skip"), [6 / 8, 1, np.nan])
    means = [
        step_metrics(matrix, ((1,), (2,)), 1, has_background=False, unseen="ignore", absent=absent)["all"]
        for absent in ("zero", "skip")
    ]
    assert means == [0.5, 1.0]


def test_forgetting_is_the_mean_loss_over_earlier_classes_without_background():
    learnt = {0: 0.9, 1: 0.8, 2: 0.6, 3: 0.5}
    assert forgetting(learnt, np.array([0.1, 0.5, 0.7, 0.0]), [0, 1, 2]) == pytest.approx((0.3 - 0.1) / 2)
    assert forgetting(learnt, [0.1, 0.5, 0.7, 0.0], []) is None
    assert forgetting(learnt, [0.1, 0.5, 0.7, 0.0], [0]) is None
    assert forgetting({1: 0.8, 2: float("nan")}, [0.0, 0.5, 0.7, float("nan")], [1, 2, 3]) == pytest.approx(0.3)


def test_tables_need_no_torch():
    code = "import sys, densecl.metrics, densecl.metrics.iou; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
