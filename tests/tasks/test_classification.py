"""Classification: loss, errors and head against NumPy in float64; one answer for a whole image."""

import math

import numpy as np
import pytest
import torch

from densecl.check.task import check_task
from densecl.check.tiny import tiny_network
from densecl.errors import SettingError
from densecl.metrics.ranks import rank_of
from densecl.models.heads import ImageHead, TaskHeads
from densecl.tasks import Context
from densecl.tasks.classification import Classification, pooled
from densecl.training.batch import labelled_share, sizes, unkeyed

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


@pytest.fixture
def task():
    return Classification("animals", class_names=NAMES)


def numbers(n=9, classes=len(NAMES), seed=0):
    """Logits (n, classes, 1, 1) in float64, and true classes from 0."""
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(size=(n, classes, 1, 1)) * 2), rng.integers(0, classes, n)


def truth_of(labels, size=(6, 8)):
    """The map of a reader: the number of the class throughout, from 1."""
    return torch.tensor(1.0 + labels, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, *size).clone()


def batch(task, labels):
    truth = truth_of(labels)
    prepared = task.prepare(torch.zeros(len(truth), 3, *truth.shape[2:], dtype=torch.uint8), truth)
    return unkeyed(prepared.image, prepared.target)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_the_weighted_mean_cross_entropy_of_images(task, weighted):
    logits, labels = numbers()
    weight = np.random.default_rng(1).random(len(labels)) if weighted else np.ones(len(labels))
    own = batch(task, labels)._replace(weight=torch.tensor(weight) if weighted else None)
    logits.requires_grad_()
    loss = task.loss(logits, own)
    z = logits.detach().numpy()[..., 0, 0]
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    wanted = (-np.log(p[np.arange(len(labels)), labels]) * weight).sum() / weight.sum()
    assert loss.item() == pytest.approx(wanted, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, logits)
    slope = (p - np.eye(len(NAMES))[labels]) * weight[:, None] / weight.sum()
    np.testing.assert_allclose(gradient.numpy()[..., 0, 0], slope, rtol=1e-10, atol=1e-15)


def test_errors_are_shares_of_images_whose_class_is_not_among_the_first_guesses(task):
    logits, labels = numbers(200)
    metrics = task.metrics()
    for part in (slice(0, 70), slice(70, 200)):  # batches of different size
        own = batch(task, labels[part])
        metrics.update(logits[part], own.image, own.target)
    order = np.argsort(-logits.numpy()[..., 0, 0], axis=1)
    wanted = {f"top{k}_error": 1 - np.mean((order[:, :k] == labels[:, None]).any(1)) for k in (1, 5)}
    assert metrics.compute() == pytest.approx(wanted, abs=1e-12)
    assert 0 < wanted["top5_error"] < wanted["top1_error"] < 1


def test_of_five_classes_all_are_guessed_so_there_is_no_second_error():
    small = Classification("few", class_names=NAMES[:5])
    logits, labels = numbers(6, 5)
    metrics = small.metrics()
    metrics.update(logits, logits, batch(small, labels).target)
    assert set(metrics.compute()) == {"top1_error"}


def test_of_equal_outputs_the_first_counts_as_the_larger_and_what_is_no_number_is_wrong():
    scores = torch.tensor([[1.0, 1, 1], [1, 1, 1], [0, 2, 2], [5, math.nan, 1], [math.nan, 0, 0]])
    assert rank_of(scores, torch.tensor([0, 2, 2, 0, 0])).tolist() == [0, 2, 1, 1, 2]


def test_the_class_is_found_wherever_an_augmentation_shows_the_image(task):
    truth = truth_of(np.array([3, 0]))
    truth[:, :, :4] = 0  # padding
    target = task.prepare(torch.zeros(2, 3, 6, 8, dtype=torch.uint8), truth).target
    assert target.shape == (2, len(NAMES), 1, 1)
    assert target.argmax(1).flatten().tolist() == [3, 0]
    nothing = task.prepare(torch.zeros(1, 3, 6, 8, dtype=torch.uint8), torch.zeros(1, 6, 8, dtype=torch.uint8))
    assert not nothing.target.any()


def test_more_classes_than_a_mask_has_labels():
    many = Classification("many", class_names=tuple(map(str, range(1000))))
    logits, labels = numbers(4, 1000)
    labels[:] = (254, 255, 256, 999)
    own = batch(many, labels)
    assert own.target.argmax(1).flatten().tolist() == labels.tolist()
    z = logits.numpy()[..., 0, 0]
    wanted = np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(4), labels])
    assert many.loss(logits, own).item() == pytest.approx(wanted, rel=1e-10)
    assert sizes(own).tolist() == [4, 4]  # images weigh alike, whatever the number of their class
    assert labelled_share(own) == 1


def test_a_teacher_holds_by_its_probabilities(task):
    logits, _ = numbers()
    teacher, _ = numbers(seed=5)
    z, t = (x.numpy()[..., 0, 0] for x in (logits, teacher))
    p = np.exp(t) / np.exp(t).sum(1, keepdims=True)
    wanted = -(p * (z - np.log(np.exp(z).sum(1, keepdims=True)))).sum(1).mean()
    assert task.distillation(logits, teacher).item() == pytest.approx(wanted, rel=1e-12)


def test_the_head_is_global_average_pooling_and_a_linear_layer():
    torch.manual_seed(0)
    head, features = ImageHead(5, 3).double(), torch.randn(2, 5, 4, 6, dtype=torch.float64)
    weight, bias = (p.detach().numpy() for p in head.parameters())
    wanted = features.numpy().mean((2, 3)) @ weight[..., 0, 0].T + bias
    np.testing.assert_allclose(head(features).detach().numpy()[..., 0, 0], wanted, rtol=1e-12)


def test_a_network_answers_for_whole_images_where_the_task_does_and_for_pixels_elsewhere():
    network = tiny_network()
    network.make_heads(TaskHeads)
    for name, build in (("whole", ImageHead), ("pixels", None)):
        network.task_heads.begin(name)
        network.grow(4, build)
    image = torch.rand(2, 3, 32, 32)
    for name, size in (("whole", (1, 1)), ("pixels", (32, 32))):
        network.task_heads.select(name)
        output = network.train()(image)
        assert {tuple(x.shape[2:]) for x in (output.logits, *output.auxiliary)} == {size}
        other = "pixels" if name == "whole" else "whole"
        assert network.logits_of(other, output, image).shape[2:] == ((32, 32) if other == "pixels" else (1, 1))


def test_the_kind_passes_the_check_of_kinds():
    assert check_task(Classification) == []


def test_a_data_set_without_classes_of_images_is_refused():
    with pytest.raises(SettingError, match="task 'x' has no classes"):
        Classification.build("x", {}, Context())


def test_the_likely_classes_are_the_first_five_with_their_probabilities(task):
    logits, _ = numbers(1)
    z = logits.numpy()[0, :, 0, 0]
    p = np.exp(z) / np.exp(z).sum()
    order = np.argsort(-p)[:5]
    found = task.likely(logits[0])
    assert list(found) == [NAMES[k] for k in order]
    assert list(found.values()) == pytest.approx(p[order])
    assert torch.equal(pooled(logits.expand(-1, -1, 4, 4)), pooled(logits))


def test_a_picture_tells_right_from_wrong(task):
    output = torch.zeros(len(NAMES), 1, 1)
    output[2] = 1
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    right, wrong = (task.picture(image, output, truth_of(np.array([k]), (40, 40))[0]) for k in (2, 3))
    unknown = task.picture(image, output, torch.zeros(40, 40, dtype=torch.uint8))
    shown = [tuple(p.output[:, 0, 0].tolist()) for p in (right, wrong, unknown)]
    assert len(set(shown)) == 3
    assert (right.output > 150).all(0).any()  # letters
    assert not torch.equal(right.truth, wrong.truth)
