"""Every strategy, plugin and backbone of the catalogue on a tiny stream; a method joins by being in the catalogue.

Each pair of method and backbone is trained once in a session (`conformance_runs.trained`); the rest compares with it.
"""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from conformance_runs import (
    CASES,
    CLASSES,
    NAMED,
    NETWORKS,
    NONNEGATIVE,
    OWN_BACKBONE,
    PREPARES,
    RAW,
    ROWS,
    TASKS,
    TRANSFORMERS,
    is_stock,
    made,
    outputs,
    own_backbone,
    plain,
    same,
    shares,
    trained,
)
from densecl.check.check import check_method
from densecl.check.tiny import TRAINING
from densecl.runner.checkpoint import Checkpoints, find_point, go_on, load_weights, save_weights
from densecl.runner.evaluation import evaluate
from densecl.runner.methods import parse_method
from densecl.settings.catalogue import entries
from densecl.settings.recipe import RunSettings
from two_processes import agree, seen_by, still, trained_by_two

pytestmark = pytest.mark.usefixtures("one_thread")
SETTINGS = RunSettings(benchmark="b", strategy="s", backbone="b")
KEEPING = {  # what a task learnt is kept
    *("decoder", "piggyback", "packnet", "resblock", "scratch", "classifier"),
    *("norms", "adapter", "lora", "taps", "wsn"),
}


each_method = pytest.mark.parametrize(("method", "kind"), CASES)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """Files that methods keep for other runs are kept for these tests alone."""
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def labelled(samples):
    """Pixels that are not void."""
    return sum(int((samples[i].target != 255).sum()) for i in range(len(samples)))


def test_every_backbone_and_method_is_tried():
    assert set(NETWORKS) == {entry.name for entry in entries("backbones")}
    assert {*CLASSES, *TASKS} >= set(NAMED)
    assert {"scratch", "decoder", "piggyback", "packnet", "resblock", "classifier", "finetune", "lwf"} <= set(TASKS)
    assert {"finetune+ewc", "finetune+replay"} <= set(TASKS)


@pytest.mark.parametrize("method", sorted({*NAMED, *CLASSES}))
def test_check_finds_nothing_wrong(method):
    assert check_method(method) == []


def pairs():
    """Methods of class-incremental streams and backbones: fine-tuning and MiB on all, each other on two, by turns.

    A combination of methods is its parts on the others.
    """
    for number, method in enumerate(CLASSES):
        parsed = parse_method(method)
        cls, name = parsed.strategy.cls, parsed.strategy.name
        rows = {"dkd", "nest", "star", "rcil"} & {part.name for part in parsed.parts}
        usable = [
            backbone
            for backbone in sorted(NETWORKS)
            if OWN_BACKBONE.get(name, backbone) == backbone
            and (own_backbone(method) != "vit" or backbone == "vit")
            and method in TRANSFORMERS.get(backbone, {method})
            and (not cls.maps or backbone in RAW)
            and ("nonnegative" not in cls.needs or backbone in NONNEGATIVE)
            and (not rows or backbone in ROWS)
        ]
        own = "bisenet" if "bisenet" in usable else usable[0]
        others = [backbone for backbone in usable if backbone != own]
        if method not in ("finetune", "mib") and others:
            others = [others[number % len(others)]] if method in NAMED else []
        for backbone in (own, *others):
            yield method, "classes", backbone


@pytest.mark.parametrize(("method", "kind", "backbone"), list(pairs()))
def test_every_pixel_is_counted_and_heads_grow_on_every_backbone(method, kind, backbone):
    loop, _, _, evaluations, _ = trained(method, kind, backbone)
    counts = [sum(map(sum, after[0].confusion)) for after in evaluations]
    if loop.stream.by_task:  # each image once for every step that it holds classes of
        own = [labelled(samples) for samples in loop.scenario.tests]
        assert counts == [sum(own[: k + 1]) for k in range(3)]
        assert [heads.n_outputs for heads in loop.network.heads.tasks.values()] == [3, 2, 2]
    else:
        assert set(counts) == {labelled(loop.scenario.tests[0])}
        assert loop.network.n_outputs == 5


@pytest.mark.parametrize("method", [pytest.param(m, id=f"{m}-tasks") for m in TASKS])
def test_every_task_is_learnt_and_kept_to_the_bit_or_not(method):
    logits = trained(method, "tasks").logits
    assert [tuple(output.shape[1] for output in step) for step in logits] == [(5,), (5, 2), (5, 2, 5)]
    kept = [torch.equal(logits[step][task], logits[task][task]) for step in range(3) for task in range(step)]
    assert all(kept) if parse_method(method).strategy.name in KEEPING else not any(kept)


@each_method
def test_another_seed_gives_another_network(method, kind):
    loop = made(method, kind, seed=1)
    loop.train(loop.scenario.experiences[:1])
    assert not same(trained(method, kind).first, loop.network.state_dict())


@each_method
def test_a_method_changes_the_result_at_its_defaults_and_its_memory_is_not_empty(method, kind):
    """Against fine-tuning; a plugin against its strategy."""
    parsed = parse_method(method)
    if not parsed.plugins and parsed.strategy.name in ("finetune", "joint"):
        pytest.skip("it is plain training")
    base = parsed.strategy.name if parsed.plugins else plain(method, kind)
    if base == method:
        pytest.skip("it is plain training on this stream")
    ours, other = trained(method, kind), trained(base, kind, own_backbone(method))
    assert not same(ours.last, other.last)
    for plugin in ours.loop.plugins:
        kept = plugin.stored_bytes(ours.loop.strategy) > 0 or ours.loop.needs_teacher
        assert kept is (plugin.name not in PREPARES) or ours.loop.needs_teacher
    for part in (ours.loop.strategy, *ours.loop.plugins):
        for key, value in part.state_dict().items():
            memory = [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
            assert not memory or any(map(torch.any, memory)), f"{key} is zero"


@each_method
def test_kept_weights_give_the_same_evaluations(method, kind, tmp_path):
    whole = trained(method, kind)
    last = len(whole.evaluations) - 1
    whole.loop.network.load_state_dict(whole.last)
    save_weights(whole.loop.network, SETTINGS, tmp_path, last, "hash")
    again = made(method, kind)
    for step in again.stream.steps:
        again.enter(step)
    load_weights(again.network, tmp_path, last, "hash")
    again.load_method_state(whole.loop.method_state())
    assert evaluate(again, last, 3) == whole.evaluations[-1]
    assert same(again.strategy.model_tensors(), whole.loop.strategy.model_tensors())


@each_method
def test_a_first_step_called_shared_is_plain_and_leads_on_as_ones_own(method, kind):
    if not shares(method):
        pytest.skip("its first step is its own")
    if parse_method(method).joint:
        pytest.skip("of all classes: `check` compares it with plain training on its own stream")
    whole, other = trained(method, kind), trained(plain(method, kind), kind, own_backbone(method))
    assert all(torch.equal(whole.first[key], value) for key, value in other.first.items())
    loop = made(method, kind)
    first, *later = loop.scenario.experiences
    loop.enter(first)
    loop.network.load_state_dict(other.first)
    loop.finish(first)
    loop.train(later)
    assert same(loop.network.state_dict(), whole.last)


class Killed(BaseException):
    pass


KILLS = [(0, 1), (1, 2), (2, 1)]  # step and finished epochs: within a first, after the last, within a later one


@each_method
def test_killed_and_resumed_runs_end_with_the_same_weights(method, kind, tmp_path):
    """Killed after epochs of several steps; each time a new process goes on from the files alone."""
    if is_stock(method):
        pytest.skip("has no state to resume from")
    whole = trained(method, kind)

    def attempt(kill_at):
        loop = made(method, kind)
        steps = loop.scenario.experiences
        checkpoints = Checkpoints(tmp_path, "hash")
        finished = len(list((tmp_path / "weights").glob("*")))
        point = find_point(tmp_path, checkpoints, finished, len(steps), lambda _: None)
        go_on(loop, point, lambda _: None)
        epochs = 0

        def after_epoch():
            nonlocal epochs
            epochs += 1
            checkpoints.save_epoch(loop.state())
            if (loop.step, loop.epoch) == kill_at:
                checkpoints.close()
                raise Killed

        loop.after_epoch = after_epoch
        try:
            for experience in steps[point.finished :]:
                loop.train([experience])
                loop.strategy.select_task(experience.step)
                save_weights(loop.network, SETTINGS, tmp_path, experience.step, "hash")
                checkpoints.save_step(experience.step, loop.method_state())
        except Killed:
            return loop, epochs
        assert kill_at is None, f"never came to {kill_at}"
        return loop, epochs

    lengths = [whole.loop.length(experience)[0] for experience in whole.loop.scenario.experiences]
    kills = [(step, epoch) for step, epoch in KILLS if step < len(lengths) and epoch <= lengths[step]]
    before = [sum(lengths[:step]) + epoch for step, epoch in kills]
    for kill, done, since in zip([*kills, None], [*before, sum(lengths)], [0, *before], strict=True):
        resumed, epochs = attempt(kill)
        assert epochs == done - since
    assert same(resumed.network.state_dict(), whole.last)
    for head, wanted in enumerate(whole.logits[-1] if whole.logits else ()):
        assert torch.equal(outputs(resumed, head), wanted)


def accumulates(method):
    """True if a method may learn a batch in parts."""
    parsed = parse_method(method)
    cls = parsed.strategy.cls
    in_parts = not (cls.overrides("prepare_batch") or cls.whole_batches)
    return in_parts and not (is_stock(method) or parsed.told or parsed.joint)


@pytest.mark.parametrize("method", [method for method in CLASSES if accumulates(method)])
def test_a_batch_in_parts_teaches_what_the_whole_does(method):
    """With all statistics fixed, for the first batches of the first two steps."""
    states = []
    for parts in (1, 3):
        changes = {"accumulation": parts, "iterations": 2, "optimizer": "sgd", "lr": 0.02, "weight_decay": 0.0}
        loop = made(method, "classes", training=TRAINING.model_copy(update=changes))
        still(loop)
        loop.train(loop.scenario.experiences[:2])
        states.append(loop.network.state_dict())
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=2e-5)


SEVERAL = {kind: [m for m, k in CASES if k == kind and not is_stock(m)] for kind in ("classes", "tasks")}


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory):
    """Every method trained by two processes, then by one: a function of the kind that gives the folder they wrote."""
    folders = {}

    def of(kind):
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(f"two-{kind}")  # also if it fails: it is not tried for each method
            trained_by_two(folders[kind], kind, SEVERAL[kind])
        return folders[kind]

    return of


@pytest.mark.parametrize(
    ("method", "kind"), [(method, kind) for kind, several in SEVERAL.items() for method in several]
)
def test_two_processes_end_with_the_same_weights(method, kind, two_processes):
    folder = two_processes(kind)
    one, *both = seen_by(folder, method)
    agree(one, both)
    if kind == "classes":
        first, second = (torch.load(folder / f"{method}-{name}.pt", weights_only=True) for name in ("0of1", "0of2"))
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, rtol=2e-3, atol=2e-5)
        # no pixel is counted twice or left out
        for alone, together in zip(one["counted"], both[0]["counted"], strict=True):
            assert torch.tensor(together).sum() == torch.tensor(alone).sum()
