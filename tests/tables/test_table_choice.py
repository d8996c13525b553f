"""`--filter`, `--sort` and `--columns`: which runs, in what order, by which columns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densecl.errors import RecordError, SettingError, SpecError, UnknownNameError
from densecl.records.record import resolve
from densecl.settings.grammar import format_value
from densecl.tables.choose import choose_columns, chosen, sort_rows
from densecl.tables.table import rows
from table_records import cells, make

KNOWN = {"training.lr", "training.later.lr", "stream.setting", "strategy", "environment.torch", "seed"}


def run(seed=0, setting="overlapped", lr=0.01, **changes):
    settings = {
        "seed": seed,
        "stream": {"setting": setting, "order": [1, 2, 3]},
        "training": {"lr": lr, "later": {"lr": None}, "compile": False},
        "data": {"weights": "none"},
    }
    environment = {"torch": "2.6.0", "git": "1234567", "images": {"train": 10}}
    return make(seed=seed, settings=settings, environment=environment, **changes)


RUNS = [run(0), run(1, "disjoint"), run(2, lr=0.1), run(3, strategy="mib+replay(memory=9)", status="failed", done=1)]


def seeds(*conditions, records=RUNS):
    return [record.seed for record in chosen(records, conditions)]


def test_no_condition_keeps_all_runs():
    assert seeds() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ("stream.setting=disjoint", [1]),
        ("setting=disjoint", [1]),
        ("setting!=disjoint", [0, 2, 3]),
        ("setting == 'disjoint'", [1]),
        ("training.lr<0.05", [0, 1, 3]),
        ("training.lr >= 0.1", [2]),
        ("training.lr=1e-1", [2]),
        ("seed<=1", [0, 1]),
        ("seed>2", [3]),
        ("status=finished", [0, 1, 2]),
        ("benchmark=toy3-1", [0, 1, 2, 3]),
        ("backbone=bisenet", [0, 1, 2, 3]),
        ("strategy=mib", [0, 1, 2]),
        ("strategy='mib+replay(memory=9)'", [3]),
        ("strategy=mib+replay", [3]),
        ("strategy!=mib", [3]),
        ("order=(1, 2, 3)", [0, 1, 2, 3]),
        ("later.lr=none", [0, 1, 2, 3]),
        ("compile=false", [0, 1, 2, 3]),
        ("weights=none", [0, 1, 2, 3]),  # written as text in the record
        ("git=1234567", [0, 1, 2, 3]),  # text that looks like a number
        ("torch=2.6.0", [0, 1, 2, 3]),
        ("images.train=10", [0, 1, 2, 3]),
        ("densecl=0.1.0", [0, 1, 2, 3]),
    ],
)
def test_a_condition_is_about_settings_names_and_the_environment(condition, left):
    assert seeds(condition) == left


def test_all_conditions_must_hold():
    assert seeds("setting=overlapped", "training.lr<0.05", "status=finished") == [0]


def test_true_is_not_one():
    with pytest.raises(RecordError, match="no run meets"):
        seeds("compile=0")
    assert seeds("compile!=0") == [0, 1, 2, 3]


def test_a_run_without_the_key_meets_only_unequal():
    records = [*RUNS, make(seed=9)]
    assert seeds("setting=disjoint", records=records) == [1]
    assert 9 in seeds("setting!=disjoint", records=records)
    assert 9 not in seeds("later.lr=none", records=records)


@given(st.one_of(st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6), st.booleans(), st.none(), st.text(max_size=8)))
def test_every_value_is_found_by_its_canonical_text(value):
    records = [make(seed=0, settings={"seed": 0, "x": {"key": value}}), make(seed=1, settings={"seed": 1, "x": {}})]
    assert seeds(f"key={format_value(value)}", records=records) == [0]
    assert seeds(f"key!={format_value(value)}", records=records) == [1]


@pytest.mark.parametrize(
    ("condition", "error", "message"),
    [
        ("seting=disjoint", SettingError, "no run has a key 'seting'. did you mean 'setting'?"),
        ("stream.seting=disjoint", SettingError, "did you mean 'stream.setting'?"),
        ("qqqq=1", SettingError, "densecl inspect RUN lists the settings"),
        ("lr=0.1", SettingError, "'lr' could be training.later.lr or training.lr. write one of them"),
        ("setting", SettingError, "is no condition. the form is key=value"),
        ("=3", SettingError, "is no condition"),
        ("setting<disjoint", SettingError, "< compares numbers"),
        ("setting<true", SettingError, "< compares numbers"),
        ("setting=a b", SpecError, "quote text that holds blanks"),
        ("setting=", SpecError, "expected a value"),
        ("setting=partitioned", RecordError, "stream.setting is disjoint, overlapped"),
        ("\x1b[31m", SettingError, "is no condition"),
    ],
)
def test_what_is_wrong_with_a_condition_is_said_in_a_line(condition, error, message):
    with pytest.raises(error) as caught:
        seeds(condition)
    assert message in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_short_name_is_the_end_of_one_key_and_settings_go_before_the_environment():
    assert resolve("setting", KNOWN, "--filter") == "stream.setting"
    assert resolve("later.lr", KNOWN, "--filter") == "training.later.lr"
    assert resolve("torch", KNOWN, "--filter") == "environment.torch"
    assert resolve("torch", KNOWN | {"data.torch"}, "--filter") == "data.torch"
    assert resolve("strategy", KNOWN | {"stream.strategy"}, "--filter") == "strategy"
    with pytest.raises(SettingError, match="no run has a key 'r'"):
        resolve("r", KNOWN, "--filter")  # a piece of a word is no key


def names(table):
    return [row.strategy for row in table.rows]


def methods():
    values = {"lwf": (0.5, 0.2), "mib": (0.4, 0.6), "zeta": (0.7, 0.1), "joint": (0.9, 0.9)}
    return rows([make(name, *value) for name, value in values.items()])


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("1-3", ["joint", "zeta", "lwf", "mib"]),
        ("base", ["joint", "zeta", "lwf", "mib"]),
        ("1-3:asc", ["mib", "lwf", "zeta", "joint"]),
        ("added:desc", ["joint", "mib", "lwf", "zeta"]),
        ("strategy", ["joint", "lwf", "mib", "zeta"]),
        ("strategy:desc", ["zeta", "mib", "lwf", "joint"]),
    ],
)
def test_rows_are_sorted_by_a_column_the_best_first(text, order):
    (table,) = sort_rows(methods(), text)
    assert names(table) == order


def test_where_lower_is_better_the_lowest_comes_first_and_nothing_comes_last():
    def lost(value):
        return {"metrics": {"miou": {}, "iou": [0.9] + [0.5] * 6, "forgetting": value}}

    records = []
    for name, value in (("a", 0.3), ("b", -0.1), ("c", None), ("d", 0.2)):
        record = make(name)
        evaluation = record.steps[-1].evaluations[0].model_copy(update=lost(value))
        last = record.steps[-1].model_copy(update={"evaluations": [evaluation]})
        records.append(record.model_copy(update={"steps": [*record.steps[:-1], last]}))
    for text, order in (("forgetting", "bdac"), ("forgetting:desc", "adbc")):
        (table,) = sort_rows(rows(records), text)
        assert "".join(names(table)) == order


def test_sorting_changes_no_value_and_is_stable():
    (before,) = rows([make("b", 0.5), make("a", 0.5), make("c", 0.5)])
    (after,) = sort_rows([before], "1-3")
    assert after == before


def test_by_seeds_rows_are_sorted_by_their_number():
    (table,) = sort_rows(rows([make("a"), make("b", seed=0), make("b", seed=1)]), "seeds:desc")
    assert names(table) == ["b", "a"]


def test_columns_are_those_that_are_named_in_that_order():
    (table,) = choose_columns(methods(), ["all,1-3"])
    assert [column.heading for column in table.columns] == ["all", "1-3"]
    whole = methods()[0]
    assert cells(table, "mib") == {key: cells(whole, "mib")[key] for key in ("all", "1-3")}
    (again,) = choose_columns(methods(), ["all", " base ", "all"])
    assert again == table


def test_a_heading_may_hold_commas():
    tables = rows([make(steps=((1, 3, 4), (2,), (5, 6)), planned_steps=[[1, 3, 4], [2], [5, 6]])])
    assert [column.heading for column in tables[0].columns[:2]] == ["1, 3-4", "2, 5-6"]
    for texts in (["2, 5-6,all,1, 3-4"], ["2, 5-6", "all", "1, 3-4"], ["added,all,base"]):
        (table,) = choose_columns(tables, texts)
        assert [column.heading for column in table.columns] == ["2, 5-6", "all", "1, 3-4"]


def test_each_table_shows_and_sorts_by_what_it_has():
    tables = rows([make("lwf"), make("mib", 0.6), make(benchmark="other2-2", steps=((1, 2), (3, 4)))])
    other, toy = choose_columns(sort_rows(tables, "1-3"), ["1-3"])
    assert names(toy) == ["mib", "lwf"]
    assert [column.heading for column in toy.columns] == ["1-3"]
    assert (other.columns, other.rows[0].cells) == ((), ())
    assert other.notes[-1] == "has none of the columns 1-3"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: sort_rows(t, "al"), UnknownNameError, "unknown column 'al'. did you mean 'all'?"),
        (lambda t: sort_rows(t, "all:down"), SettingError, "unknown direction 'down'"),
        (lambda t: sort_rows(t, ""), UnknownNameError, "unknown column ''"),
        (lambda t: choose_columns(t, ["all,forgeting"]), UnknownNameError, "did you mean 'forgetting'?"),
        (lambda t: choose_columns(t, ["strategy"]), UnknownNameError, "unknown column 'strategy'"),
        (lambda t: choose_columns(t, [","]), SettingError, "names no column"),
    ],
)
def test_an_unknown_column_gets_the_nearest(call, error, message):
    with pytest.raises(error) as caught:
        call(methods())
    assert message in str(caught.value)
