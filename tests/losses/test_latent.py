"""SDR's terms against NumPy, a place at a time, gradients against central differences."""

import numpy as np
import pytest
import torch

from densecl.losses import feature_sparsity, prototype_attraction, prototype_matching, prototype_separation

torch.set_num_threads(1)
FORMS = ["exact", "published"]


def draw(*shape, seed=0):
    return np.abs(np.random.default_rng(seed).normal(0, 1.5, shape))  # as after ReLU


def entries(f, y, c, *, places_first):
    """(D, n) of a class as the released code has it: picked image by image, channel by channel, then cut anew."""
    picked = np.concatenate([channel[label == c] for image, label in zip(f, y, strict=True) for channel in image])
    return picked.reshape(-1, f.shape[1]).T if places_first else picked.reshape(f.shape[1], -1)


def own(f, y, c):
    """(D, n) features of a class's places."""
    return f.transpose(1, 0, 2, 3)[:, y == c]


def cut(f, y, c, form, *, places_first=False):
    return own(f, y, c) if form == "exact" else entries(f, y, c, places_first=places_first)


def numpy_matching(f, y, p, form):
    terms = [
        ((cut(f, y, c, form, places_first=True).mean(1) - p[c]) ** 2).mean() for c in range(1, len(p)) if (y == c).any()
    ]
    return np.mean(terms) if terms else 0.0


def numpy_attraction(f, y, p, form):
    terms = [((cut(f, y, c, form) - p[c][:, None]) ** 2).mean() for c in range(len(p)) if (y == c).any()]
    if form == "exact":
        return np.mean(terms) if terms else 0.0
    total = 0.0
    for term in terms:
        total = (total + term) / len(terms)
    return total


def numpy_separation(f, y, form):
    means = [cut(f, y, c, form).mean(1) for c in np.unique(y) if c != 255]
    pairs = [1 / np.linalg.norm(a - b) for i, a in enumerate(means) for j, b in enumerate(means) if i != j]
    return np.mean(pairs) if pairs else 0.0


def numpy_sparsity(f, y):
    terms = []
    for b, i, j in np.ndindex(y.shape):
        scaled = f[b, :, i, j] / (own(f, y, y[b, i, j]).max() + 1e-15)
        terms.append(np.exp(scaled).sum() / (scaled.sum() + 1e-15))
    return np.mean(terms)


P = np.random.default_rng(9).normal(0, 1, (4, 3))  # prototypes of labels 0 to 3
CASES = {
    **{f"matching-{form}": (prototype_matching, numpy_matching, form, True) for form in FORMS},
    **{f"attraction-{form}": (prototype_attraction, numpy_attraction, form, True) for form in FORMS},
    **{f"separation-{form}": (prototype_separation, numpy_separation, form, False) for form in FORMS},
    "sparsity": (feature_sparsity, numpy_sparsity, None, False),
}
each = pytest.mark.parametrize("case", CASES)


def both(case):
    """Our term and NumPy's, functions of features and labels."""
    ours, numpys, form, with_prototypes = CASES[case]
    p = [P] * with_prototypes
    return (
        lambda f, y: ours(f, y, *map(torch.tensor, p), **({"form": form} if form else {})),
        lambda f, y: numpys(f, y, *p, *([form] if form else [])),
    )


@each
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 5, 2), (3, 1, 1)])
def test_terms_equal_numpy_in_value_and_gradient(case, shape):
    ours, numpys = both(case)
    batch, *size = shape
    f, y = draw(batch, 3, *size), np.random.default_rng(1).choice([0, 1, 2, 3, 5, 255], shape)
    features, labels = torch.tensor(f, requires_grad=True), torch.tensor(y)
    term = ours(features, labels)
    (gradient,) = torch.autograd.grad(term, features)
    assert term.item() == pytest.approx(numpys(f, y), rel=1e-12)
    direction = np.random.default_rng(2).normal(size=f.shape)
    slope = (numpys(f + 1e-6 * direction, y) - numpys(f - 1e-6 * direction, y)) / 2e-6
    assert (gradient.numpy() * direction).sum() == pytest.approx(slope, rel=1e-6, abs=1e-8)
    assert labels.equal(torch.tensor(y))


@each
@pytest.mark.parametrize("label", [0, 1, 255])
def test_one_class_and_void_alone_have_finite_gradients(case, label):
    ours, numpys = both(case)
    features = torch.tensor(draw(2, 3, 2, 2), requires_grad=True)
    labels = torch.full((2, 2, 2), label)
    term = ours(features, labels)
    (gradient,) = torch.autograd.grad(term, features)
    assert term.item() == pytest.approx(numpys(features.detach().numpy(), labels.numpy()), rel=1e-12)
    assert gradient.isfinite().all()
    if "separation" in case or (label == 255 and case != "sparsity") or (label == 0 and "matching" in case):
        assert term.item() == 0


@pytest.mark.parametrize("case", ["matching-exact", "attraction-exact", "separation-exact", "sparsity"])
def test_the_order_of_images_changes_nothing_in_the_exact_form(case):
    ours, _ = both(case)
    f, y = torch.tensor(draw(4, 3, 3, 2)), torch.tensor(np.random.default_rng(1).choice([0, 1, 2, 255], (4, 3, 2)))
    order = torch.tensor([2, 0, 3, 1])
    assert ours(f[order], y[order]).item() == pytest.approx(ours(f, y).item(), rel=1e-13)


@pytest.mark.parametrize("case", ["attraction", "separation"])
def test_forms_agree_on_one_image_and_channels_mix_on_several(case):
    """Attraction of one class: the published sum of more of them is another."""
    f = torch.tensor(draw(2, 3, 4, 4))
    y = torch.ones(2, 4, 4).long()
    if case == "separation":
        y[:, :2] = 2
    exact, published = (both(f"{case}-{form}")[0] for form in FORMS)
    assert exact(f[:1], y[:1]).item() == pytest.approx(published(f[:1], y[:1]).item(), rel=1e-13)
    assert exact(f, y).item() != pytest.approx(published(f, y).item(), rel=1e-3)


def test_features_at_their_prototypes_are_at_no_distance():
    y = torch.tensor([[[0, 1], [3, 255]]])
    f = torch.tensor(P)[y.clamp(max=3)].movedim(-1, 1).requires_grad_()
    for term in (prototype_matching, prototype_attraction):
        loss = term(f, y, torch.tensor(P))
        (gradient,) = torch.autograd.grad(loss, f)
        assert loss.item() == 0
        assert (gradient == 0).all()


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_inputs_stay(case, dtype):
    ours, numpys = both(case)
    f, y = torch.tensor(draw(2, 3, 3, 4)).to(dtype), torch.tensor(np.random.default_rng(1).choice([0, 1, 3], (2, 3, 4)))
    before = f.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        term = ours(f, y)
    assert term.dtype == torch.float32
    assert term.item() == pytest.approx(numpys(f.double().numpy(), y.numpy()), rel=1e-4)
    assert torch.equal(f, before)
