"""The parts of a logit and the labels of DKD against NumPy."""

import numpy as np
import pytest
import torch

from densecl.strategies.dkd import decompose, labels
from numpy_parts import draw

torch.set_num_threads(1)


@pytest.mark.parametrize("size", [(3, 5), (1, 1), (4, 4)])
@pytest.mark.parametrize("kernel", [(), (1, 1)])
def test_parts_equal_numpy_in_value_and_gradient(size, kernel):
    f, w = draw(2, 4, *size), draw(3, 4, *kernel, seed=1)
    back = [draw(2, 3, *size, seed=seed) for seed in (2, 3)]
    features, weight = torch.tensor(f, requires_grad=True), torch.tensor(w, requires_grad=True)
    parts, flat = decompose(features, weight), w.reshape(3, 4)
    clipped = [flat.clip(0), flat.clip(max=0)]
    for part, own in zip(parts, clipped, strict=True):
        np.testing.assert_allclose(part.detach().numpy(), np.einsum("kd,bdhw->bkhw", own, f), rtol=1e-11, atol=1e-13)
    torch.autograd.backward(parts, [torch.tensor(x) for x in back])
    of_features = sum(np.einsum("kd,bkhw->bdhw", own, x) for own, x in zip(clipped, back, strict=True))
    chosen = [flat > 0, flat < 0]
    of_weight = sum(on * np.einsum("bkhw,bdhw->kd", x, f) for on, x in zip(chosen, back, strict=True))
    np.testing.assert_allclose(features.grad.numpy(), of_features, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(weight.grad.numpy().reshape(3, 4), of_weight, rtol=1e-11, atol=1e-13)


def test_both_parts_and_the_bias_are_the_logit():
    head, features = torch.nn.Conv2d(6, 3, 1).double(), torch.tensor(draw(2, 6, 4, 7)).relu()
    positive, negative = decompose(features, head.weight)
    torch.testing.assert_close(positive + negative + head.bias.view(-1, 1, 1), head(features))
    assert (positive >= 0).all()
    assert (negative <= 0).all()


def test_no_class_has_no_parts():
    positive, negative = decompose(torch.rand(1, 4, 2, 3), torch.zeros(0, 4))
    assert positive.shape == negative.shape == (1, 0, 2, 3)


def test_half_precision_is_computed_in_float32_and_inputs_stay():
    features, weight = torch.tensor(draw(2, 8, 3, 5)).bfloat16(), torch.tensor(draw(3, 8)).bfloat16()
    before = features.clone(), weight.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = decompose(features, weight)
    for part, wide in zip(parts, decompose(features.double(), weight.double()), strict=True):
        assert part.dtype == torch.float32
        torch.testing.assert_close(part.double(), wide, rtol=1e-5, atol=1e-5)
    assert features.equal(before[0])
    assert weight.equal(before[1])


@pytest.mark.parametrize("cut", [0.0, 0.7])
def test_labels_equal_a_loop(cut):
    z = draw(2, 3, 4, 5)
    z[0, :, 0, 0] = cut  # not above it
    expected = np.zeros((2, 4, 5), dtype=np.int64)
    for b, i, j in np.ndindex(expected.shape):
        column = z[b, :, i, j]
        expected[b, i, j] = 1 + column.argmax() if column.max() > cut else 0
    found = labels(torch.tensor(z), cut=cut)
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found.numpy(), expected)
    assert expected[0, 0, 0] == 0


def test_without_classes_all_is_background():
    assert labels(torch.zeros(2, 0, 3, 4)).equal(torch.zeros(2, 3, 4).long())
