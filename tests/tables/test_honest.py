"""`densecl table --honest`: what each row has, and what it lacks."""

import json

import pytest

from densecl.cli import main
from densecl.records.foreign import Declared, Foreign
from densecl.records.record import Evaluation
from densecl.tables.honest import backward_transfer, examine, forward_transfer, listing
from densecl.tables.table import FOREIGN
from table_records import make

ORDERS = ([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [3, 4, 5, 6, 1, 2])


def run(strategy="mib", seed=0, order=0, first=0.6, *, memory=10**6, weights="none", plugins=None, **changes):
    """A run of three steps whose base classes score `first` when learnt."""
    record = make(strategy, seed=seed, hash=f"{strategy}{seed}{order}", **changes)
    settings = {
        "seed": seed,
        "stream": {"order": ORDERS[order]},
        "backbone_values": {"width": 4, "weights": weights},
        "plugins": plugins or {},
    }
    steps = [step.model_copy(update={"peak_memory": memory}) for step in record.steps]
    if strategy != "joint":
        iou = [0.9, first, first, first, None, None, None]
        begun = Evaluation(task="segmentation", metrics={"miou": {}, "iou": iou, "forgetting": None})
        steps[0] = steps[0].model_copy(update={"evaluations": [begun]})
    return record.model_copy(update={"settings": settings, "steps": steps})


def examined(*records):
    ((_, rows),) = examine(records)
    return {row.row.strategy: row for row in rows}


def test_transfer_is_the_mean_over_steps_of_differences_of_step_means():
    groups = ((1, 2), (3,), (4,))
    by_step = [
        {0: 0.9, 1: 0.8, 2: 0.6},
        {0: 0.9, 1: 0.5, 2: 0.5, 3: 0.4},
        {0: 0.9, 1: 0.4, 2: 0.2, 3: 0.5, 4: 0.3},
    ]
    assert backward_transfer(by_step, groups) == pytest.approx(((0.3 - 0.7) + (0.5 - 0.4)) / 2)
    joint = {0: 0.9, 1: 0.8, 2: 0.8, 3: 0.6, 4: 0.1}
    assert forward_transfer(by_step, groups, joint) == pytest.approx(((0.4 - 0.6) + (0.3 - 0.1)) / 2)


def test_transfer_is_unknown_where_a_step_is():
    groups = ((1,), (2,))
    assert backward_transfer([{1: 0.5}], groups[:1]) is None
    assert backward_transfer([{}, {1: 0.5, 2: 0.5}], groups) is None
    assert forward_transfer([{1: 0.5}, {1: 0.5, 2: 0.4}], groups, {}) is None


def test_the_worst_class_order_is_the_lowest_mean_over_seeds():
    levels = {(0, 0): 0.5, (1, 0): 0.7, (0, 1): 0.4, (1, 1): 0.6}  # by seed and order
    row = examined(*(run(seed=s, order=o, base=level, added=level) for (s, o), level in levels.items()))["mib"]
    means = {key: (0.9 + 6 * level) / 7 for key, level in levels.items()}
    assert row.worst == pytest.approx((means[0, 1] + means[1, 1]) / 2)
    assert row.with_background == pytest.approx(sum(means.values()) / 4)
    assert row.foreground == pytest.approx(0.55)
    assert (row.seeds, row.orders) == (2, 2)
    assert row.first == pytest.approx((0.9 + 3 * 0.6) / 4)


def test_a_row_lacks_what_is_not_there_and_nothing_else():
    few = examined(run(), run("finetune", memory=None))
    assert few["mib"].lacks == (
        "seeds (1 of 3)", "class orders (1 of 3)", "joint with this network", "frozen with this network",
    )  # fmt: skip
    assert few["finetune"].lacks[-1] == "peak memory"
    full = [
        run(strategy, seed, order) for strategy in ("mib", "joint", "frozen") for seed in range(3) for order in range(3)
    ]
    assert {name: row.lacks for name, row in examined(*full).items()} == {"mib": (), "joint": (), "frozen": ()}


def test_controls_count_under_the_same_network_alone():
    other = run("joint").model_copy(update={"backbone": "unet"})
    assert "joint with this network" in examined(run(), other)["mib"].lacks
    assert "joint of these seeds and orders" in examined(run(), run("joint", seed=1))["mib"].lacks


def test_forward_transfer_compares_with_joint_of_the_same_seed_and_order():
    row = examined(run(added=0.5), run("joint", added=0.4), run("joint", order=1, added=0.9))["mib"]
    assert row.forward == pytest.approx(0.1)
    row = examined(run(), run(seed=1), run("joint"))["mib"]  # of one seed alone
    assert row.forward is None
    assert "joint of these seeds and orders" in row.lacks


def test_what_a_method_had_besides_is_named():
    memory = {"replay": {"memory": 100, "labels": "published"}}
    rows = examined(
        run(),
        run("finetune"),
        run("dft", first=0.7, oracle="classes", weights="imagenet"),
        run("mib+replay", plugins=memory),
        run("mib+deepinversion", plugins={"deepinversion": {"source": "real"}}),
    )
    assert rows["mib"].extras == rows["finetune"].extras == ()
    assert rows["dft"].extras == (
        "knows from the first step how many classes will come", "weights imagenet", "a step 0 of its own",
    )  # fmt: skip
    assert rows["mib+replay"].extras == ("100 images of earlier steps, labels published",)
    assert rows["mib+deepinversion"].extras == ("real images of earlier classes",)


def test_rows_that_share_no_step_0_are_not_said_to_differ():
    assert examined(run(), run("dft", first=0.7))["dft"].extras == ()


def test_an_unfinished_run_is_shown_with_what_it_lacks():
    row = examined(run(status="interrupted", done=2))["mib"]
    assert row.lacks[0] == "the end of the run (2 of 3 steps)"
    assert row.row.progress in listing(*examine([run(status="interrupted", done=2)])[0]).lines[0].cells[0]


def test_foreign_rows_lack_what_their_authors_do_not_declare():
    declared = Declared(paper="P", code="c", memory="none", extra_data="none", checkpoint="test", known_classes=False)
    theirs = run("theirs").model_copy(update={"foreign": Foreign(predictions="maps", digest="0", declared=declared)})
    row = examined(run(), theirs)["theirs"]
    chosen = "weights that the test images did not choose"
    undeclared = ("declaration of extra masks", "declaration of told step")
    assert row.lacks[-5:] == ("time", "bytes kept", chosen, *undeclared)
    assert row.extras[0].startswith("foreign, self-declared: paper P")
    ((table, rows),) = examine([theirs])
    assert listing(table, rows).lines[0].cells[0] == f"theirs{FOREIGN}"


@pytest.fixture
def folder(tmp_path):
    for number, record in enumerate([run(), run("finetune"), run("joint")]):
        record.write(tmp_path / "runs" / str(number) / "result.json")
    return tmp_path / "runs"


def test_the_command_prints_lacks_once_where_all_rows_share_them(folder, capsys):
    assert main(["table", str(folder), "--honest"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("toy3-1\nstrategy")
    assert "lacks, mib; finetune: seeds (1 of 3)" in text.replace("finetune; mib", "mib; finetune")


def test_csv_has_plain_numbers(folder, capsys):
    assert main(["table", str(folder), "--honest", "--format", "csv"]) == 0
    lines = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    row = dict(zip(lines[0], next(line for line in lines if line[1] == "mib"), strict=False))
    assert (row["step 0"], row["forgetting"], row["worst"]) == ("67.5", "10.0", "")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--honest", "--per-step"], "--per-step"),
        (["--honest", "--stability"], "--stability"),
        (["--stability", "--sort", "all"], "--sort"),
        (["--honest", "--group", "with-bg"], "--group"),
        (["--honest", "--format", "pdf"], "pdf"),
        (["--honest", "--filter", "strategy=none"], "no run meets"),
    ],
)
def test_what_a_view_cannot_take_is_refused(folder, capsys, words, named):
    assert main(["table", str(folder), *words]) == 2
    shown = capsys.readouterr()
    assert named in shown.err
    assert shown.err.count("\n") == 1


def test_sequences_alone_are_refused(tmp_path, capsys):
    tasks = [{"name": "a", "kind": "segmentation", "primary": "miou", "higher_is_better": True}]
    content = json.loads(make(done=0, status="running").model_dump_json(by_alias=True)) | {"tasks": tasks}
    path = tmp_path / "one" / "result.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    assert main(["table", str(tmp_path), "--honest"]) == 2
    assert "classes that arrive over time" in capsys.readouterr().err
