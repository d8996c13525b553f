"""Tables of papers: every plan pairs runs with rows, its small form can run here, and ours stand beside theirs."""

import csv
import io
from types import SimpleNamespace

import pytest
import submitit
import torch
from safetensors.torch import save_file

import forked_runs
from data_trees import few_drawn
from densecl.cli import main
from densecl.errors import RecipeError
from densecl.records.published import Reported, read_all
from densecl.records.record import Evaluation, Record, StepRecord, TaskRecord
from densecl.reproduce import measures
from densecl.reproduce.compare import compare
from densecl.reproduce.measures import Run, measure, scores_of
from densecl.reproduce.plan import Line, TablePlan, lines, published_rows, read_table
from densecl.runner.plan import make_plan
from densecl.settings.catalogue import published_files, reproductions
from densecl.sweep.planfile import expand, read_plan
from densecl.sweep.sweep import prepare

PAPERS = ("matsumoto", "mallya", "mallya-analysis", "disalvo")
NAMES = sorted(reproductions())
EMBEDDED = (
    *("marks-4tasks", "marks-6tasks", "marks-6tasks-up", "shapes15-5", "shapes15-5s"),
    *(f"shapes-{split}" for split in ("1task", "2tasks-adversarial", "2tasks-l1", "2tasks-l2", "3tasks", "5tasks")),
)
pytestmark = pytest.mark.usefixtures("one_thread")


# ---- the plans that come along


def test_every_published_table_of_the_three_papers_is_repeated_or_said_not_to_be():
    told = {(plan.published, table) for plan in map(read_table, NAMES) for table in plan.tables}
    files = {path.stem: path for path in published_files() if path.stem in PAPERS}
    rows = {(stem, row.table) for stem, path in files.items() for row in read_all([path])}
    assert rows == told


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_a_plan_has_one_run_or_a_reason_and_every_run_one_row_or_none(name):
    plan = read_table(name)
    rows = published_rows(plan)
    for chosen in (plan, plan.made_small()):
        found = lines(plan, chosen, rows)
        assert [line.theirs for line in found if line.theirs] == rows
        assert all(bool(line.runs) != bool(line.why) for line in found)
        used = {place for line in found for place in line.runs}
        assert used == set(range(len(expand(chosen))))
    whole, small = (expand(each) for each in (plan, plan.made_small()))
    assert {request.benchmark for request in small} <= {*EMBEDDED}
    assert not {request.benchmark for request in whole} & {*EMBEDDED}
    for request in whole:
        make_plan(request.benchmark, request.strategy, backbone=request.backbone, assignments=request.assignments)


@pytest.mark.parametrize("name", NAMES)
def test_the_small_form_is_checked_here_without_data(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DENSECL_DATA", str(tmp_path / "nowhere"))
    few_drawn(monkeypatch, 40, 4, 6)
    ready = prepare(read_table(name).made_small(), output=tmp_path / "o", jobs=1, device="cpu")
    assert all(0 < sum(job.iterations) <= 600 for job in ready.jobs)


def test_runs_of_the_tables_of_one_paper_are_shared():
    """Table 4 and Figure 5 have a run of Table 3, poster and masks have runs of the five tasks."""
    texts = {name: {str(request) for request in expand(read_table(name))} for name in NAMES}
    assert texts["disalvo2021:figure5"] <= texts["disalvo2021:table3"]
    assert len(texts["disalvo2021:table4"] & texts["disalvo2021:table3"]) == 1
    settings = {
        name: {(r.strategy, r.assignments) for r in expand(read_table(name))} for name in NAMES if "matsumoto" in name
    }
    assert settings["matsumoto2018:poster"] <= settings["matsumoto2019:tasks"]
    assert settings["matsumoto2019:masks"] <= settings["matsumoto2019:tasks"]


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("disalvo2021:table1", {(62.0, "lr=0.001", "resnet18"), (72.0, "augmentation=rotation", "resnet50")}),
        ("disalvo2021:table3", {(37.0, "competition=0.2", "student"), (34.0, "replay_loss=kl", "student")}),
        ("disalvo2021:table2", {(8.0, "voc-disalvo15-5s", "lwf"), (11.0, "voc-disalvo15-5,", "finetune")}),
    ],
)
def test_rows_stand_beside_the_runs_that_the_paper_describes(name, pairs):
    plan = read_table(name)
    requests = expand(plan)
    found = lines(plan, plan, published_rows(plan))
    for value, *words in pairs:
        line = next(l for l in found if l.theirs and value in (l.theirs.values.base, l.theirs.values.all))
        assert all(word in f"{requests[line.runs[0]]} {requests[line.runs[0]].backbone}" for word in words)


# ---- pairing


ROW = {"name": "P", "paper": "A paper", "table": "T", "source": "it", "benchmark": "voc15-5", "method": "mib"}


def row(**changes):
    return Reported.model_validate({**ROW, "values": {"all": 50.0}, **changes})


def table_plan(**content):
    return read_plan({"benchmarks": ["voc15-5"], "strategies": ["mib"], "name": "p-t", **content}, TablePlan)


def test_seeds_are_one_row_and_a_method_without_a_published_row_comes_last():
    plan = table_plan(strategies=["ilt", "mib"], seeds=[0, 1, 2])
    first, second = lines(plan, plan, [row()])
    assert (first.theirs, first.runs) == (row(), (3, 4, 5))
    assert (second.theirs, second.runs, second.name) == (None, (0, 1, 2), "ilt")
    assert lines(plan, plan.of_seeds([7]), [row()])[0].runs == (1,)


@pytest.mark.parametrize(
    ("content", "rows", "fault"),
    [
        ({}, [row(method="plop")], "no run repeats P, T, plop"),
        ({"grid": {"training.lr": [0.1, 0.2]}}, [row()], "several rows of the plan repeat P, T, mib"),
        ({"small": {"strategies": ["mib", "ilt"]}}, [row()], "'small' makes 2 rows, and the plan 1"),
        ({"backbones": ["unet"]}, [row(backbone="bisenet")], "no run repeats"),
        ({"set": ["training.lr=0.5"]}, [row(settings={"training": {"lr": 0.1}})], "no run repeats"),
        ({"repeats": {"variant": "a"}}, [row(variant="b")], "no run repeats"),
        ({"strategies": ["mib(distillation=5)"]}, [row(strategy={"distillation": 4})], "no run repeats"),
        ({"not_repeated": [{"rows": {"method": "mib"}, "why": "x"}]}, [row()], "several rows of the plan repeat"),
    ],
)
def test_what_does_not_pair_is_refused(content, rows, fault):
    plan = table_plan(**content)
    with pytest.raises(RecipeError, match=fault):
        lines(plan, plan.made_small(), rows)


def test_settings_that_both_name_tell_rows_apart():
    plan = table_plan(grid={"training.lr": [0.1, 0.2]})
    rows = [row(settings={"training": {"lr": rate}}) for rate in (0.2, 0.1)]
    assert [line.runs for line in lines(plan, plan, rows)] == [(1,), (0,)]


# ---- measures, against values by hand


def sequence(seed=0, **changes):
    """A run of two tasks: mIoU 60 % then 45 %, MSE 240; 3 MiB, then 1.28 MiB more."""
    tasks = [
        TaskRecord(name="a", kind="segmentation", primary="miou", higher_is_better=True),
        TaskRecord(name="b", kind="colorization", primary="mse", higher_is_better=False),
    ]
    after = [[0.6], [0.45, 240.0 + seed]]
    sizes = [3 * 2**20, round(4.28 * 2**20)]
    steps = [
        StepRecord(
            step=k, task="ab"[k], new_classes=[], iterations=1, seconds=30.0,
            model={"tensors": sizes[k], "file": sizes[k], "formula": sizes[k]},
            evaluations=[
                Evaluation(task="ab"[i], metrics={"miou": {"all": score}} if i == 0 else {"mse": score, "ssim": 0.9})
                for i, score in enumerate(after[k])
            ],
        )
        for k in range(2)
    ]  # fmt: skip
    values = {
        "densecl": "0", "benchmark": "piggyback-3tasks", "strategy": "finetune", "backbone": "unet", "seed": seed,
        "hash": f"h{seed}", "status": "finished", "settings": {}, "environment": {}, "class_names": [],
        "has_background": True, "tasks": tasks, "steps": steps,
    }  # fmt: skip
    return Record(**(values | changes))


def classified(names=("svhn", "dtd")):
    """A run of two tasks of whole images: errors of 20 % and, of the second, 50 and 15 %; 3 MiB, then 1.28 more."""
    plain = sequence()
    tasks = [TaskRecord(name=n, kind="classification", primary="top1_error", higher_is_better=False) for n in names]
    first, second = {"top1_error": 0.2}, {"top1_error": 0.5, "top5_error": 0.15}
    scores = [[first], [first, second]]
    steps = [
        step.model_copy(update={"evaluations": [Evaluation(task=names[i], metrics=m) for i, m in enumerate(own)]})
        for step, own in zip(plain.steps, scores, strict=True)
    ]
    return sequence(tasks=tasks, steps=steps, benchmark="imagenet-2tasks")


def test_errors_of_whole_images_accuracies_the_decathlon_and_sizes_without_heads(tmp_path):
    (tmp_path / "weights").mkdir()
    heads = {"heads.places.0.0.linear.weight": torch.zeros(10, 25_000), "backbone.x": torch.zeros(7)}
    save_file(heads, tmp_path / "weights" / "step1.safetensors")
    run, of = Run(classified(), tmp_path), {"values": None, "benchmark": "decathlon-10tasks", "method": "piggyback"}
    wanted = {
        ("top-1 error %", 2): 50, ("top-5 error %", 2): 15, ("top-1 error %", 1): 20, ("top-5 error %", 1): None,
        ("top-1 error %", 3): None, ("top-1 accuracy %", 2): 50, ("top-1 accuracy %", 3): None, ("zeros %", 3): None,
        ("mean top-1 accuracy %", None): 65, ("MB", None): 4.28 * 2**20 / 1e6 - 1,
        ("times the parameters", None): 4.28 / 3,
        # twice the fine-tuned errors are 6.9 and 88.94 %: the first scores nothing
        ("decathlon score", None): 1000 * ((88.94 - 50) / 88.94) ** 2,
    }  # fmt: skip
    for (name, task), value in wanted.items():
        found = measure(run, row(**of, task=task, measures={name: 1.0}), name)
        assert found == (None if value is None else pytest.approx(value, rel=1e-6)), name
    assert scores_of(run.record) == {"task 1, top-1 error %": 20, "task 2, top-1 error %": 50}
    other = Run(classified(("a", "b")), tmp_path)
    assert measure(other, row(**of, measures={"decathlon score": 1.0}), "decathlon score") is None


def test_a_score_that_a_run_cannot_have_is_told_with_its_reason(tmp_path):
    of = {"values": None, "benchmark": "decathlon-10tasks", "method": "piggyback"}
    scores = (("top-1 error %", 3), ("top-5 error %", 1), ("top-1 error %", 1), ("decathlon score", None))
    rows = [Line(row(**of, task=task, measures={name: 1.0}), (0,)) for name, task in scores]
    shown = compare(table_plan(), rows, [Job(classified(("a", "b")), tmp_path)], small=True).lines
    assert [line.cells[-1] for line in shown] == ["-", "-", "20.0", "-"]
    assert [line.below[0] for line in shown[:2]] == [
        "the sequence has 2 tasks", "top-5 errors are of tasks with more than 5 classes",
    ]  # fmt: skip
    assert shown[2].below[0].startswith("data imagenet (there decathlon)")
    assert shown[3].below[0] == "the score is of the Decathlon's data sets"


def classes():
    """A run of 3 + 1 classes with background, whose IoU are 0.9, then 0.1 to 0.4."""
    iou = [0.9, 0.1, 0.2, 0.3, 0.4]
    done = [
        StepRecord(
            step=k, task="s", new_classes=new, iterations=1, seconds=1.0,
            evaluations=[Evaluation(task="s", metrics={"miou": {}, "iou": iou})],
        )
        for k, new in enumerate(([1, 2, 3], [4]))
    ]  # fmt: skip
    return sequence(benchmark="voc3-1", tasks=[], class_names=list("0abcd"), planned_steps=[[1, 2, 3], [4]], steps=done)


def test_scores_of_a_sequence_are_those_of_the_task_and_of_the_step(tmp_path):
    run = Run(sequence(), tmp_path)
    of = {"values": None, "benchmark": "piggyback", "method": "finetune"}
    assert measure(run, row(**of, task=1, measures={"mIoU %": 1.0}), "mIoU %") == pytest.approx(60)
    assert measure(run, row(**of, task=1, after=2, measures={"mIoU %": 1.0}), "mIoU %") == pytest.approx(45)
    assert measure(run, row(**of, task=2, measures={"MSE": 1.0}), "MSE") == 240
    assert measure(run, row(**of, task=2, measures={"SSIM": 1.0}), "SSIM") == 0.9
    assert measure(run, row(**of, task=2, after=3, measures={"MSE": 1.0}), "MSE") is None
    assert measure(run, row(**of, measures={"MiB": 1.0}), "MiB") == pytest.approx(4.3)  # 3.0 and 1.28, each rounded
    assert measure(run, row(**of, measures={"beauty": 1.0}), "IoU of beauty") is None
    assert scores_of(run.record) == {"task 1, mIoU %": pytest.approx(60), "task 2, MSE": 240}


@pytest.mark.parametrize(("group", "base", "whole"), [("mixed", 20, 38), ("fg-only", 20, 25), ("with-bg", 37.5, 38)])
def test_means_count_background_as_the_published_row_does(group, base, whole, tmp_path):
    run, theirs = Run(classes(), tmp_path), row(grouping=group)
    assert measure(run, theirs, "base") == pytest.approx(base)
    assert measure(run, theirs, "added") == pytest.approx(40)
    assert measure(run, theirs, "all") == pytest.approx(whole)
    per_class = row(values=None, measures={"IoU % of class 3": 1.0})
    assert measure(run, per_class, "IoU % of class 3") == pytest.approx(30)
    assert measure(run, per_class, "IoU % of class 9") is None


def test_masks_and_new_layers_are_counted(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    tensors = {"heads.a.0.weight": torch.zeros(5, 10), "heads.a.0.bias": torch.zeros(5), "backbone.x": torch.zeros(99)}
    save_file(tensors, tmp_path / "weights" / "step1.safetensors")
    figures = SimpleNamespace(tasks=("b",), whole=(16_000_000, (0.25,)), pairs=(("a", "b", 0.75, 0.0),))
    monkeypatch.setattr("densecl.finished.inspect_masks.mask_figures", lambda folder: figures)
    measures._masks.cache_clear()
    names = {"new layers MB": 55 * 4 / 1e6, "mask MB": 2.0, "tasks 1, 2": 0.75, "zeros %": 25.0}
    theirs = row(values=None, task=2, measures=dict.fromkeys(names, 1.0))
    for name, value in names.items():
        assert measure(Run(sequence(), tmp_path), theirs, name) == pytest.approx(value)


# ---- the comparison


class Job:
    """A run as the comparison reads it."""

    def __init__(self, record, folder):
        self.record, self.plan = lambda: record, SimpleNamespace(folder=folder)


def test_a_line_has_theirs_ours_the_difference_and_what_differs(tmp_path):
    of = {"values": None, "benchmark": "piggyback", "method": "finetune", "backbone": "unet"}
    told = row(**of, task=2, measures={"MSE": 237.92, "SSIM": 0.9148}, remark="read from a slide")
    lost = row(**of, task=2, variant="L1", measures={"MSE": 1.0})
    jobs = [Job(sequence(seed), tmp_path) for seed in (0, 2)] + [Job(sequence(status="running"), tmp_path)]
    rows = [Line(told, (0, 1)), Line(lost, why="too hard"), Line(None, (2,), "mine")]
    shown = compare(table_plan(), rows, jobs, small=False)
    mse, ssim, absent, mine = (line.cells[1:] for line in shown.lines)
    assert [line.cells[0] for line in shown.lines] == ["1", "1", "2", "3"]
    assert mse == ("finetune", "task 2, MSE", "237.92", "241.00 ± 1.41", "+3.08")  # of 240 and 242
    assert ssim == ("finetune", "task 2, SSIM", "0.9148", "0.9000 ± 0.0000", "-0.0148")
    assert absent == ("finetune, L1", "task 2, MSE", "1", "-", "-")
    assert (mine[0], *mine[3:]) == ("mine", "-", "-")
    assert [line.below[0] for line in shown.lines] == [
        "", "", "not repeated: too hard", "its run did not finish",
    ]  # fmt: skip
    assert "P, T: read from a slide" in shown.remarks
    small = compare(table_plan(), rows[:1], jobs, small=True)
    assert "difference" not in small.headings
    assert small.title.endswith("(small)")
    assert "not to be compared" in small.remarks[0]


def test_a_variant_that_the_plan_declares_is_no_difference_and_another_one_is(tmp_path):
    theirs = row(values=None, benchmark="piggyback", method="finetune", task=2, measures={"MSE": 1.0}, variant="L1",
                 backbone="unet")  # fmt: skip
    jobs = [Job(sequence(), tmp_path)]
    differs = [
        compare(table_plan(), [Line(theirs, (0,), declared=declared)], jobs, small=False).lines[0].below[0]
        for declared in (frozenset(), frozenset({"variant"}))
    ]
    assert differs == ["there L1", ""]


# ---- the command


def test_the_list_names_every_table(capsys):
    assert main(["reproduce", "--list"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if not line.startswith(" ")] == NAMES
    assert "not repeated: the bars of Figure 3 have no numbers" in shown


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["disalvo2021:tabel3"], "unknown table of a paper 'disalvo2021:tabel3'. did you mean 'disalvo2021:table3'?"),
        ([], "no table is named. densecl reproduce --list"),
        (["disalvo2021:table3", "--small", "--engine", "moon"], "unknown engine 'moon'"),
        (["disalvo2021:table3", "--format", "pdf"], "unknown format 'pdf'"),
        (["disalvo2021:table3", "--small", "--set", "training.lrr=1"], "training.lrr"),
    ],
)
def test_bad_words_are_one_line(words, fault, capsys):
    assert main(["reproduce", *words]) == 2
    said = capsys.readouterr().err
    assert fault in said
    assert said.count("\n") == 1


def test_sweep_sends_such_a_plan_to_the_command(capsys):
    assert main(["sweep", str(reproductions()["disalvo2021:table3"]), "--dry-run"]) == 2
    assert "table3.toml repeats a table of a paper. densecl reproduce --list names it" in capsys.readouterr().err


def test_a_table_of_ones_own_is_found_and_its_faults_name_the_file(tmp_path, capsys):
    folder = tmp_path / "plans" / "mine2026"
    folder.mkdir(parents=True)
    text = 'strategies = ["mib"]\nbenchmarks = ["shapes15-5"]\npublished = "disalvo"\ntables = ["Table 2"]\nsmal = 1\n'
    (folder / "t.toml").write_text(text)
    words = ["reproduce", "mine2026:t", "--catalogue", str(tmp_path), "--dry-run"]
    assert main(words) == 2
    assert "t.toml: unknown key 'smal'. did you mean 'small'?" in capsys.readouterr().err
    (folder / "t.toml").write_text(text.replace("smal = 1\n", "").replace("Table 2", "Table 7"))
    assert main(words) == 2
    assert "t.toml: unknown table 'Table 7'" in capsys.readouterr().err
    (folder / "t.toml").write_text(text.replace("smal = 1\n", ""))
    assert main(words) == 2
    assert "t.toml: no run repeats Di Salvo, Table 2" in capsys.readouterr().err


def test_a_table_is_run_small_and_again_without_training(tmp_path, capsys, monkeypatch):
    """The fastest one, with few iterations, in processes that are forks."""
    monkeypatch.setattr(submitit, "LocalExecutor", forked_runs.Executor)
    words = ["reproduce", "mallya2018:section6", "--small", "--output", str(tmp_path), "--format", "csv", "--quiet"]
    words += ["--set", "training.iterations=2", "--jobs", "1"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    body = list(csv.DictReader(io.StringIO(shown)))
    assert [(line["row"], line["score"], line["paper"]) for line in body] == [
        ("finetune", "mIoU %", "61.08"),
        ("piggyback", "mIoU %", "61.41"),
        ("piggyback", "mask MB", "17"),
        ("piggyback", "new layers MB", "7.5"),
    ]
    assert all(0 <= float(line["ours"]) <= 100 for line in body[:2])
    (masks,) = tmp_path.rglob("masks/shapes.safetensors")
    bits = float(body[2]["ours"]) * 1e6  # bytes: the file has them, a header, and for each layer less than a byte more
    assert 0.5 * masks.stat().st_size < bits <= masks.stat().st_size
    assert 0 < float(body[3]["ours"]) < 1
    assert all("backbone fcn(encoder=mini) (there fcn(encoder=vgg16))" in line["differs"] for line in body)
    assert (tmp_path / "small" / ".apart").is_file()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    assert len(before) == 2
    assert main(words) == 0
    assert capsys.readouterr().out == shown
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == before
