"""Depth and normals: losses and metrics against NumPy in float64, pixels of which nothing is known, pictures."""

import json
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from densecl.check.task import check_task
from densecl.losses import absolute_error, cosine_distance
from densecl.metrics import depth_errors, normal_angles
from densecl.metrics.geometry import NormalMetrics
from densecl.tasks.depth import Depth
from densecl.tasks.normals import Normals
from densecl.training.batch import labelled_share, sizes, unkeyed

SHAPE = (3, 20, 14)  # images, height, width


class Targets(NamedTuple):
    target: Tensor
    weight: Tensor | None = None


def depths(seed=0, dtype=torch.float64):
    """Predicted and true depth, of which a third is unknown."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 9, (SHAPE[0], 1, *SHAPE[1:]))
    truth[rng.random(truth.shape) < 0.33] = 0
    made = np.where(rng.random(truth.shape) < 0.05, -1.0, np.abs(truth + rng.normal(0, 1, truth.shape)))
    return torch.tensor(made, dtype=dtype), torch.tensor(truth, dtype=dtype)


def vectors(seed=0, dtype=torch.float64):
    """Predicted and true unit vectors, of which a third of the truth is unknown."""
    rng = np.random.default_rng(seed)
    made, truth = rng.normal(size=(2, SHAPE[0], 3, *SHAPE[1:]))
    truth += 2 * made
    made, truth = (v / np.sqrt((v * v).sum(1, keepdims=True)) for v in (made, truth))
    truth *= rng.random((SHAPE[0], 1, *SHAPE[1:])) > 0.33
    return torch.tensor(made, dtype=dtype), torch.tensor(truth, dtype=dtype)


def batch(task, truth):
    """A prepared batch of a truth."""
    prepared = task.prepare(torch.zeros(len(truth), 3, *truth.shape[2:], dtype=torch.uint8), truth)
    return unkeyed(prepared.image, prepared.target)._replace(weight=prepared.weight)


# ---- losses


@pytest.mark.parametrize("per", [(), (3,), SHAPE])
def test_cosine_distance_is_one_minus_the_weighted_mean_dot_product(per):
    made, truth = vectors()
    weight = torch.rand(per, generator=torch.Generator().manual_seed(1), dtype=torch.float64) if per else None
    full = (
        np.ones(SHAPE)
        if weight is None
        else np.broadcast_to(weight.numpy().reshape(*per, *[1] * (3 - len(per))), SHAPE)
    )
    known = np.abs(truth.numpy()).sum(1) > 0
    w = full * known
    made.requires_grad_()
    value = cosine_distance(made, truth, weight=weight)
    wanted = 1 - (w * (made.detach() * truth).sum(1).numpy()).sum() / w.sum()
    assert value.item() == pytest.approx(wanted, rel=1e-12)
    (gradient,) = torch.autograd.grad(value, made)
    np.testing.assert_allclose(gradient.numpy(), -truth.numpy() * w[:, None] / w.sum(), rtol=1e-12, atol=1e-15)


def test_equal_maps_are_at_distance_nothing_and_nothing_known_costs_nothing():
    made, truth = vectors()
    made.requires_grad_()
    assert cosine_distance(truth, truth).item() == pytest.approx(0, abs=1e-12)
    for loss in (
        cosine_distance(made, torch.zeros_like(truth)),
        absolute_error(made, truth, valid=torch.zeros(SHAPE, dtype=torch.bool)),
    ):
        (gradient,) = torch.autograd.grad(loss, made)
        assert loss.item() == 0
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_losses_are_of_full_precision_under_half_precision_and_change_no_input():
    made, truth = vectors(dtype=torch.float32)
    before = made.clone(), truth.clone()
    half = cosine_distance(made.bfloat16(), truth)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(cosine_distance(made.bfloat16().float(), truth).item(), rel=1e-6)
    assert torch.equal(made, before[0])
    assert torch.equal(truth, before[1])


def test_the_depth_loss_is_the_mean_absolute_error_where_there_is_depth():
    made, truth = depths()
    task = Depth("d", unit=2.0)
    own = batch(task, truth)
    made.requires_grad_()
    loss = task.loss(made, own)
    known = truth.numpy() > 0
    error = made.detach().numpy() - truth.numpy() / 2
    assert loss.item() == pytest.approx(np.abs(error)[known].mean(), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, made)
    np.testing.assert_allclose(gradient.numpy(), np.sign(error) * known / known.sum(), rtol=1e-12)


def test_the_loss_of_normals_does_not_depend_on_the_length_of_outputs():
    made, truth = vectors()
    task = Normals("n")
    own = batch(task, truth)
    lengths = 0.1 + 5 * torch.rand(SHAPE[0], 1, *SHAPE[1:], dtype=torch.float64)
    assert task.loss(made * lengths, own).item() == pytest.approx(task.loss(made, own).item(), rel=1e-12)
    assert task.loss(7 * truth, own).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("task", "maps"), [(Depth("d"), depths), (Normals("n"), vectors)], ids=["depth", "normals"])
def test_what_stands_where_nothing_is_known_counts_nowhere(task, maps):
    made, truth = maps()
    own = batch(task, truth)
    unknown = (truth == 0).all(1, keepdim=True)
    other = torch.where(unknown, 3 + made.flip(0), made)
    assert torch.equal(task.loss(other, own), task.loss(made, own))
    assert torch.equal(task.loss(made, own), task.loss(made, own._replace(weight=None)))  # zeros themselves tell
    scores = [task.metrics(), task.metrics()]
    for metrics, output in zip(scores, (made, other), strict=True):
        metrics.update(output, own.image, own.target)
    assert scores[0].compute() == scores[1].compute()
    nothing = batch(task, torch.zeros_like(truth))
    assert task.loss(made, nothing) == 0
    scores[0] = task.metrics()
    scores[0].update(made, nothing.image, nothing.target)
    assert all(math.isnan(value) for value in scores[0].compute().values())


@pytest.mark.parametrize(("task", "maps"), [(Depth("d"), depths), (Normals("n"), vectors)], ids=["depth", "normals"])
def test_a_batch_in_parts_has_the_loss_of_the_whole(task, maps):
    """Parts weigh by their known pixels, which differ."""
    made, truth = maps()
    truth = truth.clone()
    truth[0] *= torch.rand(SHAPE[1:]) > 0.8
    own = batch(task, truth)
    parts = [
        own._replace(**{key: getattr(own, key)[k : k + 1] for key in ("image", "target", "weight", "index")})
        for k in range(3)
    ]
    together = sum(task.loss(made[k : k + 1], part) * sizes(part)[0] / sizes(own)[0] for k, part in enumerate(parts))
    assert float(together) == pytest.approx(task.loss(made, own).item(), rel=1e-6)
    assert labelled_share(own).item() == pytest.approx((own.target != 0).any(1).double().mean().item())


# ---- metrics


def test_depth_errors_are_means_over_known_pixels():
    made, truth = depths()
    known = truth.numpy() > 0
    error = np.abs(made.numpy() - truth.numpy())[known]
    absolute, relative = depth_errors(made, truth)
    assert absolute.item() == pytest.approx(error.mean(), rel=1e-12)
    assert relative.item() == pytest.approx((error / truth.numpy()[known]).mean(), rel=1e-12)
    assert [part.item() for part in depth_errors(made, torch.zeros_like(truth))] == [0, 0]
    assert depth_errors(made.bfloat16(), truth.float())[0].dtype == torch.float32


def test_scores_of_depth_are_those_of_all_pixels_together():
    made, truth = depths()
    task = Depth("d", unit=0.5)
    metrics = task.metrics()
    target = batch(task, truth).target
    for k in range(3):  # images differ in known pixels: a mean of means would be another number
        metrics.update(made[k : k + 1] * 2, target, target[k : k + 1])
    known = truth.numpy() > 0
    p, t = made.numpy()[known], truth.numpy()[known]
    with np.errstate(divide="ignore"):
        ratio = np.where(p > 0, np.maximum(p / t, t / p), np.inf)
    wanted = {
        "absolute": np.abs(p - t).mean(),
        "relative": (np.abs(p - t) / t).mean(),
        "rmse": np.sqrt(((p - t) ** 2).mean()),
        **{f"delta{k}": (ratio < 1.25**k).mean() for k in (1, 2, 3)},
    }
    assert metrics.compute() == pytest.approx(wanted, rel=1e-9)
    assert tuple(metrics.compute()) == task.measures
    json.dumps(metrics.compute())


def test_angles_are_those_of_the_arc_cosine_and_exact_near_nothing():
    made, truth = vectors()
    known = np.abs(truth.numpy()).sum(1) > 0
    cosine = (made.numpy() * truth.numpy()).sum(1)[known]
    angles = normal_angles(3 * made, truth).numpy()
    assert sorted(angles) == pytest.approx(sorted(np.degrees(np.arccos(cosine))), rel=1e-9)
    tiny = torch.tensor([[[[1.0]], [[0.0]], [[1e-4]]]])
    ahead = torch.tensor([[[[1.0]], [[0.0]], [[0.0]]]])
    assert normal_angles(tiny, ahead).item() == pytest.approx(math.degrees(1e-4), rel=1e-4)
    assert normal_angles(torch.zeros_like(ahead), ahead).item() == 90
    assert normal_angles(-ahead, ahead).item() == 180


def test_scores_of_normals_are_those_of_all_pixels_together():
    made, truth = vectors()
    task, metrics = Normals("n"), NormalMetrics()
    for k in range(3):
        metrics.update(made[k : k + 1], made, truth[k : k + 1])
    angles = normal_angles(made, truth).numpy()
    scores = metrics.compute()
    assert scores["angle"] == pytest.approx(angles.mean(), rel=1e-9)
    assert scores["median"] == pytest.approx(np.median(angles), abs=0.03)  # between two pixels, within a bin
    for degrees in (11.25, 22.5, 30):
        assert scores[f"within_{degrees:g}"] == pytest.approx((angles < degrees).mean(), rel=1e-9)
    assert tuple(scores) == task.measures


def test_the_median_of_many_angles_is_exact_to_a_hundredth_of_a_degree():
    angles = np.random.default_rng(0).gamma(2, 10, 4001)
    radians = torch.tensor(np.radians(angles)).view(1, 1, 1, -1)
    made = torch.cat([torch.cos(radians), torch.sin(radians), 0 * radians], 1)
    ahead = torch.cat([torch.ones_like(radians), 0 * radians, 0 * radians], 1)
    metrics = NormalMetrics()
    metrics.update(made, made, ahead)
    assert metrics.compute()["median"] == pytest.approx(np.median(angles), abs=0.01)


# ---- tasks


@pytest.mark.parametrize(
    ("task", "values"),
    [(Depth, {}), (Depth, {"inverse": True, "unit": 3.0}), (Depth, {"limit": 4.0, "scaled": False}), (Normals, {})],
)
def test_the_kinds_pass_the_check_of_kinds(task, values):
    assert check_task(task, values) == []


def test_an_inverse_depth_and_a_limit():
    truth = torch.tensor([[[[0.0, 2.0, 4.0, 80.0, 100.0]]]])
    task = Depth("d", inverse=True, unit=8.0, limit=80.0)
    prepared = task.prepare(torch.zeros(1, 3, 1, 5, dtype=torch.uint8), truth)
    assert prepared.target.flatten().tolist() == [0, 4, 2, 0, 0]
    assert prepared.weight.flatten().tolist() == [0, 1, 1, 0, 0]


@pytest.mark.parametrize("task", [Depth("d"), Normals("n")], ids=["depth", "normals"])
def test_an_image_alone_is_prepared_and_shown_without_a_truth(task):
    image, mask = torch.randint(256, (1, 3, 40, 64), dtype=torch.uint8), torch.zeros(1, 40, 64, dtype=torch.uint8)
    prepared = task.prepare(image, mask)
    assert prepared.target.shape == (1, task.outputs, 40, 64)
    assert not prepared.target.any()
    picture = task.picture(image[0], torch.randn(task.outputs, 40, 64), mask[0])
    assert picture.output.any()
    assert all((part.shape, part.dtype) == ((3, 40, 64), torch.uint8) for part in picture)


def test_near_is_dark_far_is_light_and_the_legend_tells_the_ends():
    truth = torch.linspace(2, 6, 64).expand(1, 40, 64).clone()
    truth[0, 5, 5] = 0
    picture = Depth("d").picture(torch.zeros(3, 40, 64, dtype=torch.uint8), truth + 0.0, truth)
    brightness = picture.output.float().mean(0)[20]
    assert (brightness.diff() > -1).all()
    assert (picture.output[:, 20, 0].tolist(), picture.output[:, 20, -1].tolist()) == ([68, 1, 84], [253, 231, 37])
    assert not picture.truth[:, 5, 5].any()  # unknown
    assert torch.equal(picture.truth[:, 8], picture.output[:, 8])
    assert not torch.equal(picture.truth[:, 33], picture.output[:, 33])  # the words of the legend


def test_normals_are_shown_as_rgb():
    truth = torch.zeros(3, 2, 2)
    truth[1, 0], truth[2, 1, 0] = 1, 1
    picture = Normals("n").picture(torch.zeros(3, 2, 2, dtype=torch.uint8), 5 * truth, truth)
    assert picture.output[:, 0, 0].tolist() == [128, 255, 128]
    assert picture.truth[:, 1, 0].tolist() == [128, 128, 255]
    assert picture.truth[:, 1, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("task", "maps"), [(Depth("d"), depths), (Normals("n"), vectors)], ids=["depth", "normals"])
def test_outputs_are_held_to_a_teachers_by_their_own_distance(task, maps):
    made, _ = maps()
    other, _ = maps(seed=3)
    assert task.distillation(made, made).item() == pytest.approx(0, abs=1e-12)
    if task.kind == "depth":
        wanted = np.abs(made.numpy() - other.numpy()).mean()
    else:
        wanted = 1 - (made.numpy() * other.numpy()).sum(1).mean()
    assert task.distillation(made, other).item() == pytest.approx(wanted, rel=1e-12)
