"""REMINDER's functions against NumPy, a pixel at a time, and its parts in training."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densecl.losses import similarity_distillation
from densecl.strategies.plop import PLOP
from densecl.strategies.reminder import class_means, similarity
from numpy_parts import draw
from trained_loops import next_batch, trained

pytestmark = pytest.mark.usefixtures("one_thread")


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def numpy_distillation(z, teacher, target, weights, temperature):
    """Value and gradient."""
    n_old, losses, gradient = teacher.shape[1], [], np.zeros_like(z)
    places = [p for p in np.ndindex(target.shape) if n_old <= target[p] < n_old + len(weights)]
    for b, i, j in places:
        p, q = softmax(z[b, :n_old, i, j] / temperature), softmax(teacher[b, :, i, j] / temperature)
        wanted = weights[target[b, i, j] - n_old] * q + 1e-7
        losses.append(temperature**2 * -(wanted * np.log(p)).sum())
        gradient[b, :n_old, i, j] = temperature * (wanted.sum() * p - wanted) / len(places)
    return (sum(losses) / len(places) if places else 0.0), gradient


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 4, 1, 1), (2, 3, 5, 2)])
def test_similarity_distillation_equals_numpy_in_value_and_gradient(shape, temperature):
    n_old = 3 if shape[1] > 3 else 1
    z, teacher = draw(*shape), draw(shape[0], n_old, *shape[2:], seed=1)
    weights = np.abs(draw(shape[1] - n_old, n_old, seed=2))
    target = np.random.default_rng(3).choice([0, n_old, shape[1] - 1, 255], (shape[0], *shape[2:]))
    target[0, 0, 0] = n_old
    logits = torch.tensor(z, requires_grad=True)
    others = torch.tensor(teacher), torch.tensor(target), torch.tensor(weights)
    before = [x.clone() for x in others]
    loss = similarity_distillation(logits, *others, temperature=temperature)
    (gradient,) = torch.autograd.grad(loss, logits)
    value, expected = numpy_distillation(z, teacher, target, weights, temperature)
    assert loss.item() == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-10, atol=1e-14)
    assert all(map(torch.equal, others, before))


@pytest.mark.parametrize("label", [0, 1, 255])
def test_no_new_pixel_gives_0_with_a_gradient_of_0(label):
    logits = torch.randn(1, 4, 2, 3, requires_grad=True)
    loss = similarity_distillation(logits, torch.randn(1, 2, 2, 3), torch.full((1, 2, 3), label), torch.ones(2, 2))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert (gradient == 0).all()


def test_equal_old_logits_and_equal_weights_give_no_gradient():
    """To the 1e-7 that stands beside the weights."""
    logits = torch.tensor(draw(1, 4, 2, 2), requires_grad=True)
    loss = similarity_distillation(
        logits, logits.detach()[:, :3], torch.full((1, 2, 2), 3), torch.ones(1, 3, dtype=torch.float64)
    )
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    z, teacher = (torch.tensor(draw(1, n, 2, 2, seed=n)).to(dtype) for n in (4, 3))
    target, weights = torch.full((1, 2, 2), 3), torch.rand(1, 3)
    loss = similarity_distillation(z, teacher, target, weights)
    value, _ = numpy_distillation(*(x.double().numpy() for x in (z, teacher)), target.numpy(), weights.numpy(), 3.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(value, rel=1e-4)
    assert class_means(z, target, classes=[3]).dtype == torch.float32


def grown(f, height, width):
    """(D, h, w) to (D, H, W), bilinear with align_corners, a pixel at a time."""
    result = np.zeros((len(f), height, width))
    for i, j in np.ndindex(height, width):
        at = []
        for place, small, large in ((i, f.shape[1], height), (j, f.shape[2], width)):
            x = place * (small - 1) / (large - 1) if large > 1 else 0.0
            low = min(int(x), small - 1)
            at.append((low, min(low + 1, small - 1), x - low))
        (a, b, s), (c, d, t) = at
        top, bottom = (f[:, row, c] * (1 - t) + f[:, row, d] * t for row in (a, b))
        result[:, i, j] = top * (1 - s) + bottom * s
    return result


@pytest.mark.parametrize("size", [(6, 9), (3, 4), (5, 1)])
def test_class_means_equal_numpy(size):
    f = draw(2, 3, 3, 4)
    target = np.random.default_rng(1).choice([0, 2, 4, 255], (2, *size))
    target[0, 0, 0] = 4
    maps = np.stack([grown(x, *size) for x in f]).transpose(0, 2, 3, 1)  # (B, H, W, D)
    expected = [maps[target == c].mean(0) if (target == c).any() else np.zeros(3) for c in (4, 2, 7)]
    means = class_means(torch.tensor(f), torch.tensor(target), classes=[4, 2, 7])
    np.testing.assert_allclose(means.numpy(), expected, rtol=1e-10, atol=1e-14)
    assert (means[2] == 0).all()


@pytest.mark.parametrize("cut", [0.0, 0.9, 1.0])
def test_similarity_equals_numpy(cut):
    means, prototypes = draw(2, 5), draw(4, 5, seed=1)
    weights = similarity(torch.tensor(means), torch.tensor(prototypes), cut=cut).numpy()
    for row, mean in zip(weights, means, strict=True):
        cosines = [mean @ p / np.linalg.norm(mean) / np.linalg.norm(p) for p in prototypes]
        expected = softmax(np.array(cosines))
        np.testing.assert_allclose(row, np.where(expected < cut / 4, 0, expected), rtol=1e-12)
    assert (weights == 0).any() == (cut > 0)


# ---- in training


def taught_batch(loop, step):
    batch = next_batch(loop, step)
    teacher_output = loop.teach(batch.image)
    return loop.strategy.prepare_batch(batch, teacher_output), teacher_output


def test_the_term_is_plops_and_the_similarity_distillation_of_new_pixels():
    loop = trained("reminder(similar=2,temperature=2)")
    batch, teacher_output = taught_batch(loop, 1)
    output = loop.network(batch.image)
    means = F.interpolate(output.decoded.detach(), (32, 32), mode="bilinear", align_corners=True)
    mean = means.movedim(1, -1)[batch.target == 3].mean(0)
    known = loop.strategy.state_dict()["prototypes"]
    weights = softmax(np.array([F.cosine_similarity(mean, p, dim=0).item() for p in known]))
    old = output.logits.detach().double().numpy(), teacher_output.logits.double().numpy()
    value, _ = numpy_distillation(*old, batch.target.numpy(), weights[None], 2.0)
    plain = PLOP.regulariser(loop.strategy, output, batch, teacher_output)
    term = loop.strategy.regulariser(output, batch, teacher_output)
    assert (term - plain).item() == pytest.approx(2 * value, rel=1e-3)
    without = batch._replace(target=torch.where(batch.target == 3, 255, batch.target))
    assert loop.strategy.regulariser(output, without, teacher_output).equal(plain)


def test_prototypes_are_means_of_batch_means_in_evaluation():
    loop = trained("reminder")
    own = loop.strategy.state_dict()["prototypes"]
    expected = {0: [], 1: [], 2: []}
    for batch in loop.strategy.batches("prototypes"):
        with torch.no_grad():
            decoded = loop.network.eval()(batch.image).decoded
        maps = F.interpolate(decoded, (32, 32), mode="bilinear", align_corners=True).movedim(1, -1)
        for label, means in expected.items():
            if (batch.target == label).any():
                means.append(maps[batch.target == label].mean(0))
    for row, means in zip(own, expected.values(), strict=True):
        torch.testing.assert_close(row, torch.stack(means).mean(0), rtol=1e-4, atol=1e-6)
    loop.train(loop.scenario.experiences[1:])
    assert len(loop.strategy.state_dict()["prototypes"]) == 5
    assert torch.equal(loop.strategy.state_dict()["prototypes"][:3], own)  # earlier ones stay, background's too
    assert loop.strategy.stored_bytes() == 5 * 16 * 4
