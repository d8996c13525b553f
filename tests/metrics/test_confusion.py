"""The confusion matrix against a pixel loop and another library."""

import time

import numpy as np
import pytest
import torch

from densecl.metrics import ConfusionMatrix

torch.set_num_threads(1)


def pixel_loop(prediction, target, n, void=255):
    matrix = np.zeros((n, n), dtype=np.int64)
    for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t != void:
            matrix[t, p] += 1
    return matrix


def draw(n=21, shape=(3, 17, 19), void: int | None = 255, seed=0):
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(0, n, shape, generator=generator)
    target = torch.randint(0, n, shape, generator=generator)
    if void is not None:
        target[torch.rand(shape, generator=generator) < 0.2] = void
    return prediction, target


@pytest.mark.parametrize("n", [1, 2, 21, 127, 128, 151])  # 127 and 128: either side of the two-byte pair numbers
@pytest.mark.parametrize("void", [None, 255])
def test_counts_equal_a_pixel_loop(n, void):
    prediction, target = draw(n, void=void)
    confusion = ConfusionMatrix(n)
    confusion.update(prediction, target)
    assert confusion.matrix.dtype == torch.int64
    np.testing.assert_array_equal(confusion.matrix.numpy(), pixel_loop(prediction, target, n))


@pytest.mark.parametrize("void", [-1, -100, 0, 3, 21, 65535])
def test_any_label_can_be_void(void):
    prediction, target = draw(void=void)
    confusion = ConfusionMatrix(21, ignore_index=void)
    confusion.update(prediction, target)
    np.testing.assert_array_equal(confusion.matrix.numpy(), pixel_loop(prediction, target, 21, void))


@pytest.mark.parametrize("prediction_type", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("target_type", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integer_types_and_shapes_may_be_mixed(prediction_type, target_type):
    prediction, target = draw(shape=(50,))
    confusion = ConfusionMatrix(21)
    confusion.update(prediction.to(prediction_type), target.to(target_type))
    np.testing.assert_array_equal(confusion.matrix.numpy(), pixel_loop(prediction, target, 21))


def test_equals_torchmetrics():
    functional = pytest.importorskip("torchmetrics.functional.classification")
    prediction, target = draw()
    confusion = ConfusionMatrix(21)
    confusion.update(prediction, target)
    assert confusion.matrix.equal(functional.multiclass_confusion_matrix(prediction, target, 21, ignore_index=255))


def test_rows_are_the_truth_and_iou_is_the_hand_count():
    confusion = ConfusionMatrix(4)
    confusion.update(torch.tensor([0, 0, 1, 1, 2, 0]), torch.tensor([0, 1, 1, 1, 255, 0]))
    assert confusion.matrix.tolist() == [[2, 0, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    iou = confusion.iou()
    assert iou.dtype == torch.float64
    assert iou[:2].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert iou[2:].isnan().all()  # the only predicted 2 lies on void


def test_a_class_predicted_but_never_true_has_iou_zero():
    confusion = ConfusionMatrix(2)
    confusion.update(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert confusion.iou().tolist() == [0.5, 0.0]


def test_counts_add_up_over_updates_and_merges_and_reset_clears():
    a, b, whole = ConfusionMatrix(21), ConfusionMatrix(21), ConfusionMatrix(21)
    prediction, target = draw()
    a.update(prediction[:1], target[:1])
    b.update(prediction[1:], target[1:])
    whole.update(prediction, target)
    a.merge(b)
    assert a.matrix.equal(whole.matrix)
    a.reset()
    assert not a.matrix.any()
    with pytest.raises(ValueError, match="cannot merge"):
        a.merge(ConfusionMatrix(3))


def test_void_only_and_empty_batches_count_nothing():
    confusion = ConfusionMatrix(21)
    confusion.update(torch.zeros(4, 4, dtype=torch.int64), torch.full((4, 4), 255))
    confusion.update(torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, 4, dtype=torch.int64))
    assert not confusion.matrix.any()
    assert confusion.iou().isnan().all()


@pytest.mark.parametrize("wide", [0, 3])  # wide: an unusual void label too
@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        ([0, 5], [0, 1], "prediction holds 5, not a label of 0..2"),
        ([-1, 2], [0, 1], "prediction holds -1"),
        ([0, 1], [0, 3], "target holds 3"),
        ([0, 1], [0, 100], "target holds 100"),
        ([0, 0], [-7, 1], "target holds -7"),
        ([0, 0], [1, 70000], "target holds 70000"),
        ([0, 1, 2], [0, 3, 255], "target holds 3"),
        ([0, 1], [0], "differ in shape"),
        ([0.0, 1.0], [0, 1], "not an integer type"),
    ],
)
def test_illegal_labels_are_named_and_nothing_is_counted(prediction, target, message, wide):
    confusion = ConfusionMatrix(3, ignore_index=-100 if wide and 255 not in target else 255)
    with pytest.raises(ValueError, match=message):
        confusion.update(torch.tensor(prediction), torch.tensor(target))
    assert not confusion.matrix.any()


def test_inputs_are_not_changed():
    prediction, target = draw()
    before = prediction.clone(), target.clone()
    ConfusionMatrix(21).update(prediction, target)
    assert prediction.equal(before[0])
    assert target.equal(before[1])


def test_far_faster_than_a_pixel_loop():
    prediction, target = draw(shape=(256, 256))
    confusion = ConfusionMatrix(21)

    def best(call, repeats):
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    loop = best(lambda: pixel_loop(prediction, target, 21), 1)
    assert loop > 20 * best(lambda: confusion.update(prediction, target), 5)  # measured: far more; here only the order
