"""The ridge solver and its sums against NumPy, a place at a time."""

import itertools

import numpy as np
import pytest
import torch

from densecl.losses.ridge import expand, gram, ridge


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def numpy_rows(f, matrix):
    """ReLU(f R) of each place, in the order of images, rows and columns."""
    batch, _, height, width = f.shape
    rows = [[max(0.0, f[b, :, i, j] @ column) for column in matrix.T] for b, i, j in np.ndindex(batch, height, width)]
    return np.array(rows).reshape(-1, matrix.shape[1])


def drawn_labels(*shape, classes, seed=1):
    return np.random.default_rng(seed).choice([*range(classes), 255], shape)


def test_expansion_equals_numpy_in_value_and_gradient():
    f, matrix, weight = draw(2, 3, 4, 5), draw(3, 7, seed=1), draw(2, 20, 7, seed=2)
    features = torch.tensor(f, requires_grad=True)
    expanded = expand(features, torch.tensor(matrix))
    rows = numpy_rows(f, matrix)
    np.testing.assert_allclose(expanded.detach().numpy().reshape(-1, 7), rows, rtol=1e-13, atol=1e-15)
    (gradient,) = torch.autograd.grad(expanded, features, torch.tensor(weight))
    expected = ((rows > 0) * weight.reshape(-1, 7)) @ matrix.T  # (places, 3)
    np.testing.assert_allclose(gradient.numpy(), expected.reshape(2, 4, 5, 3).transpose(0, 3, 1, 2), rtol=1e-12)


def test_sums_equal_numpy_and_void_is_left_out():
    phi, labels = draw(2, 12, 5), drawn_labels(2, 3, 4, classes=3)
    square, cross = np.zeros((5, 5)), np.zeros((5, 3))
    for row, label in zip(phi.reshape(-1, 5), labels.ravel(), strict=True):
        if label != 255:
            square += np.outer(row, row)
            cross[:, label] += row
    given = torch.tensor(phi), torch.tensor(labels)
    before = [x.clone() for x in given]
    ours = gram(*given, classes=3)
    assert (labels == 255).any()
    for one, expected in zip(ours, (square, cross), strict=True):
        np.testing.assert_allclose(one.numpy(), expected, rtol=1e-12, atol=1e-14)
    for x, y in zip(given, before, strict=True):
        assert torch.equal(x, y)
    flat = gram(given[0], given[1].flatten(1), classes=3)
    assert all(torch.equal(a, b) for a, b in zip(ours, flat, strict=True))


@pytest.mark.parametrize("gamma", [0.1, 1.0, 30.0])
def test_the_solution_is_that_of_least_squares_with_gamma_as_further_rows(gamma):
    phi, labels = draw(1, 40, 6), drawn_labels(1, 40, classes=4)
    known = labels[0] != 255
    rows = np.concatenate([phi[0][known], np.sqrt(gamma) * np.eye(6)])
    wanted = np.concatenate([np.eye(4)[labels[0][known]], np.zeros((6, 4))])
    expected, *_ = np.linalg.lstsq(rows, wanted, rcond=None)
    solved = ridge(*gram(torch.tensor(phi), torch.tensor(labels), classes=4), gamma=gamma)
    np.testing.assert_allclose(solved.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_the_squared_error_is_0_at_the_solution():
    phi, labels = torch.tensor(draw(1, 30, 5)), torch.tensor(drawn_labels(1, 30, classes=3))
    solved = ridge(*gram(phi, labels, classes=3), gamma=2.0).requires_grad_()
    known = labels[0] != 255
    error = (phi[0][known] @ solved - torch.nn.functional.one_hot(labels[0][known], 3)).square().sum()
    (gradient,) = torch.autograd.grad(error + 2.0 * solved.square().sum(), solved)
    assert gradient.abs().max() < 1e-11


def test_two_steps_are_one_batch():
    """The second step brings a class: its column is 0 in the sums of the first."""
    phi = torch.tensor(draw(4, 50, 20)).relu()
    labels = torch.tensor(drawn_labels(4, 50, classes=3))
    labels[2, 0] = 3
    first = gram(phi[:2], labels[:2], classes=3)
    second = gram(phi[2:], labels[2:], classes=4)
    cross = torch.cat([first[1], torch.zeros(20, 1)], 1) + second[1]
    stepwise = ridge(first[0] + second[0], cross, gamma=1.0)
    whole = ridge(*gram(phi, labels, classes=4), gamma=1.0)
    assert (stepwise - whole).abs().max() < 1e-9


def test_rank_deficient_and_huge_sums_are_solved():
    phi = torch.full((1, 9, 4), 1e9)  # all places alike: gamma is below the last digit of a float64 sum
    labels = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1]])
    scores = phi[0].double() @ ridge(*gram(phi, labels, classes=2), gamma=1.0)
    np.testing.assert_allclose(scores.numpy(), np.tile([1 / 3, 2 / 3], (9, 1)), rtol=1e-6)


def test_nothing_labelled_gives_scores_of_0():
    square, cross = gram(torch.ones(1, 4, 3), torch.full((1, 2, 2), 255), classes=2)
    assert (square == 0).all()
    assert (ridge(square, cross, gamma=1.0) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_summed_in_float64(dtype):
    f, matrix = torch.tensor(draw(2, 3, 2, 5)).to(dtype), torch.tensor(draw(3, 8, seed=1)).float()
    expanded = expand(f, matrix)
    assert expanded.dtype == torch.float32
    np.testing.assert_allclose(
        expanded.flatten(0, 1).numpy(), numpy_rows(f.double().numpy(), matrix.numpy()), rtol=1e-4, atol=1e-6
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert expand(f, matrix).equal(expanded)
    assert {x.dtype for x in gram(expanded, torch.zeros(2, 2, 5).long(), classes=1)} == {torch.float64}


def test_wrong_labels_and_gamma_are_refused():
    with pytest.raises(ValueError, match=r"labels are 0..3, not 0..2 or 255"):
        gram(torch.ones(1, 2, 3), torch.tensor([[0, 3]]), classes=3)
    with pytest.raises(ValueError, match="gamma is 0"):
        ridge(torch.eye(2), torch.eye(2), gamma=0)


def test_an_infinite_gamma_gives_zeros():
    sums = gram(torch.tensor(draw(2, 20, 5)), torch.tensor(drawn_labels(2, 20, classes=3)), classes=3)
    norms = [float(ridge(*sums, gamma=gamma).abs().max()) for gamma in (1.0, 1e4, 1e8, 1e12)]
    assert norms == sorted(norms, reverse=True)
    assert norms[-1] < 1e-10


def test_more_features_never_raise_the_training_error():
    phi, labels = torch.tensor(draw(1, 60, 12)), torch.tensor(drawn_labels(1, 60, classes=4))
    known = labels[0] != 255
    targets = torch.eye(4, dtype=torch.float64)[labels[0][known]]
    errors = []
    for width in range(1, 13):
        solution = ridge(*gram(phi[..., :width], labels, classes=4), gamma=1.0)
        errors.append(float(((phi[0, known, :width] @ solution - targets) ** 2).sum() + (solution**2).sum()))
    assert all(later <= before + 1e-10 for before, later in itertools.pairwise(errors))
    assert errors[-1] < errors[0]
