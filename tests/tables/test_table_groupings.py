"""One run under every grouping and label preset, from its confusion matrices; expected values counted by pixels."""

from fractions import Fraction
from itertools import product
from pathlib import Path
from statistics import fmean

import pytest

from densecl.cli import main
from densecl.errors import UnknownNameError
from densecl.metrics import harmonic_mean, unseen_under
from densecl.records.published import Reported
from densecl.records.record import Evaluation, Record, StepRecord
from densecl.tables import groupings
from densecl.tables.forms.text import render
from densecl.tables.table import rows

# Background 0, labels 1-4 arriving as (1, 2), (3,), (4,). Rows are the truth; a column is empty before its label came.
AFTER = [
    [[50, 2, 3, 0, 0], [4, 10, 1, 0, 0], [3, 0, 12, 0, 0], [6, 9, 0, 0, 0], [5, 0, 10, 0, 0]],
    [[49, 2, 3, 1, 0], [6, 8, 1, 0, 0], [3, 0, 11, 1, 0], [5, 1, 0, 9, 0], [8, 0, 2, 5, 0]],
    [[50, 2, 0, 1, 2], [4, 10, 1, 0, 0], [3, 0, 12, 0, 0], [6, 1, 0, 8, 0], [5, 0, 2, 1, 7]],
]
STEPS = [[1, 2], [3], [4]]


def iou(matrix, label, seen, unseen):
    """Intersection over union of a label, by looking at each (true, predicted) pair of pixels."""
    both = either = 0
    for true, predicted in product(range(5), range(5)):
        count = matrix[true][predicted]
        if true > seen and unseen == "ignore":
            continue
        as_seen = 0 if true > seen else true
        both += count * (as_seen == label and predicted == label)
        either += count * (label in (as_seen, predicted))
    return Fraction(both, either) if either else None


def mean(matrix, labels, seen=4, unseen="ignore"):
    values = [iou(matrix, label, seen, unseen) for label in labels]
    return float(fmean(float(value) for value in values if value is not None))


def run(labels="plop2021", confusion=True, **changes):
    """A run as it is recorded under a preset."""
    unseen = {"plop2021": "background", "mib2020": "ignore"}[labels]
    steps = []
    for k, matrix in enumerate(AFTER):
        seen = 2 + k
        own = [None if c > seen else float(iou(matrix, c, seen, unseen)) for c in range(5)]
        evaluation = Evaluation(
            task="toy",
            metrics={"miou": {}, "iou": own, "forgetting": None if k == 0 else 0.123},
            confusion=matrix if confusion else None,
        )
        steps.append(
            StepRecord(step=k, task="toy", new_classes=STEPS[k], iterations=1, seconds=1.0, evaluations=[evaluation])
        )
    values = {
        "densecl": "0.1.0",
        "benchmark": "toy2-1",
        "strategy": "mib",
        "backbone": "unet",
        "seed": 0,
        "hash": labels,
        "status": "finished",
        "settings": {"stream": {"labels": labels}},
        "environment": {},
        "class_names": ["background", *"abcd"],
        "has_background": True,
        "planned_steps": STEPS,
        "steps": steps,
    }
    return Record(**(values | changes))


def values(record, **view):
    (table,) = rows([record], **view)
    return {column.heading: cell.mean for column, cell in zip(table.columns, table.rows[0].cells, strict=True)}


def test_one_confusion_matrix_gives_the_numbers_of_mib_and_of_plop():
    last = AFTER[-1]
    mib = values(run(), group="fg-only")
    assert {key: mib[key] for key in ("1-2", "3-4", "all")} == {
        "1-2": pytest.approx(mean(last, [1, 2])),
        "3-4": pytest.approx(mean(last, [3, 4])),
        "all": pytest.approx(mean(last, [1, 2, 3, 4])),
    }
    plop = values(run(), group="with-bg")
    assert {key: plop[key] for key in ("0-2", "3-4", "all")} == {
        "0-2": pytest.approx(mean(last, [0, 1, 2])),
        "3-4": pytest.approx(mean(last, [3, 4])),
        "all": pytest.approx(mean(last, [0, 1, 2, 3, 4])),
    }
    # by hand: IoU of label 1 is 10 / (15 + 13 - 10), of 4 is 7 / (15 + 9 - 7)
    assert iou(last, 1, 4, "ignore") == Fraction(10, 18)
    assert iou(last, 4, 4, "ignore") == Fraction(7, 17)


def test_mixed_counts_background_in_all_alone():
    found = values(run(), group="mixed")
    assert found["1-2"] == pytest.approx(mean(AFTER[-1], [1, 2]))
    assert found["all"] == pytest.approx(mean(AFTER[-1], range(5)))
    assert "all fg" not in found


def test_harmonic_is_of_base_with_background_and_added():
    base, added = mean(AFTER[-1], [0, 1, 2]), mean(AFTER[-1], [3, 4])
    found = values(run(), group="harmonic")
    assert found["harmonic"] == pytest.approx(2 / (1 / base + 1 / added))
    assert found["0-2"] == pytest.approx(base)


@pytest.mark.parametrize(
    ("labels", "unseen"), [("plop2021", "background"), ("mib2020", "ignore"), ("strict", "ignore")]
)
@pytest.mark.parametrize("recorded", ["plop2021", "mib2020"])
def test_a_label_preset_acts_at_table_time_whatever_the_run_was_scored_with(labels, unseen, recorded):
    after = [mean(matrix, range(3 + k), 2 + k, unseen) for k, matrix in enumerate(AFTER)]
    assert list(values(run(recorded), labels=labels, per_step=True).values()) == pytest.approx(after)
    average = values(run(recorded), labels=labels, group="step-average")["average"]
    assert average == pytest.approx(fmean(after))


def test_presets_agree_after_the_last_step_and_differ_before():
    groups = ("fg-only", "with-bg", "mixed", "harmonic")
    for group in groups:
        one, other = (values(run(), group=group, labels=labels) for labels in ("plop2021", "mib2020"))
        assert {k: v for k, v in one.items() if k != "forgetting"} == {
            k: v for k, v in other.items() if k != "forgetting"
        }
    steps = [values(run(), labels=labels, per_step=True) for labels in ("plop2021", "mib2020")]
    assert steps[0]["step 0"] < steps[1]["step 0"]  # unseen objects taken for classes cost under plop2021
    assert steps[0]["step 2"] == steps[1]["step 2"]


def test_forgetting_is_counted_anew_under_a_preset():
    assert values(run())["forgetting"] == 0.123  # as recorded
    found = values(run(), labels="mib2020")["forgetting"]
    when = [iou(AFTER[0], 1, 2, "ignore"), iou(AFTER[0], 2, 2, "ignore"), iou(AFTER[1], 3, 3, "ignore")]
    now = [iou(AFTER[2], label, 4, "ignore") for label in (1, 2, 3)]
    assert found == pytest.approx(fmean(float(a - b) for a, b in zip(when, now, strict=True)))


def test_the_default_table_stays_as_it_was():
    found = values(run())
    assert list(found) == ["1-2", "3-4", "all", "all fg", "forgetting", "time"]
    assert found["all"] == pytest.approx(mean(AFTER[-1], range(5)))


def test_a_run_without_matrices_keeps_its_own_scores_and_has_none_under_another_preset():
    bare = run(confusion=False)
    assert values(bare, group="with-bg")["all"] == pytest.approx(mean(AFTER[-1], range(5)))
    (table,) = rows([bare], labels="mib2020")
    assert [column.heading for column in table.columns] == ["time"]
    assert any("1 runs kept no confusion matrix" in note for note in table.notes)


def test_without_background_no_grouping_counts_output_0():
    for group in ("fg-only", "with-bg", "mixed"):
        found = values(run(has_background=False), group=group)
        assert found["1-2"] == pytest.approx(mean(AFTER[-1], [1, 2]))
        assert found["all"] == pytest.approx(mean(AFTER[-1], [1, 2, 3, 4]))


def test_joint_has_no_average_over_steps():
    matrix = Evaluation(task="toy", metrics={"miou": {}, "iou": [0.5] * 5}, confusion=AFTER[-1])
    step = StepRecord(step=0, task="toy", new_classes=[1, 2, 3, 4], iterations=1, seconds=1.0, evaluations=[matrix])
    joint = run(strategy="joint", steps=[step])
    (table,) = rows([run(), joint], group="step-average", labels="mib2020")
    found = {row.strategy: dict(zip([c.heading for c in table.columns], row.cells, strict=True)) for row in table.rows}
    assert found["joint"]["average"].mean is None
    assert found["joint"]["all"].mean == found["mib"]["all"].mean


def test_the_table_says_how_it_counts():
    text = render(rows([run()], group="with-bg", labels="mib2020"))
    assert "with-bg: background counts in base and all (PLOP, SSUL, RCIL, DKD)" in text
    assert "scored as under mib2020" in text


def test_unknown_names_get_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown group 'fgonly'\. did you mean 'fg-only'"):
        rows([run()], group="fgonly")
    with pytest.raises(UnknownNameError, match=r"label preset 'mib2021'\. did you mean"):
        rows([run()], labels="mib2021")
    assert unseen_under("plop2021") == "background"


def test_the_harmonic_mean_of_something_and_nothing():
    assert harmonic_mean(0.5, 0.0) == 0.0
    assert harmonic_mean(0.0, 0.0) == 0.0
    assert harmonic_mean(None, 0.5) is None
    assert harmonic_mean(0.6, 0.3) == pytest.approx(0.4)


# ---- groupings in files


def test_every_grouping_is_found_by_its_file():
    files = [path.stem.replace("_", "-") for path in Path(groupings.__file__).parent.glob("[!_]*.py")]
    assert sorted(each.name for each in groupings.groupings()) == sorted(files)
    assert {"fg-only", "with-bg", "mixed", "harmonic", "step-average"} <= set(files)
    for each in groupings.groupings():
        assert isinstance(each, groupings.Grouping)
        assert each.summary
        assert not each.summary.endswith(".")


def test_a_dropped_in_file_is_a_grouping(tmp_path, monkeypatch):
    (tmp_path / "of_my_lab.py").write_text(OWN)
    monkeypatch.setattr(groupings, "__path__", [*groupings.__path__, str(tmp_path)])
    assert "of-my-lab" in groupings.names()
    assert values(run(), group="of-my-lab")["odd"] == pytest.approx(mean(AFTER[-1], [1, 3]))


OWN = """
from densecl.tables.columns import Column
from densecl.tables.groupings import Grouping

class Odd(Grouping):
    \"""Odd labels, and the IoU lost from base to added.\"""

    background = ()
    extra = "gap"
    scale: float = 1.0

    def columns(self, layout):
        odd = tuple(label for label in layout.classes if label % 2)
        return [*super().columns(layout), Column("odd", "share", "higher", odd)]

    def extra_value(self, means):
        return self.scale * (means.base - means.added)
"""


def test_a_grouping_of_ones_own_is_a_class_in_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    found = values(run(), group="mine.py:Odd")
    last = AFTER[-1]
    assert list(found) == ["1-2", "3-4", "all", "odd", "gap", "forgetting", "time"]
    assert found["odd"] == pytest.approx(mean(last, [1, 3]))
    assert found["gap"] == pytest.approx(mean(last, [1, 2]) - mean(last, [3, 4]))
    assert values(run(), group="mine.py:Odd(scale=2)")["gap"] == pytest.approx(2 * found["gap"])
    record = run()
    scores = [step.evaluations[0].metrics for step in record.steps]
    for k in range(1, len(scores)):  # a file whose scores contradict its matrices is not read
        lost = [scores[j]["iou"][c] - scores[k]["iou"][c] for j in range(k) for c in STEPS[j]]
        scores[k]["forgetting"] = sum(lost) / len(lost)
    record.write(tmp_path / "runs" / "result.json")
    assert main(["table", "runs", "--group", "mine.py:Odd(scale=2)", "--columns", "odd,gap"]) == 0
    out = capsys.readouterr().out
    assert "mIoU in %, Odd(scale=2): odd labels, and the IoU lost from base to added; all: 1-4" in out
    for wrong, message in (
        ("absent.py:Odd", "absent.py"),
        ("mine.py:Even", "unknown class in mine.py 'Even'"),
        ("mine.py:Column", "'mine.py:Column' is no grouping"),
        ("mine.py:Odd(size=2)", "unknown hyper-parameter of Odd 'size'"),
    ):
        assert main(["table", "runs", "--group", wrong]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_a_record_or_a_file_of_published_numbers_never_names_a_class_to_import():
    own = {"name": "A", "paper": "B", "table": "1", "source": "s", "benchmark": "toy2-1", "method": "mib"}
    with pytest.raises(ValueError, match="grouping"):
        Reported.model_validate({**own, "values": {"all": 1}, "grouping": "mine.py:Odd"})
