"""PLOP and EWF in training: thresholds, what is replaced in targets, which parameters stay, what is fused."""

import math

import pytest
import torch

from densecl.check.tiny import BISENET, TRAINING, tiny_loop, tiny_network, tiny_scenario
from densecl.runner.methods import parse_method

pytestmark = pytest.mark.usefixtures("one_thread")


def made(text, steps=1, **changes):
    loop = tiny_loop(
        parse_method(text),
        tiny_scenario(),
        tiny_network("bisenet", **BISENET),
        TRAINING.model_copy(update=changes),
    )
    loop.train(loop.scenario.experiences[:steps])
    return loop


def test_thresholds_are_the_medians_of_the_teachers_uncertainty_by_class():
    """Against a sort of the same uncertainties: a median of bins is within one bin of the median."""
    loop = made("plop")
    loop.begin(loop.scenario.experiences[1])
    doubts = {label: [] for label in range(loop.n_old)}
    for batch in loop.strategy.batches("thresholds"):
        p = loop.teacher(batch.image).logits.double().softmax(1)
        entropy = -(p * p.log()).sum(1) / math.log(loop.n_old)
        for label, values in doubts.items():
            values.extend(entropy[(p.argmax(1) == label) & (batch.target == 0)].tolist())
    for label, values in doubts.items():
        if values:
            ordered = sorted(values)
            median = ordered[(len(ordered) - 1) // 2]
            assert float(loop.strategy._cut[label]) == pytest.approx(median, abs=0.0101)
        else:
            assert float(loop.strategy._cut[label]) == 0.001


def test_targets_are_replaced_on_background_alone_and_the_batch_is_not_changed():
    loop = made("plop")
    loop.begin(loop.scenario.experiences[1])
    batch = loop.prepared(next(iter(loop.loader)), loop.task)
    target = batch.target.clone()
    changed = loop.strategy.prepare_batch(batch, loop.teach(batch.image))
    assert torch.equal(batch.target, target)
    own = target > 0
    assert torch.equal(changed.target[own], target[own])
    background = changed.target[~own]
    assert set(background.unique().tolist()) <= {0, 1, 2, 255}
    accepted = (background != 255).sum()
    shares = changed.weight * (~own).sum((1, 2))
    assert float(shares.sum()) == pytest.approx(float(accepted), rel=1e-4)


def test_labels_of_replayed_samples_stay():
    loop = made("plop+replay(memory=8)")
    loop.begin(loop.scenario.experiences[1])
    batch = loop.prepared(next(iter(loop.loader)), loop.task)
    replayed = batch.step == 0
    assert replayed.any()
    old = replayed.view(-1, 1, 1) & (batch.target > 0) & (batch.target < 3)
    assert old.any()
    changed = loop.strategy.prepare_batch(batch, loop.teach(batch.image))
    assert torch.equal(changed.target[old], batch.target[old])


def test_equal_networks_are_at_no_distance():
    loop = made("plop")
    loop.begin(loop.scenario.experiences[1])
    batch = loop.prepared(next(iter(loop.loader)), loop.task)
    teacher_output = loop.teach(batch.image)
    assert float(loop.strategy.regulariser(teacher_output, batch, teacher_output)) == 0
    assert len(teacher_output.raw) == len(teacher_output.encoded) == 3


def test_thresholds_are_in_the_state():
    loop = made("plop", steps=2)
    again = made("plop", steps=0)
    again.strategy.load_state_dict(loop.strategy.state_dict())
    assert torch.equal(again.strategy._cut, loop.strategy._cut)
    assert len(loop.strategy._cut) == 3


@pytest.mark.parametrize("base", ["mib", "plop", "finetune"])
def test_earlier_heads_stay_and_all_else_is_a_mean_of_before_and_after(base):
    loop = made(f"{base}+ewf")
    before = {name: value.clone() for name, value in loop.network.state_dict().items()}
    trained = {}
    after_step = type(loop.strategy).after_step

    def keep(experience):
        trained.update({name: value.clone() for name, value in loop.network.state_dict().items()})
        after_step(loop.strategy, experience)

    loop.strategy.after_step = keep
    loop.train(loop.scenario.experiences[1:2])
    alpha = math.sqrt(1 / 4)  # one new class, three old outputs with background
    new_bias = math.log(2) if base != "finetune" else 0.0
    for name, value in loop.network.state_dict().items():
        if name not in before:
            assert torch.equal(value, trained[name])  # a new head
        elif not value.is_floating_point():
            assert torch.equal(value, trained[name])
        elif name.startswith("heads."):
            expected = before[name].clone()
            if name.endswith("bias"):
                expected[0] -= alpha * new_bias  # the balanced start lowers background's, fusion gives part back
            torch.testing.assert_close(value, expected)
        else:
            torch.testing.assert_close(value, (1 - alpha) * before[name] + alpha * trained[name])


def test_fusion_with_all_of_the_new_network_is_training_with_earlier_heads_fixed():
    loop = made("finetune+ewf(alpha=1)", steps=2)
    head = loop.network.heads.places[0]
    assert [p.requires_grad for p in head.parameters()] == [False, False, True, True]
