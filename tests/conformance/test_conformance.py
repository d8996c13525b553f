"""Every loop, plugin and backbone of the catalogue, on a tiny stream: joins by being in the catalogue.

Columns: fresh (trains, evaluates, grows as promised), weights kept and loaded give the same predictions, killed and
resumed, shared first step, two processes. Those of task sequences are in `test_sequences.py`.
"""

import copy

import pytest
import torch

from densecl.check.check import check_method
from densecl.check.tiny import tiny_loop, tiny_network, tiny_stream
from densecl.runner.checkpoint import load_weights, save_weights
from densecl.runner.evaluation import confusion
from densecl.runner.methods import parse_method
from densecl.runner.plan import make_plan
from densecl.runner.resume import Checkpoints, find_point, go_on
from densecl.settings.catalogue import backbones, entries
from two_processes import agree, seen_by, trained_by_two

pytestmark = pytest.mark.usefixtures("one_thread")

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
def _cache(tmp_path_factory, monkeypatch):
    """What methods keep for other runs is kept for these tests alone."""
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


OWN_BACKBONE = {"decoder": "unet", "resblock": "resblock"}  # of strategies that cannot use any


def made(text, backbone=None, seed=0):
    """A method on the class-incremental stream; told the step where it must be."""
    method = parse_method(text)
    backbone = backbone or OWN_BACKBONE.get(method.strategy.name, "bisenet")
    network = tiny_network(backbone, **NETWORKS[backbone])
    return tiny_loop(method, tiny_stream(method, "classes"), network, seed=seed)


def train(text, backbone=None, seed=0):
    loop, matrices = made(text, backbone, seed), []
    for experience in loop.scenario.experiences:
        loop.train([experience])
        matrices.append(confusion(loop, experience.step, 4))
    return loop, matrices


def labelled(samples):
    """Pixels that are not void."""
    return sum(int((samples[i].target != 255).sum()) for i in range(len(samples)))


def test_every_backbone_is_tried():
    assert set(NETWORKS) == set(backbones())


@pytest.mark.parametrize("method", sorted({*NAMED, *METHODS}))
def test_check_finds_nothing_wrong(method):
    assert check_method(method) == []


@pytest.mark.parametrize("backbone", backbones())
@pytest.mark.parametrize("method", METHODS)
def test_fresh_runs_count_every_pixel_and_repeat_bit_for_bit(method, backbone):
    if OWN_BACKBONE.get(parse_method(method).strategy.name, backbone) != backbone:
        pytest.skip("it needs another backbone")
    first, matrices = train(method, backbone)
    second, _ = train(method, backbone)
    if parse_method(method).told:  # each image once for every step that it holds classes of
        counts = [labelled(samples) for samples in first.scenario.tests]
        assert [matrix.sum() for matrix in matrices] == [sum(counts[: k + 1]) for k in range(3)]
        assert [heads.n_outputs for heads in first.network.heads.tasks.values()] == [3, 2, 2]
    else:
        assert all(matrix.sum() == labelled(first.scenario.tests[0]) for matrix in matrices)
        assert first.network.n_outputs == 5
    states = first.network.state_dict(), second.network.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    other, _ = train(method, backbone, seed=1)
    assert any(not torch.equal(states[0][key], value) for key, value in other.network.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_kept_weights_give_the_same_confusion_matrix(method, tmp_path):
    loop, matrices = train(method)
    settings = make_plan("shapes15-5", method).settings
    last = len(matrices) - 1
    save_weights(loop.network, settings, tmp_path, last)
    again = made(method)
    for experience in again.scenario.experiences:
        again.enter(experience)
    load_weights(again.network, tmp_path, last)
    again.load_method_state(loop.method_state())
    assert (confusion(again, last, 3) == matrices[last]).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_first_step_called_shared_is_the_one_of_fine_tuning(method):
    parsed = parse_method(method)
    if parsed.strategy.cls.first_step != "shared" or any(part.stock for part in parsed.plugins):
        pytest.skip("its first step is its own")
    states = []
    for text in (method, plain(parsed)):
        loop = made(text, OWN_BACKBONE.get(parsed.strategy.name))
        loop.train([loop.scenario.experiences[0]])
        states.append(copy.deepcopy(loop.network.state_dict()))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])


@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_first_step_leads_to_the_same_weights_as_ones_own(method):
    parsed = parse_method(method)
    classes = [parsed.strategy.cls, *(part.cls for part in parsed.plugins)]
    if any(getattr(cls, "first_step", "own") != "shared" for cls in classes):
        pytest.skip("its first step is its own")
    whole, _ = train(method)
    other = made(plain(parsed), OWN_BACKBONE.get(parsed.strategy.name))
    other.train([other.scenario.experiences[0]])
    loop = made(method)
    first, *later = loop.scenario.experiences
    loop.enter(first)
    loop.network.load_state_dict(other.network.state_dict())
    loop.finish(first)
    for experience in later:
        loop.train([experience])
    expected = whole.network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in loop.network.state_dict().items())


def plain(parsed):
    """A method whose first step is plain training, on the stream of `parsed`: of those told the step, one of them."""
    return "classifier" if parsed.told else "finetune"


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
        loop = made(method)
        scenario = loop.scenario
        checkpoints = Checkpoints(tmp_path, "hash")
        finished = len(list((tmp_path / "weights").glob("*")))
        point = find_point(tmp_path, checkpoints, finished, len(scenario.experiences), lambda _: None)
        go_on(loop, point, lambda _: None)
        trained = 0

        def after_epoch():
            nonlocal trained
            trained += 1
            checkpoints.save_epoch(loop.state())
            if kill and (loop.step, loop.epoch) == killed_at:
                checkpoints.close()
                raise Killed

        loop.after_epoch = after_epoch
        for experience in scenario.experiences[point.finished :]:
            loop.train([experience])
            save_weights(loop.network, settings, tmp_path, experience.step)
            checkpoints.save_step(experience.step, loop.method_state())
        return loop, trained

    with pytest.raises(Killed):
        attempt(kill=True)
    resumed, epochs = attempt(kill=False)
    later = list(whole.scenario.experiences)[killed_at[0] :]
    assert epochs == sum(whole.length(experience)[0] for experience in later) - killed_at[1]
    expected = whole.network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.network.state_dict().items())


SEVERAL = [method for method in METHODS if not any(part.stock for part in parse_method(method).plugins)]


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory):
    """Every method trained by two processes, then by one: the folder with what they saw."""
    return trained_by_two(tmp_path_factory.mktemp("two"), "classes", SEVERAL)


@pytest.mark.parametrize("method", SEVERAL)
def test_two_processes_end_with_the_same_weights(method, two_processes):
    one, *both = seen_by(two_processes, method)
    agree(one, both)
    first, second = (torch.load(two_processes / f"{method}-{name}.pt", weights_only=True) for name in ("0of1", "0of2"))
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=2e-3, atol=2e-5)
    # no pixel is counted twice or left out
    for alone, together in zip(one["counted"], both[0]["counted"], strict=True):
        assert torch.tensor(together).sum() == torch.tensor(alone).sum()
