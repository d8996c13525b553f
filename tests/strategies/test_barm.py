"""BARM in training: channels, what learns from which term, and what an evaluated network gives."""

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from densecl.errors import SettingError
from densecl.losses import binary_cross_entropy, binary_distillation
from densecl.models.network import upsample
from densecl.strategies.barm import correction_losses, masked_distance, unify
from trained_loops import next_batch, trained

pytestmark = pytest.mark.usefixtures("one_thread")


def made(text="barm", steps=1, **changes):
    return trained(text, steps, **{"epochs": 1, **changes})


def statistics(loop):
    return {name: b.clone() for name, b in loop.network.named_buffers()}


def test_later_heads_have_a_correction_and_start_as_the_first_ear_without_its_statistics():
    loop = made()
    before = statistics(loop)
    loop.begin(loop.scenario.experiences[1])
    first, newest = loop.network.heads.places[0]
    assert [head[1].weight.shape[0] for head in (first, newest)] == [3, 2]
    assert all(p.equal(first[0].get_parameter(name)) for name, p in newest[0].named_parameters())
    loop.resume(None)
    loop.train(loop.scenario.experiences[2:])
    newest = loop.network.heads.places[0][1]
    assert newest[0][1].running_mean.eq(0).all()
    assert newest[0][1].running_var.eq(1).all()
    assert all(torch.equal(b, before[name]) for name, b in statistics(loop).items() if name in before)
    norms = [m for m in loop.network.modules() if isinstance(m, _BatchNorm)]
    assert not any(m.training or p.requires_grad for m in norms for p in m.parameters())


def test_cross_entropy_teaches_the_newest_head_and_no_old_one():
    loop = made()
    batch = next_batch(loop, 1)
    loop.network.zero_grad()
    output = loop.network(batch.image)
    assert output.logits.shape[1] == 4
    loop.strategy.task_loss(output, batch, loop.teach(batch.image)).backward()
    for place in loop.network.heads.places:
        old, newest = place
        assert all(p.grad is None for p in old.parameters())
        assert newest[1].weight.grad.abs().sum() > 0


def test_the_loss_is_cross_entropy_with_labels_that_the_teacher_is_sure_of():
    loop = made()
    batch = next_batch(loop, 1)
    output, teacher_output = loop.network(batch.image), loop.teach(batch.image)
    p = torch.full_like(teacher_output.logits, 0.1)
    p[:, 2, :, :8], p[:, 1, :, 8:16] = 0.8, 0.6  # the second is not sure enough
    target = batch.target.clone()
    target[:, :, :8][target[:, :, :8] == 0] = 2
    loss = loop.strategy.task_loss(output._replace(auxiliary=()), batch, teacher_output._replace(logits=p))
    torch.testing.assert_close(loss, binary_cross_entropy(output.logits, target))


def test_an_evaluated_network_gives_probabilities_made_before_they_grow():
    loop = made(steps=2)
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        output = loop.network.eval()(image)
        heads = [maps for _, maps in loop.network.heads.ears(output.decoded)]
        wanted = upsample(unify(heads, training=False).sigmoid(), image)
    torch.testing.assert_close(output.logits, wanted)
    assert loop.strategy.predict(output).equal(wanted.argmax(1))
    assert loop.strategy.class_probabilities(output.logits).equal(output.logits[:, 1:])


def test_corrections_ears_and_old_heads_are_held_with_their_weights():
    loop = made("barm(triplet=2,positive=3,feature=5,distillation=0.5)")
    batch = next_batch(loop, 1)
    output, teacher_output = loop.network(batch.image), loop.teach(batch.image)
    (ear, maps), (_, newest) = loop.network.heads.ears(output.decoded)
    ((old_ear, old_maps),) = loop.teacher.heads.ears(teacher_output.decoded)
    triplet, positive = correction_losses(newest[:, 0], batch.target)
    wanted = 2 * triplet + 3 * positive + 5 * masked_distance(ear, old_ear, batch.target)
    wanted = wanted + 0.5 * binary_distillation(maps, old_maps)
    torch.testing.assert_close(loop.strategy.regulariser(output, batch, teacher_output), wanted)


def test_old_classes_of_replayed_images_are_no_place_for_a_correction():
    loop = made("barm(triplet=0,feature=0,distillation=0)+replay(memory=8)")
    batch = next_batch(loop, 1)
    replayed = batch.step == 0
    assert (batch.target[replayed] > 0).any()
    batch = batch._replace(target=torch.where(batch.target == 3, 255, batch.target))  # no new class is left
    output, teacher_output = loop.network(batch.image), loop.teach(batch.image)
    assert loop.strategy.regulariser(output, batch, teacher_output).item() == 0


def test_a_batch_in_parts_is_refused():
    with pytest.raises(SettingError, match="accumulation does not go with BARM"):
        made(steps=0, accumulation=2)
