import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import densecl
from densecl.cli import main
from densecl.errors import RecordError
from densecl.finished.inspect_run import describe_run
from densecl.records.record import APART, Evaluation, Record, StepRecord, find_records, identity, read_record
from tiny_runs import run_words


def make_record(**changes):
    metrics = {"miou": {"all": 0.5, "base": 0.6, "added": None}, "iou": [0.9, 0.4, None], "forgetting": None}
    evaluation = Evaluation(task="segmentation", metrics=metrics, confusion=[[5, 0, 0], [1, 2, 0], [0, 0, 0]])
    step = StepRecord(step=0, task="segmentation", new_classes=[1], iterations=7, seconds=1.5, evaluations=[evaluation])
    values = {
        "densecl": "0.1.0",
        "benchmark": "shapes15-5",
        "strategy": "mib",
        "backbone": "bisenet",
        "seed": 0,
        "hash": "0123abcd",
        "status": "running",
        "settings": {"training": {"lr": 0.01}, "seed": 0},
        "environment": {"torch": "2.6"},
        "class_names": ["background", "red disc", "red ring"],
        "has_background": True,
        "planned_steps": [[1], [2]],
        "steps": [step],
    }
    return Record(**(values | changes))


def written(tmp_path, record=None):
    path = tmp_path / "result.json"
    (record or make_record()).write(path)
    return path, json.loads(path.read_text())


def test_reading_undoes_writing(tmp_path):
    record = make_record(oracle="task", class_names=["background", "étoile", "x"])
    path, _ = written(tmp_path, record)
    assert read_record(path) == record


def test_the_file_names_its_schema_and_holds_no_nan(tmp_path):
    metrics = {"miou": {"all": float("nan")}, "iou": [np.float64("nan"), np.float32(0.5), None], "mse": float("inf")}
    step = StepRecord(
        step=0,
        task="t",
        new_classes=[1],
        iterations=1,
        seconds=1.0,
        evaluations=[Evaluation(task="t", metrics=metrics)],
    )
    record = make_record(steps=[step])
    path, content = written(tmp_path, record)
    assert content["schema"] == 1
    assert "schema_version" not in content
    assert content["steps"][0]["evaluations"][0]["metrics"] == {
        "miou": {"all": None},
        "iou": [None, 0.5, None],
        "mse": None,
    }
    assert read_record(path) == record


def test_models_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        make_record().status = "finished"


def test_writing_leaves_no_other_file(tmp_path):
    path, _ = written(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def edited(content, keys, value):
    target = content
    for key in keys[:-1]:
        target = target[key]
    if value is ...:
        del target[keys[-1]]
    else:
        target[keys[-1]] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("keys", "value", "fault"),
    [
        (["schema"], 2, "has schema 2, and this version of densecl reads 1"),
        (["schema"], ..., "not a record of densecl"),
        (["colour"], 1, "unknown key 'colour'"),
        (["steps", 0, "colour"], 1, "unknown key 'steps.0.colour'"),
        (["seed"], ..., "the key 'seed' is missing"),
        (["seed"], "zero", "'seed' cannot be 'zero'"),
        (["seed"], True, "'seed' cannot be True"),
        (["status"], "done", "'status' cannot be 'done'"),
        (["steps", 0, "seconds"], -1, "'steps.0.seconds' cannot be -1"),
        (["steps", 0, "evaluations", 0, "metrics", "iou"], "high", "iou must be a list"),
        (["steps", 0, "evaluations", 0, "metrics", "iou"], ["high"], "iou must hold numbers or null"),
        (["steps", 0, "evaluations", 0, "metrics", "miou"], [1], "miou must be a dict"),
        (["steps", 0, "evaluations", 0, "metrics", "forgetting"], "x", "forgetting must be a number"),
        (["steps", 0, "evaluations", 0, "confusion", 1], [1, 2], "'steps.0.evaluations.0.confusion' cannot be"),
        (["steps", 0, "new_classes"], [-1], "'steps.0.new_classes.0' cannot be -1"),
        (["planned_steps", 1], [-2], "'planned_steps.1.0' cannot be -2"),
    ],
)
def test_a_broken_record_is_refused_naming_file_and_fault(tmp_path, keys, value, fault):
    path, content = written(tmp_path)
    path.write_text(edited(content, keys, value))
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert str(path) in str(caught.value)
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1, "settings": ' + b'{"a":' * 500],
)
def test_what_is_no_record_is_refused(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"result\.json"):
        read_record(path)


@pytest.mark.parametrize("depth", [300, 900, 100_000])
def test_deep_nesting_never_ends_in_a_crash(tmp_path, depth):
    path, content = written(tmp_path)
    deep = '{"a":' * depth + "1" + "}" * depth
    path.write_text(json.dumps(content | {"settings": "HERE"}).replace('"HERE"', deep))
    found, faults = find_records(tmp_path)
    assert len(found) + len(faults) == 1


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecordError, match="absent"):
        read_record(tmp_path / "absent.json")


def test_records_are_found_at_any_depth_and_broken_ones_do_not_hide_others(tmp_path):
    for name in ("b/x", "a", "c"):
        make_record(strategy=name).write(tmp_path / name / "result.json")
    (tmp_path / "c" / "result.json").write_text("{")
    (tmp_path / "other.json").write_text("{}")
    found, faults = find_records(tmp_path)
    assert [item.record.strategy for item in found] == ["a", "b/x"]
    assert found[0].path == tmp_path / "a" / "result.json"
    assert len(faults) == 1
    assert str(tmp_path / "c") in str(faults[0])


def test_links_are_followed_each_folder_once_and_not_in_circles(tmp_path):
    far = tmp_path / "scratch" / "runs"
    make_record(strategy="far").write(far / "a" / "result.json")
    results = tmp_path / "results"
    make_record(strategy="near").write(results / "z" / "result.json")
    (results / "linked").symlink_to(far)
    (results / "again").symlink_to(far)
    (results / "copy of z").symlink_to(results / "z")  # its own place counts
    (results / "z" / "up").symlink_to(results)
    (far / "a" / "round").symlink_to(far)
    (results / "file").mkdir()
    (results / "file" / "result.json").symlink_to(far / "a" / "result.json")
    found, faults = find_records(results)
    assert faults == []
    assert [str(item.path.relative_to(results)) for item in found] == [
        "again/a/result.json", "file/result.json", "z/result.json",
    ]  # fmt: skip
    assert [item.record.strategy for item in found] == ["far", "far", "near"]
    (tmp_path / "link").symlink_to(results)
    assert len(find_records(tmp_path / "link")[0]) == 3


def test_what_cannot_be_read_is_named_and_the_rest_is_found(tmp_path, monkeypatch, capsys):
    for name in ("a", "b"):
        make_record(strategy=name).write(tmp_path / "runs" / name / "result.json")
    (tmp_path / "runs" / "moved").symlink_to(tmp_path / "gone")
    (tmp_path / "runs" / "c").mkdir()
    (tmp_path / "runs" / "c" / "result.json").symlink_to(tmp_path / "gone.json")
    (tmp_path / "runs" / "a" / "weights").mkdir()
    (tmp_path / "runs" / "a" / "weights" / "step0").symlink_to(tmp_path / "gone")  # no business of a table
    scan = os.scandir

    def forbid(place):  # root may read everything
        if Path(place).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr("os.scandir", forbid)
    found, faults = find_records(tmp_path / "runs")
    assert [item.record.strategy for item in found] == ["a"]
    runs = tmp_path / "runs"
    assert sorted(map(str, faults)) == [
        f"cannot read {runs}/b: Permission denied",
        f"cannot read {runs}/c/result.json: No such file or directory",
        f"cannot read {runs}/moved: it is a link to {tmp_path}/gone, which is not there",
    ]
    assert main(["table", str(runs)]) == 0
    assert f"left out: cannot read {runs}/b: Permission denied" in capsys.readouterr().err
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    assert main(["report", str(runs), "-o", str(tmp_path / "r.html")]) == 0
    assert f"left out: cannot read {runs}/b: Permission denied" in capsys.readouterr().err
    assert f"{runs}/moved: it is a link to" in (tmp_path / "r.html").read_text()


def test_runs_that_differ_by_seed_device_workers_or_place_of_data_are_one_set_up():
    first = {"seed": 0, "device": "cpu", "data": {"root": "/a", "name": "voc"}, "loader": {"workers": 0}, "lr": 1}
    second = {"seed": 1, "device": "cuda", "data": {"root": "/b", "name": "voc"}, "loader": {"workers": 4}, "lr": 1}
    assert (
        identity(make_record(settings=first)) == identity(make_record(settings=second)) == {"data.name": "voc", "lr": 1}
    )


def test_the_record_does_not_import_torch():
    code = "import sys, densecl.records.record; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_records_that_are_kept_apart_are_found_only_by_their_own_folder(tmp_path):
    for place in ("mine/s0", "shipped/s0", "shipped/more/s1"):
        (tmp_path / place).mkdir(parents=True)
        written(tmp_path / place)
    (tmp_path / "shipped" / APART).write_text("")
    assert [found.path.parent for found in find_records(tmp_path)[0]] == [tmp_path / "mine/s0"]
    assert len(find_records(tmp_path / "shipped")[0]) == 2
    assert len(find_records(tmp_path / "shipped/more")[0]) == 1
    shutil.rmtree(tmp_path / "mine")
    with pytest.raises(RecordError, match=f"or name {re.escape(str(tmp_path / 'shipped'))}$"):
        densecl.table(tmp_path)


def by_hand(path, change):
    """Change the content of a record's file by hand."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def test_a_record_that_was_changed_by_hand_is_marked_and_read(run_copy):
    path = run_copy / "result.json"
    assert not read_record(path).edited
    path.write_text(json.dumps(json.loads(path.read_text())))  # laid out in another way
    assert not read_record(path).edited
    changed = read_record(by_hand(path, lambda content: content["class_names"].__setitem__(3, "a corrected name")))
    assert changed.edited
    assert changed.class_names[3] == "a corrected name"
    assert read_record(by_hand(path, lambda content: content.pop("digest"))).edited is False  # as old ones


def test_a_changed_record_is_marked_where_it_is_shown(run_copy, capsys):
    by_hand(run_copy / "result.json", lambda content: content.update(seed=3))
    assert main(["table", str(run_copy)]) == 0
    assert "records changed after the run: mib" in capsys.readouterr().out
    assert main(["inspect", str(run_copy)]) == 0
    assert "record changed" in capsys.readouterr().out.splitlines()[0]


def test_a_run_that_goes_on_from_a_changed_record_stays_marked(run_copy, finished):
    path = run_copy / "result.json"
    record = read_record(path)
    record.model_copy(update={"steps": record.steps[:1], "status": "interrupted"}).write(path)
    by_hand(path, lambda content: content["steps"][0].update(iterations=3))
    assert main(run_words(finished / "data", run_copy.parents[3], "--quiet")) == 0
    assert read_record(path).status == "finished"
    assert read_record(path).edited


def test_scores_follow_from_their_matrix(run_copy):
    path = run_copy / "result.json"
    good, last = path.read_text(), read_record(path).steps[-1].evaluations[0].metrics
    for key, change in {
        "miou.all": lambda metrics: metrics["miou"].update(all=0.99),
        "iou.0": lambda metrics: metrics["iou"].__setitem__(0, None),
        "forgetting": lambda metrics: metrics.update(forgetting=last["forgetting"] + 0.01),
    }.items():
        path.write_text(good)
        by_hand(path, lambda content, change=change: change(content["steps"][1]["evaluations"][0]["metrics"]))
        with pytest.raises(RecordError, match=rf"result\.json: '{key}' after step 1 is .*, and the matrix gives"):
            read_record(path)
    path.write_text(good)
    by_hand(path, lambda content: content["steps"][1]["evaluations"][0]["confusion"][0].__setitem__(0, 7))
    with pytest.raises(RecordError, match="the matrix gives"):
        read_record(path)


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("'class_names' 5 names", lambda content: content.update(class_names=content["class_names"][:5])),
        ("'steps' has 2, and 'planned_steps' 1", lambda content: content["planned_steps"].pop()),
        ("'steps.1.step' is 4", lambda content: content["steps"][1].update(step=4)),
        ("evaluations' has more than", lambda content: content["steps"][0].update(evaluations=2 * EVALUATIONS)),
        ("metrics.iou' has 2 entries", lambda content: content["steps"][0].update(evaluations=EVALUATIONS)),
        ("'steps.0.evaluations.0.confusion' has 1 entries", lambda content: _matrix(content, [[1]])),
        ("'settings.plugins' is 3", lambda content: content["settings"].update(plugins=3)),
        ("'settings.ewc' is 3", lambda content: content["settings"].update(plugins={"ewc": 3})),
        ("'settings.training' is []", lambda content: content["settings"].update(training=[])),
        ("confusion.0.0' cannot be -1", lambda content: _matrix(content, [[-1]])),
    ],
)
def test_fields_that_contradict_each_other_are_named(run_copy, fault, change):
    path = by_hand(run_copy / "result.json", change)
    with pytest.raises(RecordError, match=re.escape(fault)):
        read_record(path)


EVALUATIONS = [{"task": "voc", "metrics": {"iou": [0.1, 0.2], "miou": {}, "forgetting": None}, "confusion": None}]


def _matrix(content, matrix):
    content["steps"][0]["evaluations"][0]["confusion"] = matrix


def test_1500_flipped_bits_are_refused_or_marked(run_copy):
    """None changes a record unnoticed; the runs' inspection and table never end in a traceback."""
    path = run_copy / "result.json"
    good, rng, record = path.read_bytes(), random.Random(2), read_record(path)
    marked = 0
    for number in range(1500):
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        try:
            other = read_record(path)
        except RecordError:
            continue
        assert other.edited or other == record
        marked += other.edited
        if number % 20 == 0:
            assert describe_run(run_copy)
    assert marked


def test_the_records_of_this_project_are_consistent():
    paths = sorted((Path(__file__).parents[2] / "results").rglob("result.json"))
    assert len(paths) > 100
    assert not any(read_record(path).edited for path in paths)


def places(tree, path=()):
    """The paths of all values in a record, of matrices none."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        if key != "confusion":
            yield (*path, key)
            yield from places(value, (*path, key))


def test_values_of_other_types_are_refused_or_can_be_looked_into(run_copy):
    path, rng = run_copy / "result.json", random.Random(0)
    good = path.read_text()
    others = [None, -1, 2**70, 1.5, "", "a:b", [], {}, [1], {"a": 1}, True, [[1]], {"x": {"y": []}}, "\ud800"]
    accepted, refusals = 0, []
    for _ in range(200):
        content = json.loads(good)
        *parents, key = rng.choice(list(places(content)))
        node = content
        for parent in parents:
            node = node[parent]
        node[key] = rng.choice(others)
        path.write_text(json.dumps(content))
        try:
            assert describe_run(run_copy)
            accepted += 1
        except RecordError as error:
            refusals.append(str(error))
    assert 20 < accepted < 180
    assert all(str(path) in line and "\n" not in line for line in refusals)
