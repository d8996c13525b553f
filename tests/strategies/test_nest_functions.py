"""Scores, composition and rescaling of NeST's rows against loops in NumPy."""

import numpy as np
import pytest
import torch

from densecl.strategies.nest import align, alignment, compose, start
from numpy_parts import draw

torch.set_num_threads(1)


def softmax(z, axis=0):
    e = np.exp(z - z.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def grown(values, size):
    """(C, h, w) brought to size x size: bilinear, pixel centres at halves, borders repeated."""
    height, width = values.shape[1:]
    rows, columns = (np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1) for n in (height, width))
    result = np.zeros((len(values), size, size))
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            a, b = int(y), int(x)
            c, d = min(a + 1, height - 1), min(b + 1, width - 1)
            top = values[:, a, b] * (1 - (x - b)) + values[:, a, d] * (x - b)
            low = values[:, c, b] * (1 - (x - b)) + values[:, c, d] * (x - b)
            result[:, i, j] = top * (1 - (y - a)) + low * (y - a)
    return result


def numpy_alignment(features, z, weight, target, classes, size):
    sums, pixels = np.zeros((len(classes), *weight.shape)), np.zeros(len(classes))
    for b in range(len(features)):
        f, q = grown(features[b], size), softmax(grown(z[b], size))
        height, width = target.shape[1:]
        for i in range(size):
            for j in range(size):
                label = target[b, i * height // size, j * width // size]
                if label in classes:
                    k = classes.index(label)
                    pixels[k] += 1
                    for o in range(len(weight)):
                        sums[k, o] += (f[:, i, j] * weight[o] > 0) * q[o, i, j]
    return sums, pixels


@pytest.mark.parametrize("sign", ["any", "nonnegative"])
@pytest.mark.parametrize(("size", "shape", "image"), [(8, (3, 4), (12, 16)), (5, (5, 5), (5, 5)), (3, (7, 2), (9, 6))])
def test_alignment_equals_numpy(size, shape, image, sign):
    features, z, weight = draw(2, 3, *shape), draw(2, 4, *shape, seed=1), draw(4, 3, seed=2)
    weight[1, 2] = 0  # a product that is 0 does not count
    if sign == "nonnegative":
        features = features.clip(0)
    target = np.random.default_rng(3).choice([0, 2, 4, 5, 255], (2, *image))
    inputs = [torch.tensor(x) for x in (features, z, weight, target)]
    before = [x.clone() for x in inputs]
    sums, pixels = alignment(*inputs, classes=(4, 5), size=size)
    wanted, counts = numpy_alignment(features, z, weight, target, [4, 5], size)
    np.testing.assert_allclose(sums.numpy(), wanted, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(pixels.numpy(), counts)
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))


@pytest.mark.parametrize("label", [0, 255, 9])
def test_a_class_without_pixels_has_no_scores(label):
    target = torch.full((1, 4, 6), label)
    sums, pixels = alignment(torch.rand(1, 3, 2, 3), torch.rand(1, 2, 2, 3), torch.rand(2, 3), target, classes=(4, 5))
    assert not sums.any()
    assert not pixels.any()


def test_one_pixel_of_one_class_counts_the_signs_that_agree():
    features, weight = torch.tensor([2.0, 1.0, -1.0]).view(1, 3, 1, 1), torch.tensor([[1.0, -1.0, -1.0]])
    sums, pixels = alignment(
        features, torch.zeros(1, 1, 1, 1), weight, torch.ones(1, 1, 1).long(), classes=(1,), size=1
    )
    assert sums.tolist() == [[[1, 0, 1]]]
    assert pixels.tolist() == [1]


def test_training_starts_with_the_scores_and_the_softmax_of_their_sums():
    scores = draw(2, 4, 3) ** 2
    given = torch.tensor(scores)
    maps, shares = start(given)
    np.testing.assert_array_equal(maps.numpy(), scores)
    np.testing.assert_allclose(shares.numpy(), softmax(scores.sum(2), 1), rtol=1e-13)
    maps.zero_()
    assert given.equal(torch.tensor(scores))


def test_composition_equals_numpy_in_value_and_gradient():
    shares, maps, weight, back = draw(2, 4), draw(2, 4, 3, seed=1), draw(4, 3, seed=2), draw(2, 3, seed=3)
    p, m, w = (torch.tensor(x, requires_grad=True) for x in (shares, maps, weight))
    rows = compose(p, m, w)
    expected = np.zeros((2, 3))
    for k, o, d in np.ndindex(2, 4, 3):
        expected[k, d] += shares[k, o] * maps[k, o, d] * weight[o, d]
    np.testing.assert_allclose(rows.detach().numpy(), expected, rtol=1e-12)
    rows.backward(torch.tensor(back))
    assert w.grad is None  # old rows are constants
    np.testing.assert_allclose(p.grad.numpy(), np.einsum("kd,kod,od->ko", back, maps, weight), rtol=1e-12)
    np.testing.assert_allclose(m.grad.numpy(), np.einsum("kd,ko,od->kod", back, shares, weight), rtol=1e-12)


def test_background_alone_taken_whole_is_copied():
    weight = torch.tensor(draw(1, 5))
    assert compose(torch.ones(3, 1), torch.ones(3, 1, 5).double(), weight).equal(weight.expand(3, 5))


def test_rows_biases_and_background_get_the_norms_of_old_ones():
    new, new_bias, background, weight, bias = draw(2, 3), draw(2, seed=1), draw(3, seed=2), draw(4, 3, seed=3), draw(4)
    inputs = [torch.tensor(x) for x in (new, new_bias, background, weight, bias)]
    before = [x.clone() for x in inputs]
    rows, biases, row = align(*inputs)
    lengths = [np.sqrt((x**2).sum(1)) for x in (weight, new)]
    np.testing.assert_allclose(rows.numpy(), new * lengths[0].mean() / lengths[1].mean(), rtol=1e-13)
    ratio = np.sqrt((bias**2).sum()) / np.sqrt((new_bias**2).sum())
    np.testing.assert_allclose(biases.numpy(), new_bias * ratio, rtol=1e-13)
    np.testing.assert_allclose(row.numpy(), background * lengths[0][0] / np.sqrt((background**2).sum()), rtol=1e-13)
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))


def test_rows_that_are_old_ones_stay_and_zeros_stay_zeros():
    weight, bias = torch.tensor(draw(3, 4)), torch.tensor(draw(3, seed=1))
    for made, own in zip(align(weight, bias, weight[0], weight, bias), (weight, bias, weight[0]), strict=True):
        torch.testing.assert_close(made, own)
    for made in align(0 * weight, 0 * bias, 0 * weight[0], weight, bias):
        assert not made.any()


def test_half_precision_is_computed_in_float32():
    f, z, w = torch.tensor(draw(1, 3, 4, 6)), torch.tensor(draw(1, 4, 4, 6, seed=1)), torch.tensor(draw(4, 3, seed=2))
    f, z, w, target = f.bfloat16(), z.bfloat16(), w.bfloat16(), torch.full((1, 8, 12), 4)
    wide = alignment(f.double(), z.double(), w.double(), target, classes=(4,), size=8)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums, pixels = alignment(f, z, w, target, classes=(4,), size=8)
    assert sums.dtype == pixels.dtype == torch.float32
    torch.testing.assert_close(sums.double(), wide, rtol=1e-5, atol=1e-4)
    maps, shares = start(sums.bfloat16())
    made = align(compose(shares.bfloat16(), maps.bfloat16(), w), w[:1, 0], w[0], w, w[:, 0])
    assert all(x.dtype == torch.float32 for x in (maps, shares, *made))
