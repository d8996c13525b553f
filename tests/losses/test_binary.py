"""Losses of sigmoid outputs and of exemplars against loops over pixels in NumPy, gradients against derivations."""

import numpy as np
import pytest
import torch

from densecl.losses import binary_cross_entropy, binary_distillation, cross_entropy, exemplar_cross_entropy
from numpy_parts import sigmoid

torch.set_num_threads(1)
FORMS = ("exact", "published")


def draw(*shape, seed=0, scale=3.0):
    return np.random.default_rng(seed).normal(0, scale, shape)


def softplus(z):
    return np.maximum(z, 0) + np.log1p(np.exp(-abs(z)))


def numpy_binary(z, target, first, positive, void, weight=None):
    """Value and gradient, pixel by pixel: positive t SP(-z) + (1 - t) SP(z)."""
    value, total, gradient = 0.0, 0.0, np.zeros_like(z)
    weight = np.ones(target.shape) if weight is None else np.broadcast_to(weight.T, target.T.shape).T
    counted = (target != 255) | (void == "negative")
    for place in np.ndindex(target.shape):
        if not counted[place]:
            continue
        total += weight[place]
        for k in range(z.shape[1]):
            at = (place[0], k, *place[1:])
            own = target[place] == first + k != 255
            value += weight[place] * (positive * softplus(-z[at]) if own else softplus(z[at]))
            gradient[at] = weight[place] * (-positive * sigmoid(-z[at]) if own else sigmoid(z[at]))
    return (value / total, gradient / total) if total else (0.0, gradient)


@pytest.mark.parametrize("void", ["ignored", "negative"])
@pytest.mark.parametrize(("first", "positive"), [(0, 1.0), (1, 2.0), (4, 35.0)])
@pytest.mark.parametrize("weighing", ["none", "samples", "pixels"])
def test_binary_cross_entropy_equals_numpy_in_value_and_gradient(first, positive, void, weighing):
    z, rng = draw(2, 3, 3, 5), np.random.default_rng(1)
    target = rng.choice([0, 1, 2, 4, 5, 6, 9, 255], (2, 3, 5))
    weight = {"none": None, "samples": rng.random(2), "pixels": rng.random((2, 3, 5))}[weighing]
    logits = torch.tensor(z, requires_grad=True)
    given = None if weight is None else torch.tensor(weight)
    loss = binary_cross_entropy(logits, torch.tensor(target), first=first, positive=positive, void=void, weight=given)
    value, gradient = numpy_binary(z, target, first, positive, void, weight)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(torch.autograd.grad(loss, logits)[0].numpy(), gradient, rtol=1e-11, atol=1e-15)


def test_logits_far_from_0_lose_no_digits():
    z = np.array([[[-700.0, 25.0, 700.0]]])
    for label in (0, 1):
        loss = binary_cross_entropy(torch.tensor(z), torch.full((1, 3), label))
        assert loss.item() == pytest.approx(numpy_binary(z, np.full((1, 3), label), 0, 1.0, "ignored")[0], rel=1e-13)


@pytest.mark.parametrize("void", ["ignored", "negative"])
def test_a_channel_of_void_is_never_positive(void):
    """Channel 255 exists where there are as many classes: void pixels are still no example of it."""
    logits = torch.zeros(1, 2, 1, 1, dtype=torch.float64, requires_grad=True)
    loss = binary_cross_entropy(logits, torch.full((1, 1, 1), 255), first=254, void=void)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient == (0 if void == "ignored" else 0.5)).all()


@pytest.mark.parametrize("shape", [(2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 3, 4)])
def test_no_channel_no_pixel_and_nothing_but_void_give_0_with_a_finite_gradient(shape):
    logits = torch.randn(shape, requires_grad=True)
    loss = binary_cross_entropy(logits, torch.full((shape[0], *shape[2:]), 255))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert (gradient == 0).all()


def test_one_pixel_of_one_class_is_the_plain_formula():
    logits = torch.tensor([[[[0.3]]]], dtype=torch.float64)
    assert binary_cross_entropy(logits, torch.tensor([[[0]]])).item() == pytest.approx(softplus(-0.3), rel=1e-14)
    assert binary_cross_entropy(logits, torch.tensor([[[7]]])).item() == pytest.approx(softplus(0.3), rel=1e-14)


@pytest.mark.parametrize("weighing", ["none", "samples", "pixels"])
@pytest.mark.parametrize("n_old", [0, 1, 3, 4])
def test_binary_distillation_equals_numpy_in_value_and_gradient(n_old, weighing):
    z, t, rng = draw(2, 4, 3, 5), draw(2, n_old, 3, 5, seed=1), np.random.default_rng(2)
    weight = {"none": np.ones((2, 1, 1)), "samples": rng.random((2, 1, 1)), "pixels": rng.random((2, 3, 5))}[weighing]
    share = np.broadcast_to(weight, (2, 3, 5)) / np.broadcast_to(weight, (2, 3, 5)).sum()
    q, old = sigmoid(t), z[:, :n_old]
    value = ((q * softplus(-old) + (1 - q) * softplus(old)).sum(1) * share).sum()
    gradient = np.zeros_like(z)
    gradient[:, :n_old] = (sigmoid(old) - q) * share[:, None]
    given = None if weighing == "none" else torch.tensor(weight if weighing == "pixels" else weight[:, 0, 0])
    logits, teacher = torch.tensor(z, requires_grad=True), torch.tensor(t, requires_grad=True)
    loss = binary_distillation(logits, teacher, weight=given)
    assert loss.item() == pytest.approx(value, rel=1e-12, abs=1e-15)
    loss.backward()
    assert teacher.grad is None
    np.testing.assert_allclose(logits.grad.numpy(), gradient, rtol=1e-11, atol=1e-16)


def test_equal_logits_are_where_binary_distillation_is_smallest():
    logits = torch.tensor(draw(1, 3, 4, 2)).requires_grad_()
    loss = binary_distillation(logits, logits.detach())
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().max() < 1e-15
    assert binary_distillation(logits + 0.1, logits.detach()) > loss


def log_softmax(z):
    return z - np.log(np.exp(z - z.max(0)).sum(0)) - z.max(0)


def numpy_exemplars(z, target, n_old, form, weight, first=1):
    """Value and gradient, pixel by pixel."""
    value, total, gradient = 0.0, 0.0, np.zeros_like(z)
    for b, i, j in np.ndindex(target.shape):
        label, w = target[b, i, j], weight[b]
        if label == 255 and form == "exact":
            continue
        total += w
        p = np.exp(log_softmax(z[b, :, i, j]))
        group = [label] if first <= label < n_old else [*range(first), *range(n_old, z.shape[1])]
        explained = p[group].sum()
        value -= w * np.log(explained)
        gradient[b, :, i, j] = w * p
        gradient[b, group, i, j] -= w * p[group] / explained
    return value / total, gradient / total


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("first", "n_old"), [(1, 1), (1, 2), (1, 4), (1, 6), (2, 4), (3, 3), (3, 6)])
def test_exemplar_cross_entropy_equals_numpy_in_value_and_gradient(first, n_old, form):
    z, rng = draw(2, 6, 3, 5), np.random.default_rng(1)
    target, weight = rng.choice([0, 1, 2, 3, 5, 255], (2, 3, 5)), rng.random(2)
    logits = torch.tensor(z, requires_grad=True)
    labels = {"first": first, "n_old": n_old}
    loss = exemplar_cross_entropy(logits, torch.tensor(target), **labels, form=form, weight=torch.tensor(weight))
    value, gradient = numpy_exemplars(z, target, n_old, form, weight, first)
    assert loss.item() == pytest.approx(value, rel=1e-12, abs=1e-14)
    np.testing.assert_allclose(torch.autograd.grad(loss, logits)[0].numpy(), gradient, rtol=1e-10, atol=1e-14)


def test_exemplar_cross_entropy_without_new_classes_is_cross_entropy():
    logits, target = (
        torch.tensor(draw(2, 4, 5, 3)),
        torch.tensor(np.random.default_rng(0).choice([0, 1, 3, 255], (2, 5, 3))),
    )
    plain = cross_entropy(logits, target)
    assert exemplar_cross_entropy(logits, target, n_old=4).item() == pytest.approx(plain.item(), rel=1e-13)


def test_published_exemplars_take_void_for_background():
    logits, target = torch.tensor(draw(1, 4, 2, 2)), torch.full((1, 2, 2), 255)
    background = exemplar_cross_entropy(logits, torch.zeros_like(target), n_old=2)
    assert exemplar_cross_entropy(logits, target, n_old=2, form="published").equal(background)
    nothing = logits.clone().requires_grad_()
    loss = exemplar_cross_entropy(nothing, target, n_old=2)
    (gradient,) = torch.autograd.grad(loss, nothing)
    assert loss.item() == 0
    assert (gradient == 0).all()


CALLS = {
    "binary_cross_entropy": lambda z, t, y: binary_cross_entropy(z, y, first=1, positive=2.0, void="negative"),
    "binary_distillation": lambda z, t, y: binary_distillation(z, t),
    "exemplar_cross_entropy": lambda z, t, y: exemplar_cross_entropy(z, y, n_old=2),
}


@pytest.mark.parametrize("name", CALLS)
def test_half_precision_is_computed_in_float32_and_inputs_stay(name):
    z, t = (torch.tensor(draw(2, n, 4, 6, seed=n)).bfloat16() for n in (4, 2))
    y = torch.tensor(np.random.default_rng(0).choice([0, 1, 3, 255], (2, 4, 6)))
    before = [x.clone() for x in (z, t, y)]
    loss = CALLS[name](z.requires_grad_(), t, y)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(CALLS[name](z.detach().double(), t.double(), y).item(), rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert CALLS[name](z, t, y).item() == pytest.approx(loss.item(), rel=1e-6)
    loss.backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    for x, old in zip((z.detach(), t, y), before, strict=True):
        assert torch.equal(x, old)


def test_wrong_shapes_and_names_are_refused():
    z, y = torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long()
    with pytest.raises(ValueError, match="void is 'none'"):
        binary_cross_entropy(z, y, void="none")
    with pytest.raises(ValueError, match="the teacher has 4 outputs, the network 3"):
        binary_distillation(z, torch.zeros(1, 4, 2, 2))
    with pytest.raises(ValueError, match="differ in shape"):
        binary_distillation(z, torch.zeros(1, 2, 2, 3))
    with pytest.raises(ValueError, match="form is 'paper'"):
        exemplar_cross_entropy(z, y, n_old=1, form="paper")
    for n_old in (0, 4):
        with pytest.raises(ValueError, match=f"n_old is {n_old}, first 1, but the network has 3"):
            exemplar_cross_entropy(z, y, n_old=n_old)
