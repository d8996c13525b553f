"""The files of published numbers: readable, sourced, without duplicates, and right by their own arithmetic."""

from collections import Counter
from pathlib import Path

import pytest

from densecl.data.sets.voc import VOC
from densecl.records.layout import method_name
from densecl.records.published import PARTS, canonical, read_all
from densecl.records.record import Record
from densecl.reproduce.plan import read_table
from densecl.runner.plan import make_plan
from densecl.settings.backbone import check_backbone
from densecl.settings.catalogue import benchmark_recipe, published_files
from densecl.settings.grammar import parse_one
from densecl.settings.recipe import SECTIONS, build
from densecl.streams.protocol import steps
from densecl.sweep.planfile import expand
from densecl.tables.agreement import mismatches

ROOT = Path(__file__).parents[2]
FILES = published_files()
ROWS = read_all(FILES)
IMAGE_TASKS = ("Matsumoto", "Piggyback")  # other networks and tasks than the benchmarks here have


def of(name, benchmark, method, **more):
    """The only row of a paper for a cell."""
    found = [
        r
        for r in ROWS
        if (r.name, r.benchmark, r.method) == (name, benchmark, method)
        and all(getattr(r, key) == value for key, value in more.items())
    ]
    assert len(found) == 1
    return found[0]


def test_every_table_of_the_field_is_there():
    papers = {
        "MiB", "PLOP", "SDR", "RCIL", "SSUL", "DKD", "STAR", "Di Salvo", "Piggyback", "Matsumoto",
        "REMINDER", "BARM", "CSSegmentation", "EWF",
    }  # fmt: skip
    assert {row.name for row in ROWS} == papers
    assert len(FILES) == len(papers) + 1  # those of Piggyback are two


def test_no_cell_stands_twice():
    keys = Counter(
        (
            r.label,
            r.benchmark,
            r.setting,
            r.method,
            r.variant,
            r.backbone,
            r.task,
            r.after,
            str(r.settings),
            str(r.strategy),
        )
        for r in ROWS
    )
    assert [key for key, count in keys.items() if count > 1] == []
    assert max(Counter(path.stem for path in FILES).values()) == 1


def test_every_number_names_its_source():
    for row in ROWS:
        assert len(row.paper) > 10
        assert row.source.strip()
        assert row.table.strip()


@pytest.mark.parametrize("row", [r for r in ROWS if r.values and r.grouping], ids=lambda r: f"{r.label}-{r.method}")
def test_base_and_added_average_to_all(row):
    values = row.values
    if None in (values.base, values.added, values.all):
        return
    split = steps(canonical(row.benchmark)[1], len(VOC.class_names))
    base, added = len(split[0]), sum(map(len, split[1:]))
    assert base + added == 20
    if row.grouping == "mixed":  # some IoU of background explains all
        most = (base + added + 1) * row.rounding  # that rounding moves it, and as much again in base and added
        background = (base + added + 1) * values.all - base * values.base - added * values.added
        assert -most <= background <= 100 + most
        return
    base += row.grouping == "with-bg"
    mean = (base * values.base + added * values.added) / (base + added)
    # each of base and added is rounded by half a unit, and so is all; computed splits were rounded to 0.1
    unit = max(row.rounding, 0.1 if "computed" in (row.sure("base"), row.sure("added")) else 0)
    agrees = abs(mean - values.all) <= unit + 1e-9
    assert agrees == row.consistent


def test_two_rows_are_known_to_disagree_with_themselves():
    odd = {(r.name, r.benchmark, r.method) for r in ROWS if not r.consistent}
    assert odd == {("SDR", "voc15-5", "sdr"), ("PLOP", "voc15-5", "plop")}


def test_marks_of_doubt_are_kept():
    memory = {(r.name, r.method, p) for r in ROWS if r.values for p in PARTS if r.sure(p) == "from memory"}
    split = {("SSUL", method, part) for method in ("ssul", "ssul-m") for part in ("base", "added")}
    assert memory == split | {("EWF", "plop+ewf", part) for part in PARTS}
    computed = {(r.benchmark, p) for r in ROWS if r.name == "DKD" for p in PARTS if r.sure(p) == "computed"}
    assert computed == {(f"voc{s}", p) for s in ("19-1", "15-5", "15-1", "10-1") for p in ("base", "added")}
    variants = [r.remark for r in ROWS if r.name == "SDR" and r.setting == "disjoint"]
    assert len(variants) == 3
    assert all("from memory" in remark for remark in variants)
    zeros = [r for r in ROWS if r.table == "zeros of the masks"]
    assert {r.certainty for r in zeros} == {"computed"}


@pytest.mark.parametrize(
    ("name", "benchmark", "method", "more", "values"),
    [
        ("MiB", "voc15-1", "mib", {"setting": "disjoint", "table": "Table 1"}, (46.2, 12.9, 37.9)),
        ("MiB", "voc15-5", "mib", {"setting": "overlapped"}, (75.5, 49.4, 69.0)),
        ("MiB", "voc19-1", "finetune", {"setting": "disjoint"}, (5.8, 12.3, 6.2)),
        ("PLOP", "voc15-1", "plop", {}, (65.12, 21.11, 54.64)),
        ("PLOP", "voc15-5", "mib", {"grouping": "with-bg"}, (76.37, 49.97, 70.08)),
        ("SSUL", "voc15-1", "ssul-m", {}, (78.36, 49.01, 71.37)),
        ("DKD", "voc10-1", "dkd", {}, (72.4, 47.3, 60.43)),
        ("DKD", "ade100-10", "dkd", {}, (None, None, 34.53)),
        ("STAR", "voc19-1", "star-m", {}, (None, None, 77.02)),
        ("RCIL", "voc15-1", "mib", {"setting": "disjoint"}, (None, None, 39.9)),
        ("SSUL", "voc10-1", "plop", {}, (None, None, 30.45)),
        ("MiB", "voc15-1", "mib", {"table": "issue 22, seed 100"}, (39.39, 14.19, 33.09)),
        ("MiB", "voc15-1", "mib", {"table": "issue 22, seed 200"}, (36.61, 13.85, 30.92)),
        ("REMINDER", "voc15-1", "mib", {}, (39.47, 14.5, 33.53)),
        ("REMINDER", "voc15-5", "reminder", {}, (None, None, 70.07)),
        ("DKD", "voc5-3", "dkd", {}, (None, None, 58.98)),
        ("STAR", "voc5-3", "star", {}, (None, None, 64.54)),
        ("STAR", "ade100-10", "star", {}, (None, None, 34.91)),
        ("PLOP", "ade100-10", "plop", {}, (None, None, 31.59)),
        ("RCIL", "ade100-50", "rcil", {}, (None, None, 34.5)),
        ("SSUL", "ade100-5", "ssul", {}, (None, None, 32.48)),
        ("BARM", "ade100-5", "barm", {}, (None, None, 34.1)),
        ("EWF", "voc15-1", "plop+ewf", {}, (None, None, 67.0)),
        ("Di Salvo", "voc15-5s", "mib", {}, (35, 9, 28)),
        ("Di Salvo", "voc15-5", "mib+deepinversion", {"variant": "loss MSE"}, (37, 30, 36)),
    ],
)
def test_cells_are_those_of_the_papers(name, benchmark, method, more, values):
    found = of(name, benchmark, method, **more).values
    assert (found.base, found.added, found.all) == values


def test_piggyback_numbers_are_those_of_the_papers():
    assert of("Matsumoto", "piggyback", "piggyback", table="Table 1", task=2, after=None).measures == {"mIoU %": 61.45}
    assert of("Matsumoto", "piggyback", "finetune", table="Table 1", task=1, after=3).measures == {"mIoU %": 0.41}
    assert of("Piggyback", "voc2011-fcn", "piggyback").measures["mIoU %"] == 61.41
    size = of("Matsumoto", "piggyback", "piggyback", table="Table 1, model size after three tasks").measures["MiB"]
    assert size == pytest.approx(56.405 + 2 * 1.7666, abs=0.1)  # a network, and two masks with a head of 21 classes


def test_a_table_of_per_class_values_has_the_mean_that_the_facts_note():
    row = of("Di Salvo", "voc15-5", "mib+deepinversion", variant="20k iterations")
    assert len(row.measures) == 15
    assert sum(row.measures.values()) / 15 == pytest.approx(34.5, abs=0.05)


def test_what_rows_say_of_runs_is_something_a_run_can_have():
    for row in ROWS:
        for section, values in row.settings.items():
            assert section in SECTIONS
            build(SECTIONS[section], values, section)
        if row.backbone and row.name not in IMAGE_TASKS:
            call = parse_one(row.backbone, "backbone")
            check_backbone(call.name, call.arguments)
        if row.grouping:
            benchmark_recipe(row.benchmark)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_run_of_a_plan_of_di_salvos_tables_has_the_protocol_of_its_rows(number):
    """Each run can be compared with a row of its table; plain MiB, which Table 3 does not have, is run beside them."""
    for request in expand(read_table(f"disalvo2021:table{number}")):
        plan = make_plan(
            request.benchmark, request.strategy, backbone=request.backbone, assignments=request.assignments
        )
        ours = Record(
            densecl="0", benchmark=request.benchmark, strategy=request.strategy, backbone=plan.settings.backbone,
            seed=0, hash="0", status="finished", settings=plan.settings.model_dump(mode="json"),
            environment={"images": {"train": 10582, "test": 1449}}, class_names=[], has_background=True,
        )  # fmt: skip
        rows = [
            r
            for r in ROWS
            if r.label == f"Di Salvo, Table {number}"
            and (canonical(r.benchmark), r.method) == (canonical(request.benchmark), method_name(request.strategy))
        ]
        faults = [tuple(f for f in mismatches(ours, row, "mixed") if not f.startswith("there loss")) for row in rows]
        assert () in faults or (request.strategy, number) == ("mib", 3), (request, faults)


def test_the_grouping_of_di_salvos_tables_is_the_only_one_that_no_row_contradicts():
    def explains(row, grouping):
        base, added, whole = row.values.base, row.values.added, row.values.all
        low, high = -row.rounding / 2, row.rounding / 2
        means = [
            [(15 * (base + e) + 5 * (added + e)) / 20 for e in (low, high)],  # background nowhere
            [(16 * (base + e) + 5 * (added + e)) / 21 for e in (low, high)],  # in both
            [(b + 15 * (base + e) + 5 * (added + e)) / 21 for b, e in ((0, low), (100, high))],  # in all alone
        ][("fg-only", "with-bg", "mixed").index(grouping)]
        return means[0] <= whole + high and means[1] >= whole + low

    rows = [r for r in ROWS if r.label in ("Di Salvo, Table 2", "Di Salvo, Table 3")]
    assert len(rows) == 13
    counts = {name: sum(explains(row, name) for row in rows) for name in ("fg-only", "with-bg", "mixed")}
    assert counts["mixed"] == 13
    assert max(counts["fg-only"], counts["with-bg"]) < 10


def test_the_plan_of_a_papers_table_resolves_and_holds_its_numbers():
    resolved = [
        (make_plan(r.benchmark, r.strategy, backbone=r.backbone, seed=r.seed, assignments=r.assignments), r.reported)
        for r in expand(read_table("disalvo2021:table1"))
    ]
    found = {
        (s.backbone_values["encoder"], s.training.batch, s.training.lr, s.training.augmentation, reported)
        for s, reported in ((p.settings, reported) for p, reported in resolved)
    }
    published = {
        (
            parse_one(r.backbone, "backbone").arguments["encoder"],
            r.settings["training"]["batch"],
            r.settings["training"]["lr"],
            r.settings["training"]["augmentation"],
            r.values.all,
        )
        for r in ROWS
        if r.label == "Di Salvo, Table 1"
    }
    assert found == published
    assert len(found) == 9
    assert {(p.settings.training.epochs, p.settings.training.crop) for p, _ in resolved} == {(20, 512)}
