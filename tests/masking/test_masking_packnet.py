"""PackNet: who owns what, what an optimiser can move, each task's network bit for bit."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from densecl.errors import SettingError, UnknownNameError
from densecl.masking.packnet import OwnedWeight, add_owners, begin, finish, owners, prune, select, smallest
from densecl.masking.parametrized import views
from densecl.models import Network, UNet

torch.set_num_threads(1)


def network(width=4):
    torch.manual_seed(0)
    net = Network(UNet(width, 2, norm="instance"))
    net.grow(3)
    add_owners(net)
    return net


def image():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(9))


@torch.no_grad()
def features(net):
    return net.eval()(image()).decoded.clone()


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.5, fused=True),
}


def train(net, optimiser="adamw", steps=4, optimizer=None):
    optimizer = optimizer or OPTIMISERS[optimiser]([p for p in net.parameters() if p.requires_grad])
    target = torch.arange(512).view(2, 16, 16) // 128 % 3
    for _ in range(steps):
        loss = nn.functional.cross_entropy(net.train()(image()).logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return optimizer


def learn(net, share, optimiser="adamw"):
    begin(net)
    optimizer = train(net, optimiser)
    if share:
        prune(net, share)
        train(net, optimiser, optimizer=optimizer)  # with the momentum it has
    finish(net)


def test_the_smallest_share_is_taken_among_some():
    rng = np.random.default_rng(0)
    magnitude, among = rng.random((7, 9)), rng.random((7, 9)) > 0.4
    chosen = smallest(torch.tensor(magnitude), torch.tensor(among), 0.3).numpy()
    candidates = np.sort(magnitude[among])
    count = round(0.3 * len(candidates))
    assert chosen.sum() == count
    assert set(magnitude[chosen]) == set(candidates[:count])
    assert not (chosen & ~among).any()
    equal = smallest(torch.ones(10), torch.ones(10, dtype=torch.bool), 0.5)
    assert equal.tolist() == [True] * 5 + [False] * 5
    assert smallest(torch.ones(3), torch.ones(3, dtype=torch.bool), 0.0).sum() == 0


def test_each_task_keeps_its_share_of_what_was_free_in_every_layer():
    net = network()
    learn(net, 0.5)
    learn(net, 0.75)
    learn(net, 0.0)
    for map_ in owners(net).values():
        n = map_.numel()
        first = n - round(0.5 * n)
        free = n - first
        second = free - round(0.75 * free)
        assert map_.flatten().bincount(minlength=4).tolist() == [0, first, second, free - second]
    with pytest.raises(SettingError, match="no weight is left"):
        begin(net)


def test_the_smallest_weights_of_the_task_are_given_up():
    net = network()
    learn(net, 0.5)
    begin(net)
    train(net)
    free = {n: view.trainable().clone() for n, _, view in views(net, OwnedWeight)}
    magnitude = {n: w.detach().abs().clone() for n, w, _ in views(net, OwnedWeight)}
    prune(net, 0.75)
    for name, map_ in owners(net).items():
        kept, given_up = magnitude[name][map_ == 2], magnitude[name][free[name] & (map_ == 0)]
        assert kept.min() >= given_up.max()


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_weights_of_earlier_tasks_are_not_moved_by_decay_or_momentum(optimiser):
    net = network()
    learn(net, 0.5, optimiser)
    first = {n: w.detach().clone() for n, w, _ in views(net, OwnedWeight)}
    select(net, 1)
    before = features(net)
    biases = {n: p.detach().clone() for n, p in net.backbone.named_parameters() if n.endswith("bias")}
    begin(net)
    optimizer = train(net, optimiser)
    moved = [w.detach() for _, w, _ in views(net, OwnedWeight)]
    assert any(not m.equal(f) for m, f in zip(moved, first.values(), strict=True))  # the optimiser did move them ...
    for name, weight, view in views(net, OwnedWeight):  # ... but it never shows
        own = view.owners() == 1
        assert view(weight)[own].equal(first[name][own])
    prune(net, 0.75)
    train(net, optimiser, optimizer=optimizer)
    finish(net)
    for name, weight, view in views(net, OwnedWeight):
        own = view.owners() == 1
        assert weight[own].equal(first[name][own])
        assert not weight[view.owners() == 2].equal(first[name][view.owners() == 2])
        assert weight[view.owners() == 0].abs().sum() == 0
    assert all(p.equal(biases[n]) for n, p in net.backbone.named_parameters() if n.endswith("bias"))
    select(net, 1)
    assert features(net).equal(before)


def test_only_weights_of_the_task_get_a_gradient():
    net = network()
    learn(net, 0.5)
    begin(net)
    for stage, number in (("training", 0), ("retraining", 2)):
        if stage == "retraining":
            prune(net, 0.5)
        net.zero_grad()
        net(image()).logits.pow(2).sum().backward()
        for _, weight, view in views(net, OwnedWeight):
            own = view.owners() == number
            assert weight.grad[~own].abs().sum() == 0
            assert weight.grad[own].abs().sum() > 0


def test_every_task_is_bit_for_bit_what_it_was_when_finished():
    net, seen = network(), []
    for share in (0.5, 0.75, 0.0):
        learn(net, share)
        seen.append(features(net))
    for number in (2, 1, 3, 1):
        select(net, number)
        assert features(net).equal(seen[number - 1])
    assert not seen[0].equal(seen[1])
    for _, weight, view in views(net, OwnedWeight):
        select(net, 2)
        assert view(weight).equal(weight * ((view.owners() > 0) & (view.owners() <= 2)))


def test_an_earlier_task_can_be_looked_at_while_another_is_learnt():
    net = network()
    learn(net, 0.5)
    before = features(net)
    begin(net)
    train(net)
    now = features(net)
    select(net, 1)
    assert features(net).equal(before)
    select(net, 2)
    assert features(net).equal(now)


@pytest.mark.parametrize("stage", ["training", "retraining", "finished"])
def test_a_state_dict_goes_into_a_network_at_another_stage(stage):
    net = network()
    learn(net, 0.5)
    begin(net)
    train(net)
    if stage != "training":
        prune(net, 0.75)
    if stage == "finished":
        finish(net)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    for steps in (0, 1):
        other = network()
        if steps:
            begin(other)
        other.load_state_dict(state)
        assert set(other.state_dict()) == set(state)
        select(other, 2)
        assert features(other).equal(features(net))
        again = copy.deepcopy(net)
        for one in (again, other):
            for p, source in zip(one.parameters(), net.parameters(), strict=True):
                p.requires_grad_(source.requires_grad)
            if stage == "training":
                train(one)
                prune(one, 0.75)
            if stage != "finished":
                train(one)
                finish(one)
        assert all(v.equal(other.state_dict()[k]) for k, v in again.state_dict().items())


@pytest.mark.parametrize(("tasks", "bits"), [(1, 1), (2, 2), (3, 2), (4, 3), (6, 3)])
def test_maps_take_the_bits_that_the_tasks_need(tasks, bits):
    net = network()
    for _ in range(tasks):
        begin(net)
        prune(net, 0.5)
        finish(net)
    stored = sum(v.numel() for n, v in net.state_dict().items() if n.endswith(".owner"))
    assert stored == bits * sum(-(-w.numel() // 8) for _, w, _ in views(net, OwnedWeight))
    assert not any(n.endswith(".kept") for n in net.state_dict())


def test_calls_out_of_turn_are_refused():
    net = network()
    with pytest.raises(SettingError, match="no task to prune"):
        prune(net, 0.5)
    with pytest.raises(SettingError, match="no task to finish"):
        finish(net)
    begin(net)
    with pytest.raises(SettingError, match="not been finished"):
        begin(net)
    with pytest.raises(SettingError, match=r"prune=1\.0"):
        prune(net, 1.0)
    prune(net, 0.5)
    with pytest.raises(SettingError, match="pruned once"):
        prune(net, 0.5)
    finish(net)
    with pytest.raises(UnknownNameError, match="unknown task '2'"):
        select(net, 2)
