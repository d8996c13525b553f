"""Losses against independent float64 NumPy derivations, and the identities that tie them to each other."""

import numpy as np
import pytest
import torch

from densecl.losses import (
    cross_entropy,
    distillation,
    feature_distillation,
    reduction,
    unbiased_cross_entropy,
    unbiased_distillation,
)

torch.set_num_threads(1)

B, C, H, W, N_OLD = 3, 7, 5, 4, 4


def lse(z: np.ndarray) -> np.ndarray:
    """Log-sum-exp over axis 1."""
    top = z.max(1, keepdims=True)
    return (np.log(np.exp(z - top).sum(1, keepdims=True)) + top)[:, 0]


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z - lse(z)[:, None])


def draw(seed: int = 0, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (B, C, H, W) float64, labels with void pixels, teacher logits (B, N_OLD, H, W)."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, C, (B, H, W))
    target[rng.random((B, H, W)) < 0.2] = 255
    logits, teacher = rng.normal(0, scale, (B, C, H, W)), rng.normal(0, scale, (B, N_OLD, H, W))
    return torch.tensor(logits, requires_grad=True), torch.tensor(target), torch.tensor(teacher)


def numpy_unbiased_ce(z, t, n_old, hidden, w):
    """Loss and closed-form gradient, one pixel at a time, from eq. 5-6 alone."""
    loss, total, gradient = 0.0, 0.0, np.zeros_like(z)
    for b, i, j in np.ndindex(t.shape):
        label = t[b, i, j]
        if label == 255:
            continue
        logit = z[b, :, i, j]
        p = np.exp(logit - logit.max())
        p /= p.sum()
        group = list(range(n_old)) if hidden[b] and label < n_old else [label]
        inside = p[group].sum()
        q = np.zeros_like(p)
        q[group] = p[group] / inside
        loss -= w[b, i, j] * np.log(inside)
        gradient[b, :, i, j] = w[b, i, j] * (p - q)
        total += w[b, i, j]
    return loss / total, gradient / total


def numpy_unbiased_kd(z, teacher, w):
    """Loss and closed-form gradient from eq. 8-9: A = background and the new classes."""
    c_old = teacher.shape[1]
    members = [0, *range(c_old, z.shape[1])]
    q, p = softmax(teacher), softmax(z)
    log_p = np.concatenate([(lse(z[:, members]) - lse(z))[:, None], z[:, 1:c_old] - lse(z)[:, None]], 1)
    loss = (-(q * log_p).sum(1) / c_old * w).sum() / w.sum()
    expected = np.zeros_like(z)
    expected[:, 1:c_old] = q[:, 1:]
    expected[:, members] = q[:, :1] * softmax(z[:, members])
    return loss, (p - expected) / c_old * (w / w.sum())[:, None]


def check(loss: torch.Tensor, logits: torch.Tensor, expected_loss, expected_gradient, tolerance=1e-12) -> None:
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected_loss, rel=tolerance, abs=tolerance)
    np.testing.assert_allclose(gradient.numpy(), expected_gradient, rtol=0, atol=tolerance)


WEIGHTS = ["none", "sample", "pixel"]


def make_weight(kind: str) -> tuple[torch.Tensor | None, np.ndarray]:
    """The argument, and the (B, H, W) array it stands for."""
    rng = np.random.default_rng(5)
    if kind == "none":
        return None, np.ones((B, H, W))
    array = rng.random(B if kind == "sample" else (B, H, W))
    return torch.tensor(array), np.broadcast_to(array.reshape(B, *array.shape[1:], *[1] * (3 - array.ndim)), (B, H, W))


@pytest.mark.parametrize("kind", WEIGHTS)
def test_cross_entropy_equals_numpy(kind):
    logits, target, _ = draw()
    weight, array = make_weight(kind)
    expected = numpy_unbiased_ce(logits.detach().numpy(), target.numpy(), 1, [False] * B, array)
    check(cross_entropy(logits, target, weight=weight), logits, *expected)


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("hidden", [None, [True, False, True], [False] * 3])
@pytest.mark.parametrize("n_old", [2, N_OLD, C])
def test_unbiased_cross_entropy_equals_numpy_in_value_and_gradient(n_old, hidden, kind):
    logits, target, _ = draw()
    weight, array = make_weight(kind)
    mask = None if hidden is None else torch.tensor(hidden)
    expected = numpy_unbiased_ce(logits.detach().numpy(), target.numpy(), n_old, hidden or [True] * B, array)
    check(unbiased_cross_entropy(logits, target, n_old=n_old, hidden=mask, weight=weight), logits, *expected)


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("n_old", [1, N_OLD, C])
def test_means_over_all_pixels_count_void_ones_below_the_line(n_old, kind):
    logits, target, _ = draw()
    weight, w = make_weight(kind)
    loss, gradient = numpy_unbiased_ce(logits.detach().numpy(), target.numpy(), n_old, [True] * B, w)
    share = (w * (target.numpy() != 255)).sum() / (B * H * W)  # sum(w) of valid pixels, against all pixels
    unbiased = unbiased_cross_entropy(logits, target, n_old=n_old, weight=weight, normalise="pixels")
    check(unbiased, logits, loss * share, gradient * share)
    if n_old == 1:
        check(cross_entropy(logits, target, weight=weight, normalise="pixels"), logits, loss * share, gradient * share)


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("c_old", [1, 2, N_OLD, C])
def test_unbiased_distillation_equals_numpy_in_value_and_gradient(c_old, kind):
    logits, _, _ = draw()
    weight, array = make_weight(kind)
    teacher = np.random.default_rng(9).normal(0, 3, (B, c_old, H, W))
    expected = numpy_unbiased_kd(logits.detach().numpy(), teacher, array)
    check(unbiased_distillation(logits, torch.tensor(teacher), weight=weight), logits, *expected)


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_equals_numpy_in_value_and_gradient(temperature, kind):
    logits, _, teacher = draw()
    weight, w = make_weight(kind)
    z, q = logits.detach().numpy()[:, :N_OLD] / temperature, softmax(teacher.numpy() / temperature)
    loss = -(q * (z - lse(z)[:, None])).mean(1)
    gradient = np.zeros((B, C, H, W))
    gradient[:, :N_OLD] = temperature * (softmax(z) - q) / N_OLD * (w / w.sum())[:, None]
    expected = temperature**2 * (loss * w).sum() / w.sum()
    check(distillation(logits, teacher, temperature=temperature, weight=weight), logits, expected, gradient)


def test_distillation_is_a_mean_over_classes():
    uniform = torch.zeros(1, 5, 2, 2)  # cross-entropy of two uniform distributions is log 5
    assert distillation(uniform, uniform).item() == pytest.approx(np.log(5) / 5)


def test_feature_distillation_is_the_mean_squared_error():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5))
    features = torch.tensor(a, requires_grad=True)
    check(feature_distillation(features, torch.tensor(b)), features, ((a - b) ** 2).mean(), 2 * (a - b) / a.size)


def test_gradients_pass_gradcheck():
    logits, target, teacher = draw()
    hidden = torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda z: unbiased_cross_entropy(z, target, n_old=N_OLD, hidden=hidden), logits)
    assert torch.autograd.gradcheck(lambda z: unbiased_distillation(z, teacher), logits)
    assert torch.autograd.gradcheck(lambda z: distillation(z, teacher, temperature=2.0), logits)


@pytest.mark.parametrize("n_old", [0, 1])
def test_without_old_classes_unbiased_cross_entropy_is_cross_entropy(n_old):
    logits, target, _ = draw()
    assert unbiased_cross_entropy(logits, target, n_old=n_old).equal(cross_entropy(logits, target))


def test_with_nothing_hidden_unbiased_cross_entropy_is_cross_entropy():
    logits, target, _ = draw()
    none = torch.zeros(B, dtype=torch.bool)
    torch.testing.assert_close(
        unbiased_cross_entropy(logits, target, n_old=N_OLD, hidden=none), cross_entropy(logits, target)
    )


def test_without_new_classes_unbiased_distillation_is_distillation():
    logits, _, teacher = draw()
    same = logits[:, :N_OLD]
    torch.testing.assert_close(unbiased_distillation(same, teacher), distillation(same, teacher))


def test_only_old_labels_and_no_new_class_leave_nothing_to_explain():
    logits, _, _ = draw()
    target = torch.zeros(B, H, W, dtype=torch.int64)
    check(unbiased_cross_entropy(logits, target, n_old=C), logits, 0.0, np.zeros((B, C, H, W)))


def test_losses_do_not_change_when_a_constant_is_added_to_all_logits():
    logits, target, teacher = draw()
    shift = torch.randn(B, 1, H, W, dtype=torch.float64) * 50
    for loss in (
        lambda z: cross_entropy(z, target),
        lambda z: unbiased_cross_entropy(z, target, n_old=N_OLD),
        lambda z: unbiased_distillation(z, teacher),
        lambda z: distillation(z, teacher),
    ):
        torch.testing.assert_close(loss(logits), loss(logits + shift))


def test_far_apart_logits_give_finite_exact_values_in_float32():
    # All old outputs 300 below the new ones: exp of the gap is 0 in float32, yet log p(0) = log 3 - 300 - log 2.
    logits = torch.cat([torch.full((1, 3, 1, 1), -300.0), torch.zeros(1, 2, 1, 1)], 1).requires_grad_()
    loss = unbiased_cross_entropy(logits, torch.zeros(1, 1, 1, dtype=torch.int64), n_old=3)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(300 + np.log(2) - np.log(3))
    torch.testing.assert_close(gradient.flatten(), torch.tensor([-1 / 3] * 3 + [0.5] * 2))
    teacher = torch.tensor([100.0, 0.0, 0.0]).view(1, 3, 1, 1)  # sure of background, as are the new classes
    assert unbiased_distillation(logits, teacher).item() == pytest.approx(0.0, abs=1e-6)
    assert unbiased_distillation(-logits, teacher).item() == pytest.approx(
        np.log(3) / 3, abs=1e-5
    )  # 300 + log 3 in float32


@pytest.mark.parametrize("weight", [None, torch.zeros(B)])
def test_a_batch_without_valid_pixels_gives_zero_loss_and_zero_gradient(weight):
    logits, target, _ = draw()
    target = target if weight is not None else torch.full_like(target, 255)
    for loss in (
        cross_entropy(logits, target, weight=weight),
        unbiased_cross_entropy(logits, target, n_old=N_OLD, weight=weight),
        cross_entropy(logits, target, weight=weight, normalise="pixels"),
        unbiased_cross_entropy(logits, target, n_old=N_OLD, weight=weight, normalise="pixels"),
    ):
        check(loss, logits, 0.0, np.zeros((B, C, H, W)), tolerance=0)


def test_targets_logits_and_teacher_are_never_changed():
    logits, target, teacher = draw()
    before = [x.detach().clone() for x in (logits, target, teacher)]
    cross_entropy(logits, target).backward()
    unbiased_cross_entropy(logits, target, n_old=N_OLD).backward()
    unbiased_distillation(logits, teacher).backward()
    distillation(logits, teacher).backward()
    for x, y in zip((logits, target, teacher), before, strict=True):
        assert x.equal(y)


def test_the_teacher_gets_no_gradient():
    logits, _, teacher = draw()
    teacher.requires_grad_()
    (unbiased_distillation(logits, teacher) + distillation(logits, teacher)).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_computed_in_float32(dtype):
    logits, target, teacher = draw()
    half, half_teacher = logits.detach().to(dtype).requires_grad_(), teacher.to(dtype)
    for loss in (
        lambda z, t: cross_entropy(z, target),
        lambda z, t: unbiased_cross_entropy(z, target, n_old=N_OLD),
        lambda z, t: unbiased_distillation(z, t),
        lambda z, t: distillation(z, t),
        lambda z, t: feature_distillation(z[:, :N_OLD], t),
    ):
        value = loss(half, half_teacher)
        wide = half.detach().double().requires_grad_()
        reference = loss(wide, half_teacher.double())
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(reference.item(), rel=1e-5)
        # A loss scaler's factor must reach the gradient before it is rounded to half precision.
        (gradient,) = torch.autograd.grad(value * 1024, half)
        (expected,) = torch.autograd.grad(reference * 1024, wide)
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient.double(), expected, rtol=2e-2, atol=1e-2)


def test_tiny_gradients_survive_float16_when_the_loss_is_scaled():
    logits = torch.zeros(1, 3, 512, 512, dtype=torch.float16, requires_grad=True)
    target = torch.full((1, 512, 512), 2)
    (unbiased_cross_entropy(logits, target, n_old=2) * 2.0**18).backward()
    assert logits.grad is not None
    torch.testing.assert_close(
        logits.grad[0, :, 0, 0].double(), torch.tensor([1, 1, -2.0]).double() / 3, atol=1e-3, rtol=0
    )


def test_autocast_does_not_change_the_values():
    logits, target, teacher = (x.float() if x.is_floating_point() else x for x in draw())
    plain = unbiased_cross_entropy(logits, target, n_old=N_OLD), unbiased_distillation(logits, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = unbiased_cross_entropy(logits, target, n_old=N_OLD), unbiased_distillation(logits, teacher)
    for a, b in zip(plain, cast, strict=True):
        assert a.equal(b)


def test_a_retained_graph_can_be_run_twice_and_scaled():
    logits, target, teacher = draw()
    for loss in (unbiased_cross_entropy(logits, target, n_old=N_OLD), unbiased_distillation(logits, teacher)):
        (once,) = torch.autograd.grad(3 * loss, logits, retain_graph=True)
        (again,) = torch.autograd.grad(3 * loss, logits, retain_graph=True)
        (single,) = torch.autograd.grad(loss, logits)
        assert once.equal(again)
        torch.testing.assert_close(once, 3 * single)


@pytest.mark.parametrize("rows", [2, H, 2 * H])  # of five; one sample of three; two of three
def test_blocks_give_the_same_as_one_block(monkeypatch, rows):
    logits, target, teacher = draw()
    for loss in (
        lambda: cross_entropy(logits, target),
        lambda: unbiased_cross_entropy(logits, target, n_old=N_OLD),
        lambda: unbiased_distillation(logits, teacher),
        lambda: distillation(logits, teacher),
    ):
        whole = torch.autograd.grad(loss(), logits)[0]
        with monkeypatch.context() as patch:
            patch.setattr(reduction, "BLOCK_ELEMENTS", rows * C * W)
            patch.setattr(reduction, "JOINED_ELEMENTS", rows * C * W)
            cut = torch.autograd.grad(loss(), logits)[0]
        torch.testing.assert_close(cut, whole, rtol=1e-12, atol=1e-15)  # vector and scalar exp differ in a last bit


@pytest.mark.parametrize(
    ("rows", "joined", "blocks"), [(1, 1, 5 * H), (3, 1, 10), (H, 1, 5), (H, 2 * H, 3), (H, 9 * H, 1)]
)
def test_blocks_cover_each_pixel_once(monkeypatch, rows, joined, blocks):
    seen, count = torch.zeros(5, C, H, W), 0
    monkeypatch.setattr(reduction, "BLOCK_ELEMENTS", rows * C * W)
    monkeypatch.setattr(reduction, "JOINED_ELEMENTS", joined * C * W)
    for block in reduction.blocks(seen):
        seen[block] += 1
        count += 1
    assert (seen == 1).all()
    assert count == blocks


@pytest.mark.parametrize("c_old", [1, N_OLD, C])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_what_a_compiler_is_given_has_the_same_value_and_gradient(kind, c_old):
    logits, target, _ = draw()
    weight, w = make_weight(kind)
    z, t, hidden = logits.detach().numpy(), target.numpy(), torch.tensor([True, False, True])
    teacher = np.random.default_rng(9).normal(0, 3, (B, c_old, H, W))
    teacher_logits = torch.tensor(teacher)

    def whole(loss):  # traced without a gap; no C++ compiler is needed
        return torch.compile(loss, backend="eager", fullgraph=True, dynamic=False)

    ce = whole(lambda x: unbiased_cross_entropy(x, target, n_old=c_old, hidden=hidden, weight=weight))
    check(ce(logits), logits, *numpy_unbiased_ce(z, t, c_old, hidden, w))
    kd = whole(lambda x: unbiased_distillation(x, teacher_logits, weight=weight))
    check(kd(logits), logits, *numpy_unbiased_kd(z, teacher, w))
    torch.compiler.reset()


def test_strided_and_channels_last_logits_give_the_same():
    logits, target, teacher = draw()
    for form in (
        logits.to(memory_format=torch.channels_last),
        logits.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2),
    ):
        torch.testing.assert_close(
            unbiased_cross_entropy(form, target, n_old=N_OLD), unbiased_cross_entropy(logits, target, n_old=N_OLD)
        )
        torch.testing.assert_close(unbiased_distillation(form, teacher), unbiased_distillation(logits, teacher))
        for loss in (
            lambda z: cross_entropy(z, target),
            lambda z: unbiased_cross_entropy(z, target, n_old=N_OLD),
            lambda z: distillation(z, teacher),
        ):
            (gradient,) = torch.autograd.grad(loss(form), logits)
            (expected,) = torch.autograd.grad(loss(logits), logits)
            torch.testing.assert_close(gradient, expected)


def test_without_gradients_the_value_is_the_same():
    logits, target, teacher = draw()
    with_graph = unbiased_cross_entropy(logits, target, n_old=N_OLD), unbiased_distillation(logits, teacher)
    with torch.no_grad():
        without = unbiased_cross_entropy(logits, target, n_old=N_OLD), unbiased_distillation(logits, teacher)
    for a, b in zip(with_graph, without, strict=True):
        assert a.equal(b)
        assert not b.requires_grad


def test_wrong_shapes_are_refused():
    logits, target, teacher = draw()
    with pytest.raises(ValueError, match="n_old is 8"):
        unbiased_cross_entropy(logits, target, n_old=C + 1)
    with pytest.raises(ValueError, match="teacher has 7 outputs, the network 4"):
        unbiased_distillation(teacher, logits)
    with pytest.raises(ValueError, match="differ in shape"):
        unbiased_distillation(logits, teacher[:, :, :2])
    with pytest.raises(ValueError, match="differ"):
        feature_distillation(logits, teacher)
    with pytest.raises(ValueError, match="weight has shape"):
        cross_entropy(logits, target, weight=torch.ones(B, 2))
    with pytest.raises(ValueError, match="normalise is 'pixel', not 'weight' or 'pixels'"):
        cross_entropy(logits, target, normalise="pixel")  # type: ignore[arg-type]
