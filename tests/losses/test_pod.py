"""Local POD and folded logits against loops over pixels in NumPy, gradients against central differences."""

import numpy as np
import pytest
import torch

from densecl.losses import features, fold_new, local_pod

torch.set_num_threads(1)


@pytest.fixture(autouse=True, params=["formula", "bands"])
def _form(request, monkeypatch):
    if request.param == "bands":
        monkeypatch.setattr(features, "FEW_PLACES", 0)


def strips(values: np.ndarray, cells) -> np.ndarray:
    """Means of rows and columns of every cell of one map (D, h, w), pixel by pixel."""
    height, width = values.shape[1:]
    means = []
    for n in cells:
        rows, columns = height // n, width // n
        if rows == 0 or columns == 0:
            continue
        for channel in values:
            for i in range(n):
                for j in range(n):
                    cell = channel[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]
                    means += [sum(line) / columns for line in cell] + [sum(line) / rows for line in cell.T]
    return np.array(means)


def numpy_pod(student: np.ndarray, teacher: np.ndarray, cells=(1, 2, 4)) -> float:
    norms = [
        np.sqrt(((strips(a**2, cells) - strips(b**2, cells)) ** 2).sum()) for a, b in zip(student, teacher, strict=True)
    ]
    return sum(norms) / len(norms)


def central_differences(function, x: np.ndarray, step=1e-6) -> np.ndarray:
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] += step
        above = function(moved)
        moved[index] -= 2 * step
        gradient[index] = (above - function(moved)) / (2 * step)
    return gradient


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1.5, shape)


@pytest.mark.parametrize("cells", [(1, 2, 4), (1,), (3,)])
@pytest.mark.parametrize("size", [(4, 4), (9, 6), (5, 11), (2, 3), (1, 1), (1, 7)])
def test_local_pod_equals_numpy_in_value_and_gradient(size, cells):
    a, b = draw(2, 3, *size), draw(2, 3, *size, seed=1)
    student = torch.tensor(a, requires_grad=True)
    loss = local_pod(student, torch.tensor(b), cells=cells)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(numpy_pod(a, b, cells), rel=1e-12)
    expected = central_differences(lambda x: numpy_pod(x, b, cells), a)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-7, atol=1e-8)


def test_one_pixel_counts_its_row_and_its_column():
    student, teacher = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 2.0)
    assert local_pod(student, teacher).item() == pytest.approx(5 * 2**0.5)  # 3^2 - 2^2, twice


def test_pixels_outside_the_cells_do_not_count():
    a, b = torch.tensor(draw(1, 2, 5, 7)), torch.tensor(draw(1, 2, 5, 7, seed=1))
    cut = local_pod(a[..., :4, :6], b[..., :4, :6], cells=(2,))
    assert local_pod(a, b, cells=(2,)).equal(cut)


@pytest.mark.parametrize("sign", [1, -1])  # the squares are equal too when the signs differ
def test_equal_maps_give_zero_with_a_zero_gradient(sign):
    student = torch.tensor(draw(2, 3, 8, 8)).requires_grad_()
    loss = local_pod(student, sign * student.detach())
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0
    assert (gradient == 0).all()


def test_one_equal_image_leaves_the_gradient_of_the_others():
    student = torch.tensor(draw(2, 3, 4, 4)).requires_grad_()
    teacher = student.detach().clone()
    teacher[1] += 1
    (gradient,) = torch.autograd.grad(local_pod(student, teacher), student)
    assert (gradient[0] == 0).all()
    assert gradient[1].isfinite().all()
    assert (gradient[1] != 0).any()


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (0, 2, 4, 4)])
def test_nothing_to_compare_gives_zero_with_a_finite_gradient(shape):
    student = torch.ones(shape, requires_grad=True)
    loss = local_pod(student, torch.zeros(shape), cells=(2,))
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0
    assert gradient.isfinite().all()


@pytest.mark.parametrize("n_old", [1, 2, 4, 5])
def test_folding_adds_new_outputs_to_the_background(n_old):
    z = draw(2, 5, 3, 4)
    expected = z[:, :n_old].copy()
    for new in range(n_old, 5):
        expected[:, 0] += z[:, new]
    logits = torch.tensor(z, requires_grad=True)
    folded = fold_new(logits, n_old=n_old)
    np.testing.assert_allclose(folded.detach().numpy(), expected, rtol=1e-14)
    weight = draw(2, n_old, 3, 4, seed=2)
    (gradient,) = torch.autograd.grad(folded, logits, torch.tensor(weight))
    of_new = np.repeat(weight[:, :1], 5 - n_old, axis=1)  # every new output is in the background once
    np.testing.assert_array_equal(gradient.numpy(), np.concatenate([weight, of_new], 1))


def test_folding_without_new_outputs_changes_nothing():
    logits = torch.tensor(draw(2, 5, 3, 4))
    assert fold_new(logits, n_old=5).equal(logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    a, b = (torch.tensor(draw(2, 3, 5, 6, seed=seed)).to(dtype) for seed in (0, 1))
    loss = local_pod(a, b)
    assert loss.dtype == fold_new(a, n_old=2).dtype == torch.float32
    assert loss.item() == pytest.approx(numpy_pod(a.double().numpy(), b.double().numpy()), rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert local_pod(a, b).equal(loss)


def test_inputs_are_not_changed_and_the_teacher_gets_no_gradient():
    a, b = torch.tensor(draw(2, 3, 4, 4)).requires_grad_(), torch.tensor(draw(2, 3, 4, 4, seed=1)).requires_grad_()
    before = a.detach().clone(), b.detach().clone()
    (local_pod(a, b) + fold_new(a, n_old=2).sum()).backward()
    assert b.grad is None
    assert a.detach().equal(before[0])
    assert b.detach().equal(before[1])


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="differ"):
        local_pod(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 5))
    for n_old in (0, 4):
        with pytest.raises(ValueError, match=f"n_old is {n_old}, but the network has 3"):
            fold_new(torch.zeros(1, 3, 4, 4), n_old=n_old)
