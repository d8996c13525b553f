"""SSUL in training: what moves, what stays, where new classes begin, what counts as unknown."""

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from densecl.check.tiny import tiny_loop, tiny_network, tiny_scenario
from densecl.errors import SettingError
from densecl.runner.methods import parse_method
from densecl.settings.recipe import LaterSettings
from trained_loops import next_batch, state, trained

pytestmark = pytest.mark.usefixtures("one_thread")


def made(text="ssul", steps=1, **changes):
    return trained(text, steps, **{"epochs": 1, **changes})


def test_after_later_steps_all_but_new_unknown_and_background_heads_is_bit_equal():
    loop = made()
    assert [len(place) for place in loop.network.heads.places] == [3, 3, 3]
    for step in (1, 2):
        before = state(loop)
        loop.train(loop.scenario.experiences[step : step + 1])
        moved = {name for name, value in state(loop).items() if name in before and not torch.equal(value, before[name])}
        free = [f"heads.places.{place}.{head}." for place in range(3) for head in (0, 1)]
        assert all(name.startswith(tuple(free)) for name in moved)
        assert any(name.startswith("heads.places.0.0.") for name in moved)
        assert loop.network.n_outputs == 3 + step
        norms = [m for m in loop.network.modules() if isinstance(m, _BatchNorm)]
        assert not any(p.requires_grad for m in norms for p in m.parameters())


def test_new_classes_start_from_the_unknown_and_keep_its_statistics():
    loop = made()
    loop.begin(loop.scenario.experiences[1])
    for place in loop.network.heads.places:
        unknown, newest = place[0].state_dict(), place[-1].state_dict()
        assert all(torch.equal(value, unknown[name].expand_as(value)) for name, value in newest.items())
    f = torch.randn(2, 16, 4, 4)
    head = loop.network.heads.places[0]
    torch.testing.assert_close(head[-1].eval()(f), head[0].eval()(f))


def test_a_step_of_several_classes_repeats_the_unknown_row():
    loop = made(steps=0)
    first = loop.scenario.experiences[0]
    loop.enter(first)
    loop.network.grow(3, loop.strategy.build_head)
    from densecl.strategies.tools.heads import start_from

    place = loop.network.heads.places[0]
    start_from(place[-1], place[0])
    assert place[-1][1].weight.shape[0] == 3
    assert place[-1][1].weight.equal(place[0][1].weight.expand(3, -1, -1, -1))


@pytest.mark.parametrize(("rate", "background"), [(0.01, 1e-6), (0.05, 5e-6)])
def test_backgrounds_head_has_a_rate_of_its_own_and_none_falls_below_the_least(rate, background):
    loop = made(later=LaterSettings(lr=rate), optimizer="sgd", epochs=4)
    rates = []
    loop.update, usual = lambda batch: (rates.append(loop.schedule.get_last_lr()), usual(batch)), loop.update
    loop.train(loop.scenario.experiences[1:2])
    heads = {id(p) for place in loop.network.heads.places for p in place[1].parameters()}
    (own,) = (k for k, group in enumerate(loop.optimizer.param_groups) if id(group["params"][0]) in heads)
    trained = [rate[own] for rate in rates]
    assert trained[0] == pytest.approx(background)
    assert min(min(rate) for rate in rates) >= 1e-6 * (1 - 1e-9)
    assert (trained[-1] == pytest.approx(background)) is (rate == 0.01)


def test_dropout_of_the_decoder_stays_on_and_all_statistics_are_fixed():
    values = {"encoder": "mini", "weights": "none", "width": 8, "encoder_widths": (8, 8, 12, 16), "dropout": 0.1}
    loop = made(network=tiny_network("deeplabv3", **values, head="3x3"))
    assert [type(part).__name__ for part in loop.network.heads.places[0][0]] == ["ConvNormReLU", "Conv2d"]
    next_batch(loop, 1)
    assert all(m.training for m in loop.network.modules() if isinstance(m, torch.nn.Dropout))
    assert not any(m.training for m in loop.network.modules() if isinstance(m, _BatchNorm))


@pytest.mark.parametrize("salient", [False, True])
def test_the_loss_is_a_mean_over_labelled_pixels_of_all_outputs(salient):
    loop = made()
    batch = next_batch(loop, 1)
    saliency = torch.zeros_like(batch.target).byte()
    saliency[:, :10] = 7
    if salient:
        batch = batch._replace(extra={"saliency": saliency})
    z = torch.randn(len(batch.image), 5, 32, 32, dtype=torch.float64)
    y = batch.target
    background = (y == 0) & (saliency == 0) & salient
    channel = torch.where(background, 1, torch.where(y == 0, 0, y + 1))
    own = torch.nn.functional.one_hot(channel.clamp(max=4), 5).movedim(3, 1)
    losses = torch.nn.functional.softplus(torch.where(own == 1, -z, z)).sum(1)
    wanted = losses[y != 255].mean()
    assert (y == 255).any()
    torch.testing.assert_close(loop.strategy.pixel_loss(z, batch), wanted)


def test_the_teacher_names_old_classes_in_background():
    loop = made()
    batch = next_batch(loop, 1)
    output, teacher_output = loop.network(batch.image), loop.teach(batch.image)
    sure = torch.full_like(teacher_output.logits, -9.0)
    sure[:, 3] = 9  # class 2
    loss = loop.strategy.task_loss(output._replace(auxiliary=()), batch, teacher_output._replace(logits=sure))
    named = batch._replace(target=torch.where(batch.target == 0, 2, batch.target))
    torch.testing.assert_close(loss, loop.strategy.pixel_loss(output.logits, named))


def test_heads_whose_rows_cannot_be_repeated_are_refused():
    network = tiny_network("fcn", encoder="mini", weights="none", upsampling="learned")
    with pytest.raises(SettingError, match="ssul needs heads whose outputs"):
        tiny_loop(parse_method("ssul"), tiny_scenario(), network)
