"""STAR in training: what it keeps, what it draws, what each term of its loss sees."""

import pytest
import torch

from densecl.check.tiny import tiny_loop, tiny_network, tiny_scenario
from densecl.errors import SettingError
from densecl.losses import masked_feature_distillation, prototype_repulsion
from densecl.runner.methods import parse_method
from densecl.strategies import star
from densecl.strategies.star import at_places
from trained_loops import next_batch, trained

pytestmark = pytest.mark.usefixtures("one_thread")


def made(text="star", steps=1, **changes):
    return trained(text, steps, **{"epochs": 1, **changes})


@torch.no_grad()
def passed(loop, purpose, classes):
    """(features, labels at their places) of the images that the method saw in a pass."""
    loop.network.eval()
    seen = [(loop.network(batch.image).decoded, batch.target) for batch in loop.strategy.batches(purpose)]
    return torch.cat([f for f, _ in seen]), torch.cat([at_places(y, f) for f, y in seen])


def test_classes_are_kept_as_the_functions_say():
    loop = made()
    kept = loop.strategy.kept
    f, label = passed(loop, "remember", (1, 2))
    p = star.prototypes(f, label, classes=(1, 2))
    torch.testing.assert_close(kept.prototypes, p)
    torch.testing.assert_close(kept.lengths, star.lengths(f, label, classes=(1, 2)))
    torch.testing.assert_close(kept.spread, star.spread(f, label, p, classes=(1, 2)), rtol=1e-4, atol=1e-5)
    assert kept.stored.tolist() == [(label == c).sum() for c in (0, 1, 2)]
    assert loop.strategy.stored_bytes() == 2 * (2 * 16 + 2) * 4 + 3 * 8


@pytest.mark.parametrize("form", ["exact", "published"])
def test_a_later_steps_spread_is_to_its_own_prototype_or_to_the_first_of_all(form):
    loop = made(f"star(form={form})", steps=2)
    kept = loop.strategy.kept
    f, label = passed(loop, "remember", (3,))
    centre = kept.prototypes[:1] if form == "published" else kept.prototypes[2:]
    wanted = star.spread(f, label, centre, classes=(3,))
    torch.testing.assert_close(kept.spread[2:], wanted, rtol=1e-4, atol=1e-5)
    assert kept.prototypes.shape == kept.spread.shape == (3, 16)
    assert kept.stored.shape == (4,)


def test_background_and_old_classes_are_counted_as_the_teacher_sees_them():
    loop = made()
    loop.begin(loop.scenario.experiences[1])
    counts = torch.zeros(3)
    for batch in loop.strategy.batches("look-ahead"):
        output = loop.teach(batch.image)
        named = at_places(loop.strategy.predict(output), output.decoded)
        counts += named[at_places(batch.target, output.decoded) == 0].bincount(minlength=3)
    assert loop.strategy.kept.predicted.tolist() == counts.tolist()


def test_fakes_lie_about_their_prototypes_and_are_the_same_when_drawn_again():
    kept = made().strategy.kept
    rows = torch.tensor([0, 1]).repeat_interleave(4000)
    drawn = kept.draw(rows, torch.Generator().manual_seed(3))
    assert drawn.equal(kept.draw(rows, torch.Generator().manual_seed(3)))
    mean = drawn.view(2, 4000, 16).mean(1)
    torch.testing.assert_close(mean, kept.prototypes * kept.lengths[0].unsqueeze(1), rtol=0.1, atol=0.1)


def test_the_loss_of_a_step_is_the_weighed_mean_of_its_three_terms():
    loop = made()
    batch = next_batch(loop, 1)
    strategy, kept = loop.strategy, loop.strategy.kept
    kept.stored, kept.predicted = torch.tensor([900.0, 90.0, 0.0]).double(), torch.tensor([300.0, 10.0, 0.0]).double()
    strategy.train_mode()
    output, teacher_output = loop.network(batch.image)._replace(auxiliary=()), loop.teach(batch.image)
    teacher_output.logits[..., :16] = -1  # sees nothing there
    assert strategy._rows.tolist() == [0] * (80 // len(loop.batches))
    rng = torch.Generator().manual_seed(star.derive(0, "fakes", 1, 0))
    drawn = kept.draw(strategy._rows, rng)
    head = loop.network.heads.places[0][1]
    z = drawn @ head.weight.flatten(1).T + head.bias
    softplus = torch.nn.functional.softplus
    new = output.coarse[:, 2:]
    empty = (at_places(batch.target, new) == 0) & (at_places(strategy.predict(teacher_output), new) == 0)
    w_f = len(z) / empty.numel()
    w_b = (900 * 0.99 / 300 - 0.5) * empty.sum() / empty.numel()
    own = strategy.pixel_loss(output.logits, batch)
    wanted = own + w_f * softplus(z).sum(1).mean() + w_b * softplus(new)[empty[:, None]].mean()
    loss = strategy.task_loss(output, batch, teacher_output)
    assert empty.any()
    torch.testing.assert_close(loss, wanted / (1 + w_f + w_b), rtol=1e-5, atol=1e-6)


def test_features_are_held_where_the_teacher_sees_old_classes_and_new_ones_kept_away_from_prototypes():
    loop = made("star(feature=2,repulsion=0.3)")
    batch = next_batch(loop, 1)
    output, teacher_output = loop.network(batch.image), loop.teach(batch.image)
    old = (batch.target == 0) & (loop.strategy.predict(teacher_output) > 0)
    wanted = 2 * masked_feature_distillation(output.decoded, teacher_output.decoded, old)
    wanted += 0.3 * prototype_repulsion(output.decoded, batch.target, loop.strategy.kept.prototypes, classes=(3,))
    torch.testing.assert_close(loop.strategy.regulariser(output, batch, teacher_output), wanted)


def test_old_heads_get_no_gradient_but_decay():
    loop = made()
    batch = next_batch(loop, 1)
    loop.network.zero_grad()
    loop.learn(batch, None)
    old, new = loop.network.heads.places[0]
    assert (old.weight.grad == 0).all()
    assert new.weight.grad.abs().sum() > 0


def test_a_new_class_hidden_in_a_replayed_image_is_not_called_background():
    loop = made("star+replay(memory=8)")
    batch = next_batch(loop, 1)
    assert (batch.step == 0).any()
    strategy = loop.strategy
    strategy.kept.stored[0], strategy.kept.predicted[0] = 1e6, 1
    output, teacher_output = loop.network(batch.image), loop.teach(batch.image)
    teacher_output = teacher_output._replace(logits=teacher_output.logits.clamp(max=-1))  # sees nothing
    coarse = output.coarse.detach().requires_grad_()
    strategy.task_loss(output._replace(coarse=coarse, auxiliary=()), batch, teacher_output).backward()
    assert (coarse.grad[batch.step == 0] == 0).all()
    assert coarse.grad[batch.step == 1].abs().sum() > 0


def test_prototypes_follow_the_network_where_both_networks_are_sure_and_spreads_grow():
    loop = made()
    head = loop.network.heads.places[0][0]
    with torch.no_grad():  # sure of class 1 everywhere
        head.weight.zero_()
        head.bias.copy_(torch.tensor([4.0, -4.0]))
    loop.train(loop.scenario.experiences[1:2])
    with torch.no_grad():
        loop.network.heads.places[0][1].bias.fill_(-30)
    kept, means = loop.strategy.kept, []
    kept.prototypes, kept.spread = before = kept.prototypes[:2], kept.spread[:2]  # as before the new one is measured
    kept.follow(loop.strategy, 0.5)
    change, grown = kept.prototypes - before[0], kept.spread - before[1]
    for network in (loop.teacher, loop.network.eval()):
        with torch.no_grad():
            seen = [(network(batch.image).decoded, batch.target) for batch in loop.strategy.batches("follow")]
        unit = [f / f.norm(dim=1, keepdim=True).clamp(min=1e-12) for f, _ in seen]
        places = [at_places(y, f) == 0 for f, y in seen]
        means.append(torch.cat([f.movedim(1, 3)[here] for f, here in zip(unit, places, strict=True)]).mean(0))
    assert change[0].abs().sum() > 0
    torch.testing.assert_close(change[0], 0.5 * (means[1] - means[0]), rtol=1e-3, atol=1e-6)
    assert (change[1:] == 0).all()  # the other old class is named nowhere
    torch.testing.assert_close(grown, change.abs(), rtol=1e-3, atol=1e-6)


def test_a_step_lets_old_classes_follow_where_it_is_asked_to():
    loop, shares = made("star(drift=0.3)"), []
    loop.strategy.kept.follow = lambda strategy, share: shares.append(share)
    loop.train(loop.scenario.experiences[1:2])
    assert shares == [0.3]


def test_a_batch_in_parts_and_heads_without_rows_are_refused():
    with pytest.raises(SettingError, match="accumulation does not go with STAR: a term of its loss needs all of a"):
        made(steps=0, accumulation=2)
    network = tiny_network("fcn", encoder="mini", weights="none", upsampling="learned")
    with pytest.raises(SettingError, match="star needs heads that are 1x1 convolutions"):
        tiny_loop(parse_method("star"), tiny_scenario(), network)
