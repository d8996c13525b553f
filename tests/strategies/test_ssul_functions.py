"""The labels of SSUL against loops in NumPy."""

import numpy as np
import pytest
import torch

from densecl.strategies.ssul import labels, pseudo_labels, shift_labels
from densecl.strategies.tools.pseudo_labels import fill_in
from numpy_parts import draw, sigmoid

torch.set_num_threads(1)


def targets(*shape, seed=0):
    return np.random.default_rng(seed).choice([0, 1, 2, 5, 255], shape)


@pytest.mark.parametrize("salient", [False, True])
def test_shifted_labels_equal_a_loop(salient):
    target, unknown = targets(2, 3, 5), np.random.default_rng(1).random((2, 3, 5)) < 0.5
    expected = np.zeros_like(target)
    for place in np.ndindex(target.shape):
        label = target[place]
        background = 1 if salient and not unknown[place] else 0
        expected[place] = {0: background, 255: 255}.get(label, label + 1)
    given, before = torch.tensor(target), torch.tensor(target)
    found = shift_labels(given, unknown=torch.tensor(unknown) if salient else None)
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found.numpy(), expected)
    assert given.equal(before)


@pytest.mark.parametrize("threshold", [0.0, 0.7, 1.0])
def test_pseudo_labels_equal_a_loop(threshold):
    z, shifted = draw(2, 5, 4, 3, scale=2), np.random.default_rng(1).choice([0, 1, 2, 6, 255], (2, 4, 3))
    z[0, 3, 0, 0], shifted[0, 0, 0] = 40, 0  # certain
    expected = shifted.copy()
    for b, i, j in np.ndindex(shifted.shape):
        p = sigmoid(z[b, :, i, j])
        if shifted[b, i, j] <= 1 and p.argmax() > 1 and p.max() >= threshold:
            expected[b, i, j] = p.argmax()
    given = torch.tensor(shifted)
    found = pseudo_labels(given, torch.tensor(z), threshold=threshold)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert (expected != shifted).any()
    assert given.equal(torch.tensor(shifted))


def test_labels_equal_a_loop():
    z = draw(2, 6, 3, 4, scale=2)
    expected = np.zeros((2, 3, 4), dtype=np.int64)
    for b, i, j in np.ndindex(expected.shape):
        p = sigmoid(z[b, :, i, j])
        expected[b, i, j] = np.argmax([p[0] + p[1], *p[2:]])
    found = labels(torch.tensor(z))
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found.numpy(), expected)


def test_two_halves_of_background_are_more_than_one_probable_class():
    p = torch.tensor([0.5, 0.5, 0.9]).view(1, 3, 1, 1)
    assert labels(p.logit()).item() == 0


def test_before_any_class_all_is_background_and_void_is_never_named():
    assert labels(torch.randn(1, 2, 3, 2)).eq(0).all()
    void = torch.full((1, 2, 2), 255)
    sure = torch.full((1, 4, 2, 2), 9.0)
    assert fill_in(void, sure.sigmoid(), first=1, threshold=0.5).equal(void)
