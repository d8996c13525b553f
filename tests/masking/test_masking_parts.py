"""Parts of a network by task: BatchNorm, decoders, blocks come back bit for bit, whatever happened since."""

import copy

import pytest
import torch
from torch import nn

from densecl.errors import SettingError, UnknownNameError
from densecl.masking import parts
from densecl.masking.parts import fix_norm, norm_layers
from densecl.models import BiSeNet, Network, ResBlockNet, UNet

torch.set_num_threads(1)


def network(backbone=None, seed=0):
    torch.manual_seed(seed)
    net = Network(backbone or UNet(4, 2))
    net.grow(3)
    return net


def image():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(9))


@torch.no_grad()
def features(net):
    training = net.training
    result = net.eval()(image()).decoded.clone()
    net.train(training)
    return result


def train(net, names, scale):
    """A step of an optimiser on the parts alone, and one update of their running statistics."""
    fix_norm(net.train(), skip=names)
    net.requires_grad_(False)
    trained = [p.requires_grad_() for name in names for p in net.get_submodule(name).parameters()]
    optimizer = torch.optim.AdamW(trained, lr=0.05, weight_decay=0.1)
    (net(image() * scale).decoded ** 2).mean().backward()
    optimizer.step()


KINDS = {
    "norm": (lambda: UNet(4, 2), lambda net: norm_layers(net)),
    "decoder": (lambda: UNet(4, 2), lambda net: [f"backbone.{n}" for n in net.backbone.decoder_parts]),
    "bisenet": (
        lambda: BiSeNet("mini", width=8, spatial=(8, 8), context_width=8, auxiliary=False),
        lambda net: [f"backbone.{n}" for n in net.backbone.decoder_parts],
    ),
    "blocks": (lambda: ResBlockNet(4, 2, norm="batch"), lambda net: ["backbone.blocks"]),
    "network": (lambda: UNet(4, 2), lambda net: ["backbone"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_task_comes_back_bit_for_bit(kind):
    build, choose = KINDS[kind]
    net = network(build())
    names = choose(net)
    parts.add_parts(net, names)
    seen = {}
    for k, task in enumerate(("a", "b", "c")):
        parts.begin(net, task)
        for _ in range(2):
            train(net, names, k + 1.0)
        seen[task] = features(net)
        parts.finish(net, task)
    assert not seen["a"].equal(seen["b"])
    for task in ("a", "c", "b", "a"):
        parts.select(net, task)
        assert features(net).equal(seen[task])
        train(net, names, 9.0)  # what happens to the network afterwards is not kept
    bank = parts.parts(net)
    stored = {name.removeprefix("a:"): tensor.shape for name, tensor in bank.named_buffers() if name.startswith("a:")}
    assert stored == {path: tensor.shape for path, tensor in bank.live(net).items()}


def test_norm_layers_are_those_with_something_to_keep():
    names = norm_layers(network())
    assert len(names) == 10
    assert {type(network().get_submodule(n)) for n in names} == {nn.BatchNorm2d}
    assert norm_layers(network(UNet(4, 2, norm="instance"))) == []
    assert all("merge" in n for n in norm_layers(network(UNet(4, 2, norm="instance", decoder_norm="batch"))))


def test_fixed_normalisation_neither_learns_nor_counts():
    net = network().train()
    fix_norm(net)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net(image()).logits.sum().backward()
    names = norm_layers(net)
    layers = [net.get_submodule(n) for n in names]
    assert all(layer.weight.grad is None and not layer.training for layer in layers)
    assert all(v.equal(before[k]) for k, v in net.state_dict().items())
    fix_norm(net.train(), skip=["backbone.merge"])
    assert [n for n in names if net.get_submodule(n).training] == [n for n in names if "merge" in n]


def test_a_task_may_start_from_another():
    net = network()
    parts.add_parts(net, norm_layers(net))
    parts.begin(net, "a")
    train(net, norm_layers(net), 1.0)
    parts.finish(net, "a")
    a = features(net)
    parts.begin(net, "b")
    train(net, norm_layers(net), 5.0)
    parts.finish(net, "b")
    parts.begin(net, "c", start="a")
    assert features(net).equal(a)


def test_what_is_being_learnt_is_kept_aside_when_another_task_is_looked_at():
    net = network()
    names = norm_layers(net)
    parts.add_parts(net, names)
    parts.begin(net, "a")
    train(net, names, 1.0)
    parts.finish(net, "a")
    parts.begin(net, "b")
    train(net, names, 5.0)
    b = features(net)
    parts.select(net, "a")
    parts.select(net, "b")
    assert features(net).equal(b)
    train(net, names, 7.0)
    later = features(net)
    parts.select(net, "a")
    parts.finish(net, "b")
    parts.select(net, "b")
    assert features(net).equal(later)


def test_state_dicts_and_copies_hold_all_tasks():
    net = network()
    names = norm_layers(net)
    parts.add_parts(net, names)
    seen = {}
    for k, task in enumerate(("a", "b")):
        parts.begin(net, task)
        train(net, names, k + 1.0)
        seen[task] = features(net)
        parts.finish(net, task)
    other = network(seed=4)
    parts.add_parts(other, names)
    parts.begin(other, "z")
    other.load_state_dict(net.state_dict())
    other.load_state_dict(net.state_dict())
    for one in (other, copy.deepcopy(net)):
        assert parts.parts(one).tasks == ["a", "b"]
        for task, expected in seen.items():
            parts.select(one, task)
            assert features(one).equal(expected)
    assert len(list(net.parameters())) == len(list(network().parameters()))  # kept values are no parameters


def test_unknown_tasks_and_wrong_calls_are_refused():
    net = network()
    with pytest.raises(SettingError, match="call add_parts first"):
        parts.begin(net, "a")
    with pytest.raises(SettingError, match="no such parts"):
        parts.add_parts(net, [])
    parts.add_parts(net, norm_layers(net))
    with pytest.raises(SettingError, match="already"):
        parts.add_parts(net, norm_layers(net))
    with pytest.raises(SettingError, match="without colons"):
        parts.begin(net, "a:b")
    parts.begin(net, "voc")
    with pytest.raises(UnknownNameError, match="not being learnt"):
        parts.finish(net, "coco")
    parts.finish(net, "voc")
    with pytest.raises(UnknownNameError, match="did you mean 'voc'"):
        parts.select(net, "vox")
