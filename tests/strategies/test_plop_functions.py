"""PLOP's uncertainty, medians and pseudo-labels against NumPy, a pixel at a time."""

import math

import numpy as np
import pytest
import torch

from densecl.strategies.plop import medians, pseudo_labels, uncertainty

FORMS = ["exact", "published"]


def numpy_uncertainty(z: np.ndarray, n_classes: int, form: str) -> np.ndarray:
    batch, n_old, height, width = z.shape
    result = np.zeros((batch, height, width))
    for b, i, j in np.ndindex(result.shape):
        p = np.exp(z[b, :, i, j] - z[b, :, i, j].max())
        p /= p.sum()
        if form == "exact":
            result[b, i, j] = -sum(x * math.log(x) for x in p if x > 0) / math.log(n_old)
        else:
            mean = sum(x * math.log(x + 1e-8) for x in p) / n_old
            result[b, i, j] = -mean / math.log(n_old + 1e-8) / math.log(n_classes)
    return result


def numpy_medians(histogram: np.ndarray, floor: float, form: str) -> list[float]:
    """The written rule, with Python's numbers; division by an empty bin as IEEE has it."""
    result = []
    bins = histogram.shape[1]
    for counts in histogram.astype(float):
        half = counts.sum() / 2
        if half == 0:
            result.append(floor)
            continue
        running, k = 0.0, 0
        for k in range(bins):
            if running <= half <= running + counts[k]:
                break
            running += counts[k] if form == "exact" else k
        with np.errstate(divide="ignore", invalid="ignore"):
            median = k / bins + np.float64(half - running) / counts[k] / bins
        result.append(median if np.isnan(median) else max(median, floor))
    return result


def draw_logits(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, shape)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 1, 1), (2, 16, 3, 2)])
def test_uncertainty_equals_numpy(shape, form):
    z = draw_logits(*shape)
    n_classes = shape[1] + 2
    computed = uncertainty(torch.tensor(z), n_classes=n_classes, form=form)
    assert computed.shape == (shape[0], *shape[2:])
    np.testing.assert_allclose(computed.numpy(), numpy_uncertainty(z, n_classes, form), rtol=1e-12, atol=1e-15)


def test_uncertainty_is_0_for_a_sure_teacher_and_largest_for_a_uniform_one():
    sure = torch.zeros(1, 4, 1, 1)
    sure[0, 2] = 200
    uniform = torch.zeros(1, 4, 1, 1, dtype=torch.float64)
    assert uncertainty(sure, n_classes=6).item() == 0
    assert uncertainty(sure - torch.tensor([math.inf, 0, 0, 0]).view(1, 4, 1, 1), n_classes=6).item() == 0
    assert uncertainty(uniform, n_classes=6).item() == pytest.approx(1)
    largest = 1 / (4 * math.log(6))
    assert uncertainty(uniform, n_classes=6, form="published").item() == pytest.approx(largest, rel=1e-7)


@pytest.mark.parametrize("form", FORMS)
def test_a_teacher_of_one_output_is_sure(form):
    assert (uncertainty(torch.randn(2, 1, 3, 4), n_classes=3, form=form) == 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_computed_in_float32_and_nothing_is_differentiated(form):
    z = torch.tensor(draw_logits(1, 3, 4, 4)).bfloat16().requires_grad_()
    computed = uncertainty(z, n_classes=5, form=form)
    assert computed.dtype == torch.float32
    assert not computed.requires_grad
    expected = numpy_uncertainty(z.detach().double().numpy(), 5, form)
    np.testing.assert_allclose(computed.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("floor", [0.001, 0.2])
@pytest.mark.parametrize("scale", [3, 40, 3000])
def test_medians_equal_the_rule_written_out(scale, floor, form):
    rng = np.random.default_rng(scale)
    histogram = rng.integers(0, scale, (12, 100))
    histogram[0] = 0
    histogram[1, 3:] = 0  # as published uncertainties are: all in the first bins
    histogram[2, 1:] = 0
    histogram[3, :] = 0
    histogram[3, 57] = 1
    computed = medians(torch.tensor(histogram), floor=floor, form=form)
    assert computed.dtype == torch.float64
    np.testing.assert_allclose(computed.numpy(), numpy_medians(histogram, floor, form), rtol=1e-13)


def test_the_exact_median_halves_the_histogram():
    rng = np.random.default_rng(0)
    values = rng.beta(2, 5, 200_000)
    histogram, _ = np.histogram(values, bins=100, range=(0, 1))
    assert medians(torch.tensor(histogram)[None]).item() == pytest.approx(np.median(values), abs=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_a_class_without_pixels_gets_the_floor(form):
    assert medians(torch.zeros(2, 100), form=form).tolist() == [0.001, 0.001]


def test_published_medians_of_empty_bins_are_infinite_or_no_number():
    spread = torch.zeros(1, 100)
    spread[0, :3] = torch.tensor([40_000, 35_000, 25_000])  # no bin reaches half: the last one is taken, and is empty
    assert medians(spread, form="published").item() == math.inf
    few = torch.zeros(1, 100)
    few[0, [0, 50]] = torch.tensor([3.0, 9.0])  # half is 6 = r_4, bin 4 is empty: 0 / 0
    assert math.isnan(medians(few, form="published").item())
    assert medians(few).item() == pytest.approx(0.5 + 3 / 9 / 100)


def numpy_pseudo_labels(target, z, cut, n_old, n_classes, form):
    doubt = numpy_uncertainty(z, n_classes, form)
    labels, shares = target.copy(), []
    for b in range(len(target)):
        background = accepted = 0
        for i, j in np.ndindex(target.shape[1:]):
            if target[b, i, j] >= n_old:
                continue
            background += 1
            c = z[b, :, i, j].argmax()
            sure = doubt[b, i, j] < cut[c]
            labels[b, i, j] = c if sure else 255
            accepted += sure
        shares.append(accepted / (background + 1e-6))
    return labels, np.array(shares)


@pytest.mark.parametrize("form", FORMS)
def test_pseudo_labels_equal_numpy(form):
    rng = np.random.default_rng(3)
    n_old, n_classes = 4, 6
    z = draw_logits(3, n_old, 5, 7)
    target = rng.choice([0, 0, 0, 2, 4, 5, 255], (3, 5, 7))
    cut = np.array([0.5, 0.7, math.nan, math.inf]) / (1 if form == "exact" else n_old * math.log(n_classes))
    arguments = torch.tensor(target), torch.tensor(z), torch.tensor(cut)
    before = [x.clone() for x in arguments]
    labels, accepted = pseudo_labels(*arguments, n_old=n_old, n_classes=n_classes, form=form)
    expected, shares = numpy_pseudo_labels(target, z, cut, n_old, n_classes, form)
    assert labels.dtype == torch.int64
    np.testing.assert_array_equal(labels.numpy(), expected)
    np.testing.assert_allclose(accepted.numpy(), shares, rtol=1e-12)
    assert 0 < shares.min() <= shares.max() < 1
    assert not (labels == 2).any()  # its cut is NaN: never accepted
    for x, y in zip(arguments, before, strict=True):
        assert torch.equal(x.nan_to_num(), y.nan_to_num())


def test_new_classes_and_void_are_never_touched_and_no_background_gives_share_0():
    z = torch.tensor(draw_logits(1, 3, 4, 4))
    for label in (3, 255):
        target = torch.full((1, 4, 4), label)
        labels, accepted = pseudo_labels(target, z, torch.ones(3), n_old=3, n_classes=4)
        assert labels.equal(target)
        assert accepted.tolist() == [0]


def test_a_doubt_that_equals_the_cut_is_refused():
    z = torch.zeros(1, 2, 1, 1, dtype=torch.float64)  # uniform: 1, and the class is 0
    labels, accepted = pseudo_labels(torch.zeros(1, 1, 1).long(), z, torch.ones(2), n_old=2, n_classes=3)
    assert labels.item() == 255
    assert accepted.item() == 0
    labels, accepted = pseudo_labels(torch.zeros(1, 1, 1).long(), z, torch.full((2,), 1.01), n_old=2, n_classes=3)
    assert labels.item() == 0
    assert accepted.item() == pytest.approx(1, abs=1e-5)
