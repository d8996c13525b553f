"""WSN's masks and gradients against NumPy; what earlier tasks have chosen never changes."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from densecl.masking import wsn
from densecl.masking.parametrized import HEADS, add_views, views
from densecl.masking.wsn import SubnetWeight, protect, subnet

torch.set_num_threads(1)


def numpy_mask(scores, sparsity):
    """Sorted by hand: all that are at least the k-th smallest."""
    size = np.abs(scores)
    cut = np.sort(size, axis=None)[round(sparsity * (size.size - 1))]
    return (size >= cut).astype(float)


def network(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential()
    net.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1))
    net.heads = nn.Conv2d(6, 2, 1)
    return net


def image():
    return torch.randn(2, 3, 9, 12, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def output(net):
    return net(image()).clone()


def learn(net, task, sparsity=0.5, iterations=3):
    """Begin a task and train it for a few iterations, on a target of its own; the weights after it."""
    wsn.begin(net, task, sparsity=sparsity, seed=1)
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=0.05, weight_decay=0)
    target = torch.randn(2, 2, 5, 6, generator=torch.Generator().manual_seed(len(task)))
    for _ in range(iterations):
        optimizer.zero_grad()
        (net(image()) - target).square().mean().backward()
        optimizer.step()
    wsn.finish(net, task)


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("shape", [(3, 5), (4, 2, 3, 3), (1, 1)])
def test_the_mask_and_its_gradient_are_those_of_numpy(shape, sparsity):
    rng = np.random.default_rng(0)
    scores, up = rng.normal(size=shape), rng.normal(size=shape)
    given = torch.tensor(scores, requires_grad=True)
    mask = subnet(given, sparsity=sparsity)
    np.testing.assert_array_equal(mask.detach().numpy(), numpy_mask(scores, sparsity))
    mask.backward(torch.tensor(up))
    np.testing.assert_allclose(given.grad.numpy(), up * np.sign(scores), rtol=1e-15)


def test_half_to_even_equal_sizes_and_half_precision():
    # 0.5 * (4 - 1) = 1.5 -> 2: the third smallest is the cut; 0.5 * (2 - 1) = 0.5 -> 0: all stay
    assert subnet(torch.tensor([1.0, -2.0, 3.0, -4.0]), sparsity=0.5).tolist() == [0, 0, 1, 1]
    assert subnet(torch.tensor([1.0, -2.0]), sparsity=0.5).tolist() == [1, 1]
    equal = torch.ones(5, dtype=torch.bfloat16)
    mask = subnet(equal, sparsity=0.9)
    assert mask.dtype == torch.float32
    assert mask.tolist() == [1] * 5
    assert equal.equal(torch.ones(5, dtype=torch.bfloat16))


def test_a_protected_gradient_is_zero_where_a_weight_is_taken_even_if_it_is_not_finite():
    gradient = torch.tensor([1.0, float("inf"), float("nan"), 4.0])
    taken = torch.tensor([False, True, True, False])
    assert protect(gradient, taken).tolist() == [1, 0, 0, 4]
    assert protect(gradient, taken.float()).tolist() == [1, 0, 0, 4]
    assert gradient[1].isinf()


def test_gradients_of_a_layer_are_those_of_the_paper_and_zero_where_an_earlier_task_has_the_weight():
    # E = sum(up * (W m) x): dE/dW_eff = up^T x, in NumPy
    rng = np.random.default_rng(1)
    weight, x, up, scores = (rng.normal(size=shape) for shape in ((4, 5), (7, 5), (7, 4), (4, 5)))
    linear = nn.Linear(5, 4, bias=False).double()
    linear.weight.data = torch.tensor(weight)
    add_views(linear, SubnetWeight, (), "mask")
    wsn.begin(linear, "a", sparsity=0.7, seed=0)
    [(_, original, view)] = views(linear, SubnetWeight)
    taken = numpy_mask(view.scores.detach().numpy(), 0.7)
    wsn.finish(linear, "a")
    wsn.begin(linear, "b", sparsity=0.4, seed=0)
    view.scores.data = torch.tensor(scores)
    (linear(torch.tensor(x)) * torch.tensor(up)).sum().backward()
    of_effective, mask = up.T @ x, numpy_mask(scores, 0.4)
    assert 0 < (mask * taken).sum() < taken.sum()
    np.testing.assert_allclose(original.grad.numpy(), of_effective * mask * (1 - taken), rtol=1e-12)
    np.testing.assert_allclose(view.scores.grad.numpy(), of_effective * weight * np.sign(scores), rtol=1e-12)


def test_outputs_of_earlier_tasks_stay_what_they_were_to_the_bit():
    net = network()
    add_views(net, SubnetWeight, HEADS, "mask")
    after = {}
    for task in ("a", "bb", "ccc"):
        learn(net, task, sparsity=0.6)
        net.heads.requires_grad_(False)
        for earlier in (*after, task):
            wsn.select(net, earlier)
            now = output(net)
            assert now.equal(after.setdefault(earlier, now))
    masks = [wsn.masks(net, task) for task in after]
    assert [round(float(torch.cat([m.flatten() for m in mask.values()]).double().mean()), 2) for mask in masks] == [
        0.4
    ] * 3
    assert not all(masks[0][name].equal(masks[1][name]) for name in masks[0])
    shared = sum(int((masks[0][name] & masks[1][name]).sum()) for name in masks[0])
    assert shared > 0
    assert [net.body[k].bias.requires_grad for k in (0, 2)] == [False, False]


def test_scores_are_drawn_once_and_kept_from_task_to_task():
    net = network()
    add_views(net, SubnetWeight, HEADS, "mask")
    wsn.begin(net, "a", sparsity=0.5, seed=1)
    drawn = [view.scores.detach().clone() for _, _, view in views(net, SubnetWeight)]
    bound = (3 * 9) ** -0.5  # Kaiming's with a = sqrt(5): 1 / sqrt(inputs * kernel)
    assert drawn[0].abs().max() <= bound
    assert drawn[0].abs().max() > 0.9 * bound
    wsn.finish(net, "a")
    wsn.begin(net, "b", sparsity=0.5, seed=2)
    assert all(view.scores.equal(old) for (_, _, view), old in zip(views(net, SubnetWeight), drawn, strict=True))


def test_a_noted_mask_comes_before_that_of_the_final_scores():
    net = network()
    add_views(net, SubnetWeight, HEADS, "mask")
    wsn.begin(net, "a", sparsity=0.5, seed=1)
    wsn.note(net)
    noted = [wsn.chosen(view.scores, 0.5) for _, _, view in views(net, SubnetWeight)]
    for _, _, view in views(net, SubnetWeight):
        view.scores.data = 1 / view.scores.data
    wsn.finish(net, "a")
    assert all(wsn.masks(net, "a")[n].equal(m) for (n, _, _), m in zip(views(net, SubnetWeight), noted, strict=True))
    assert not any("last" in name for name in net.state_dict())


def test_a_state_dict_carries_masks_and_scores_and_a_copy_goes_on_alike():
    net = network()
    add_views(net, SubnetWeight, HEADS, "mask")
    learn(net, "a")
    learn(net, "bb")
    other = network(seed=3)
    add_views(other, SubnetWeight, HEADS, "mask")
    for task in ("a", "bb"):
        wsn.begin(other, task, sparsity=0.5, seed=9)
        wsn.finish(other, task)
    other.load_state_dict(net.state_dict())
    for twin in (other, copy.deepcopy(net)):
        for task in ("a", "bb", None):
            wsn.select(net, task)
            wsn.select(twin, task)
            assert output(twin).equal(output(net))
        whole = copy.deepcopy(net)
        learn(whole, "ccc")
        learn(twin, "ccc")
        assert output(twin).equal(output(whole))
