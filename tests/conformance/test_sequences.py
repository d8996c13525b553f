"""Every method that can learn a sequence of tasks, on a tiny one; joins by being in the catalogue."""

import copy

import pytest
import torch

from densecl.check.tiny import tiny_backbone, tiny_loop, tiny_network, tiny_sequence
from densecl.runner.checkpoint import load_weights, save_weights
from densecl.runner.evaluation import evaluate
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
    return tiny_loop(method, tiny_sequence(), network, seed=seed)


@torch.no_grad()
def outputs(loop, index):
    """What the network gives for a task's test images."""
    scenario = loop.scenario
    loop.strategy.select_task(index)
    images = torch.stack([scenario.tests[index][i].image for i in range(4)])
    image = scenario.stream.tasks[index].prepare(images, images[:, 0]).image
    return loop.network.eval()(normalise(image, *loop.normalisation)).logits.clone()


def train(text, seed=0):
    """The loop after all tasks, and each task's outputs after each step."""
    loop, seen = made(text, seed), []
    for experience in loop.scenario.experiences:
        loop.train([experience])
        seen.append([outputs(loop, index) for index in range(experience.step + 1)])
        loop.strategy.select_task(experience.step)
    return loop, seen


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
    loop, _ = train(method)
    wanted = evaluate(loop, 2, 4)
    save_weights(loop.network, RunSettings(benchmark="b", strategy="s", backbone="unet"), tmp_path, 2)
    again = made(method)
    for experience in again.scenario.experiences:
        again.enter(experience)
    load_weights(again.network, tmp_path, 2)
    again.load_method_state(loop.method_state())
    assert evaluate(again, 2, 4) == wanted
    assert same(again.model_tensors(), loop.strategy.model_tensors())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("killed_at", [(0, 1), (1, 1), (2, 1)])
@pytest.mark.parametrize("method", METHODS)
def test_killed_and_resumed_runs_end_with_the_same_weights(method, killed_at, tmp_path):
    """Killed after an epoch of a step, a new process goes on from the files alone."""
    whole, _ = train(method)
    settings = RunSettings(benchmark="b", strategy="s", backbone="unet")

    def attempt(kill):
        loop = made(method)
        stream = loop.scenario.experiences
        checkpoints = Checkpoints(tmp_path, "hash")
        finished = len(list((tmp_path / "weights").glob("*")))
        go_on(loop, loop.scenario, find_point(tmp_path, checkpoints, finished, 3, lambda _: None), lambda _: None)

        def after_epoch():
            checkpoints.save_epoch(loop.state())
            if kill and (loop.step, loop.epoch) == killed_at:
                checkpoints.close()
                raise Killed

        loop.after_epoch = after_epoch
        for experience in list(stream)[finished:]:
            loop.train([experience])
            evaluate(loop, experience.step, 4)
            save_weights(loop.network, settings, tmp_path, experience.step)
            checkpoints.save_step(experience.step, loop.method_state())
        return loop

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
        loop = made(text)
        loop.train([loop.scenario.experiences[0]])
        states.append(copy.deepcopy(loop.network.state_dict()))
    assert same(*states)


@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_first_step_leads_to_the_same_weights_as_ones_own(method):
    parsed = parse_method(method)
    if not parsed.strategy.cls.shares_first_step(parsed.strategy.values):
        pytest.skip("its first step is its own")
    whole, _ = train(method)
    other = made("finetune")
    other.train([other.scenario.experiences[0]])
    loop = made(method)
    first, *later = loop.scenario.experiences
    loop.enter(first)
    loop.network.load_state_dict(other.network.state_dict())
    loop.finish(first)
    for experience in later:
        loop.train([experience])
    assert same(loop.network.state_dict(), whole.network.state_dict())


SEVERAL = [method for method in METHODS if not any(part.stock for part in parse_method(method).plugins)]


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory):
    """Every method trained on the sequence by two processes, then by one: the folder with what they saw."""
    return trained_by_two(tmp_path_factory.mktemp("two-tasks"), "tasks", SEVERAL)


@pytest.mark.parametrize("method", SEVERAL)
def test_two_processes_end_with_the_same_weights_and_scores(method, two_processes):
    one, *both = seen_by(two_processes, method)
    agree(one, both)
