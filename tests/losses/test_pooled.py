"""RCIL's pooled distances against windows cut out in NumPy, gradients against central differences."""

import numpy as np
import pytest
import torch

from densecl.losses import pooled_channel_distillation, pooled_spatial_distillation
from numpy_parts import draw

torch.set_num_threads(1)


def numpy_spatial(a, b, sizes):
    total = 0.0
    for k in sizes:
        for x, y in zip(a**2, b**2, strict=True):
            d = np.pad(x - y, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
            places = np.ndindex(d.shape[1] - k + 1, d.shape[2] - k + 1)
            means = [d[:, i : i + k, j : j + k].sum((1, 2)) / k**2 for i, j in places]
            total += np.sqrt((np.array(means) ** 2).sum())
    return total / len(a) / len(sizes)


def numpy_channel(a, b, size):
    total = 0.0
    for x, y in zip(a**2, b**2, strict=True):
        d = np.pad(x - y, ((size // 2, size // 2), (0, 0), (0, 0)))
        means = [d[k : k + size].sum(0) / size for k in range(len(d) - size + 1)]
        total += np.sqrt((np.array(means) ** 2).sum())
    return total / len(a)


CASES = [
    (pooled_spatial_distillation, lambda a, b: numpy_spatial(a, b, (4, 8, 12, 16, 20, 24))),
    (lambda a, b: pooled_spatial_distillation(a, b, sizes=(3,)), lambda a, b: numpy_spatial(a, b, (3,))),
    (pooled_channel_distillation, lambda a, b: numpy_channel(a, b, 3)),
    (lambda a, b: pooled_channel_distillation(a, b, size=1), lambda a, b: numpy_channel(a, b, 1)),
]
each = pytest.mark.parametrize(("ours", "numpys"), CASES, ids=["spatial", "spatial-3", "channel", "channel-1"])


@each
@pytest.mark.parametrize("size", [(4, 3), (1, 1), (2, 5)])
def test_distances_equal_numpy_in_value_and_gradient(ours, numpys, size):
    a, b = draw(2, 3, *size), draw(2, 3, *size, seed=1)
    student = torch.tensor(a, requires_grad=True)
    loss = ours(student, torch.tensor(b))
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == pytest.approx(numpys(a, b), rel=1e-12)
    direction = draw(*a.shape, seed=2)
    slope = (numpys(a + 1e-6 * direction, b) - numpys(a - 1e-6 * direction, b)) / 2e-6
    assert (gradient.numpy() * direction).sum() == pytest.approx(slope, rel=1e-7, abs=1e-8)


@each
@pytest.mark.parametrize("sign", [1, -1])
def test_equal_squares_give_0_with_a_gradient_of_0(ours, numpys, sign):
    student = torch.tensor(draw(2, 3, 4, 4), requires_grad=True)
    loss = ours(student, sign * student.detach())
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0
    assert (gradient == 0).all()


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_inputs_stay(ours, numpys, dtype):
    a, b = (torch.tensor(draw(2, 3, 5, 6, seed=seed)).to(dtype) for seed in (0, 1))
    before = a.clone(), b.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ours(a, b)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(numpys(a.double().numpy(), b.double().numpy()), rel=1e-4)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


@each
def test_no_image_gives_0_and_other_shapes_are_refused(ours, numpys):
    assert ours(torch.zeros(0, 2, 4, 4), torch.zeros(0, 2, 4, 4)).item() == 0
    with pytest.raises(ValueError, match="differ"):
        ours(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 5))
