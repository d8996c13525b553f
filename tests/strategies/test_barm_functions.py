"""The functions of BARM against NumPy, in value and gradient."""

import numpy as np
import pytest
import torch

from densecl.strategies.barm import correction_losses, masked_distance, unify
from numpy_parts import draw, sigmoid

torch.set_num_threads(1)


def targets(*shape, seed=0):
    return np.random.default_rng(seed).choice([0, 0, 1, 3, 255], shape)


def nearest(target, size):
    rows, columns = (np.arange(n) * target.shape[k + 1] // n for k, n in enumerate(size))
    return target[:, rows][:, :, columns]


HEADS = [(3, 0), (2, 1), (1, 2), (4, 3)]  # classes, seed


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("training", [False, True])
def test_background_of_all_heads_equals_numpy_in_value_and_gradient(n, training):
    maps = [draw(2, 1 + classes, 3, 5, seed=seed, scale=2) for classes, seed in HEADS[:n]]
    heads = [torch.tensor(x, requires_grad=True) for x in maps]
    found = unify(heads, training=training)
    background = maps[0][:, 0].copy()
    for k, x in enumerate(maps[1:], start=1):
        background += x[:, 0] if training and k == n - 1 else np.minimum(x[:, 0], 0)
    expected = np.concatenate([background[:, None], *(x[:, 1:] for x in maps)], 1)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-13)
    back = draw(*expected.shape, seed=9, scale=2)
    found.backward(torch.tensor(back))
    first = 1
    for k, (head, x) in enumerate(zip(heads, maps, strict=True)):
        own = slice(first, first + x.shape[1] - 1)
        first = own.stop
        if training and k < n - 1:
            assert head.grad is None
            continue
        wanted = np.concatenate([back[:, :1], back[:, own]], 1)
        if k and not training:
            wanted[:, 0] *= x[:, 0] < 0
        np.testing.assert_allclose(head.grad.numpy(), wanted, rtol=1e-13)


def test_corrections_of_0_and_more_leave_the_first_background_in_prediction():
    heads = [torch.tensor(draw(1, 3, 2, 2, seed=seed, scale=2)) for seed in range(3)]
    for head in heads[1:]:
        head[:, 0].abs_()
    assert unify(heads, training=False)[:, 0].equal(heads[0][:, 0])


def numpy_corrections(b, target):
    label = nearest(target, b.shape[1:])
    p = sigmoid(b)
    triplet, positive = np.maximum(1 - 2 * p, 0), -np.log(1 - p)
    places = [label == 0, (label != 0) & (label != 255)]
    values, gradients = [], []
    slopes = [np.where(p < 0.5, -2 * p * (1 - p), 0), p]
    for loss, slope, m in zip((triplet, positive), slopes, places, strict=True):
        n = max(m.sum(), 1)
        values.append((loss * m).sum() / n)
        gradients.append(slope * m / n)
    return values, gradients


@pytest.mark.parametrize(("size", "image"), [((3, 2), (6, 7)), ((4, 5), (4, 5)), ((1, 1), (3, 2)), ((2, 4), (33, 17))])
def test_losses_of_corrections_equal_numpy_in_value_and_gradient(size, image):
    b, target = draw(2, *size, scale=2), targets(2, *image)
    values, gradients = numpy_corrections(b, target)
    for k, wanted in enumerate(values):
        correction = torch.tensor(b, requires_grad=True)
        loss = correction_losses(correction, torch.tensor(target))[k]
        assert loss.shape == ()
        assert loss.item() == pytest.approx(wanted, rel=1e-11, abs=1e-14)
        (gradient,) = torch.autograd.grad(loss, correction)
        np.testing.assert_allclose(gradient.numpy(), gradients[k], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("label", [0, 2, 255])
def test_a_kind_of_place_that_is_not_there_counts_0_with_a_finite_gradient(label):
    correction = torch.full((1, 2, 3), -500.0, requires_grad=True)  # far from 0, where logarithms end
    target = torch.full((1, 4, 6), label)
    triplet, positive = correction_losses(correction, target)
    (gradient,) = torch.autograd.grad(triplet + positive, correction)
    assert triplet.item() == (1.0 if label == 0 else 0.0)
    assert positive.item() == 0
    assert gradient.isfinite().all()


def numpy_distance(f, t, target):
    m = (nearest(target, f.shape[2:]) == 0)[:, None]
    return ((f - t) ** 2 * m).mean(), 2 * (f - t) * m / f.size


@pytest.mark.parametrize(("size", "image"), [((3, 2), (6, 7)), ((4, 5), (4, 5)), ((1, 1), (3, 2))])
def test_masked_distance_equals_numpy_in_value_and_gradient(size, image):
    f, t, target = draw(2, 4, *size, scale=2), draw(2, 4, *size, seed=1, scale=2), targets(2, *image)
    features, teacher = torch.tensor(f, requires_grad=True), torch.tensor(t, requires_grad=True)
    loss = masked_distance(features, teacher, torch.tensor(target))
    value, gradient = numpy_distance(f, t, target)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    loss.backward()
    assert teacher.grad is None
    np.testing.assert_allclose(features.grad.numpy(), gradient, rtol=1e-12, atol=1e-15)


def test_equal_features_and_no_background_give_0_with_a_finite_gradient():
    f = torch.randn(1, 4, 3, 2, requires_grad=True)
    for other, label in ((f.detach(), 0), (f.detach() + 1, 3)):
        loss = masked_distance(f, other, torch.full((1, 6, 4), label))
        (gradient,) = torch.autograd.grad(loss, f)
        assert loss.item() == 0
        assert (gradient == 0).all()


def test_half_precision_is_computed_in_float32_and_inputs_stay():
    f, t = (torch.tensor(draw(2, 5, 4, 6, seed=seed, scale=2)).bfloat16() for seed in (0, 1))
    y = torch.tensor(targets(2, 8, 9))
    before = [x.clone() for x in (f, t, y)]
    pairs = [
        (masked_distance(f, t, y), masked_distance(f.double(), t.double(), y)),
        *zip(correction_losses(f[:, 0], y), correction_losses(f[:, 0].double(), y), strict=True),
    ]
    for own, wide in pairs:
        assert own.dtype == torch.float32
        assert own.item() == pytest.approx(wide.item(), rel=1e-5)
    for x, old in zip((f, t, y), before, strict=True):
        assert torch.equal(x, old)
    with pytest.raises(ValueError, match="differ in shape"):
        masked_distance(f, t[:, :2], y)
