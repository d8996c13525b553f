"""Runs of equal settings that must not be averaged, `--mix`, and what is averaged over on purpose."""

import json
import statistics

import pytest

import densecl
from densecl.cli import main
from densecl.errors import RecordError, SettingError
from densecl.tables import provenance
from densecl.tables.group import averaged_keys
from densecl.tables.table import rows
from table_records import cells, make
from tiny_runs import run_words

HERE = {
    "git": "aaaaaaa",
    "python": "3.11.7",
    "torch": "2.6.0+cu124",
    "gpu": None,
    "machine": "x86_64",
    "threads": 1,
    "world": 1,
    "bn_sync": False,
    "stream": "f00d",
    "images": {"train": 100, "test": 10},
    "sources": {},
}


def run(seed=0, strategy="mib", base=0.5, device="cpu", order=(1, 2), **changes):
    environment = HERE | changes.pop("environment", {})
    settings = {"seed": seed, "device": device, "stream": {"order": list(order)}, "training": {"lr": 0.01}}
    return make(strategy, base, seed=seed, settings=settings, environment=environment, **changes)


def refuse(records, over=()):
    provenance.refuse(records, lambda r: f"{r.benchmark}/{r.strategy}/{r.backbone}/s{r.seed}-{r.hash}", over)


def notes(*records, **options):
    return " | ".join(note for table in rows(records, **options) for note in table.notes)


@pytest.mark.parametrize(
    ("change", "what", "hint"),
    [
        ({"densecl": "0.2.0"}, "version of densecl: 0.1.0 there, 0.2.0 here", "--filter densecl=0.2.0"),
        ({"environment": {"stream": "beef"}}, "stream of images: f00d there, beef", "--filter environment.stream=beef"),
        ({"environment": {"images": {"train": 90, "test": 10}}}, '"train": 100', "folders of their own"),
        ({"environment": {"sources": {"mib": "1f"}}}, "source of the method", "folders of their own"),
        ({"environment": {"torch": "2.7.0"}}, "version of torch: 2.6 there, 2.7 here", "--mix"),
        ({"device": "cuda:1"}, "kind of device: cpu there, cuda here", "--mix"),
        ({"environment": {"world": 2}}, "number of processes with a BatchNorm of their own: 1 there, 2", "--mix"),
    ],
)
def test_what_can_move_the_numbers_is_refused_and_with_mix_told(change, what, hint):
    records = [run(0, base=0.5), run(1, base=0.6, **change)]
    with pytest.raises(SettingError) as caught:
        refuse(records)
    for part in ("toy3-1/mib/bisenet/s0-mib0", "toy3-1/mib/bisenet/s1-mib1", what, hint):
        assert part in str(caught.value)
    (table,) = rows(records)  # the mean is taken all the same, with a footnote
    assert cells(table, "mib")["1-3"].mean == pytest.approx(0.55)
    assert any(note.startswith("mixed: mib averages runs that differ by") for note in table.notes)
    refuse([records[0]])
    refuse([records[1]])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"environment": {"torch": "2.6.1"}}, "torch (2.6.0+cu124, 2.6.1)"),
        ({"environment": {"git": "bbbbbbb"}}, "git (aaaaaaa, bbbbbbb)"),
        ({"environment": {"threads": 4}}, "threads (1, 4)"),
        ({"environment": {"world": 2, "bn_sync": True}}, "world (1, 2)"),
    ],
)
def test_what_moves_the_last_digits_is_told(change, told):
    records = [run(0), run(1, **change)]
    refuse(records)
    assert f"averaged runs differ by {told}" in notes(*records)


@pytest.mark.parametrize("key", sorted(HERE))
def test_what_an_older_record_does_not_say_is_not_compared(key):
    old = run(1)
    environment = {name: value for name, value in old.environment.items() if name != key}
    records = [run(0), old.model_copy(update={"environment": environment}), run(2)]
    refuse(records)
    assert "differ" not in notes(*records)


def test_devices_of_a_kind_are_alike():
    refuse([run(0, device="cuda:0"), run(1, device="cuda:1")])


def test_runs_of_other_rows_may_differ():
    records = [run(0), run(0, strategy="lwf", densecl="0.2.0", environment={"torch": "2.7.0"}), run(0, benchmark="b")]
    refuse(records)
    assert "differ" not in notes(*records)
    refuse([run(0), run(1, densecl="0.2.0", status="failed", done=1)])  # a row of its own


def test_many_values_are_counted():
    records = [run(seed, environment={"git": f"commit{seed}"}) for seed in range(5)]
    assert "averaged runs differ by git (5 values)" in notes(*records)


def test_one_seed_with_two_hashes_was_changed_in_between():
    records = [run(0), run(0, hash="mib0-new")]
    with pytest.raises(
        SettingError, match=r"hash under one seed .*: mib0 there, mib0-new here. .*--filter hash=mib0-new"
    ):
        refuse(records)
    refuse([run(0), run(0)])  # a copied folder


ORDERS = [((1, 2), "f00d"), ((2, 1), "beef")]


def ordered(base=0.5, strategy="mib"):
    """Two class orders with two seeds each: 0.5, 0.51 and 0.6, 0.61."""
    return [
        run(seed, strategy, base + 0.1 * k + 0.01 * seed, order=order, environment={"stream": stream})
        for k, (order, stream) in enumerate(ORDERS)
        for seed in range(2)
    ]


def test_settings_make_rows_of_their_own_unless_averaged_over():
    assert [row.note for row in rows(ordered())[0].rows] == ["order=(1, 2)", "order=(2, 1)"]
    (table,) = rows(ordered(), over=["order"])
    (row,) = table.rows
    assert (row.note, row.seeds) == ("", (0, 0, 1, 1))
    cell = cells(table, "mib")["1-3"]
    assert cell.mean == pytest.approx(0.555)
    assert cell.std == pytest.approx(statistics.stdev([0.5, 0.51, 0.6, 0.61]))
    assert "averaged over stream.order (2 values) too: such runs count as further seeds" in table.notes


def test_other_orders_bring_other_streams_and_are_not_refused_for_that():
    over = averaged_keys(ordered(), ["order"])
    assert over == ("stream.order",)
    refuse(ordered(), over)
    other = run(3, order=(2, 1), environment={"stream": "cafe"})
    with pytest.raises(SettingError, match="stream of images: beef there, cafe here"):
        refuse([*ordered(), other], over)
    with pytest.raises(SettingError, match="version of densecl"):  # code must be the same for all orders
        refuse([*ordered(), run(3, order=(3, 1), densecl="0.2.0")], over)


def test_rows_over_orders_are_paired_by_seed_and_order():
    weaker = [0.03, 0.02, 0.05, 0.01]
    others = [
        run(record.seed, "lwf", record.steps[-1].evaluations[0].metrics["iou"][1] - lost, order=order, environment=env)
        for record, lost in zip(ordered(), weaker, strict=True)
        for order, env in [(record.settings["stream"]["order"], {"stream": record.environment["stream"]})]
    ]
    from scipy.stats import ttest_1samp

    (table,) = rows([*ordered(), *reversed(others)], over=["stream.order"])
    assert cells(table, "lwf")["1-3"].p == pytest.approx(ttest_1samp(weaker, 0).pvalue)


def test_an_unknown_setting_to_average_over_gets_the_nearest():
    with pytest.raises(SettingError, match=r"--over: no run has a key 'oder'. did you mean 'order'"):
        rows(ordered(), over=["oder"])


@pytest.fixture
def folder(tmp_path):
    records = [run(0), run(1, densecl="0.2.0"), run(0, "lwf", 0.4)]
    for place, record in zip(("new/a", "new/b", "c"), records, strict=True):
        record.write(tmp_path / "runs" / place / "result.json")
    return tmp_path / "runs"


def test_the_command_refuses_names_both_folders_and_says_what_to_do(folder, capsys):
    assert main(["table", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    for part in (str(folder / "new" / "a"), str(folder / "new" / "b"), "0.1.0", "0.2.0", "--mix"):
        assert part in err
    assert main(["table", str(folder), "--filter", "densecl=0.1.0"]) == 0
    assert main(["table", str(folder), "--mix"]) == 0
    assert "mixed: mib averages" in capsys.readouterr().out


def test_the_command_takes_every_choice_at_once(folder, capsys):
    words = ["--mix", "--sort", "base:asc", "--columns", "all,base", "--filter", "seed<2", "--spread", "interval"]
    assert main(["table", str(folder), *words, "--over", "order"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["strategy", "seeds", "all", "1-3"]
    assert [line.split()[0] for line in lines[2:4]] == ["lwf", "mib"]
    assert "mean ± half of its 95 % interval over seeds (Student's t)" in lines


@pytest.mark.parametrize(
    "words", [["--spread", "sem"], ["--sort", "x"], ["--columns", "x"], ["--filter", "x=1"], ["--over", "x"]]
)
def test_a_wrong_choice_ends_in_one_line(folder, capsys, words):
    assert main(["table", str(folder), "--mix", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.usefixtures("one_thread")
def test_a_method_of_ones_own_that_was_edited_between_two_seeds(voc, tmp_path, capsys):
    path = tmp_path / "mine.py"
    for seed in range(2):
        path.write_text(f"from densecl import Strategy\nclass Mine(Strategy):\n    pass  # version {seed}\n")
        assert main(run_words(voc, tmp_path / "results", "--seed", str(seed), "--quiet", strategy=f"{path}:Mine")) == 0
    assert main(["table", str(tmp_path / "results")]) == 2
    assert "source of the method" in capsys.readouterr().err
    assert main(["table", str(tmp_path / "results"), "--mix"]) == 0
    assert "mixed: Mine averages runs that differ by source of the method" in capsys.readouterr().out


def test_methods_of_one_name_from_two_files_are_told_apart():
    records = [run(0), run(1)]
    records = [r.model_copy(update={"settings": r.settings | {"strategy": f"v{r.seed}/mine.py:Mine"}}) for r in records]
    (table,) = rows(records)
    assert [row.note for row in table.rows] == ["strategy=v0/mine.py:Mine", "strategy=v1/mine.py:Mine"]
    assert [row.seeds for row in rows(records, over=["strategy"])[0].rows] == [(0, 1)]


def test_python_has_the_same_table(folder, capsys):
    tables = densecl.table(folder, mix=True, sort="base", columns=["base"])
    assert main(["table", str(folder), "--mix", "--sort", "base", "--columns", "base"]) == 0
    assert capsys.readouterr().out == str(tables[0])
    with pytest.raises(SettingError, match="version of densecl"):
        densecl.table(str(folder))
    with pytest.raises(RecordError, match="does not exist"):
        densecl.table(folder / "absent")


def test_python_warns_of_records_that_cannot_be_read(folder):
    (folder / "new" / "b" / "result.json").write_text(json.dumps({"schema": 99}))
    with pytest.warns(UserWarning, match="schema 99"):
        (table,) = densecl.table(folder)
    assert len(table.rows) == 2
