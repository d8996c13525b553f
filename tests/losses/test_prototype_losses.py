"""STAR's feature losses against loops in NumPy; gradients against central differences."""

import numpy as np
import pytest
import torch

from densecl.losses import feature_distillation, masked_feature_distillation, prototype_repulsion
from numpy_parts import draw

torch.set_num_threads(1)


def labels_of(*shape, seed=0):
    return np.random.default_rng(seed).choice([0, 1, 3, 4, 255], shape)


def bilinear(mask, size):
    """One (H, W) map at another size: pixel centres, no corner alignment, the two nearest rows and columns."""
    for axis, length in enumerate(size):
        n = mask.shape[axis]
        at = np.clip((np.arange(length) + 0.5) * n / length - 0.5, 0, None)
        low = np.minimum(np.floor(at).astype(int), n - 1)
        high, share = np.minimum(low + 1, n - 1), at - low
        shape = [1, 1]
        shape[axis] = length
        mask = mask.take(low, axis) * (1 - share).reshape(shape) + mask.take(high, axis) * share.reshape(shape)
    return mask


def central_differences(function, x, step=1e-6):
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] += step
        above = function(moved)
        moved[index] -= 2 * step
        gradient[index] = (above - function(moved)) / (2 * step)
    return gradient


def unit(vector):
    length = np.sqrt((vector**2).sum())
    return vector / length if length else vector


def numpy_repulsion(f, target, prototypes, classes, absent):
    terms = []
    for label in classes:
        total, weight = np.zeros(f.shape[1]), 0.0
        for image, mask in zip(f, target, strict=True):
            share = bilinear((mask == label).astype(float), f.shape[2:])
            weight += share.sum()
            for i, j in np.ndindex(share.shape):
                total += share[i, j] * unit(image[:, i, j])
        if weight:
            terms.append(1 / min(np.sqrt(((unit(total) - p) ** 2).sum()) for p in prototypes))
        elif absent == "counted":
            terms.append(1.0)
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("absent", ["left out", "counted"])
@pytest.mark.parametrize("classes", [(3,), (3, 4, 7)])
@pytest.mark.parametrize(("size", "image"), [((3, 2), (6, 7)), ((2, 3), (2, 3)), ((1, 1), (5, 4))])
def test_repulsion_equals_numpy_in_value_and_gradient(size, image, classes, absent):
    f, target = draw(2, 3, *size), labels_of(2, *image)
    prototypes = np.stack([unit(p) for p in draw(4, 3, seed=1)])
    features, known = torch.tensor(f, requires_grad=True), torch.tensor(prototypes, requires_grad=True)
    loss = prototype_repulsion(features, torch.tensor(target), known, classes=classes, absent=absent)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(numpy_repulsion(f, target, prototypes, classes, absent), rel=1e-10)
    loss.backward()
    assert known.grad is None
    expected = central_differences(lambda x: numpy_repulsion(x, target, prototypes, classes, absent), f)
    np.testing.assert_allclose(features.grad.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_repulsion_does_not_see_the_length_of_features():
    f, target = torch.tensor(draw(2, 3, 4, 5)), torch.tensor(labels_of(2, 8, 10))
    p = torch.nn.functional.normalize(torch.tensor(draw(2, 3, seed=1)), dim=1)
    longer = f * torch.rand(2, 1, 4, 5, dtype=torch.float64).add(0.5)
    terms = [prototype_repulsion(x, target, p, classes=(1, 3)).item() for x in (f, longer)]
    assert terms[0] == pytest.approx(terms[1], rel=1e-12)


def test_a_class_opposite_to_the_only_prototype_costs_a_half():
    f, target = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2).long()
    f[:, 0] = -3.0
    assert prototype_repulsion(f, target, torch.tensor([[1.0, 0.0]]), classes=(1,)).item() == 0.5


@pytest.mark.parametrize(("prototypes", "classes", "label"), [(0, (1,), 1), (2, (), 1), (2, (1,), 255), (2, (1, 3), 0)])
def test_nothing_to_keep_apart_is_0_and_absent_classes_add_1(prototypes, classes, label):
    f = torch.randn(1, 3, 2, 2, requires_grad=True)
    given, target = torch.eye(3)[:prototypes], torch.full((1, 4, 4), label)
    loss = prototype_repulsion(f, target, given, classes=classes)
    (gradient,) = torch.autograd.grad(loss, f)
    assert loss.item() == 0
    assert (gradient == 0).all()
    counted = prototype_repulsion(f, target, given, classes=classes, absent="counted")
    assert counted.item() == (1.0 if prototypes and classes else 0.0)


def test_a_direction_that_is_a_prototype_keeps_loss_and_gradient_finite():
    f = torch.zeros(1, 2, 1, 1)
    f[0, 0] = 2.0
    f.requires_grad_()
    loss = prototype_repulsion(f, torch.ones(1, 1, 1).long(), torch.tensor([[1.0, 0.0]]), classes=(1,))
    (gradient,) = torch.autograd.grad(loss, f)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def numpy_masked(f, t, mask):
    weight = np.stack([bilinear(m.astype(float), f.shape[2:]) for m in mask])
    if not weight.sum():
        return 0.0
    return (weight[:, None] * (f - t) ** 2).sum() / (f.shape[1] * weight.sum())


@pytest.mark.parametrize(("size", "image"), [((3, 2), (6, 7)), ((2, 3), (2, 3)), ((1, 1), (5, 4))])
@pytest.mark.parametrize("share", [0.5, 0.0, 1.0])
def test_masked_distillation_equals_numpy_in_value_and_gradient(size, image, share):
    f, t = draw(2, 3, *size), draw(2, 3, *size, seed=1)
    mask = np.random.default_rng(2).random((2, *image)) < share
    features, teacher = torch.tensor(f, requires_grad=True), torch.tensor(t, requires_grad=True)
    loss = masked_feature_distillation(features, teacher, torch.tensor(mask))
    assert loss.item() == pytest.approx(numpy_masked(f, t, mask), rel=1e-12)
    loss.backward()
    assert teacher.grad is None
    expected = central_differences(lambda x: numpy_masked(x, t, mask), f)
    np.testing.assert_allclose(features.grad.numpy(), expected, rtol=1e-6, atol=1e-8)
    if share == 1:
        assert loss.item() == pytest.approx(feature_distillation(features, teacher).item(), rel=1e-12)


def test_equal_maps_and_an_empty_mask_give_0_with_a_finite_gradient():
    f = torch.randn(1, 4, 3, 2, requires_grad=True)
    for other, mask in ((f.detach(), torch.ones(1, 6, 4).bool()), (f.detach() + 1, torch.zeros(1, 6, 4).bool())):
        loss = masked_feature_distillation(f, other, mask)
        (gradient,) = torch.autograd.grad(loss, f)
        assert loss.item() == 0
        assert (gradient == 0).all()


CALLS = {
    "repulsion": lambda f, t, y: prototype_repulsion(f, y, t[0, :, 0].float().T.nan_to_num(), classes=(1, 3)),
    "masked": lambda f, t, y: masked_feature_distillation(f, t, y == 1),
}


@pytest.mark.parametrize("name", CALLS)
def test_half_precision_is_computed_in_float32_and_inputs_stay(name):
    f, t = (torch.tensor(draw(2, 5, 4, 6, seed=seed)).bfloat16() for seed in (0, 1))
    y = torch.tensor(labels_of(2, 8, 9))
    before = [x.clone() for x in (f, t, y)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = CALLS[name](f.requires_grad_(), t, y)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(CALLS[name](f.detach().double(), t.double(), y).item(), rel=1e-5)
    loss.backward()
    assert f.grad.isfinite().all()
    for x, old in zip((f.detach(), t, y), before, strict=True):
        assert torch.equal(x, old)


def test_wrong_shapes_and_names_are_refused():
    f, y = torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long()
    with pytest.raises(ValueError, match="absent is 'none'"):
        prototype_repulsion(f, y, torch.eye(3), classes=(1,), absent="none")
    with pytest.raises(ValueError, match="differ in shape"):
        masked_feature_distillation(f, f[:, :2], y == 0)
