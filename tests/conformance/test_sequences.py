"""Every method that can learn a sequence of tasks, on a tiny one; joins by being in the catalogue."""

import copy

import pytest
import torch

from densecl.check.tiny import tiny_backbone, tiny_network, tiny_sequence, tiny_strategy
from densecl.runner.checkpoint import load_weights, save_weights
from densecl.runner.evaluation import measure_all
from densecl.runner.methods import parse_method
from densecl.runner.resume import Checkpoints, find_point, go_on
from densecl.settings.catalogue import entries
from densecl.settings.recipe import RunSettings
from densecl.training.batch import normalise
from two_processes import agree, seen_by, trained_by_two

pytestmark = pytest.mark.usefixtures("one_thread")

NAMED = [entry.name if entry.kind == "strategy" else f"finetune+{entry.name}" for entry in entries("strategies")]


def can(name):
    method = parse_method(name)
    return all("tasks" in getattr(part.cls, "streams", ()) for part in (method.strategy, *method.plugins))


METHODS = [
    *(name for name in NAMED if can(name)),
    "piggyback(bn=trained,mask_lr=0.01)",
    "piggyback(masks=ternary,init=random,mask_optimizer=sgd,scale_gradients=True,mask_lr=0.1)",
    "piggyback(mask_first=True,bn=trained)",
    "resblock(training=sequential)",
    "resblock(training=alternating,blocks=2)",
]
KEEPING = [
    name
    for name in METHODS
    if parse_method(name).strategy.name in ("decoder", "piggyback", "packnet", "resblock", "scratch", "classifier")
]
UNET = {"width": 4, "depth": 2, "norm": "batch"}


def made(text, seed=0):
    method = parse_method(text)
    network = tiny_backbone(method) if method.strategy.name == "resblock" else tiny_network("unet", **UNET)
    return tiny_strategy(method, tiny_sequence(), network, seed=seed)


@torch.no_grad()
def outputs(strategy, index):
    """What the network gives for a task's test images."""
    scenario = strategy.scenario
    strategy.select_task(index)
    images = torch.stack([scenario.tests[index][i].image for i in range(4)])
    image = scenario.tasks[index].prepare(images, images[:, 0]).image
    return strategy.network.eval()(normalise(image, *strategy.normalisation)).logits.clone()


def train(text, seed=0):
    """The strategy after all tasks, and each task's outputs after each step."""
    strategy, seen = made(text, seed), []
    for experience in strategy.scenario.train_stream:
        strategy.train(experience, eval_streams=[])
        seen.append([outputs(strategy, index) for index in range(experience.step + 1)])
        strategy.select_task(experience.step)
    return strategy, seen


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_the_methods_of_the_catalogue_are_here():
    assert {"scratch", "decoder", "piggyback", "packnet", "resblock", "classifier", "finetune", "lwf"} <= set(METHODS)
    assert {"finetune+ewc", "finetune+replay"} <= set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_fresh_runs_learn_every_task_and_repeat_bit_for_bit(method):
    first, seen = train(method)
    again, _ = train(method)
    assert [tuple(output.shape[1] for output in outputs) for outputs in seen] == [(5,), (5, 2), (5, 2, 5)]
    assert same(first.network.state_dict(), again.network.state_dict())
    other, _ = train(method, seed=1)
    assert not same(first.network.state_dict(), other.network.state_dict())


@pytest.mark.parametrize("method", METHODS)
def test_what_is_kept_is_kept_to_the_bit_and_fine_tuning_keeps_nothing(method):
    _, seen = train(method)
    kept = [torch.equal(seen[step][task], seen[task][task]) for step in range(3) for task in range(step)]
    assert all(kept) if method in KEEPING else not any(kept)


@pytest.mark.parametrize("method", METHODS)
def test_kept_weights_give_the_same_scores(method, tmp_path):
    strategy, _ = train(method)
    wanted = measure_all(strategy, 2, 4, 0, [])
    save_weights(strategy.network, RunSettings(benchmark="b", strategy="s", backbone="unet"), tmp_path, 2)
    again = made(method)
    for experience in again.scenario.train_stream:
        again.grow(experience)
    load_weights(again.network, tmp_path, 2)
    again.load_method_state(strategy.method_state())
    assert measure_all(again, 2, 4, 0, []) == wanted
    assert same(again.model_tensors(), strategy.model_tensors())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("killed_at", [(0, 1), (1, 1), (2, 1)])
@pytest.mark.parametrize("method", METHODS)
def test_killed_and_resumed_runs_end_with_the_same_weights(method, killed_at, tmp_path):
    """Killed after an epoch of a step, a new process goes on from the files alone."""
    whole, _ = train(method)
    settings = RunSettings(benchmark="b", strategy="s", backbone="unet")

    def attempt(kill):
        strategy = made(method)
        stream = strategy.scenario.train_stream
        checkpoints = Checkpoints(tmp_path, "hash")
        finished = len(list((tmp_path / "weights").glob("*")))
        go_on(
            strategy, strategy.scenario, find_point(tmp_path, checkpoints, finished, 3, lambda _: None), lambda _: None
        )

        def after_epoch():
            checkpoints.save_epoch(strategy.state())
            if kill and (strategy.step, strategy.epoch) == killed_at:
                checkpoints.close()
                raise Killed

        strategy.after_epoch = after_epoch
        for experience in list(stream)[finished:]:
            strategy.train(experience, eval_streams=[])
            measure_all(strategy, experience.step, 4, 0, [])
            save_weights(strategy.network, settings, tmp_path, experience.step)
            checkpoints.save_step(experience.step, strategy.method_state())
        return strategy

    with pytest.raises(Killed):
        attempt(kill=True)
    resumed = attempt(kill=False)
    assert same(resumed.network.state_dict(), whole.network.state_dict())
    assert [torch.equal(outputs(resumed, k), outputs(whole, k)) for k in range(3)] == [True] * 3


@pytest.mark.parametrize("method", METHODS)
def test_a_shared_first_step_is_the_one_of_fine_tuning(method):
    parsed = parse_method(method)
    if not parsed.strategy.cls.shares_first_step(parsed.strategy.values):
        pytest.skip("its first step is its own")
    states = []
    for text in (method, "finetune"):
        strategy = made(text)
        strategy.train(strategy.scenario.train_stream[0], eval_streams=[])
        states.append(copy.deepcopy(strategy.network.state_dict()))
    assert same(*states)


@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_first_step_leads_to_the_same_weights_as_ones_own(method):
    parsed = parse_method(method)
    if not parsed.strategy.cls.shares_first_step(parsed.strategy.values):
        pytest.skip("its first step is its own")
    whole, _ = train(method)
    other = made("finetune")
    other.train(other.scenario.train_stream[0], eval_streams=[])
    strategy = made(method)
    first, *later = strategy.scenario.train_stream
    strategy.grow(first)
    strategy.network.load_state_dict(other.network.state_dict())
    strategy.finish_step(first)
    for experience in later:
        strategy.train(experience, eval_streams=[])
    assert same(strategy.network.state_dict(), whole.network.state_dict())


SEVERAL = [method for method in METHODS if not any(part.stock for part in parse_method(method).plugins)]


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory):
    """Every method trained on the sequence by two processes, then by one: the folder with what they saw."""
    return trained_by_two(tmp_path_factory.mktemp("two-tasks"), "tasks", SEVERAL)


@pytest.mark.parametrize("method", SEVERAL)
def test_two_processes_end_with_the_same_weights_and_scores(method, two_processes):
    one, *both = seen_by(two_processes, method)
    agree(one, both)
