import csv
import io
import re
import statistics

import pytest

from densecl.errors import SettingError
from densecl.records.layout import main_name, ranges
from densecl.records.record import Evaluation, StepRecord
from densecl.tables.forms.text import render
from densecl.tables.group import Configuration, notes
from densecl.tables.table import rows
from densecl.terminal import humanise
from table_records import STEPS, cells, make


def test_ranges_are_headings():
    assert ranges(range(1, 16)) == "1-15"
    assert ranges([20, 16, 17, 3]) == "3, 16-17, 20"
    assert ranges([]) == ""


def test_columns_are_class_ranges_without_background_then_all_with_and_without_it():
    (table,) = rows([make(base=0.5, added=0.3, background=0.9)])
    assert [column.heading for column in table.columns] == ["1-3", "4-6", "all", "all fg", "forgetting", "time"]
    values = {heading: cell.mean for heading, cell in cells(table, "mib").items()}
    assert values["1-3"] == pytest.approx(0.5)
    assert values["4-6"] == pytest.approx(0.3)
    assert values["all"] == pytest.approx((0.9 + 3 * 0.5 + 3 * 0.3) / 7)
    assert values["all fg"] == pytest.approx(0.4)
    assert values["forgetting"] == pytest.approx(0.1)
    assert values["time"] == pytest.approx(120)


def test_without_background_output_0_never_counts():
    (table,) = rows([make(base=0.5, added=0.3, background=0.9, has_background=False)])
    assert [column.heading for column in table.columns] == ["1-3", "4-6", "all", "forgetting", "time"]
    assert cells(table, "mib")["all"].mean == pytest.approx(0.4)


def test_seeds_are_one_row_with_mean_and_sample_deviation():
    values = (0.50, 0.56, 0.61)
    (table,) = rows([make(base=value, seed=seed) for seed, value in enumerate(values)])
    (row,) = table.rows
    assert row.seeds == (0, 1, 2)
    cell = cells(table, "mib")["1-3"]
    assert cell.mean == pytest.approx(statistics.mean(values))
    assert cell.std == pytest.approx(statistics.stdev(values))


def test_one_seed_has_no_deviation():
    (table,) = rows([make()])
    assert cells(table, "mib")["1-3"].std is None


def test_a_copied_run_does_not_count_as_a_seed():
    (table,) = rows([make(seed=0), make(seed=0), make(seed=1)])
    assert table.rows[0].seeds == (0, 1)
    assert "1 further runs of the same set-up and seed left out" in table.notes


def test_settings_outside_the_hash_do_not_split_rows():
    here = {"seed": 0, "device": "cpu", "data": {"root": "/a"}, "loader": {"workers": 0}}
    there = {"seed": 1, "device": "cuda", "data": {"root": "/b"}, "loader": {"workers": 4}}
    (table,) = rows([make(seed=0, settings=here), make(seed=1, settings=there)])
    assert len(table.rows) == 1


def test_rows_that_differ_by_a_setting_say_so():
    frozen = {"seed": 0, "training": {"lr": 0.01, "batchnorm": "frozen"}}
    (table,) = rows([make("finetune", 0.1), make("mib"), make("mib", 0.6, settings=frozen)])
    assert [(row.strategy, row.note) for row in table.rows] == [
        ("finetune", ""),
        ("mib", ""),
        ("mib", "batchnorm=frozen"),
    ]


def test_notes_compare_hyper_parameters_only_within_a_strategy():
    setups = [
        Configuration("lwf", "bisenet", {"strategy_values.distillation": 100, "training.lr": 0.1}),
        Configuration("mib", "bisenet", {"strategy_values.distillation": 10, "training.lr": 0.1}),
        Configuration("mib", "bisenet", {"strategy_values.distillation": 5, "training.lr": 0.1}),
    ]
    assert notes(setups) == ["", "distillation=10", "distillation=5"]


def test_notes_stay_unambiguous_when_two_keys_end_alike():
    setups = [
        Configuration("a", "b", {"training.lr": lr, "training.later.lr": later}) for lr, later in ((1, 2), (3, 4))
    ]
    assert notes(setups) == ["later.lr=2, training.lr=1", "later.lr=4, training.lr=3"]


def test_the_order_is_finetune_lwf_ilt_mib_others_by_mean_then_joint():
    strategies = {
        "joint": 0.1,
        "zeta": 0.2,
        "alpha": 0.7,
        "mib+replay": 0.5,
        "mib": 0.9,
        "ilt": 0.3,
        "lwf": 0.4,
        "finetune": 0.6,
    }
    (table,) = rows([make(name, value, value) for name, value in strategies.items()])
    order = ["finetune", "lwf", "ilt", "mib", "zeta", "mib+replay", "alpha", "joint"]
    assert [row.strategy for row in table.rows] == order


def test_the_best_is_the_highest_but_for_forgetting_the_lowest():
    (table,) = rows([make("lwf", 0.5, 0.2), make("mib", 0.4, 0.6)])
    assert cells(table, "lwf")["1-3"].best
    assert not cells(table, "mib")["1-3"].best
    assert cells(table, "mib")["4-6"].best
    assert cells(table, "mib")["forgetting"].best
    assert cells(table, "lwf")["forgetting"].best  # equal: both
    assert not cells(table, "mib")["time"].best


def test_lower_forgetting_is_best():
    few = make("mib")
    last = few.steps[-1]
    evaluation = last.evaluations[0].model_copy(update={"metrics": last.evaluations[0].metrics | {"forgetting": -0.02}})
    few = few.model_copy(update={"steps": [*few.steps[:-1], last.model_copy(update={"evaluations": [evaluation]})]})
    (table,) = rows([make("lwf"), few])
    assert cells(table, "mib")["forgetting"].best
    assert not cells(table, "lwf")["forgetting"].best


def test_values_that_print_alike_are_both_best():
    (table,) = rows([make("lwf", 0.50001), make("mib", 0.50003)])
    assert cells(table, "lwf")["1-3"].best
    assert cells(table, "mib")["1-3"].best


def test_joint_oracle_and_unfinished_runs_are_shown_but_never_ranked():
    records = [
        make("finetune", 0.2, 0.2),
        make("lwf", 0.3, 0.3),
        make("joint", 0.95, 0.95),
        make("masks", 0.96, 0.96, oracle="task"),
        make("ilt", 0.97, 0.97, status="interrupted", done=2),
    ]
    (table,) = rows(records)
    assert cells(table, "lwf")["all"].best
    for name in ("joint", "masks", "ilt"):
        assert not any(cell.best for cell in cells(table, name).values())
    assert any("told the task" in note for note in table.notes)
    text = render([table])
    assert "ilt (2 of 3 steps)" in text
    assert "masks†" in text


def test_a_method_that_knows_the_count_of_classes_is_marked_in_these_words():
    (table,) = rows([make("finetune", 0.2), make("lwf", 0.3), make("dft", 0.9, oracle="classes")])
    assert cells(table, "lwf")["all"].best
    assert "† knows from the first step how many classes will come and is not ranked" in table.notes


def test_labels_that_leak_into_a_memory_are_told_below_the_table():
    def leaking(seed, leak):
        record = make("mib+replay", 0.6, seed=seed)
        steps = [step.model_copy(update={"notes": {"replay": {"leak": leak}}}) for step in record.steps]
        return record.model_copy(update={"steps": steps})

    (table,) = rows([make("mib"), leaking(0, "images show all"), leaking(1, "images show all")])
    assert [note for note in table.notes if "show" in note] == ["mib+replay: images show all"]
    (table,) = rows([leaking(0, ["\n", 1])])  # a record's notes may be anything
    assert all("\n" not in note for note in table.notes)


def held_out(record, share=0.2):
    return record.model_copy(update={"settings": record.settings | {"data": {"validation": share}}})


def test_scores_on_held_out_images_have_a_table_of_their_own_and_no_rank():
    tests = [make(name, value, seed=seed) for name, value in (("lwf", 0.4), ("mib", 0.5)) for seed in range(2)]
    tuned = [held_out(make("mib", 0.9)), held_out(make("lwf", 0.95, hash="tuned"), 0.1)]
    ours, others = rows([*tuned, *tests])
    assert (ours.benchmark, others.benchmark) == ("toy3-1", "toy3-1 on held-out training images")
    assert cells(ours, "mib")["1-3"].mean == pytest.approx(0.5)
    assert cells(ours, "mib")["1-3"].best
    assert not any(row.ranked or cell.best or cell.close for row in others.rows for cell in row.cells)
    assert any("held-out training images: not ranked" in note for note in others.notes)
    assert not any("held-out" in note for note in ours.notes)
    for form in ("terminal", "markdown", "latex", "csv"):
        assert "toy3-1 on held-out training images" in render([others], form)
    settings = {"seed": 0, "data": "not a table"}  # a record's settings may be anything
    assert len(rows([make(settings=settings)])) == 1
    (mixed, _) = rows([*tuned, *tests], over=["lr"])
    assert mixed.rows[0].seeds == (0, 1)


def test_rows_with_fewer_seeds_than_others_are_marked():
    records = [make("mib", seed=seed) for seed in range(3)] + [make("lwf"), make("ilt", status="failed", done=1)]
    (table,) = rows(records)
    assert {row.strategy: row.has_fewer_seeds for row in table.rows} == {"lwf": True, "mib": False, "ilt": False}
    text = render([table])
    assert " 1‡ " in text
    assert "‡ fewer seeds than other rows have" in text
    assert "1\\textsuperscript{\\ddag}" in render([table], "latex")
    assert "‡" not in render(rows(records[:3]))


def test_unfinished_seeds_do_not_enter_the_mean():
    (table,) = rows([make(base=0.5, seed=0), make(base=0.1, seed=1, status="running", done=1)])
    assert [(row.seeds, row.progress) for row in table.rows] == [((0,), ""), ((1,), "1 of 3 steps")]


def test_an_unfinished_run_is_averaged_over_the_classes_it_has_learnt():
    (table,) = rows([make(base=0.5, added=0.3, background=0.9, status="running", done=2)])
    values = {heading: cell.mean for heading, cell in cells(table, "mib").items()}
    assert values["4-6"] == pytest.approx(0.3)
    assert values["all"] == pytest.approx((0.9 + 3 * 0.5 + 0.3) / 5)


def test_a_run_without_a_finished_step_is_shown():
    (table,) = rows([make(), make("lwf", status="failed", done=0)])
    assert "lwf (0 of 3 steps)" in render([table])


def test_joint_has_the_ranges_of_the_stream_it_joins():
    for planned in ([list(step) for step in STEPS], []):  # an older record may not know the stream: its neighbours do
        (table,) = rows([make("mib"), make("joint", 0.8, 0.7, planned_steps=planned)])
        assert cells(table, "joint")["1-3"].mean == pytest.approx(0.8)
        assert cells(table, "joint")["4-6"].mean == pytest.approx(0.7)
        assert cells(table, "joint")["forgetting"].mean is None


def test_one_table_a_benchmark():
    tables = rows([make(benchmark="b"), make(benchmark="a"), make("lwf", benchmark="b")])
    assert [(table.benchmark, len(table.rows)) for table in tables] == [("a", 1), ("b", 2)]


def test_labels_without_iou_are_left_out_of_means():
    metrics = {"iou": [0.9, 0.5, None, 0.7, 0.3, 0.3, None]}
    record = make()
    last = record.steps[-1].model_copy(update={"evaluations": [Evaluation(task="segmentation", metrics=metrics)]})
    (table,) = rows([record.model_copy(update={"steps": [*record.steps[:-1], last]})])
    assert cells(table, "mib")["1-3"].mean == pytest.approx(0.6)
    assert cells(table, "mib")["all"].mean == pytest.approx((0.9 + 0.5 + 0.7 + 0.3 + 0.3) / 5)


def test_per_step_shows_all_classes_seen_so_far_and_joint_at_the_end():
    (table,) = rows([make(base=0.5, added=0.3, background=0.9), make("joint", 0.8, 0.8, background=0.8)], per_step=True)
    assert [column.heading for column in table.columns] == ["step 0", "step 1", "step 2"]
    means = [cell.mean for cell in cells(table, "mib").values()]
    assert means == pytest.approx([(0.9 + 1.5) / 4, (0.9 + 1.5 + 0.3) / 5, (0.9 + 1.5 + 0.9) / 7])
    joint = [cell.mean for cell in cells(table, "joint").values()]
    assert joint[:2] == [None, None]
    assert joint[2] == pytest.approx(0.8)


def test_other_tasks_show_their_own_measures():
    evaluation = Evaluation(task="colorization", metrics={"mse": 0.0123, "ssim": 0.8})
    step = StepRecord(step=0, task="colorization", new_classes=[], iterations=1, seconds=5, evaluations=[evaluation])
    (table,) = rows([make(steps=(), planned_steps=[]).model_copy(update={"steps": [step]})])
    assert [column.heading for column in table.columns] == ["colorization mse", "colorization ssim", "time"]
    assert "0.0123" in render([table])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (41.6, "42s"),
        (59.6, "1m 00s"),
        (185, "3m 05s"),
        (3599.7, "1h 00m"),
        (7620, "2h 07m"),
        (442_800, "5d 03h"),
    ],
)
def test_times_are_for_people(seconds, text):
    assert humanise(seconds) == text


def big_table():
    names = ("finetune", "lwf", "ilt", "mib", "mib+replay(memory=100)", "joint")
    records = [make(name, 0.5 + 0.01 * seed, 0.4, seed) for name in names for seed in range(3)]
    return rows(records)


@pytest.mark.parametrize("colour", [False, True])
def test_the_terminal_table_fits_80_columns_with_every_number_whole(colour):
    text = render(big_table(), "terminal", width=80, colour=colour)
    visible = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(len(line) for line in visible.splitlines()) <= 80
    assert "51.0" in visible
    assert "…" not in visible
    assert ("\x1b[1m" in text) == colour


def test_plain_text_marks_the_best_with_a_star():
    text = render(rows([make("lwf", 0.5), make("mib", 0.6)]))
    assert "*60.0" in text
    assert "* is the best" in text
    assert "\x1b" not in text


def test_deviations_are_dropped_where_the_terminal_is_too_narrow_for_them():
    assert "±1.0" in render(big_table(), width=120)
    assert "±1.0" not in render(big_table(), width=76)


def test_80_columns_hold_mean_and_deviation_of_the_plain_strategies():
    table = rows(
        [make(name, 0.5 + 0.01 * seed, 0.4, seed) for name in ("finetune", "mib", "joint") for seed in range(3)]
    )
    text = render(table, width=80)
    assert "±1.0" in text
    assert max(map(len, text.splitlines())) <= 80


def test_markdown_is_a_pipe_table_with_bold_best_and_escaped_names():
    records = [make("lwf", 0.5), make("a|b.py:My_*", 0.6)]
    lines = render(rows(records), "markdown").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert r"a\|b.py:My\_\*" in table[3]
    assert "**60.0**" in table[3]


def test_latex_uses_booktabs_and_escapes():
    text = render(
        rows([make("lwf", 0.5, backbone="a_b&c"), make("my_m%", 0.6, seed=0), make("my_m%", 0.7, seed=1)]), "latex"
    )
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"a\_b\&c", r"my\_m\%", r"1--3", r"\textbf{65.0 $\pm$7.1}"):
        assert part in text
    assert not re.search(
        r"(?<!\\)[_&%#](?=[a-z])", text.split("\\midrule")[1].split("\\bottomrule")[0].replace(" & ", " ")
    )


def test_csv_holds_unrounded_fractions_of_all_benchmarks():
    tables = rows(
        [make(base=1 / 3, seed=0), make(base=0.5, seed=1), make(benchmark="other2-2", steps=((1, 2), (3, 4)))]
    )
    lines = list(csv.DictReader(io.StringIO(render(tables, "csv"))))
    assert [line["benchmark"] for line in lines] == ["other2-2", "toy3-1"]
    toy = lines[1]
    assert float(toy["1-3"]) == pytest.approx((1 / 3 + 0.5) / 2, abs=1e-6)
    assert float(toy["1-3 std"]) == pytest.approx(statistics.stdev([1 / 3, 0.5]), abs=1e-6)
    assert toy["seeds"] == "0 1"
    assert toy["1-2"] == ""
    assert float(toy["time"]) == 120


def test_escape_codes_and_markup_in_names_do_nothing():
    text = render(rows([make("\x1b[31mred\n[bold]x[/bold]")]), "terminal", width=120, colour=False)
    assert "\x1b" not in text
    assert "[bold]x[/bold]" in text


def test_an_unknown_format_names_those_that_exist():
    with pytest.raises(SettingError, match="terminal, markdown, csv, latex"):
        render([], "html")


def test_the_strategy_of_a_spec_is_its_first_name():
    assert main_name("mib(distillation=5)+replay") == "mib"
    assert main_name("not a spec (") == "not a spec ("
