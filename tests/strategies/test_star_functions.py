"""The functions of STAR against loops in NumPy: prototypes, numbers of pixels, and how terms are weighed."""

import numpy as np
import pytest
import torch

from densecl.strategies.star import (
    background_ratio,
    fakes_per_iteration,
    lengths,
    pixel_counts,
    prototypes,
    rebalance,
    spread,
)
from densecl.strategies.tools.prototypes import agreed, at_places, directions_of, lengths_of, moments, spread_of
from numpy_parts import draw

torch.set_num_threads(1)
CLASSES = (3, 1, 7)  # 7 does not occur


def labels_of(*shape, seed=0):
    return np.random.default_rng(seed).choice([0, 1, 3, 4, 255], shape)


def of_class(f, label, c):
    """(n, D) features of a class."""
    return np.array([f[b, :, i, j] for b, i, j in np.ndindex(label.shape) if label[b, i, j] == c]).reshape(
        -1, f.shape[1]
    )


def unit(rows):
    return rows / np.sqrt((rows**2).sum(-1, keepdims=True))


@pytest.mark.parametrize("size", [(5, 3), (4, 4), (1, 9)])
def test_prototypes_lengths_and_spread_equal_numpy(size):
    f, label = draw(2, 4, *size), labels_of(2, *size)
    features, labels = torch.tensor(f), torch.tensor(label)
    own = [of_class(f, label, c) for c in CLASSES]
    found = prototypes(features, labels, classes=CLASSES)
    sizes, given = lengths(features, labels, classes=CLASSES), torch.tensor(unit(draw(3, 4, seed=1)))
    spreads = spread(features, labels, given, classes=CLASSES)
    for k, rows in enumerate(own[:2]):
        assert len(rows) > 1
        np.testing.assert_allclose(found[k].numpy(), unit(unit(rows).sum(0)), rtol=1e-12)
        norms = np.sqrt((rows**2).sum(1))
        np.testing.assert_allclose(sizes[:, k].numpy(), [norms.mean(), norms.std(ddof=1)], rtol=1e-11)
        expected = np.sqrt(((unit(rows) - given[k].numpy()) ** 2).mean(0))
        np.testing.assert_allclose(spreads[k].numpy(), expected, rtol=1e-9)
    for empty in (found[2], sizes[:, 2], spreads[2]):
        assert (empty == 0).all()


def test_one_place_has_its_direction_its_length_and_no_spread():
    f = torch.tensor(draw(1, 3, 1, 1))
    label = torch.full((1, 1, 1), 5)
    p = prototypes(f, label, classes=(5,))
    torch.testing.assert_close(p[0], f[0, :, 0, 0] / f.norm())
    torch.testing.assert_close(lengths(f, label, classes=(5,)), torch.tensor([[f.norm()], [0.0]]).double())
    assert spread(f, label, p, classes=(5,)).max() < 1e-7


def test_sums_of_parts_are_those_of_the_whole():
    f, label = torch.tensor(draw(4, 3, 5, 2)), torch.tensor(labels_of(4, 5, 2))
    sums = sum(moments(f[k : k + 1], label[k : k + 1], classes=CLASSES) for k in range(4))
    p = directions_of(sums)
    torch.testing.assert_close(p, prototypes(f, label, classes=CLASSES))
    torch.testing.assert_close(lengths_of(sums), lengths(f, label, classes=CLASSES))
    torch.testing.assert_close(spread_of(sums, p), spread(f, label, p, classes=CLASSES))


def test_half_precision_is_computed_in_more_and_inputs_stay():
    f, label = torch.tensor(draw(2, 3, 4, 6)).bfloat16(), torch.tensor(labels_of(2, 4, 6))
    before = f.clone(), label.clone()
    for function in (prototypes, lengths):
        found = function(f, label, classes=CLASSES)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), function(f.double(), label, classes=CLASSES), rtol=1e-6, atol=1e-6)
    assert f.equal(before[0])
    assert label.equal(before[1])


@pytest.mark.parametrize(("side", "image"), [(4, 64), (3, 48), (5, 5)])
def test_places_are_the_pixels_in_the_middle_of_their_cells(side, image):
    label = torch.tensor(labels_of(2, image, image))
    stride = image // side
    assert at_places(label, torch.zeros(2, 1, side, side)).equal(label[:, stride // 2 :: stride, stride // 2 :: stride])


def test_fakes_make_up_for_what_is_missing_in_an_epoch():
    stored, predicted = torch.tensor([100.0, 50.0, 9.0, 0.0]), torch.tensor([30.0, 70.0, 0.0, 0.0])
    overlapped = fakes_per_iteration(stored, predicted, iterations=10, setting="overlapped")
    assert overlapped.tolist() == [7, 0, 0, 0]
    assert overlapped.dtype == torch.int64
    assert fakes_per_iteration(stored, predicted, iterations=10, setting="disjoint").tolist() == [10, 5, 0, 0]


@pytest.mark.parametrize(
    ("setting", "stored", "predicted", "wanted"),
    [
        ("overlapped", 1000.0, 400.0, 1000 * 0.95 / 400 - 0.5),
        ("overlapped", 100.0, 400.0, 0.0),
        ("overlapped", 100.0, 0.0, 0.0),
        ("disjoint", 100.0, 400.0, 0.25),
        ("disjoint", 100.0, 0.0, 0.0),
    ],
)
def test_background_counts_as_often_as_it_lacks(setting, stored, predicted, wanted):
    ratio = background_ratio(torch.tensor(stored).double(), torch.tensor(predicted).double(), n_new=5, setting=setting)
    assert ratio.item() == pytest.approx(wanted)


def test_counts_of_pixels_after_a_step():
    stored, predicted = torch.tensor([1000.0, 30.0, 20.0]), torch.tensor([400.0, 5.0, 6.0])
    own = torch.tensor([7.0, 8.0])
    overlapped = pixel_counts(stored, predicted, own, n_new=2, setting="overlapped")
    assert overlapped.tolist() == pytest.approx([1000 * 0.98 + 200, 30, 20, 7, 8])
    assert pixel_counts(stored, predicted, own, n_new=2, setting="disjoint").tolist() == [1400, 35, 26, 7, 8]


def test_terms_are_weighed_by_their_numbers_and_one_of_weight_0_is_not_looked_at():
    own, fakes, background = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (2.0, 3.0, 5.0))
    loss = rebalance(own, fakes, background, fake_weight=0.5, background_weight=torch.tensor(1.5))
    assert loss.item() == pytest.approx((2 + 0.5 * 3 + 1.5 * 5) / 3)
    loss.backward()
    assert [x.grad.item() for x in (own, fakes, background)] == pytest.approx([1 / 3, 1 / 6, 1 / 2])
    lost = torch.tensor(float("nan"))
    assert rebalance(own, lost, lost, fake_weight=0, background_weight=torch.tensor(0.0)).item() == 2


def test_networks_agree_where_both_name_a_class_by_a_margin():
    sure, unsure = 4.0, 0.3
    first = torch.tensor([[sure, -sure, -sure], [sure, -sure, -sure], [sure, sure, -sure], [unsure, -sure, -sure]])
    second = torch.tensor([[sure, -sure], [-sure, sure], [sure, -sure], [sure, -sure]])
    found = agreed(first.T[None, :, None], second.T[None, :, None], margin=0.7)
    assert found.tolist() == [[[1, 0, 0, 0]]]
    alone = torch.tensor([[[[sure, unsure, -sure]]]])
    assert agreed(alone, alone, margin=0.7).tolist() == [[[1, 0, 0]]]
