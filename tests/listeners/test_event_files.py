"""TensorBoard and Weights & Biases: what they hold after runs that were killed, resumed or started over."""

import importlib.util
import json
import struct
import sys
import types
from pathlib import Path

import pytest
from test_progress import record, step

from densecl.cli import main
from densecl.listeners import events
from densecl.listeners.events import Look, Start, StepStart
from densecl.listeners.tensorboard import TensorBoard
from densecl.listeners.weights_and_biases import WeightsAndBiases
from densecl.records.record import read_record
from tiny_runs import run_words

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- TensorBoard


def scalars(folder):
    """Tag -> {step: value}, as TensorBoard would draw it; an iteration that comes twice is a fault."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    found = {}
    for tag in read.Tags()["scalars"]:
        points = [(point.step, point.value) for point in read.Scalars(tag)]
        assert [step for step, _ in points] == sorted({step for step, _ in points}), f"{tag}: {points}"
        found[tag] = dict(points)
    return found


@pytest.fixture
def every_iteration(monkeypatch):
    """Listeners look at every iteration."""
    monkeypatch.setattr(events, "LOOK_CPU", 0.0)


@pytest.mark.usefixtures("every_iteration")
def test_event_files_of_a_killed_and_resumed_run_equal_those_of_one_that_was_not(voc, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    length = ["--set", "training.iterations=8", "--set", "training.later.iterations=10"]
    words = ["--tensorboard", "--quiet", "--no-share", *length]
    assert main(run_words(voc, tmp_path / "whole", *words)) == 0
    looked = TensorBoard.looked

    def interrupted(self, look):
        looked(self, look)
        if (look.step, look.iteration) == (1, 8):  # epochs of 3: those after 6 are trained again
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TensorBoard, "looked", interrupted)
        assert main(run_words(voc, tmp_path / "killed", *words)) == 130
    folder = next((tmp_path / "killed").rglob("tensorboard"))
    assert list(scalars(folder / "training")["loss/task"]) == [*range(1, 17)]
    assert main(run_words(voc, tmp_path / "killed", *words)) == 0
    whole = next((tmp_path / "whole").rglob("tensorboard"))
    assert len(list((folder / "training").iterdir())) == 2
    for part, ignored in (("training", "images_per_second"), ("steps", "seconds")):
        ours, theirs = scalars(folder / part), scalars(whole / part)
        assert {tag: points for tag, points in ours.items() if tag != ignored} == {
            tag: points for tag, points in theirs.items() if tag != ignored
        }
    training, steps = scalars(whole / "training"), scalars(whole / "steps")
    assert list(training["loss/task"]) == [*range(1, 19)]
    assert list(training["loss/regulariser"]) == [*range(9, 19)]
    assert training["lr"][1] == pytest.approx(0.03)
    made = read_record(next((tmp_path / "whole").rglob("result.json")))
    measured = [each.evaluations[0].metrics for each in made.steps]
    assert steps["miou/all"] == pytest.approx({k: metrics["miou"]["all"] for k, metrics in enumerate(measured)})
    assert steps["forgetting"] == pytest.approx({1: measured[1]["forgetting"]})
    assert steps["iou/background"][1] == pytest.approx(measured[1]["iou"][0])


def test_a_run_that_starts_over_leaves_no_old_points(tmp_path):
    pytest.importorskip("tensorboard")
    for value in (1.0, 2.0):
        board = TensorBoard()
        board.run_started(Start(tmp_path, record(), (10, 10), False))
        board.step_started(StepStart(0, 1, 10, 10, 0))
        for iteration in range(1, 11 if value == 1.0 else 3):
            board.looked(Look(0, 0, iteration, {"task": value}, (0.1, 0.01), None))
        board.run_finished("finished")
    found = scalars(tmp_path / "tensorboard" / "training")
    assert found["loss/task"] == {1: 2.0, 2: 2.0}
    assert {"lr/group_0", "lr/group_1"} <= set(found)


# ---- Weights & Biases


class FakeRun:
    """Stand-in for a run of `wandb.init`."""

    url, dir = "https://wandb.ai/x", "x"

    def __init__(self, calls):
        self.calls, self.summary = calls, {}

    def log(self, values, step):
        self.calls.append(("log", step, values))

    def finish(self, exit_code):
        self.calls.append(("finish", exit_code))


@pytest.fixture
def fake(monkeypatch):
    """A module `wandb` that keeps what it is called with."""
    calls = []
    module = types.ModuleType("wandb")
    module.Settings = dict
    module.init = lambda **options: calls.append(("init", options)) or FakeRun(calls)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module, calls


@pytest.mark.parametrize("resumed", [False, True])
def test_a_resumed_run_goes_on_in_wandb_and_one_that_starts_over_replaces_it(fake, resumed):
    _, calls = fake
    said = []
    listener = WeightsAndBiases(said.append)
    made = record().model_copy(update={"hash": "abcd1234", "settings": {"training": {"lr": 0.1}}})
    listener.run_started(Start(Path("x"), made, (10, 20), resumed))
    listener.step_started(StepStart(1, 1, 20, 20, 5))
    listener.looked(Look(1, 0, 6, {"task": 1.5}, (0.1,), 12.0))
    listener.step_finished(step(1))
    listener.run_finished("interrupted")
    (_, options), (_, place, values), (_, end, scored), finish = calls
    assert options["project"] == "densecl"
    assert options["id"] == "abcd1234"
    assert options["resume"] == ("allow" if resumed else None)
    assert options["config"]["training"] == {"lr": 0.1}
    assert place == 16  # 10 of step 0 and 6
    assert values["loss/task"] == 1.5
    assert end == 30
    assert scored["miou/all"] == 0.25
    assert finish == ("finish", 130)
    assert said == ["wandb: https://wandb.ai/x"]


def test_where_nobody_is_logged_in_one_line_says_what_to_do(fake, voc, tmp_path, capsys):
    module, _ = fake

    def init(**_options):
        raise RuntimeError("No API key configured.\nUse `wandb login`")

    module.init = init
    module.__spec__ = importlib.util.spec_from_loader("wandb", None)
    assert main(run_words(voc, tmp_path / "results", "--wandb")) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        "densecl: wandb cannot start: No API key configured. log in with `wandb login`, set WANDB_MODE"
    )


def test_the_real_wandb_keeps_a_run_offline(voc, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record as Row

    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(events, "LOOK_CPU", 0.0)
    assert main(run_words(voc, tmp_path / "results", "--wandb", "--quiet")) == 0
    made = read_record(next((tmp_path / "results").rglob("result.json")))
    (file,) = (tmp_path / "results").rglob("*.wandb")
    assert f"-{made.hash}" in file.parent.name
    rows = [Row.FromString(content) for content in log_records(file.read_bytes())]
    (run,) = (row.run for row in rows if row.HasField("run"))
    assert (run.run_id, run.project) == (made.hash, "densecl")
    logged = {}
    for row in (row.history for row in rows if row.HasField("history")):
        for item in row.item:
            key = item.key or "/".join(item.nested_key)
            logged.setdefault(key, {})[row.step.num] = json.loads(item.value_json)
    assert list(logged["loss/task"]) == [*range(1, 9)]
    assert logged["miou/all"] == pytest.approx(
        {4 * (k + 1): each.evaluations[0].metrics["miou"]["all"] for k, each in enumerate(made.steps)}
    )


def log_records(content):
    """The records of a file in LevelDB's log format, which wandb writes: blocks of 32 KiB, records in parts."""
    place, block, whole = 7, 1 << 15, b""
    while place + 7 <= len(content):
        if block - place % block < 7:
            place += block - place % block
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield whole
            whole = b""
