"""What a run tells its listeners, and what they make of it."""

import importlib.util
import itertools
import types
from pathlib import Path

import pytest
import torch
from test_progress import Clock, record, step

import densecl
from densecl.cli import main
from densecl.errors import RunError
from densecl.listeners.events import Listener, Listeners, Start, scores
from densecl.records.record import Evaluation, TaskRecord, read_record
from tiny_runs import run_words

pytestmark = pytest.mark.usefixtures("one_thread")


class Keeper(Listener):
    """Keeps what it hears."""

    name = "keeper"

    def __init__(self):
        self.heard = []

    def __getattribute__(self, name):
        if name in ("heard", "name", "of") or name.startswith("_"):
            return object.__getattribute__(self, name)
        return lambda *values: self.heard.append((name, *values))

    def of(self, name):
        """The values of one kind of event."""
        return [values for kind, *values in self.heard if kind == name]


class Term:
    """A loss on an accelerator, which counts how often it is waited for."""

    waited = 0
    device = types.SimpleNamespace(type="cuda")

    def __init__(self, value):
        self.value = value

    def detach(self):
        return self

    def __float__(self):
        Term.waited += 1
        return self.value


def start(world=1):
    made = record().model_copy(update={"environment": {"world": world}})
    return Start(Path("x"), made, (100, 100), False)


# ---- the fan-out


def test_an_accelerator_is_waited_for_at_most_twice_a_second_and_at_the_end_of_a_step():
    clock, keeper = Clock(), Keeper()
    Term.waited = 0
    heard = Listeners([keeper, Keeper()], clock)
    heard.step_started(0, 1, 1000, 1000, 0)
    for iteration in range(1, 1001):
        clock.now += 0.01  # ten seconds in all
        heard.iteration(0, iteration, {"task": Term(float(iteration)), "more": Term(1.0)}, 4, [0.1])
    looks = [look for (look,) in keeper.of("looked")]
    assert len(looks) == 21
    assert Term.waited == 2 * len(looks)  # once a term, however many listen
    assert looks[-1].iteration == 1000
    times = [0.01 * look.iteration for look in looks[:-1]]
    assert min(b - a for a, b in itertools.pairwise(times)) >= 0.5 - 1e-9
    assert [look.losses for look in looks] == [{"task": look.iteration, "more": 1.0} for look in looks]


def test_speed_counts_the_images_of_all_processes_and_neither_the_first_iteration_nor_work_beside():
    clock, keeper = Clock(), Keeper()
    heard = Listeners([keeper], clock)
    heard.run_started(start(world=2))
    heard.step_started(0, 1, 30, 30, 0)
    clock.now += 50  # workers start
    terms = {"task": torch.tensor(1.0, requires_grad=True)}
    for iteration in range(1, 31):
        clock.now += 0.5
        if iteration == 10:
            heard.scan("synthesis")(1, 2)
            clock.now += 100
        heard.iteration(0, iteration, terms, 4, [0.1])
    speeds = [look.speed for (look,) in keeper.of("looked")]
    assert speeds[0] is None
    assert speeds[1:] == pytest.approx([16.0] * 29)  # 2 processes x 4 images each half second
    assert keeper.of("counted") == [["synthesis", 1, 2]]


def test_a_listener_that_fails_is_dropped_and_said_and_the_others_go_on():
    class Broken(Listener):
        name = "tensorboard"

        def looked(self, look):
            raise OSError(28, "No space left on device")

    keeper = Keeper()
    heard = Listeners([Broken(), keeper])
    with heard:
        heard.run_started(start())
        heard.step_started(0, 1, 2, 2, 0)
        for iteration in (1, 2):
            heard.iteration(0, iteration, {"task": 1.0}, 4, [0.1])
    assert len(keeper.of("looked")) == 2
    (said,) = keeper.of("line")
    assert said[0].startswith(
        "tensorboard is left out from here on: [Errno 28] No space left on device; the run goes on"
    )
    assert keeper.of("run_finished") == [["finished"]]


def test_ctrl_c_is_no_fault_of_a_listener_and_the_end_is_told():
    class Stopped(Listener):
        def looked(self, look):
            raise KeyboardInterrupt

    keeper = Keeper()

    def train():
        with Listeners([keeper, Stopped()]) as heard:
            heard.step_started(0, 1, 1, 1, 0)
            heard.iteration(0, 1, {"task": 1.0}, 4, [0.1])

    with pytest.raises(KeyboardInterrupt):
        train()
    assert keeper.of("run_finished") == [["interrupted"]]
    with pytest.raises(ValueError, match="x"), Listeners([keeper]):
        raise ValueError("x")
    assert keeper.of("run_finished")[-1] == ["failed"]


def test_a_listener_that_cannot_start_ends_the_run_before_it_costs_anything():
    class Refused(Listener):
        def run_started(self, start):
            raise RunError("wandb cannot start")

    with pytest.raises(RunError, match="wandb"):
        Listeners([Refused()]).run_started(start())


def test_nobody_listening_costs_no_look():
    Term.waited = 0
    heard = Listeners()
    heard.step_started(0, 1, 1, 1, 0)
    heard.iteration(0, 1, {"task": Term(1.0)}, 4, [0.1])
    heard.epoch_finished(0, 1, {"task": Term(1.0)})
    assert Term.waited == 0


def test_scores_have_flat_names_and_leave_out_what_does_not_exist():
    metrics = {"miou": {"all": 0.5, "added": None}, "iou": [0.5, None, 0.25], "forgetting": 0.1}
    made = record().model_copy(update={"class_names": ["background", "cat", "dining table", "unseen"]})
    scored = step(0).model_copy(update={"evaluations": [Evaluation(task="segmentation", metrics=metrics)]})
    assert scores(scored, made) == {
        "miou/all": 0.5,
        "iou/background": 0.5,
        "iou/dining_table": 0.25,
        "forgetting": 0.1,
    }
    tasks = [
        TaskRecord(name=name, kind="x", primary="mse", higher_is_better=False, class_names=["void", name])
        for name in "ab"
    ]
    found = [Evaluation(task="a", metrics={"mse": 2.0}), Evaluation(task="b", metrics={"iou": [0.5, 0.25]})]
    several = scores(step(0).model_copy(update={"evaluations": found}), made.model_copy(update={"tasks": tasks}))
    assert several == {"a/mse": 2.0, "b/iou/void": 0.5, "b/iou/b": 0.25}


# ---- the options


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_package_that_is_absent_is_named_before_data_is_read(name, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda each, *more: None if each == name else find(each, *more))
    (tmp_path / "no data here").mkdir()
    assert main(run_words(tmp_path / "no data here", tmp_path / "results", f"--{name}")) == 2
    assert capsys.readouterr().err == f"densecl: --{name}: {name} is not installed. pip install 'densecl[{name}]'\n"
    assert not (tmp_path / "results").exists()


def test_who_listens_does_not_change_a_runs_hash(finished, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("DENSECL_CACHE", str(finished / "cache"))
    known = read_record(next((finished / "results").rglob("result.json")))
    words = run_words(finished / "data", tmp_path)
    assignments = [words[k + 1] for k, word in enumerate(words) if word == "--set"]
    backbone = words[words.index("--backbone") + 1]
    made = densecl.run(
        "voc15-5",
        "mib",
        backbone=backbone,
        data=finished / "data",
        output=tmp_path,
        assignments=assignments,
        device="cpu",
        tensorboard=True,
    )
    assert made.hash == known.hash
    assert [each.evaluations for each in made.steps] == [each.evaluations for each in known.steps]
    assert next(tmp_path.rglob("tensorboard")).parent.name == f"s0-{made.hash}"


def test_quiet_and_verbose_exclude_each_other(tmp_path, capsys):
    assert main(run_words(tmp_path, tmp_path, "--quiet", "--verbose")) == 2
    assert "--quiet and --verbose exclude each other" in capsys.readouterr().err


def test_verbose_names_the_losses_of_each_epoch(voc, tmp_path, capsys):
    assert main(run_words(voc, tmp_path / "results", "--verbose")) == 0
    lines = capsys.readouterr().err.splitlines()
    assert any("step 1 (2 of 2), epoch 1 of " in line and "task " in line and "regulariser " in line for line in lines)
