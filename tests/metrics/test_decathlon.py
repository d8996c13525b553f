"""The Decathlon's score gives the scores that papers print beside their accuracies."""

import pytest

from densecl.metrics.decathlon import FINETUNED, decathlon_score
from densecl.records.published import read_published
from densecl.settings.catalogue import published_files

ROWS = [r for p in published_files() if p.stem == "mallya-analysis" for r in read_published(p) if r.table == "Table 8"]
METHODS = sorted({row.method for row in ROWS})


def accuracies(method):
    own = sorted((r for r in ROWS if r.method == method and r.task), key=lambda row: row.task)
    return [row.measures["top-1 accuracy %"] for row in own]


def printed(method, name):
    return next(r.measures[name] for r in ROWS if r.method == method and not r.task)


@pytest.mark.parametrize("method", METHODS)
def test_a_printed_score_follows_from_the_printed_accuracies(method):
    """Within what rounding of the fine-tuned networks' errors moves; the mean to its last place."""
    values = accuracies(method)
    errors = {task: 1 - value / 100 for task, value in zip(FINETUNED, values, strict=True)}
    assert decathlon_score(errors) == pytest.approx(printed(method, "decathlon score"), abs=2.5)
    assert sum(values) / 10 == pytest.approx(printed(method, "mean top-1 accuracy %"), abs=0.011)


def test_fine_tuned_networks_score_a_quarter_of_all_and_twice_their_errors_nothing():
    errors = {task: 1 - value / 100 for task, value in FINETUNED.items()}
    assert decathlon_score(errors) == pytest.approx(2500)
    assert decathlon_score({task: 2 * e for task, e in errors.items()}) == pytest.approx(0, abs=1e-9)
    assert decathlon_score(dict.fromkeys(errors, 1.0)) == 0
    assert decathlon_score(dict.fromkeys(errors, 0.0)) == 10_000
    assert decathlon_score({"svhn": 0.0, "another": 0.0}) == 1000
