import itertools
import math

import numpy as np
import pytest
import torch

from densecl.inversion import lse_lba_pool

torch.set_num_threads(1)


def maps(scale=1.0, dtype=torch.float64):
    return torch.randn(3, 5, 7, 4, generator=torch.Generator().manual_seed(0), dtype=dtype) * scale


@pytest.mark.parametrize("r0", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("value", [-4.0, 0.0, 0.3])
def test_a_constant_map_gives_the_constant(r0, value):
    torch.testing.assert_close(lse_lba_pool(torch.full((2, 3, 5, 6), value), r0), torch.full((2, 3), value))


def test_it_is_the_formula_in_numpy():
    scores = maps().numpy()
    r = 2 + math.exp(0.5)
    expected = np.log(np.exp(r * scores).reshape(3, 5, -1).mean(2)) / r
    np.testing.assert_allclose(lse_lba_pool(torch.from_numpy(scores), 2.0, 0.5).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("r0", [0.0, 3.0, 30.0])
def test_it_lies_between_mean_and_maximum_and_near_the_maximum_by_log_of_size(r0):
    scores = maps(4.0)
    pooled, flat = lse_lba_pool(scores, r0), scores.flatten(2)
    assert (pooled >= flat.mean(2)).all()
    assert (pooled <= flat.amax(2)).all()
    assert (pooled >= flat.amax(2) - math.log(28) / (r0 + 1) - 1e-12).all()


def test_it_grows_with_the_sharpness_from_the_mean_to_the_maximum():
    scores = maps()
    values = [lse_lba_pool(scores, 0.0, beta) for beta in (-9.0, -1.0, 0.0, 1.0, 3.0, 9.0)]
    for lower, higher in itertools.pairwise(values):
        assert (higher > lower).all()
    torch.testing.assert_close(values[0], scores.mean((2, 3)), atol=1e-3, rtol=0)
    torch.testing.assert_close(values[-1], scores.amax((2, 3)), atol=1e-3, rtol=0)


def test_the_gradient_is_the_softmax_of_sharpened_scores():
    scores = maps().requires_grad_()
    (gradient,) = torch.autograd.grad(lse_lba_pool(scores, 3.0, 0.2).sum(), scores)
    r = 3 + math.exp(0.2)
    torch.testing.assert_close(gradient.flatten(2), (r * scores.detach()).flatten(2).softmax(2))


def test_large_scores_neither_overflow_nor_lose_their_gradient():
    scores = (torch.tensor([[[[1e4, -1e4], [1e4, 9999.0]]]])).requires_grad_()
    for r0 in (0.0, 10.0):
        pooled = lse_lba_pool(scores, r0)
        (gradient,) = torch.autograd.grad(pooled.sum(), scores)
        assert 9999 <= pooled.item() <= 1e4
        assert torch.isfinite(gradient).all()
        assert gradient.sum().item() == pytest.approx(1, abs=1e-6)


def test_half_precision_is_pooled_in_float32():
    scores = maps(3.0, torch.float32).bfloat16()
    pooled = lse_lba_pool(scores, 5.0)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, lse_lba_pool(scores.double(), 5.0).float())


def test_beta_may_be_one_value_a_class_and_is_learnable():
    scores, beta = maps(), torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    pooled = lse_lba_pool(scores, 0.5, beta)
    for label in range(5):
        torch.testing.assert_close(pooled[:, label], lse_lba_pool(scores, 0.5, beta[label].item())[:, label])
    assert torch.autograd.gradcheck(lambda b: lse_lba_pool(scores, 0.5, b), (beta,))
    (gradient,) = torch.autograd.grad(pooled.sum(), beta)
    assert (gradient > 0).all()  # sharper is larger
    scalar = torch.tensor(0.5, dtype=torch.float64)
    torch.testing.assert_close(lse_lba_pool(scores, 0.5, scalar)[:, 2], pooled[:, 2])


def test_the_paper_s_printed_form_is_another_function():
    """With the bracket of its eq. 5, a constant map of 0.3 would be pooled to 0.936."""
    r = 10 + 1.0
    assert (10 + math.exp(0) * 0.3) / r == pytest.approx(0.936, abs=5e-4)
    assert lse_lba_pool(torch.full((1, 1, 4, 4), 0.3), 10.0).item() == pytest.approx(0.3, abs=1e-6)
