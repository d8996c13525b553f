"""A kind of task is one class in one file: found by its name, checked by what it declares, or a user's own."""

import json

import pytest

from data_trees import few_drawn
from densecl.check.task import check_task
from densecl.cli import main
from densecl.errors import DenseCLError, SettingError
from densecl.records.record import read_record
from densecl.runner.plan import make_plan
from densecl.settings.recipe import RunSettings, StreamSettings, build
from densecl.settings.task_recipe import KINDS, TaskSettings, kind_class
from densecl.tasks import Context, Task

EDGES = '''
from typing import Annotated
import torch
from pydantic import Field
from densecl.losses.images import squared_error
from densecl.metrics.image_quality import mse
from densecl.tasks import Picture, Prepared, Task


class Edges(Task):
    """Two outputs: the differences of grey values to the right and downwards."""

    kind = "edges"
    primary = "error"
    higher_is_better = False
    measures = ("error",)
    outputs = 2
    unit: Annotated[float, Field(gt=0)] = 64.0

    def prepare(self, image, mask):
        grey = image.float().mean(1, keepdim=True)
        return Prepared(image, torch.cat([grey.roll(-1, d) - grey for d in (2, 3)], 1) / self.unit)

    def loss(self, logits, batch):
        return squared_error(logits, batch.target, weight=batch.weight)

    def scores(self, output, image, target):
        return {"error": mse(output, target)}

    def picture(self, image, output, mask):
        shown = (output.mean(0, keepdim=True) * 64 + 128).clamp(0, 255).byte().expand(3, -1, -1)
        return Picture(image, shown, image)
'''
RECIPE = """
family = "own-"
summary = "one's own"
classes = 2
splits = ["2tasks"]
backbone = "unet(width=4,depth=2)"

[data]
name = "shapes"

[stream]
kind = "tasks"

[training]
iterations = 2
batch = 4
augmentation = "flip"
crop = "full"

[evaluation]
size = "full"

[[stream.tasks]]
name = "edges"
kind = "mine.py:Edges(unit=32)"
data = "tints"

[[stream.tasks]]
name = "figures"
kind = "segmentation"
data = "figures"
"""
BARE = "from densecl.tasks import Task\nclass Edges(Task):\n    kind = 'e'\n"
COLOURS = {"name": "colours", "kind": "colorization", "data": "tints"}


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    """A catalogue whose recipe names a kind of its own."""
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path / "cache"))
    few_drawn(monkeypatch, 12, 4, 6)
    folder = tmp_path / "mine" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(EDGES)
    (folder / "own.toml").write_text(RECIPE)
    return folder.parent


def stream(**changes):
    return build(StreamSettings, {"kind": "tasks", "tasks": [COLOURS | changes]}, "stream")


def test_every_file_of_tasks_is_a_kind_with_a_class_of_that_kind():
    assert set(KINDS) == {
        "autoencoding",
        "classification",
        "colorization",
        "depth",
        "normals",
        "painted_labels",
        "segmentation",
        "style_transfer",
    }
    for kind in KINDS:
        cls = kind_class(kind)
        assert issubclass(cls, Task)
        assert cls.kind == kind
        assert not cls.declared().keys() & TaskSettings.model_fields.keys()


def test_settings_hold_the_keys_of_their_kind_with_its_defaults():
    (task,) = stream(size=20).tasks
    assert task.model_dump() == {**COLOURS, "split": "train", "crop": None, "size": 20, "scale": 50.0}
    assert task.values == {"scale": 50.0}
    assert task.cls.build(task.name, task.values, Context()).settings == {"scale": 50.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scales": 3}, ["unknown key 'stream.tasks.0.scales'", "did you mean 'stream.tasks.0.scale'"]),
        ({"scale": -1}, ["'stream.tasks.0.scale' cannot be -1", "greater than 0"]),
        ({"loss": "l2"}, ["'loss' is of autoencoding, and task 'colours' is colorization"]),
        ({"kind": "colourisation"}, ["'stream.tasks.0.kind' cannot be 'colourisation'", "known kinds: autoencoding"]),
        ({"kind": "colorization("}, ["expected key=value"]),
        ({"kind": 3}, ["'stream.tasks.0.kind' cannot be 3"]),
        ({"size": 0}, ["'stream.tasks.0.size' cannot be 0"]),
    ],
)
def test_a_wrong_key_is_named_with_what_would_be_right(changes, words):
    with pytest.raises(DenseCLError) as error:
        stream(**changes)
    assert all(word in str(error.value) for word in words), error.value


def test_a_key_of_another_kind_at_its_default_is_left_out():
    """Early records held the keys of all kinds."""
    assert stream(loss="l1", normalised=False, loss_seed=0) == stream()


def test_values_may_be_written_into_the_name_of_a_kind():
    assert stream(kind="colorization(scale=20)") == stream(scale=20)


# ---- a kind of one's own


def test_a_kind_of_ones_own_is_learnt_beside_others_and_evaluated_again(catalogue, tmp_path, capsys):
    words = ["--catalogue", str(catalogue), "--device", "cpu"]
    output = tmp_path / "results"
    assert main(["run", "-b", "own-2tasks", "-s", "finetune", "--output", str(output), "--quiet", *words]) == 0
    path = next(output.rglob("result.json"))
    record = read_record(path)
    assert [(task.name, task.kind, task.primary) for task in record.tasks] == [
        ("edges", "edges", "error"),
        ("figures", "segmentation", "miou"),
    ]
    assert record.settings["stream"]["tasks"][0]["kind"] == "mine.py:Edges"  # no path of this machine
    assert record.tasks[0].settings == {"unit": 32.0}
    assert record.steps[1].evaluations[0].metrics["error"] > 0
    capsys.readouterr()
    assert main(["evaluate", str(path.parent), *words]) == 0
    assert "edges" in capsys.readouterr().out


def test_no_class_is_imported_because_a_record_names_it(catalogue, tmp_path):
    plan = make_plan("own-2tasks", "finetune", catalogue=catalogue)
    (tmp_path / "mine.py").write_text("raise SystemExit('imported')")
    content = json.loads(plan.settings.model_dump_json())
    with pytest.raises(
        SettingError, match=r"'settings.stream.tasks.0.kind' cannot be 'mine.py:Edges'.*see --catalogue"
    ):
        build(RunSettings, content, "settings")


def test_an_edited_kind_is_another_run_and_a_moved_one_is_not(catalogue, tmp_path):
    first = make_plan("own-2tasks", "finetune", catalogue=catalogue).hash
    moved = catalogue.rename(tmp_path / "elsewhere")
    assert make_plan("own-2tasks", "finetune", catalogue=moved).hash == first
    edited = tmp_path / "edited" / "benchmarks"
    edited.mkdir(parents=True)
    (edited / "own.toml").write_text(RECIPE)
    (edited / "mine.py").write_text(EDGES + "\n# another comment\n")
    assert make_plan("own-2tasks", "finetune", catalogue=edited.parent).hash != first


def test_a_recipe_with_a_broken_class_disturbs_only_those_who_use_it(catalogue):
    (catalogue / "benchmarks" / "mine.py").write_text("1 / 0")
    make_plan("shapes15-5", "finetune", catalogue=catalogue)
    with pytest.raises(DenseCLError, match=r"mine.py:1 does not import: ZeroDivisionError"):
        make_plan("own-2tasks", "finetune", catalogue=catalogue)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class Edges: pass", "is no kind of task"),
        ("from densecl.tasks import Task\nclass Edges(Task): pass", "give the class a kind"),
        (
            "from densecl.tasks import Task\nclass Edges(Task):\n    kind = 'e'\n    size: int = 3",
            "'size' is a key of every",
        ),
        (f"{BARE}    loss: str = 'l1'", r"Edges.loss is a method of Task"),
        (f"{BARE}    unit: 'Missing' = 3", "Edges: an annotation cannot be read: name 'Missing'"),
        (f"{BARE}    unit: Task = None", "Edges: a setting's type cannot be checked"),
    ],
)
def test_a_class_that_is_no_kind_is_refused(source, message, catalogue):
    (catalogue / "benchmarks" / "mine.py").write_text(source)
    with pytest.raises(SettingError, match=message):
        make_plan("own-2tasks", "finetune", catalogue=catalogue)


def test_a_kind_of_ones_own_passes_the_check(catalogue):
    assert check_task(kind_class("mine.py:Edges", catalogue / "benchmarks"), {"unit": 10.0}) == []
