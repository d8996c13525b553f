"""What tasks add to fixed weights: low rank, 1x1 kernels, TAPS's residuals; against convolutions and NumPy."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densecl.masking import added, taps
from densecl.masking.added import LowRank, Pointwise, is_3x3
from densecl.masking.parametrized import HEADS, add_views, views
from densecl.masking.taps import Residual, effective, penalty

torch.set_num_threads(1)
KINDS = {
    "low rank": (LowRank, added.low_rank_start(2, 1), {"scale": 3.0}),
    "1x1": (Pointwise, added.point_start, {}),
    "residual": (Residual, taps.start(0.15), {"threshold": 0.1}),
}
each = pytest.mark.parametrize("name", KINDS)


def network(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential()
    net.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=2))
    net.heads = nn.Conv2d(6, 2, 1)
    return net


def begun(name, *tasks, net=None, fill=True):
    """A network whose tasks have added something."""
    kind, start, values = KINDS[name]
    net = net or network()
    add_views(net, kind, HEADS, "adapt")
    for k, task in enumerate(tasks):
        added.begin(net, kind, task, start, **values)
        for j, parameter in enumerate(added.parameters(net, kind, task) if fill else ()):
            if parameter.ndim:
                parameter.data = draw(*parameter.shape, seed=10 * k + j)
        taps.finish(net, task) if kind is Residual else added.finish(net, kind, task)
    return net


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def image():
    return draw(2, 3, 9, 12, seed=5)


@torch.no_grad()
def output(net):
    return net(image()).clone()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layer", ["conv", "transposed", "linear"])
def test_low_rank_is_a_convolution_to_few_channels_and_a_1x1_behind_it(layer, stride):
    torch.manual_seed(0)
    made = {
        "conv": nn.Conv2d(4, 5, 3, stride, padding=2, dilation=2),
        "transposed": nn.ConvTranspose2d(4, 5, 2, stride),
        "linear": nn.Linear(4, 5),
    }[layer].double()
    x = draw(2, 4, 8, 10).double() if layer != "linear" else draw(7, 4).double()
    before = made(x).detach()
    add_views(made, LowRank, (), "adapt")
    added.begin(made, LowRank, "t", added.low_rank_start(2, 3), scale=0.5)
    down, up = added.parameters(made, LowRank, "t")
    up.data = draw(*up.shape, seed=8).double()
    if layer == "conv":
        inner = F.conv2d(x, down.view(2, 4, 3, 3), None, stride, 2, 2)
        extra = F.conv2d(inner, up.view(5, 2, 1, 1))
    elif layer == "transposed":  # the factors change places: a 1x1 convolution first
        inner = F.conv2d(x, up.t().reshape(2, 4, 1, 1))
        extra = F.conv_transpose2d(inner, down.view(2, 5, 2, 2), None, stride)
    else:
        extra = x @ down.t() @ up.t()
    torch.testing.assert_close(made(x), before + 0.5 * extra, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_a_1x1_kernel_at_the_centre_is_a_1x1_convolution_beside_the_3x3_one(stride, dilation, groups):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, stride, dilation, dilation, groups).double()
    x = draw(2, 4, 7, 9).double()
    before = layer(x).detach()
    add_views(layer, Pointwise, (), "adapt")
    added.begin(layer, Pointwise, "t", added.point_start)
    [point] = added.parameters(layer, Pointwise, "t")
    point.data = draw(*point.shape).double()
    beside = F.conv2d(x, point, None, stride, groups=groups)
    torch.testing.assert_close(layer(x), before + beside, rtol=1e-12, atol=1e-12)


def test_3x3_convolutions_alone_are_found():
    layers = [nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, (3, 1)), nn.ConvTranspose2d(1, 1, 3)]
    assert list(map(is_3x3, layers)) == [True, False, False, False]


@each
def test_a_task_starts_as_the_network_itself_and_trains_its_own_tensors_alone(name):
    kind, start, values = KINDS[name]
    net = network()
    before = output(net)
    add_views(net, kind, HEADS, "adapt")
    assert output(net).equal(before)
    added.begin(net, kind, "t", start, **values)
    torch.testing.assert_close(output(net), before, rtol=0, atol=0)
    own = {id(parameter) for parameter in added.parameters(net, kind, "t")}
    trained = {id(p) for n, p in net.named_parameters() if p.requires_grad and not n.startswith("heads")}
    assert trained == own
    net(image()).square().sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in added.parameters(net, kind, "t"))


@each
def test_tasks_are_shown_to_the_bit_in_any_order_and_leave_the_weights_alone(name):
    plain = output(network())
    net = begun(name, "a", "b")
    kind, shown = KINDS[name][0], {}
    for task in ("a", "b", None):
        added.select(net, kind, task)
        shown[task] = output(net)
    assert shown[None].equal(plain)
    assert not shown["a"].equal(shown["b"])
    assert not shown["a"].equal(plain)
    for task in ("b", None, "a", "a", "b"):
        added.select(net, kind, task)
        assert output(net).equal(shown[task])


@each
def test_the_sum_is_computed_once_and_again_where_something_changed(name, monkeypatch):
    net = begun(name, "a")
    kind = KINDS[name][0]
    calls = []
    combined = kind.combined
    monkeypatch.setattr(kind, "combined", lambda *args, **tensors: calls.append(1) or combined(*args, **tensors))
    output(net)
    count = len(calls)
    first = output(net)
    assert len(calls) == count
    added.parameters(net, kind, "a")[0].data.mul_(2)
    added.parameters(net, kind, "a")[0].data = added.parameters(net, kind, "a")[0].data.clone()
    assert not output(net).equal(first)


@each
def test_a_state_dict_carries_all_tasks_into_another_network_and_a_copy_is_alike(name):
    net = begun(name, "a", "b")
    kind, start, values = KINDS[name]
    other = begun(name, "b", "c", net=network(seed=4))
    added.begin(other, kind, "a", start, **values)
    other.load_state_dict(net.state_dict())
    assert set(other.state_dict()) == set(net.state_dict())
    for task in ("a", "b", None):
        added.select(net, kind, task)
        for twin in (other, copy.deepcopy(net)):
            added.select(twin, kind, task)
            assert output(twin).equal(output(net))


# ---- TAPS


def numpy_gate(weight, residual, score, threshold):
    return weight + (residual if score >= threshold else 0 * residual)


@pytest.mark.parametrize("score", [0.0999, 0.1, 0.3, -1.0])
def test_the_effective_weight_and_its_straight_through_gradients_are_those_of_the_paper(score):
    rng = np.random.default_rng(0)
    weight, residual, up = rng.normal(size=(3, 4, 5))
    parts = [torch.tensor(value, requires_grad=True) for value in (weight, residual, np.array(score))]
    result = effective(*parts, threshold=0.1)
    np.testing.assert_allclose(result.detach().numpy(), numpy_gate(weight, residual, score, 0.1), rtol=1e-15)
    result.backward(torch.tensor(up))
    on = float(score >= 0.1)
    for part, wanted in zip(parts, (up, on * up, (up * residual).sum()), strict=True):
        np.testing.assert_allclose(part.grad.numpy(), wanted, rtol=1e-12)


def test_half_precision_is_widened_and_arguments_are_left_alone():
    weight, residual, score = (draw(3, 4).bfloat16(), draw(3, 4, seed=1).bfloat16(), torch.tensor(0.5))
    kept = [tensor.clone() for tensor in (weight, residual, score)]
    assert effective(weight, residual, score).equal(weight.float() + residual.float())
    assert all(tensor.equal(before) for tensor, before in zip((weight, residual, score), kept, strict=True))


def test_the_penalty_is_the_mean_size_of_scores_and_pulls_each_alike():
    values = torch.tensor([0.3, -0.2, 0.0, 0.4], dtype=torch.float64, requires_grad=True)
    loss = penalty(values, weight=2.0)
    assert loss.item() == pytest.approx(2 * (0.3 + 0.2 + 0.4) / 4)
    loss.backward()
    np.testing.assert_allclose(values.grad.numpy(), [0.5, -0.5, 0, 0.5])
    assert penalty(list(values.detach())).item() == pytest.approx(0.9 / 4)
    assert penalty([]).item() == 0


def test_layers_below_the_threshold_are_the_first_network_and_are_not_kept():
    net = network()
    before = output(net)
    add_views(net, Residual, HEADS, "adapt")
    added.begin(net, Residual, "t", taps.start(0.15), threshold=0.1)
    for parameter in added.parameters(net, Residual, "t"):
        if parameter.ndim:
            parameter.data.normal_()
    assert not output(net).equal(before)
    first, second = taps.scores(net, "t")
    first.data.fill_(0.05)
    second.data.fill_(0.1)
    chosen = output(net)
    taps.finish(net, "t")
    assert output(net).equal(chosen)
    assert [list(view.of("t")) for _, _, view in views(net, Residual)] == [[], ["residual"]]
    assert taps.scores(net, "t") == []
