"""Reading published numbers, and setting them beside runs: differences where the protocol agrees, else footnotes."""

import csv
import io
from pathlib import Path

import pytest

from densecl.cli import main
from densecl.errors import RecipeError
from densecl.records.published import canonical, read_published
from densecl.settings.catalogue import published_files
from densecl.tables.against import against
from densecl.tables.agreement import mismatches
from densecl.tables.forms.text import render
from densecl.tables.table import rows
from published_rows import CLASSES, reported, run


def compare(records, published, group=None):
    (table,) = against(rows(records, group=group), published, group)
    return table


def test_the_reported_number_and_the_difference_stand_below_ours():
    records = [run(0.70, 0.50, seed=0), run(0.72, 0.52, seed=1)]
    table = compare(records, [reported()], "fg-only")
    ours, theirs = table.rows
    assert (theirs.source, theirs.seeds) == ("MiB, Table 1", ())
    cells = {c.heading: cell for c, cell in zip(table.columns, theirs.cells, strict=True)}
    assert cells["1-15"].mean == pytest.approx(0.755)
    assert cells["1-15"].difference == pytest.approx(0.71 - 0.755)
    assert cells["16-20"].difference == pytest.approx(0.51 - 0.494)
    assert cells["all"].difference == pytest.approx((15 * 0.71 + 5 * 0.51) / 20 - 0.69)
    assert cells["time"].mean is None
    assert not any("not compared" in note for note in table.notes)
    text = render([table])
    assert "reported by MiB, Table 1" in text
    assert "75.5 (-4.5)" in text
    assert ours.source == ""


def test_without_a_grouping_each_number_finds_the_column_of_its_classes():
    def cells(grouping):
        table = compare([run()], [reported(grouping=grouping)])
        return {c.heading: cell.mean for c, cell in zip(table.columns, table.rows[1].cells, strict=True)}, table.notes

    found, notes = cells("fg-only")
    assert (found["1-15"], found["16-20"], found["all"], found["all fg"]) == (0.755, 0.494, None, 0.69)
    found, notes = cells("with-bg")
    assert (found["1-15"], found["16-20"], found["all"], found["all fg"]) == (None, 0.494, 0.69, None)
    assert any("see --group with-bg" in note for note in notes)
    found, _ = cells("mixed")
    assert (found["1-15"], found["all"], found["all fg"]) == (0.755, 0.69, None)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"benchmark": "shapes15-5"}, "data shapes (there voc)"),
        ({"environment": {"images": {"train": 886, "test": 1449}}}, "886 train images (there 10582)"),
        ({"environment": {}}, "number of images not recorded"),
        ({"set": {"data.validation": 0.2}}, "scored on held-out training images"),
        ({"set": {"stream.order": [2, 1, *CLASSES[2:]]}}, "another class order"),
        ({"set": {"stream.setting": "disjoint"}}, "setting disjoint (there overlapped)"),
        ({"set": {"stream.labels": "plop2021"}}, "label preset plop2021 (there mib2020)"),
        ({"set": {"backbone_values.weights": "none"}}, "no pretrained weights"),
        ({"set": {"training.epochs": 2}}, "2 epochs (there 30 epochs)"),
        ({"set": {"training.iterations": 1000}}, "1000 iterations (there 30 epochs)"),
        ({"set": {"training.later.epochs": 10}}, "10 epochs after step 0 (there 30 epochs)"),
        ({"set": {"training.crop": "full"}}, "crop full (there 512)"),
        ({"set": {"training.later.lr": None}}, "later.lr 0.01 (there 0.001)"),
        ({"set": {"evaluation.size": "full"}}, "evaluation.size full (there 512)"),
        ({"set": {"training.class_weights": 0.5}}, "class_weights 0.5 (there 0.0)"),
        ({"set": {"strategy_values.distillation": 5.0}}, "distillation 5.0 (there 10.0)"),
    ],
)
def test_each_mismatch_is_named_and_nothing_is_compared(changes, fault):
    table = compare([run(**changes)], [reported()], "fg-only")
    assert len(table.rows) == 1
    (note,) = [note for note in table.notes if note.startswith("not compared")]
    assert note.startswith("not compared: MiB, Table 1 (mib 75.5/49.4/69.0): ")
    assert fault in note


def test_several_mismatches_are_all_named():
    other = run(
        benchmark="shapes15-5",
        backbone="bisenet",
        set={"backbone_values": {"encoder": "mini", "weights": "none"}, "training.iterations": 100},
    )
    assert mismatches(other, reported(), "with-bg") == [
        "data shapes (there voc)",
        "grouping with-bg (there fg-only)",
        "backbone bisenet(encoder=mini) (there deeplabv3(encoder=resnet101, output_stride=16))",
        "no pretrained weights",
        "100 iterations (there 30 epochs)",
        "100 iterations after step 0 (there 30 epochs)",
    ]
    assert mismatches(run(), reported(), "fg-only") == []


FORKS = {"evaluation": {"images": "seen"}, "training": {"epochs": 30, "drop_last": True, "mean_over": "all"}}


@pytest.mark.parametrize(
    ("ours", "faults"),
    [
        ({}, ["drop_last false (there true)", "evaluation.images all (there seen)", "mean_over labelled (there all)"]),
        ({"training.drop_last": True, "training.mean_over": "all"}, ["evaluation.images all (there seen)"]),
        ({"training.drop_last": True, "training.mean_over": "all", "evaluation.images": "seen"}, []),
        ({"evaluation.images": "seen", "training.mean_over": "all"}, ["drop_last false (there true)"]),
    ],
)
def test_the_forks_of_a_protocol_must_agree_and_old_records_had_the_old_ones(ours, faults):
    assert sorted(mismatches(run(set=ours), reported(settings=FORKS))) == faults
    plain = {"evaluation": {"images": "all"}, "training": {"epochs": 30, "drop_last": False, "mean_over": "labelled"}}
    assert mismatches(run(), reported(settings=plain)) == []


def test_what_a_source_does_not_state_cannot_agree():
    vague = reported(setting=None, labels=None, grouping=None, backbone=None, pretrained=None, settings={})
    assert mismatches(run(), vague) == [
        "setting not stated",
        "label preset not stated",
        "grouping not stated",
        "backbone not stated",
        "training recipe not stated",
    ]


def test_footnotes_join_rows_and_say_apart_what_holds_for_some():
    records = [run(set={"training.crop": 48}), run(strategy="lwf", set={"training.crop": 48, "training.batch": 8})]
    published = [reported(), reported(method="lwf", strategy={}, values={"all": 53.3})]
    table = compare(records, published, "fg-only")
    (note,) = [note for note in table.notes if note.startswith("not compared")]
    assert "(lwf -/-/53.3, mib 75.5/49.4/69.0)" in note
    assert "crop 48 (there 512)" in note
    assert note.endswith("; lwf batch=8: batch 8 (there 24)")


def test_on_other_data_the_nearest_row_says_enough():
    papers = [reported(), reported(name="PLOP", backbone="unet"), reported(name="RCIL", settings={})]
    table = compare([run(benchmark="shapes15-5")], papers, "fg-only")
    (note,) = [note for note in table.notes if note.startswith("not compared")]
    assert note == "not compared: MiB, Table 1 (mib 75.5/49.4/69.0): data shapes (there voc)"


def test_a_method_that_nobody_reported_is_said():
    table = compare([run(strategy="mib+replay")], [reported()], "fg-only")
    assert "nothing published is known for mib+replay" in table.notes
    assert len(table.rows) == 1


def test_doubt_inference_and_remarks_are_shown_with_the_number():
    theirs = reported(
        certainty_of={"base": "from memory", "added": "computed"}, inferred=["labels"], remark="another normalisation"
    )
    notes = compare([run()], [theirs], "fg-only").notes
    for text in ("base from memory", "added computed", "labels inferred, not stated", "another normalisation"):
        assert f"MiB, Table 1: {text}" in notes


def test_the_setting_of_the_run_is_preferred_and_15_5s_is_15_1():
    both = [reported(), reported(setting="disjoint", values={"all": 64.7})]
    table = compare([run()], both, "fg-only")
    assert len(table.rows) == 2
    assert not any("64.7" in note for note in table.notes)
    assert canonical("voc15-5s") == canonical("voc15-1") == ("voc", "15-1")
    assert canonical("shapes15-5") == ("shapes", "15-5")
    assert canonical("piggyback") == ("piggyback", "")


def test_unfinished_runs_are_not_compared():
    table = compare([run(status="running")], [reported()], "fg-only")
    assert len(table.rows) == 1


def test_csv_has_source_and_difference_only_when_something_is_compared():
    lines = list(csv.DictReader(io.StringIO(render([compare([run()], [reported()], "fg-only")], "csv"))))
    assert [line["source"] for line in lines] == ["", "MiB, Table 1"]
    assert float(lines[1]["all"]) == pytest.approx(0.69)
    assert float(lines[1]["all difference"]) == pytest.approx((15 * 0.7 + 5 * 0.5) / 20 - 0.69, abs=1e-6)
    plain = csv.DictReader(io.StringIO(render(rows([run()]), "csv"))).fieldnames or []
    assert "source" not in plain
    assert not any("difference" in name for name in plain)


TOML = """
name = "Toy"
paper = "Somebody, Something, 2024"

[[tables]]
table = "Table 1"
source = "the paper"
benchmark = "voc15-5"
settings.training.epochs = 30
settings.training.batch = 24
rows = [
  { method = "mib", values = { base = 50.0, all = 40 } },
  { method = "lwf", certainty = "from memory", settings.training = { batch = 8 }, measures = { "mIoU %" = 12.5 } },
]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "toy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_inherit_from_their_table_and_override_it(tmp_path):
    mib, lwf = read_published(written(tmp_path, TOML))
    assert (mib.name, mib.table, mib.benchmark, mib.certainty) == ("Toy", "Table 1", "voc15-5", "read")
    assert mib.values is not None
    assert (mib.values.base, mib.values.added, mib.values.all) == (50.0, None, 40.0)
    assert lwf.certainty == "from memory"
    assert lwf.settings == {"training": {"epochs": 30, "batch": 8}}
    assert lwf.measures == {"mIoU %": 12.5}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "Toy"', 'nam = "Toy"', r"unknown key 'nam'\. did you mean 'name'"),
        ('benchmark = "voc15-5"', 'benchmrk = "voc15-5"', r"tables\[0\]: unknown key 'benchmrk'. did you mean"),
        ('{ method = "mib"', '{ methd = "mib"', r"rows\[0\]: unknown key 'methd'. did you mean 'method'"),
        ("base = 50.0", "bas = 50.0", r"rows\[0\]: unknown key 'values.bas'"),
        ("base = 50.0", "base = 500.0", r"'values.base' cannot be 500.0"),
        ('source = "the paper"\n', "", r"rows\[0\]: the key 'source' is missing"),
        ('certainty = "from memory"', 'certainty = "sure"', r"rows\[1\]: 'certainty' cannot be 'sure'"),
        ("values = { base = 50.0, all = 40 }", "values = {}", r"rows\[0\]: .*gives no value"),
        (", values = { base = 50.0, all = 40 }", "", r"rows\[0\]: needs either values or measures"),
        ('paper = "Somebody, Something, 2024"', "", "the key 'paper' is missing"),
        ("[[tables]]", "[tables]", r"written as \[\[tables\]\]"),
        ("rows = [", "rows = ", "cannot read the published numbers"),
    ],
)
def test_a_broken_file_is_refused_naming_file_and_key(tmp_path, old, new, message):
    assert old in TOML
    path = written(tmp_path, TOML.replace(old, new))
    with pytest.raises(RecipeError, match=message) as caught:
        read_published(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_compares_with_the_catalogue_or_a_file(tmp_path, capsys):
    forks = {"training.drop_last": True, "training.mean_over": "all"}  # of MiB's code
    run(set=forks).write(tmp_path / "runs" / "result.json")
    assert main(["table", str(tmp_path / "runs"), "--against", "published", "--group", "fg-only"]) == 0
    out = capsys.readouterr().out
    assert "reported by MiB, Table 1" in out  # the only table of that grouping and recipe
    assert "in-place activated BatchNorm" in out
    assert out.count("reported by") == 2  # and the line that explains it
    assert "PLOP, results table" in out.split("not compared", 1)[1]
    assert main(["table", str(tmp_path / "runs"), "--against", str(written(tmp_path, TOML))]) == 0
    assert "not compared: Toy, Table 1 (mib 50.0/-/40.0)" in capsys.readouterr().out.replace("\n", " ")
    for wrong, message in ((["--against", "nowhere"], "nowhere"), (["--against", "published", "--per-step"], "last")):
        assert main(["table", str(tmp_path / "runs"), *wrong]) == 2
        assert message in capsys.readouterr().err
    assert main(["table", str(tmp_path / "runs"), "--group", "fgonly"]) == 2
    assert "did you mean 'fg-only'" in capsys.readouterr().err


def test_a_users_catalogue_may_bring_numbers_of_its_own(tmp_path):
    (tmp_path / "published").mkdir()
    path = written(tmp_path / "published", TOML)
    assert published_files(tmp_path)[-1] == path
    assert set(published_files()) < set(published_files(tmp_path))
