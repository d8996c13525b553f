"""`densecl table --stability`: how the order of methods changes with the rules."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densecl.cli import main
from densecl.errors import RecordError
from densecl.records.record import Evaluation
from densecl.tables.stability import flips, kendall, largest_block, listing, stability
from table_records import STEPS, make


def run(strategy, seed=0, base=0.5, added=0.3, order=None, size="full", **changes):
    settings = {"seed": seed, "stream": {"order": order or [1, 2, 3, 4, 5, 6]}, "evaluation": {"size": size}}
    hashed = f"{strategy}{seed}{order}{size}"
    return make(strategy, base, added, seed, hash=hashed, settings=settings, **changes)


def one(records, group=None):
    (found,) = stability(records, group=group)
    return found


def of(found, axis, *rules):
    return next(pair for pair in found.compared if pair.axis == axis and pair.rules == rules)


scores = st.lists(st.integers(0, 5).map(float), min_size=2, max_size=7)


@given(scores, st.randoms(use_true_random=False))
def test_flips_are_the_discordant_pairs_of_kendalls_tau(first, rng):
    second = rng.sample(first, len(first))
    pairs = list(itertools.combinations(range(len(first)), 2))
    signs = [(first[i] - first[j]) * (second[i] - second[j]) for i, j in pairs]
    found = flips(first, second)
    assert len(found) == sum(sign < 0 for sign in signs)
    assert all(first[i] > first[j] and second[i] < second[j] for i, j in found)
    untied = [sum(values[i] != values[j] for i, j in pairs) for values in (first, second)]
    if 0 in untied:
        assert kendall(first, second) is None
        return
    tau = sum((sign > 0) - (sign < 0) for sign in signs) / (untied[0] * untied[1]) ** 0.5
    assert kendall(first, second) == pytest.approx(tau)


def test_the_block_has_the_most_runs_of_which_each_method_has_each():
    units = {"a": [(0,), (1,), (2,)], "b": [(0,), (1,), (2,), (3,)], "c": [(0,)], "d": [(3,)]}
    assert largest_block(units) == (["a", "b"], [(0,), (1,), (2,)])
    assert largest_block({"a": [(0,)], "b": [(1,)]})[0] in (["a"], ["b"])
    assert largest_block({}) == ([], [])
    units = {f"m{k}": [(seed,) for seed in range(6) if seed != k] for k in range(4)}  # each lacks another seed
    names, block = largest_block(units)
    assert (len(names), len(block)) == (3, 3)


def test_groupings_flip_methods_that_are_good_at_other_classes():
    found = one([run("lwf", base=0.7, added=0.1), run("mib", base=0.5, added=0.4)])
    assert found.methods == ("lwf", "mib")
    harmonic = of(found, "grouping", "with-bg", "harmonic")  # 47.1 and 51.4 of all, harmonic 17.6 and 48.0
    assert harmonic.tau == 1.0
    found = one([run("lwf", base=0.8, added=0.1), run("mib", base=0.4, added=0.4)])
    flipped = of(found, "grouping", "with-bg", "harmonic")  # 51.4 and 47.1 of all, harmonic 17.8 and 45.4
    assert (flipped.tau, flipped.flips) == (-1.0, (("lwf", "mib"),))
    assert found.pairs == 1


def test_groupings_that_average_the_same_classes_are_one_rule():
    found = one([run("lwf"), run("mib", base=0.6)])
    rules = {rule for pair in found.compared if pair.axis == "grouping" for rule in pair.rules}
    assert rules == {"fg-only", "with-bg", "harmonic", "step-average"}


def test_seeds_orders_and_sizes_are_compared_where_there_are_several():
    order = [6, 5, 4, 3, 2, 1]
    records = [run("mib", seed, 0.5, order=o) for seed in (0, 1) for o in (None, order)]
    records += [run("lwf", seed, 0.6 if seed else 0.4, order=o) for seed in (0, 1) for o in (None, order)]
    found = one(records)
    assert len(found.units) == 4
    assert of(found, "seed", "seed 0", "seed 1").flips == (("mib", "lwf"),)
    assert of(found, "class order", "order 0 (1, 2, 3, ...)", "order 1 (6, 5, 4, ...)").flips == ()
    assert not any(pair.axis == "size of test images" for pair in found.compared)
    sized = [run(s, 0, base=b, size=size) for s, size, b in
             (("mib", "full", 0.5), ("lwf", "full", 0.4), ("mib", 512, 0.5), ("lwf", 512, 0.6))]  # fmt: skip
    assert of(one(sized), "size of test images", "full", "512").flips == (("mib", "lwf"),)


def test_label_rules_act_on_the_mean_over_steps():
    """After step 0, unseen pixels that mib predicts as base classes count against it under plop2021 alone."""

    def scored(record, wrong):
        matrix = [[0] * 7 for _ in range(7)]
        for label in range(4):
            matrix[label][label] = 90
        matrix[5][1] = wrong  # a class to come, taken for class 1
        begun = Evaluation(task="segmentation", metrics={"miou": {}, "iou": [0.9] * 4 + [None] * 3}, confusion=matrix)
        whole = [[90 if i == j else 0 for j in range(7)] for i in range(7)]
        whole[1][1], whole[1][0] = (80, 10) if not wrong else (90, 0)
        last = Evaluation(task="segmentation", metrics={"miou": {}, "iou": [0.9] * 7}, confusion=whole)
        steps = [
            s.model_copy(update={"evaluations": [e]}) for s, e in zip(record.steps, (begun, last, last), strict=True)
        ]
        return record.model_copy(update={"steps": steps})

    found = one([scored(run("mib"), 900), scored(run("lwf"), 0)])
    rule = of(found, "label rule, over steps", "mib2020", "plop2021")
    assert rule.flips == (("mib", "lwf"),)


def test_rows_without_the_runs_of_the_others_are_left_out_and_named():
    records = [run(s, seed, base=b) for s, b in (("mib", 0.5), ("lwf", 0.4)) for seed in (0, 1)] + [run("ilt", 5)]
    found = one(records)
    assert found.methods == ("lwf", "mib")
    assert found.left_out == ("ilt lacks runs that the others have",)


def test_joint_oracles_unfinished_and_held_out_runs_take_no_part():
    records = [run("mib"), run("lwf"), run("joint"), run("piggyback", oracle="task")]
    records += [run("ilt", status="failed", done=1)]
    held_out = run("plop")
    records.append(held_out.model_copy(update={"settings": held_out.settings | {"data": {"validation": 0.2}}}))
    assert one(records).methods == ("lwf", "mib")


def test_one_method_has_nothing_to_compare():
    (line,) = [remark for remark in listing(one([run("mib")])).remarks if "nothing to compare" in remark]
    assert "two ranked methods" in line


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"class_names": ["background", *"abcdeX"]}, "X, f"),
        ({"steps": (*STEPS[:1], (4, 5), (6,))}, "steps (3, 2, 1) (there (3, 1, 2))"),
    ],
)
def test_runs_with_other_classes_are_refused_by_name(changes, named):
    with pytest.raises(RecordError) as caught:
        stability([run("mib"), run("lwf", **changes)], lambda record: f"results/{record.strategy}")
    assert named in str(caught.value)
    assert "results/lwf" in str(caught.value)
    assert "results/mib" in str(caught.value)


def test_another_order_of_the_same_classes_is_compared():
    assert one([run("mib"), run("lwf", class_names=["background", *"fedcba"])]).methods == ("lwf", "mib")


def test_the_command_names_methods_by_letters(tmp_path, capsys):
    for number, record in enumerate([run("lwf", base=0.8, added=0.1), run("mib", base=0.4, added=0.4)]):
        record.write(tmp_path / str(number) / "result.json")
    assert main(["table", str(tmp_path), "--stability", "--group", "harmonic"]) == 0
    text = capsys.readouterr().out
    assert "with-bg · harmonic" in text
    assert "A > B" in text
    assert "A lwf; B mib" in text
    run("ilt", class_names=["background", *"abcdeX"]).write(tmp_path / "x" / "result.json")
    assert main(["table", str(tmp_path), "--stability"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
