"""Every strategy, plugin and backbone of the catalogue, on a tiny stream: joins by being in the catalogue.

Columns: fresh (trains, evaluates, grows as promised), weights kept and loaded give the same predictions, killed and
resumed, shared first step, two processes. Those of task sequences are in `test_sequences.py`.
"""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from densecl.catalogue import BACKBONES, entries
from densecl.runner.check import check_method
from densecl.runner.checkpoint import load_weights, save_weights
from densecl.runner.evaluation import confusion
from densecl.runner.methods import parse_method
from densecl.runner.plan import make_plan
from densecl.runner.resume import Checkpoints, find_point, go_on
from densecl.runner.tiny import tiny_network, tiny_scenario, tiny_strategy

NAMED = [entry.name if entry.kind == "strategy" else f"finetune+{entry.name}" for entry in entries("strategies")]
METHODS = [name for name in NAMED if "classes" in parse_method(name).strategy.cls.streams] + [
    "mib+replay",
    "mib+ewc+replay",
]
NETWORKS = {
    "bisenet": {"encoder": "mini", "weights": "none", "width": 16, "spatial": (8, 8), "spatial_width": 8},
    "deeplabv3": {"encoder": "mini", "weights": "none", "width": 8, "encoder_widths": (8, 8, 12, 16)},
    "fcn": {"encoder": "mini", "weights": "none", "encoder_widths": (8, 8, 12, 16)},
    "resblock": {"width": 4, "blocks": 1, "norm": "batch"},
    "unet": {"width": 4, "depth": 2, "norm": "batch"},
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """What methods keep for other runs is kept for these tests alone."""
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def train(text, backbone="bisenet", seed=0):
    method = parse_method(text)
    scenario = tiny_scenario(joint=method.strategy.cls.joint)
    strategy = tiny_strategy(method, scenario, tiny_network(backbone, **NETWORKS[backbone]), seed=seed)
    matrices = []
    for experience in scenario.train_stream:
        strategy.train(experience, eval_streams=[])
        matrices.append(confusion(strategy, scenario.test, len(scenario.class_names), 4))
    return strategy, matrices


def test_every_backbone_is_tried():
    assert set(NETWORKS) == set(BACKBONES)


@pytest.mark.parametrize("method", sorted({*NAMED, *METHODS}))
def test_check_finds_nothing_wrong(method):
    assert check_method(method) == []


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
@pytest.mark.parametrize("method", METHODS)
def test_fresh_runs_count_every_pixel_and_repeat_bit_for_bit(method, backbone):
    first, matrices = train(method, backbone)
    second, _ = train(method, backbone)
    labelled = sum(int((first.scenario.test[i].target != 255).sum()) for i in range(len(first.scenario.test)))
    assert all(matrix.sum() == labelled for matrix in matrices)
    assert first.network.n_outputs == 5
    states = first.network.state_dict(), second.network.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    other, _ = train(method, backbone, seed=1)
    assert any(not torch.equal(states[0][key], value) for key, value in other.network.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_kept_weights_give_the_same_confusion_matrix(method, tmp_path):
    strategy, matrices = train(method)
    settings = make_plan("shapes15-5", method).settings
    last = len(matrices) - 1
    save_weights(strategy.network, settings, tmp_path, last)
    again = tiny_strategy(parse_method(method), strategy.scenario, tiny_network("bisenet", **NETWORKS["bisenet"]))
    for experience in strategy.scenario.train_stream:
        again.grow(experience)
    load_weights(again.network, tmp_path, last)
    assert (confusion(again, strategy.scenario.test, 5, 3) == matrices[last]).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_first_step_called_shared_is_the_one_of_fine_tuning(method):
    parsed = parse_method(method)
    if parsed.strategy.cls.first_step != "shared" or any(part.stock for part in parsed.plugins):
        pytest.skip("its first step is its own")
    states = []
    for text in (method, "finetune"):
        scenario = tiny_scenario()
        strategy = tiny_strategy(parse_method(text), scenario)
        strategy.train(scenario.train_stream[0], eval_streams=[])
        states.append(copy.deepcopy(strategy.network.state_dict()))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])


@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_first_step_leads_to_the_same_weights_as_ones_own(method):
    parsed = parse_method(method)
    classes = [parsed.strategy.cls, *(part.cls for part in parsed.plugins)]
    if any(getattr(cls, "first_step", "own") != "shared" for cls in classes):
        pytest.skip("its first step is its own")
    whole, _ = train(method)
    other = tiny_strategy(parse_method("finetune"), tiny_scenario(), tiny_network("bisenet", **NETWORKS["bisenet"]))
    other.train(other.scenario.train_stream[0], eval_streams=[])
    strategy = tiny_strategy(parsed, tiny_scenario(), tiny_network("bisenet", **NETWORKS["bisenet"]))
    first, *later = strategy.scenario.train_stream
    strategy.grow(first)
    strategy.network.load_state_dict(other.network.state_dict())
    strategy.finish_step(first)
    for experience in later:
        strategy.train(experience, eval_streams=[])
    expected = whole.network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in strategy.network.state_dict().items())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("killed_at", [(0, 1), (1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("method", METHODS)
def test_killed_and_resumed_runs_end_with_the_same_weights(method, killed_at, tmp_path):
    """Killed after an epoch of a step, a new process goes on from the files alone."""
    parsed = parse_method(method)
    if any(part.stock for part in parsed.plugins) or (parsed.strategy.cls.joint and killed_at[0] > 0):
        pytest.skip("has no state to resume from, or only one step")
    whole, _ = train(method)
    settings = make_plan("shapes15-5", method).settings

    def attempt(kill):
        scenario = tiny_scenario(joint=parsed.strategy.cls.joint)
        strategy = tiny_strategy(parsed, scenario, tiny_network("bisenet", **NETWORKS["bisenet"]))
        checkpoints = Checkpoints(tmp_path, "hash")
        finished = len(list((tmp_path / "weights").glob("*")))
        point = find_point(tmp_path, checkpoints, finished, len(scenario.train_stream), lambda _: None)
        go_on(strategy, scenario, point, lambda _: None)
        trained = 0

        def after_epoch():
            nonlocal trained
            trained += 1
            checkpoints.save_epoch(strategy.state())
            if kill and (strategy.step, strategy.epoch) == killed_at:
                checkpoints.close()
                raise Killed

        strategy.after_epoch = after_epoch
        for experience in list(scenario.train_stream)[point.finished :]:
            strategy.train(experience, eval_streams=[])
            save_weights(strategy.network, settings, tmp_path, experience.step)
            checkpoints.save_step(experience.step, strategy.method_state())
        return strategy, trained

    with pytest.raises(Killed):
        attempt(kill=True)
    resumed, epochs = attempt(kill=False)
    steps = len(whole.scenario.train_stream)
    assert epochs == 2 * steps - 2 * killed_at[0] - killed_at[1]
    expected = whole.network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.network.state_dict().items())


SEVERAL = [method for method in METHODS if not any(part.stock for part in parse_method(method).plugins)]


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory):
    """Every method trained by two processes, then by one: the folder with what they saw."""
    folder = tmp_path_factory.mktemp("two")
    script = str(Path(__file__).parents[1] / "two_processes.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DENSECL_CACHE": str(folder / "cache")}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for launcher in (torchrun, [sys.executable]):
        done = subprocess.run(
            [*launcher, script, str(folder), *SEVERAL], env=environment, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("method", SEVERAL)
def test_two_processes_end_with_the_same_weights(method, two_processes):
    one, *both = (
        json.loads((two_processes / f"{method}-{name}.json").read_text()) for name in ("0of1", "0of2", "1of2")
    )
    # at every step's end both hold the same bits
    assert both[0]["weights"] == both[1]["weights"]
    # each image of an epoch is in one of them, and the replayed ones are those of one process
    assert len(one["seen"]) == len(both[0]["seen"]) == len(both[1]["seen"])
    for alone, *shares in zip(one["seen"], both[0]["seen"], both[1]["seen"], strict=True):
        assert alone[:2] == shares[0][:2] == shares[1][:2]
        for own_or_replayed in (2, 3):
            assert sorted(shares[0][own_or_replayed] + shares[1][own_or_replayed]) == sorted(alone[own_or_replayed])
    # the sums of one process, to what float32 holds
    assert one["losses"] == pytest.approx(both[0]["losses"], rel=2e-4)
    assert both[0]["losses"] == both[1]["losses"]
    first, second = (torch.load(two_processes / f"{method}-{name}.pt", weights_only=True) for name in ("0of1", "0of2"))
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=2e-3, atol=2e-5)
    # no pixel is counted twice or left out
    for alone, together, other in zip(one["matrices"], both[0]["matrices"], both[1]["matrices"], strict=True):
        assert together == other
        assert torch.tensor(together).sum() == torch.tensor(alone).sum()
