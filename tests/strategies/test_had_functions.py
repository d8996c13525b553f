"""HAD's losses against NumPy, a pixel at a time; gradients against central differences of those."""

import numpy as np
import pytest
import torch

from densecl.strategies.had import HAD, class_balanced, depth, edges, normals, segmentation
from densecl.tasks import Segmentation
from densecl.tasks.colorization import Colorization
from densecl.tasks.depth import Depth
from densecl.tasks.normals import Normals

FORMS = ["exact", "published"]
KERNEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def numpy_edges(losses, above=0.9):
    result = np.zeros(losses.shape, bool)
    for b, image in enumerate(losses):
        padded, size = np.pad(image, 1), np.zeros(image.shape)
        for i, j in np.ndindex(*image.shape):
            window = padded[i : i + 3, j : j + 3]
            size[i, j] = np.hypot((window * KERNEL).sum(), (window * KERNEL.T).sum())
        if size.max() > size.min():
            result[b] = (size - size.min()) / (size.max() - size.min()) > above
    return result


def numpy_balanced(losses, labels, classes, shares=None):
    """Also the softmax's shares, which a gradient keeps as they are."""
    means = []
    for c in range(classes):
        values = losses[(labels == c) & (losses > 0)]
        means.append(np.prod(values) ** (1 / len(values)) if len(values) else 0.0)
    means = np.array(means)
    if shares is None:
        shares = np.exp(-means) / np.exp(-means).sum()
    return (shares * means).sum() / classes, shares


def numpy_segmentation(log_probabilities, labels, shares=None):
    b, i, j = np.indices(labels.shape)
    losses = -log_probabilities[b, labels, i, j]
    balanced, shares = numpy_balanced(losses, labels, log_probabilities.shape[1], shares)
    return (balanced + (losses * numpy_edges(losses)).mean()) / 2, shares


def numpy_depth(prediction, teacher, form):
    e = np.where(teacher == 0, 0, np.abs(prediction - teacher))[:, 0]
    d = prediction[:, 0]
    balanced = sum(e[group].mean() if group.any() else 0 for group in (d > 0.5, d < 0.5))
    edge, pairs = numpy_edges(e), []
    for i in range(len(e)):
        pairs += [e[i] * edge[j] for j in (range(len(e)) if form == "published" else [i])]
    pairs = np.stack(pairs)
    return (balanced + (pairs.sum() / np.count_nonzero(pairs) if pairs.any() else 0)) / 2


def numpy_normals(prediction, teacher, form):
    product = prediction * teacher * (teacher.sum(1, keepdims=True) != 0)
    e, mean = 1 - product.mean(1), prediction.mean(1)
    balanced = sum(e[group].mean() if group.any() else 1 for group in (mean > 0.5, mean < 0.5))
    at_edges = product * numpy_edges(e)[:, None]
    count = np.count_nonzero(at_edges)
    total = at_edges.sum() if form == "exact" else product.sum()
    return (balanced + 1 - (total / count if count else 0)) / 2


def numerical(value, x, step=1e-6):
    gradient = np.zeros(x.shape)
    for place in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (value(up) - value(down)) / (2 * step)
    return gradient


def computed(loss, x, *constants, **options):
    """Value and gradient, with the arguments left as they were and the constants without gradient."""
    given = [torch.tensor(x, requires_grad=True), *map(torch.tensor, constants)]
    kept = [tensor.detach().clone() for tensor in given]
    value = loss(*given, **options)
    value.backward()
    assert all(tensor.equal(before) for tensor, before in zip(given, kept, strict=True))
    return value.item(), given[0].grad.numpy()


@pytest.mark.parametrize("shape", [(2, 6, 5), (1, 1, 1), (3, 2, 7)])
def test_edges_equal_numpy(shape):
    losses = np.abs(draw(*shape))
    np.testing.assert_array_equal(edges(torch.tensor(losses)).numpy(), numpy_edges(losses))


def test_a_map_of_zeros_has_no_edge_and_a_constant_one_has_them_at_the_border():
    both = edges(torch.stack([torch.zeros(5, 6), torch.full((5, 6), 3.0)]))
    assert not both[0].any()
    border = torch.ones(5, 6, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert both[1].equal(border)


def test_each_image_has_a_range_of_its_own():
    losses = torch.rand(2, 6, 6)
    assert edges(torch.stack([losses[0], 1000 * losses[1]])).equal(edges(losses))


def test_class_balanced_is_the_geometric_mean_of_each_class_and_absent_ones_count():
    losses, labels = np.abs(draw(2, 4, 5)), np.random.default_rng(1).integers(0, 3, (2, 4, 5))
    losses[0, 0, :2] = 0
    value, shares = numpy_balanced(losses, labels, 5)
    ours, gradient = computed(lambda x, y: class_balanced(x, y, classes=5), losses, labels)
    assert ours == pytest.approx(value, rel=1e-12)
    positive = losses > 0
    wanted = numerical(lambda x: numpy_balanced(np.where(positive, x, 0), labels, 5, shares)[0], losses)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-6, atol=1e-9)


def test_void_pixels_and_maps_of_zeros_give_no_loss_and_a_finite_gradient():
    labels = torch.full((1, 3, 3), 255)
    for losses in (torch.rand(1, 3, 3), torch.zeros(1, 3, 3)):
        losses.requires_grad_()
        value = class_balanced(losses, labels if losses.any() else labels * 0, classes=2)
        value.backward()
        assert value.item() == 0
        assert not losses.grad.any()


@pytest.mark.parametrize("seed", [0, 1])
def test_segmentation_equals_numpy(seed):
    logits, labels = 2 * draw(2, 4, 5, 6, seed=seed), np.random.default_rng(seed).integers(0, 3, (2, 5, 6))
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    value, shares = numpy_segmentation(log_probabilities, labels)
    ours, gradient = computed(segmentation, log_probabilities, labels)
    assert ours == pytest.approx(value, rel=1e-12)
    wanted = numerical(lambda x: numpy_segmentation(x, labels, shares)[0], log_probabilities)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-6, atol=1e-9)


def test_a_sure_student_has_no_loss_and_a_finite_gradient():
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 1] = 1000
    logits.requires_grad_()
    value = segmentation(logits.log_softmax(1), torch.ones(1, 4, 4, dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_depth_equals_numpy(form, seed):
    rng = np.random.default_rng(seed)
    prediction, teacher = rng.uniform(0, 1, (2, 2, 1, 5, 7))
    teacher[:, :, :2, :3] = 0
    ours, gradient = computed(depth, prediction, teacher, form=form)
    assert ours == pytest.approx(numpy_depth(prediction, teacher, form), rel=1e-12)
    wanted = numerical(lambda x: numpy_depth(x, teacher, form), prediction)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_normals_equal_numpy(form, seed):
    prediction, teacher = unit(draw(2, 3, 5, 7, seed=seed) + 0.5), unit(draw(2, 3, 5, 7, seed=seed + 10) + 0.5)
    teacher[:, :, :2, :3] = 0
    ours, gradient = computed(normals, prediction, teacher, form=form)
    assert ours == pytest.approx(numpy_normals(prediction, teacher, form), rel=1e-12)
    wanted = numerical(lambda x: numpy_normals(x, teacher, form), prediction)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_equal_depths_and_depths_that_are_unknown_have_no_loss_and_a_finite_gradient(form):
    teacher = torch.rand(2, 1, 6, 5, dtype=torch.float64)
    for prediction, known in ((teacher.clone(), teacher), (torch.rand_like(teacher), torch.zeros_like(teacher))):
        prediction.requires_grad_()
        value = depth(prediction, known, form=form)
        value.backward()
        assert value.item() == 0
        assert prediction.grad.isfinite().all()


def test_equal_unit_normals_are_two_thirds_in_each_half_and_missing_parts_count_1():
    normal = torch.tensor(unit(np.abs(draw(2, 3, 6, 5)))).requires_grad_()
    mean = normal.mean(1)
    assert (mean > 0.5).any()
    assert (mean < 0.5).any()
    at_edges = 2 * normals(normal, normal.detach()).item() - 4 / 3
    products = normal.detach().square() * edges(1 - normal.detach().square().mean(1))[:, None]
    assert at_edges == pytest.approx(1 - (products.sum() / (products != 0).sum()).item())
    low = torch.zeros(1, 3, 4, 4).requires_grad_()  # one group, and no product
    value = normals(low, torch.zeros(1, 3, 4, 4))
    value.backward()
    assert value.item() == pytest.approx(1.5)
    assert low.grad.isfinite().all()


def test_pixels_at_the_bar_are_in_no_half():
    prediction, teacher = torch.full((1, 1, 2, 2), 0.5), torch.rand(1, 1, 2, 2) + 0.6
    at_edges = 2 * depth(prediction, teacher).item()
    e = (prediction - teacher).abs()[:, 0]
    assert at_edges == pytest.approx((e[edges(e)]).mean().item())
    assert 2 * depth(prediction, teacher, bar=0.4).item() == pytest.approx(at_edges + e.mean().item())


@pytest.mark.parametrize("loss", [depth, normals])
def test_half_precision_is_computed_in_float32(loss):
    x, y = torch.rand(2, 3 if loss is normals else 1, 5, 6).bfloat16(), torch.rand(2, 3 if loss is normals else 1, 5, 6)
    y = y.bfloat16()
    value = loss(x, y)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(x.double(), y.double()).item(), rel=1e-4)


def test_half_precision_segmentation_is_computed_in_float32():
    x, y = torch.randn(2, 4, 5, 6).log_softmax(1).bfloat16(), torch.randint(0, 4, (2, 5, 6))
    assert segmentation(x, y).dtype == torch.float32
    assert segmentation(x, y).item() == pytest.approx(segmentation(x.double(), y).item(), rel=1e-4)


def test_each_kind_of_task_has_its_own_distance_and_the_plain_one_is_the_control():
    logits, teacher = torch.randn(2, 3, 6, 5), torch.randn(2, 3, 6, 5)
    task = Segmentation("a", classes=2)
    labels = teacher.argmax(1)
    assert HAD().hold(task, logits, teacher) == segmentation(logits.log_softmax(1), labels)
    plain = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(HAD(distance="plain").hold(task, logits, teacher), plain)
    far, near = logits[:, :1], teacher[:, :1]
    assert HAD(form="published", bar=0.2).hold(Depth("d"), far, near) == depth(far, near, bar=0.2, form="published")
    directions = [torch.nn.functional.normalize(x, dim=1) for x in (logits, teacher)]
    assert HAD().hold(Normals("n"), logits, teacher) == normals(*directions)
    assert HAD(distance="plain").hold(Normals("n"), logits, teacher) == Normals("n").distillation(logits, teacher)
    colours = Colorization("c")
    assert HAD().hold(colours, logits[:, :2], teacher[:, :2]) == colours.distillation(logits[:, :2], teacher[:, :2])
