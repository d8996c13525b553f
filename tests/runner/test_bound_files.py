"""Files of a run say whose they are, and a resumed run neither takes another's nor loses its own."""

import json
import shutil

import pytest
import torch

from densecl.cli import main
from densecl.errors import RunError
from densecl.finished.trusted import read_run
from densecl.runner.checkpoint import Checkpoints, pack, read_weights, unpack
from densecl.tensors import read_tensors, save_tensors
from kill_runs import finished as content
from kill_runs import same
from tiny_runs import refused, run_words

pytestmark = pytest.mark.usefixtures("one_thread")


def hash_of(folder):
    return json.loads((folder / "result.json").read_text())["hash"]


def outcome(folder):
    """Scores and weights; a first step that is made again is loaded, and counts as such."""
    record, weights = content(folder)
    return [step["evaluations"] for step in record["steps"]], weights


def rebound(path, **changes):
    """Write a file again as one of another run, step or kind."""
    tensors, metadata = read_tensors(path)
    metadata = {key: value for key, value in {**metadata, **changes}.items() if value is not None}
    save_tensors({name: tensor.clone() for name, tensor in tensors.items()}, path, metadata)


def test_weights_and_checkpoints_say_run_step_and_kind(run_copy):
    run = hash_of(run_copy)
    for step in (0, 1):
        metadata = read_tensors(run_copy / "weights" / f"step{step}.safetensors")[1]
        assert (metadata["run"], metadata["step"], metadata["kind"]) == (run, str(step), "weights")
        state = unpack(run_copy / "checkpoints" / f"step{step}-done.ckpt", run)
        assert (state["run"], state["step"], state["kind"]) == (run, step, "step")
    checkpoints = Checkpoints(run_copy, run)
    checkpoints.save_epoch({"step": 1, "epoch": 3})
    checkpoints.close()
    assert unpack(checkpoints.epoch_path(1, 3), run)["kind"] == "epoch"


@pytest.mark.parametrize(("key", "value"), [("run", "00000000"), ("step", "0"), ("kind", "first step")])
def test_weights_of_another_run_step_or_kind_are_refused_wherever_they_are_read(run_copy, capsys, key, value):
    path = run_copy / "weights" / "step1.safetensors"
    rebound(path, **{key: value})
    picture = next((run_copy / "pictures").glob("*.png"))
    refused(capsys, ["evaluate", run_copy], path, f"another {key}: {value}")
    refused(capsys, ["predict", run_copy, picture, "-o", run_copy / "o"], path, f"another {key}")
    refused(capsys, ["inspect", run_copy, "--masks"], path, f"another {key}")


def test_weights_that_do_not_say_whose_they_are_come_from_older_runs(run_copy):
    rebound(run_copy / "weights" / "step1.safetensors", run=None, kind=None)
    rebound(run_copy / "weights" / "step0.safetensors", run=None, kind=None, step=None)
    assert main(["evaluate", str(run_copy)]) == 0
    assert read_weights(run_copy, 0, "any")


def test_a_checkpoint_in_the_place_of_another_is_refused(run_copy):
    checkpoints = Checkpoints(run_copy, hash_of(run_copy))
    checkpoints.save_epoch({"step": 1, "epoch": 3})
    checkpoints.wait()
    shutil.copy(checkpoints.step_path(0), checkpoints.step_path(1))
    with pytest.raises(RunError, match="another step: 0, not 1"):
        checkpoints.after_step(1)
    shutil.copy(checkpoints.epoch_path(1, 3), checkpoints.step_path(1))
    with pytest.raises(RunError, match="another kind: epoch, not step"):
        checkpoints.after_step(1)
    shutil.copy(checkpoints.epoch_path(1, 3), checkpoints.epoch_path(1, 4))
    said = []
    assert checkpoints.last_epoch(1, said.append)["epoch"] == 3
    assert "another epoch" in said[0]
    checkpoints.close()


def test_a_checkpoint_with_a_tensor_for_its_run_is_of_another_run(run_copy, capsys):
    path = run_copy / "checkpoints" / "step1-done.ckpt"
    state = unpack(path, hash_of(run_copy))
    path.write_bytes(pack({**state, "run": torch.ones(0)}))
    refused(capsys, ["evaluate", run_copy], path, "is of another run: tensor([])")


def test_a_checkpoint_without_what_the_method_remembers_is_refused(run_copy, capsys):
    path = run_copy / "checkpoints" / "step1-done.ckpt"
    state = unpack(path, hash_of(run_copy))
    for method in ({"frozen": []}, torch.zeros(2)):
        path.write_bytes(pack({**state, "method": method}))  # its checksum fits
        refused(capsys, ["evaluate", run_copy], path, "does not hold what mib remembers", "run it again")


@pytest.fixture
def words(run_copy, finished, monkeypatch):
    """The command of the copied run, which goes on with it."""
    return run_words(finished / "data", run_copy.parents[3])


def interrupted(folder, steps):
    """Let the run in a folder look as if it was stopped after so many steps."""
    record = read_run(folder)
    record.model_copy(update={"steps": record.steps[:steps], "status": "interrupted"}).write(folder / "result.json")


def test_the_weights_of_another_seed_are_not_trained_on(run_copy, words, capsys):
    before = outcome(run_copy.parents[3])
    interrupted(run_copy, 1)
    (run_copy / "weights" / "step1.safetensors").unlink()
    rebound(run_copy / "weights" / "step0.safetensors", run="00000000")
    assert main(words) == 0
    assert "another run: 00000000" in capsys.readouterr().err
    assert same(outcome(run_copy.parents[3]), before)


def test_weights_of_an_earlier_step_that_are_gone_are_made_again(run_copy, words, capsys):
    before = outcome(run_copy.parents[3])
    gone = run_copy / "weights" / "step0.safetensors"
    gone.unlink()
    assert "--fresh" in refused(capsys, ["evaluate", run_copy, "--step", "0"], gone)
    interrupted(run_copy, 2)
    assert main(words) == 0
    assert f"{gone} is gone" in capsys.readouterr().err
    assert same(outcome(run_copy.parents[3]), before)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_torn_record_is_made_again_from_the_checkpoints(run_copy, words, capsys, steps):
    before = content(run_copy.parents[3])
    interrupted(run_copy, steps)
    for step in range(steps, 2):
        (run_copy / "weights" / f"step{step}.safetensors").unlink()
        (run_copy / "checkpoints" / f"step{step}-done.ckpt").unlink()
    path = run_copy / "result.json"
    path.write_text(path.read_text()[:300])
    times = [(run_copy / "weights" / f"step{step}.safetensors").stat().st_mtime_ns for step in range(steps)]
    assert main(words) == 0
    assert f"made again, with {steps} steps" in capsys.readouterr().err
    assert same(content(run_copy.parents[3]), before)
    kept = [(run_copy / "weights" / f"step{step}.safetensors").stat().st_mtime_ns for step in range(steps)]
    assert kept == times


def test_a_torn_record_that_cannot_be_made_again_leaves_what_was_trained(run_copy, words, capsys):
    before = outcome(run_copy.parents[3])
    shutil.rmtree(run_copy / "checkpoints")
    weights = (run_copy / "weights" / "step1.safetensors").read_bytes()
    (run_copy / "result.json").write_text("{")
    assert main(words) == 0
    assert f"is kept in {run_copy / 'aside1'}" in capsys.readouterr().err
    assert (run_copy / "aside1" / "weights" / "step1.safetensors").read_bytes() == weights
    assert same(outcome(run_copy.parents[3]), before)
    assert main(["table", str(run_copy.parents[3])]) == 0
    assert "aside1" not in capsys.readouterr().err


def test_the_holder_of_a_folder_removes_what_killed_writes_left(run_copy, words, finished):
    interrupted(run_copy, 2)
    shared = run_copy.parents[3] / ".shared"
    key = next(shared.glob("*.safetensors")).name
    left = [run_copy / ".result.json.x.tmp", run_copy / "weights" / ".step0.safetensors.y.tmp"]
    others = [shared / f".{key}.z.tmp", run_copy / ".notes"]
    for path in (*left, *others):
        path.touch()
    assert main(words) == 0
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)  # another lock guards the first; the second is no write of ours
    assert main([*words, "--seed", "1"]) == 0
    shutil.rmtree(run_copy)
    assert main(words) == 0
    assert not others[0].exists()
