"""Piggyback's masks: eq. 4-7 by hand, what is masked and frozen, initialisation, switching, state dicts, copies."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from densecl.errors import SettingError, UnknownNameError
from densecl.masking.binary import (
    MaskedWeight,
    MaskSettings,
    add_masks,
    begin,
    finish,
    masks,
    score_parameters,
    select,
    tasks,
)
from densecl.masking.parametrized import maskable, views
from densecl.models import Network, UNet

torch.set_num_threads(1)


def network(seed=0, width=4, **kwargs):
    torch.manual_seed(seed)
    net = Network(UNet(width, 2, **kwargs))
    net.grow(3)
    return net


def masked(*names, seed=0, **settings):
    net = network(seed)
    add_masks(net)
    for k, name in enumerate(names):
        begin(net, name, MaskSettings(**{"init": "random", **settings}), seed=k)
        finish(net, name)
    return net


def image():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(9))


@torch.no_grad()
def logits(net):
    return net.eval()(image()).logits.clone()


def layer(scores, weight, ternary=False, scale=False):
    linear = nn.Linear(*reversed(weight.shape), bias=False).double()
    linear.weight.data = torch.tensor(weight)
    add_masks(linear, skip=())
    begin(linear, "t", MaskSettings("ternary" if ternary else "binary", scale_gradients=scale))
    score_parameters(linear)[0].data = torch.tensor(scores)
    return linear


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("ternary", [False, True])
def test_the_straight_through_gradient_is_that_of_equations_5_to_7(ternary, scale):
    # E = 1/2 |y - t|^2 with y = (W * m) x, so dy = y - t and dm = (dy x^T) * W: in NumPy, without autograd.
    rng = np.random.default_rng(0)
    weight, x, t = rng.normal(size=(4, 5)), rng.normal(size=(7, 5)), rng.normal(size=(7, 4))
    scores = rng.uniform(-0.01, 0.01, (4, 5))
    scores[0, :2] = 0.005, -0.005  # exactly at the cut-offs
    m = (scores >= 0.005).astype(float) - (scores <= -0.005) * ternary
    assert m[0, 0] == 1
    assert m[0, 1] == (-1 if ternary else 0)
    dy = x @ (weight * m).T - t
    expected = dy.T @ x * weight / (np.abs(weight).mean() if scale else 1)

    linear = layer(scores, weight, ternary, scale)
    y = linear(torch.tensor(x))
    (0.5 * (y - torch.tensor(t)) ** 2).sum().backward()
    np.testing.assert_allclose(y.detach().numpy() - t, dy, rtol=1e-12)
    np.testing.assert_allclose(score_parameters(linear)[0].grad.numpy(), expected, rtol=1e-12)
    assert linear.parametrizations.weight.original.grad is None


def test_a_weight_that_is_trained_too_gets_the_gradient_under_the_mask():
    rng = np.random.default_rng(1)
    weight, x, scores = rng.normal(size=(3, 4)), rng.normal(size=(6, 4)), rng.uniform(0, 0.01, (3, 4))
    linear = layer(scores, weight)
    original = linear.parametrizations.weight.original.requires_grad_(True)
    linear(torch.tensor(x)).sum().backward()
    np.testing.assert_allclose(original.grad.numpy(), np.ones((6, 3)).T @ x * (scores >= 0.005), rtol=1e-12)


def test_weights_of_zero_never_learn_a_mask():
    linear = layer(np.full((2, 2), 0.01), np.array([[0.0, 1.0], [2.0, 0.0]]))
    linear(torch.ones(1, 2).double()).sum().backward()
    assert (score_parameters(linear)[0].grad == torch.tensor([[0.0, 1.0], [2.0, 0.0]])).all()


def test_every_convolution_and_linear_weight_but_the_last_layer_is_masked():
    net = network()
    layers = maskable(net)
    expected = {n.removesuffix(".weight") for n, p in net.named_parameters() if p.dim() == 4 and "heads" not in n}
    assert set(layers) == expected
    assert {type(m).__name__ for m in layers.values()} == {"Conv2d", "ConvTranspose2d"}
    assert set(maskable(net, ("heads", "backbone.merge"))) == {n for n in expected if "merge" not in n}
    mixed = nn.Sequential(nn.Conv1d(1, 1, 1), nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    assert set(maskable(mixed, ("3",))) == {"0", "1"}
    with pytest.raises(SettingError, match="no layer to mask"):
        add_masks(nn.Sequential(nn.Linear(2, 2)), skip=("0",))


def test_a_fresh_task_is_the_network_itself_with_weights_and_biases_fixed():
    net = network()
    before = logits(net)
    add_masks(net)
    assert logits(net).equal(before)
    begin(net, "t", MaskSettings())
    assert logits(net).equal(before)
    trained = {n for n, p in net.named_parameters() if p.requires_grad}
    assert all("scores:t" in n or "heads" in n or p.dim() == 1 for n, p in net.named_parameters() if n in trained)
    convolutions = [m for m in net.backbone.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert all(not m.bias.requires_grad for m in convolutions)
    assert len(score_parameters(net)) == len(convolutions)


def test_training_moves_scores_and_not_the_weights_and_keeps_its_bits():
    net = network()
    add_masks(net)
    originals = {n: w.detach().clone() for n, w, _ in views(net, MaskedWeight)}
    begin(net, "t", MaskSettings())
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(net.train()(image()).logits, torch.arange(512).view(2, 16, 16) // 128 % 3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(w.equal(originals[n]) for n, w, _ in views(net, MaskedWeight))
    hard, trained = masks(net, "t"), logits(net)
    assert 0.005 < sum(int((~m).sum()) for m in hard.values()) / sum(m.numel() for m in hard.values()) < 0.9
    finish(net, "t")
    assert logits(net).equal(trained)
    assert all(m.equal(masks(net, "t")[n]) for n, m in hard.items())
    assert score_parameters(net) == []


@pytest.mark.parametrize(("kind", "values", "bits"), [("binary", 2, 1), ("ternary", 3, 2)])
def test_random_masks_have_as_many_of_each_value_and_are_stored_in_that_many_bits(kind, values, bits):
    net = network(width=16)
    add_masks(net)
    begin(net, "t", MaskSettings(kind, "random"), seed=1)
    found = torch.cat([m.flatten().to(torch.uint8) for m in masks(net, "t").values()])
    shares = found.bincount().double() / len(found)
    assert shares[shares > 0].tolist() == pytest.approx([1 / values] * values, abs=0.01)
    before = masks(net, "t")
    finish(net, "t")
    assert all(m.equal(before[n]) for n, m in masks(net, "t").items())
    stored = sum(v.numel() for n, v in net.state_dict().items() if "mask:" in n)
    assert stored == bits * sum(-(-m.numel() // 8) for m in before.values())
    begin(net, "u", MaskSettings(kind, "random"), seed=1)
    assert all(m.equal(before[n]) for n, m in masks(net, "u").items())  # drawn from the seed alone
    begin(net, "u", MaskSettings(kind, "random"), seed=2)
    assert not all(m.equal(before[n]) for n, m in masks(net, "u").items())


def test_the_lower_cut_off_of_ternary_masks_may_be_that_of_the_authors_code():
    net = network(width=16)
    add_masks(net)
    begin(net, "t", MaskSettings("ternary", "random", negative=0.0), seed=1)
    scores = torch.cat([p.detach().flatten() for p in score_parameters(net)])
    found = torch.cat([m.flatten().to(torch.uint8) for m in masks(net, "t").values()])
    assert found.equal(torch.where(scores >= 5e-3, 1, torch.where(scores <= 0, 3, 0)).to(torch.uint8))
    shares = found.bincount().double() / len(found)
    assert shares[[0, 1, 3]].tolist() == pytest.approx([1 / 3] * 3, abs=0.01)


def test_a_ternary_network_turns_weights_round():
    net = masked("t", masks="ternary")
    select(net, "t")
    signs = {n: m.double().where(m < 2, -torch.ones(())) for n, m in masks(net, "t").items()}
    assert all((signs[n] * w).float().equal(v(w) + 0.0) for n, w, v in views(net, MaskedWeight))


def test_proportional_scores_move_alike_in_layers_of_any_magnitude():
    # One SGD step from the same gradient of the effective weight: relative change of the scores, threshold crossing.
    def crossed(factor, init):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
        with torch.no_grad():
            net[1].weight.copy_(net[0].weight * factor)
        add_masks(net, ())
        begin(net, "t", MaskSettings(init=init))
        assert all(m.all() for m in masks(net, "t").values())
        for (_, w, _), p in zip(views(net, MaskedWeight), score_parameters(net), strict=True):
            p.data -= 0.01 * torch.ones_like(w) * w  # dE/dW_eff = 1
        return [int((~m).sum()) for m in masks(net, "t").values()]

    one, other = crossed(10.0, "proportional")
    assert one == other > 0
    one, other = crossed(10.0, "constant")
    assert one < other


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"masks": "quaternary"}, "quaternary"),
        ({"init": "zero"}, "zero"),
        ({"threshold": 0.02}, "start masked"),
        ({"negative": 0.0}, "negative=0.0 with masks=binary"),
        ({"masks": "ternary", "negative": 5e-3}, "below threshold"),
    ],
)
def test_settings_that_make_no_mask_are_refused(values, message):
    with pytest.raises(SettingError, match=message):
        MaskSettings(**values)


def test_each_task_is_bit_for_bit_what_it_was_after_others_are_learnt():
    net = masked("a")
    dense, a = (select(net, None), logits(net))[1], (select(net, "a"), logits(net))[1]
    begin(net, "b", MaskSettings(init="random"), seed=5)
    for p in score_parameters(net):
        p.data.uniform_(-1, 1)
    finish(net, "b")
    b = (select(net, "b"), logits(net))[1]
    assert not a.equal(b)
    assert not a.equal(dense)
    for name, expected in (("a", a), (None, dense), ("b", b), ("a", a)):
        select(net, name)
        assert logits(net).equal(expected)
    assert tasks(net) == ["a", "b"]


def test_the_masked_weight_follows_the_weight_it_masks():
    net = masked("a")
    select(net, "a")
    before = logits(net)
    with torch.no_grad():
        for _, w, _ in views(net, MaskedWeight):
            w.mul_(2)
    assert not logits(net).equal(before)


def test_a_task_that_was_never_learnt_is_refused():
    net = masked("voc")
    with pytest.raises(UnknownNameError, match=r"unknown task 'vox'.* did you mean 'voc'"):
        select(net, "vox")
    with pytest.raises(UnknownNameError, match="known: voc"):
        masks(net, "coco")
    with pytest.raises(SettingError, match="without dots"):
        begin(net, "a.b", MaskSettings())


def test_a_copy_is_independent_and_shows_the_same():
    net = masked("a", "b")
    select(net, "a")
    before = logits(net)
    teacher = copy.deepcopy(net).eval().requires_grad_(False)
    assert logits(teacher).equal(before)
    select(net, "b")
    with torch.no_grad():
        next(net.parameters()).zero_()
    assert logits(teacher).equal(before)
    select(teacher, "b")
    begin(net, "c", MaskSettings())
    learning = copy.deepcopy(net)
    score_parameters(learning)[0].data.zero_()
    assert score_parameters(net)[0].data.min() > 0


@pytest.mark.parametrize("replayed", [("a", "b"), ("b",), ()])
def test_a_state_dict_goes_into_a_network_at_any_stage(replayed):
    net = masked("a", masks="ternary")
    begin(net, "b", MaskSettings(init="random", scale_gradients=True), seed=7)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    expected = logits(net)

    other = network(seed=3)
    add_masks(other)
    for name in replayed:
        begin(other, name, MaskSettings())
    kept = score_parameters(other)[-1:] if replayed else []
    other.load_state_dict(state)
    assert list(other.state_dict()) == list(state) or set(other.state_dict()) == set(state)
    assert all(v.equal(state[k]) for k, v in other.state_dict().items())
    assert not kept or kept[0] is score_parameters(other)[-1]  # what an optimiser holds is still there
    assert sorted(tasks(other)) == ["a", "b"]
    select(other, "b")
    assert logits(other).equal(expected)
    finish(net, "b")
    other.load_state_dict(net.state_dict())
    assert score_parameters(other) == []
    assert logits(other).equal(expected)


def test_a_state_dict_of_another_shape_is_refused():
    small, large = masked("a"), network(width=8)
    add_masks(large)
    with pytest.raises(RuntimeError, match="size mismatch"):
        large.load_state_dict(small.state_dict())


def test_what_is_kept_of_a_finished_task_is_its_bits():
    net = masked()
    before = sum(v.numel() * v.element_size() for v in net.state_dict().values())
    begin(net, "a", MaskSettings())
    finish(net, "a")
    after = sum(v.numel() * v.element_size() for v in net.state_dict().values())
    assert after - before == sum(-(-w.numel() // 8) for _, w, _ in views(net, MaskedWeight))


def test_channels_last_double_and_half_show_the_same_masks():
    net = masked("a")
    select(net, "a")
    plain = logits(net)
    torch.testing.assert_close(logits(net.to(memory_format=torch.channels_last)), plain, rtol=1e-4, atol=1e-5)
    for _, w, view in views(net.to(torch.bfloat16), MaskedWeight):
        assert view(w).dtype == torch.bfloat16
        assert ((view(w) != 0) <= view.mask("a")).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_masks_move_to_a_gpu():
    net = masked("a", "b", masks="ternary")
    bits = masks(net, "a")
    net.cuda()
    for _, _, view in views(net, MaskedWeight):
        view.active = "a"
    assert all(m.cpu().equal(bits[n]) for n, m in masks(net, "a").items())
    begin(net, "c", MaskSettings(init="random"), seed=1)
    net(image().cuda()).logits.sum().backward()
    assert score_parameters(net)[0].grad is not None
