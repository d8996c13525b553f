"""SDR's prototypes against NumPy, and in training: which follow a batch, which are taken afterwards."""

import numpy as np
import pytest
import torch

from densecl.check.tiny import TRAINING, tiny_loop, tiny_network, tiny_scenario
from densecl.losses import (
    feature_sparsity,
    prototype_attraction,
    prototype_matching,
    prototype_separation,
    unbiased_distillation,
)
from densecl.runner.methods import parse_method
from densecl.strategies.sdr import SDR, update_prototypes

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(seed, batch=2):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, 3, 4, 5)), rng.choice([0, 1, 2, 255], (batch, 4, 5))


def test_prototypes_of_two_batches_are_the_means_of_both():
    batches = [drawn(0), drawn(1, batch=3)]
    p, n = torch.zeros(5, 3, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    for f, y in batches:
        kept = p.clone(), n.clone()
        new = update_prototypes(p, n, torch.tensor(f), torch.tensor(y))
        assert torch.equal(p, kept[0])
        assert torch.equal(n, kept[1])
        p, n = new
    for c in range(5):
        own = [f.transpose(1, 0, 2, 3)[:, y == c].T for f, y in batches]
        rows = np.concatenate(own)
        assert n[c] == len(rows)
        np.testing.assert_allclose(p[c].numpy(), rows.mean(0) if len(rows) else np.zeros(3), rtol=1e-12, atol=1e-14)


def test_published_prototypes_mix_channels_of_several_images():
    p, n = torch.ones(3, 3, dtype=torch.float64), torch.tensor([4.0, 0, 0], dtype=torch.float64)
    f, y = drawn(0)
    mixed, counts = update_prototypes(p, n, torch.tensor(f), torch.tensor(y), form="published")
    for c in range(3):
        picked = np.concatenate([channel[label == c] for image, label in zip(f, y, strict=True) for channel in image])
        sums = picked.reshape(3, -1).sum(1)
        np.testing.assert_allclose(mixed[c].numpy(), (n[c].item() + sums) / counts[c].item(), rtol=1e-12)
    one = [torch.tensor(x[:1]) for x in (f, y)]
    ours = [update_prototypes(p, n, *one, form=form)[0] for form in ("exact", "published")]
    torch.testing.assert_close(*ours)


def test_half_precision_is_summed_in_float32():
    f, y = (torch.tensor(x) for x in drawn(0))
    p, _ = update_prototypes(torch.zeros(3, 3), torch.zeros(3), f.bfloat16(), y)
    wide, _ = update_prototypes(torch.zeros(3, 3), torch.zeros(3), f.bfloat16().float(), y)
    assert p.dtype == torch.float32
    torch.testing.assert_close(p, wide)


# ---- in training


def made(text, steps=1, **scenario):
    loop = tiny_loop(parse_method(text), tiny_scenario(**scenario), tiny_network(), TRAINING)
    loop.train(loop.scenario.experiences[:steps])
    return loop


def centres(labels):
    return labels[:, 8::16, 8::16]  # of the places of a map of stride 16


def test_prototypes_after_a_step_are_mean_features_in_evaluation_and_earlier_ones_stay():
    loop = made("sdr", steps=2)
    p, n = loop.strategy.state_dict().values()
    rows = {c: [] for c in range(4)}
    for batch in loop.strategy.batches("prototypes"):
        with torch.no_grad():
            f = loop.network.eval()(batch.image).encoded[-1].movedim(1, -1)
        for c, own in rows.items():
            own.append(f[centres(batch.target) == c])
    own = torch.cat(rows[3])
    torch.testing.assert_close(p[3], own.mean(0), rtol=1e-4, atol=1e-6)
    assert n[3] == len(own)
    before = made("sdr").strategy.state_dict()
    assert torch.equal(p[:3], before["prototypes"])  # background too: old classes hide in it
    assert torch.equal(n[:3], before["counts"])
    assert loop.strategy.stored_bytes() == 4 * 4 * (1 + p.shape[1])


def test_the_regulariser_is_the_sum_of_its_terms_and_new_heads_are_random():
    loop = made("sdr(distillation=3,matching=2,attraction=5,separation=7,sparsity=11)")
    bias = loop.network.heads.places[0][0].bias.clone()
    loop.begin(loop.scenario.experiences[1])
    first, newest = loop.network.heads.places[0]
    assert torch.equal(first.bias, bias)
    assert not torch.equal(newest.weight, first.weight[:1])
    batch = loop.prepared(next(iter(loop.loader)), loop.task)
    own, teacher = loop.network.eval()(batch.image), loop.teach(batch.image)
    term = loop.strategy.regulariser(own, batch, teacher)
    p = loop.strategy.state_dict()["prototypes"]  # the batch is in them: new classes have some too
    assert (p[3] != 0).any()
    f, y = own.encoded[-1], centres(batch.target)
    named = torch.where(y == 0, centres(teacher.logits.argmax(1)), 0)
    expected = 3 * unbiased_distillation(own.logits, teacher.logits) + 2 * prototype_matching(f, named, p)
    expected += 5 * prototype_attraction(f, y, p) + 7 * prototype_separation(f, y) + 11 * feature_sparsity(f, y)
    assert term.item() == pytest.approx(expected.item(), rel=1e-5)


def test_published_prototypes_are_gathered_in_step_0_which_is_then_ones_own():
    exact, published = made("sdr", steps=0), made("sdr(form=published)", steps=0)
    for loop in (exact, published):
        loop.begin(loop.scenario.experiences[0])
        loop.begin_epoch()
        loop.update(next(iter(loop.loader)))
    assert not len(exact.strategy.state_dict()["counts"])
    assert published.strategy.state_dict()["counts"].sum() > 0
    assert published.strategy.state_dict()["counts"][0] == 0  # overlapped: without the first class of the batch
    assert SDR.shares_first_step({})
    assert not SDR.shares_first_step({"form": "published"})
