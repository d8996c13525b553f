"""Analytic gradients of the binary losses and of Local POD: derivatives, blocks, layouts, precision, compilers."""

import numpy as np
import pytest
import torch

from bench.fused import textbook_binary, textbook_distillation, textbook_pod
from densecl.losses import binary, binary_cross_entropy, binary_distillation, features, local_pod, reduction

torch.set_num_threads(1)
SHAPE = (3, 5, 9, 7)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(0, 3, shape))


@pytest.fixture(autouse=True)
def _no_map_is_small(monkeypatch):
    monkeypatch.setattr(features, "FEW_PLACES", 0)


TARGET = torch.tensor(np.random.default_rng(2).choice([0, 1, 2, 3, 4, 9, 255], (3, 9, 7)))
TEACHER, OLD_OUTPUTS = draw(*SHAPE, seed=1), draw(3, 3, 9, 7, seed=1)
WEIGHT = torch.tensor(np.random.default_rng(3).random((3, 9, 7)))
LOSSES = {
    "cross-entropy": lambda z: binary_cross_entropy(z, TARGET, first=1, positive=3.0, void="negative", weight=WEIGHT),
    "distillation": lambda z: binary_distillation(z, OLD_OUTPUTS, weight=WEIGHT),
    "Local POD": lambda z: local_pod(z, TEACHER),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def graded(loss, x):
    value = loss(x := x.detach().requires_grad_())
    return value.detach(), torch.autograd.grad(3 * value, x)[0]


@every_loss
def test_gradients_pass_gradcheck(name):
    assert torch.autograd.gradcheck(LOSSES[name], draw(*SHAPE).requires_grad_())


@every_loss
def test_a_second_derivative_is_refused_and_a_second_backward_pass_is_right(name):
    z = draw(*SHAPE).requires_grad_()
    loss = LOSSES[name](z)
    first, second = (torch.autograd.grad(loss, z, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="no second derivative"):  # else a penalty on it would be a silent constant
        torch.autograd.grad(loss, z, create_graph=True)


@every_loss
def test_without_a_gradient_the_value_is_the_same(name):
    value, _ = graded(LOSSES[name], draw(*SHAPE))
    torch.testing.assert_close(LOSSES[name](draw(*SHAPE)), value, rtol=1e-14, atol=0)


@every_loss
def test_neither_blocks_nor_the_layout_change_the_result(name, monkeypatch):
    value, gradient = graded(LOSSES[name], draw(*SHAPE))
    for block, joined, channels in (1, 1, 2), (200, 400, 1), (9, 1000, 64):
        monkeypatch.setattr(binary, "BLOCK_ELEMENTS", block)
        monkeypatch.setattr(reduction, "JOINED_ELEMENTS", joined)
        monkeypatch.setattr(features, "CHUNK_ELEMENTS", joined)
        monkeypatch.setattr(binary, "JOINED_CHANNELS", channels)
        strided = draw(*SHAPE).transpose(2, 3).contiguous().transpose(2, 3)
        for x in draw(*SHAPE), draw(*SHAPE).contiguous(memory_format=torch.channels_last), strided:
            torch.testing.assert_close(graded(LOSSES[name], x), (value, gradient), rtol=1e-12, atol=1e-15)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_and_half_precision_give_the_gradient_of_float32(name, dtype):
    z = draw(*SHAPE).to(dtype)
    value, gradient = graded(LOSSES[name], z.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(graded(LOSSES[name], z.float()), (value, gradient), rtol=0, atol=0)
        half = graded(LOSSES[name], z)
    torch.testing.assert_close(half, (value, gradient.to(dtype)), rtol=0, atol=0)


@every_loss
def test_what_a_compiler_is_given_has_the_same_value_and_gradient(name):
    compiled = torch.compile(LOSSES[name], backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(
        graded(compiled, draw(*SHAPE)), graded(LOSSES[name], draw(*SHAPE)), rtol=1e-11, atol=1e-14
    )
    torch.compiler.reset()


def test_many_channels_neither_overflow_nor_lose_the_digits_of_small_losses():
    target = torch.full((1, 2, 2), 200)
    for level in (0.0, -30.0, 40.0):
        z = torch.full((1, 300, 2, 2), level)
        wide = binary_cross_entropy(z.double(), target, first=1000)
        expected = 300 * (np.log1p(np.exp(-abs(level))) + max(level, 0))
        assert wide.item() == pytest.approx(expected, rel=1e-13)
        assert binary_cross_entropy(z, target, first=1000).item() == pytest.approx(expected, rel=2e-6)
        assert binary_distillation(z, torch.full_like(z, -200)).item() == pytest.approx(expected, rel=2e-6)


def test_logits_without_places_are_samples():
    z, target = draw(6, 4), torch.tensor([0, 1, 2, 3, 9, 255])
    value, gradient = graded(lambda x: binary_cross_entropy(x, target), z)
    mapped = graded(lambda x: binary_cross_entropy(x[..., None, None], target[:, None, None]), z)
    torch.testing.assert_close((value, gradient), mapped, rtol=0, atol=0)


def test_the_textbook_forms_of_the_bench_compute_the_same():
    z, target = draw(*SHAPE), torch.where(TARGET == 9, 0, TARGET)
    for ours, textbook in (
        (lambda x: binary_cross_entropy(x, target), lambda x: textbook_binary(x, target)),
        (lambda x: binary_distillation(x, z[:, :3] + 1), lambda x: textbook_distillation(x, z[:, :3] + 1)),
        (lambda x: local_pod(x, z + 1), lambda x: textbook_pod(x, z + 1)),
    ):
        torch.testing.assert_close(graded(ours, z), graded(textbook, z), rtol=1e-10, atol=1e-13)
