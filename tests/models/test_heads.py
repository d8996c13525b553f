"""Heads that grow: identity of old parameters, one convolution for all steps, MiB's initialisation."""

import pytest
import torch
from torch import nn

from densecl.errors import SettingError
from densecl.models.heads import Heads

torch.set_num_threads(1)


def grown(*outputs: int, auxiliary: tuple[int, ...] = (5, 7)) -> Heads:
    torch.manual_seed(0)
    heads = Heads(8, auxiliary)
    for n in outputs:
        heads.grow(n)
    return heads


def features() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    torch.manual_seed(1)
    return torch.randn(2, 8, 6, 5), (torch.randn(2, 5, 3, 3), torch.randn(2, 7, 2, 2))


def test_outputs_of_all_steps_are_concatenated_in_order_at_every_place():
    heads = grown(4, 2, 3)
    decoded, auxiliary = features()
    assert heads.n_outputs == 9
    maps = heads(decoded, auxiliary)
    assert [tuple(x.shape) for x in maps] == [(2, 9, 6, 5), (2, 9, 3, 3), (2, 9, 2, 2)]
    for place, x, y in zip(heads.places, (decoded, *auxiliary), maps, strict=True):
        torch.testing.assert_close(y, torch.cat([head(x) for head in place], 1))
    assert len(heads(decoded)) == 1


def test_joining_the_convolutions_gives_every_step_its_gradient():
    heads = grown(4, 2, 3)
    decoded, auxiliary = features()
    sum((x**2).sum() for x in heads(decoded, auxiliary)).backward()
    joined = [p.grad for p in heads.parameters()]
    heads.zero_grad()
    for place, x in zip(heads.places, (decoded, *auxiliary), strict=True):
        sum((head(x) ** 2).sum() for head in place).backward()
    for a, p in zip(joined, heads.parameters(), strict=True):
        assert a is not None
        torch.testing.assert_close(a, p.grad)


def test_old_parameters_keep_identity_and_value_when_heads_grow():
    heads = grown(4, 2)
    before = {name: (p, p.detach().clone()) for name, p in heads.named_parameters()}
    heads.grow(3)
    after = dict(heads.named_parameters())
    assert len(after) == len(before) + 6
    for name, (parameter, value) in before.items():
        assert after[name] is parameter
        assert parameter.equal(value)


def test_a_state_dict_fits_heads_grown_the_same_way():
    heads, other = grown(4, 2), Heads(8, (5, 7))
    for n in (4, 2):
        other.grow(n)
    other.load_state_dict(heads.state_dict())
    assert all(a.equal(b) for a, b in zip(heads(*features()), other(*features()), strict=True))


class Scaled(nn.Module):
    """A head that is no convolution alone."""

    def __init__(self, channels: int, outputs: int):
        super().__init__()
        self.convolution = nn.Conv2d(channels, outputs, 1)

    def forward(self, x):
        return 2 * self.convolution(x)


def test_other_modules_and_hooks_are_not_gone_round():
    heads = grown(4, auxiliary=())
    heads.grow(2, Scaled)
    decoded, _ = features()
    first, second = heads.places[0]
    torch.testing.assert_close(heads(decoded)[0], torch.cat([first(decoded), 2 * second.convolution(decoded)], 1))
    hooked = grown(4, 2, auxiliary=())
    hooked.places[0][1].register_forward_hook(lambda module, args, output: output + 100)
    assert hooked(decoded)[0][:, 4:].min() > 50
    parametrized = grown(4, 2, auxiliary=())
    torch.nn.utils.parametrize.register_parametrization(parametrized.places[0][0], "weight", nn.Identity())
    torch.testing.assert_close(parametrized(decoded)[0], grown(4, 2, auxiliary=())(decoded)[0])


@pytest.mark.parametrize("outputs", [(4, 3), (4, 2, 1), (1, 5)])
def test_background_shares_its_probability_with_the_new_classes_and_others_keep_theirs(outputs):
    heads = grown(*outputs[:-1]).double()
    inputs = features()
    decoded, auxiliary = inputs[0].double(), tuple(x.double() for x in inputs[1])
    before = [x.softmax(1) for x in heads(decoded, auxiliary)]
    heads.grow(outputs[-1])
    heads.double().init_from_background()
    after = [x.softmax(1) for x in heads(decoded, auxiliary)]
    n_old = sum(outputs[:-1])
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new[:, :1].sum(1) + new[:, n_old:].sum(1), old[:, 0])
        torch.testing.assert_close(new[:, 1:n_old], old[:, 1:])
        torch.testing.assert_close(new[:, n_old:], new[:, :1].expand_as(new[:, n_old:]))  # shared out evenly


def test_init_from_background_follows_the_formula():
    heads = grown(3, auxiliary=())
    weight, bias = heads.places[0][0].weight[0].detach().clone(), heads.places[0][0].bias.detach().clone()
    heads.grow(2)
    heads.init_from_background()
    shared = bias[0] - torch.log(torch.tensor(3.0))
    first, newest = heads.places[0]
    assert all(row.equal(weight) for row in [first.weight[0], *newest.weight])
    torch.testing.assert_close(newest.bias, shared.expand(2))
    torch.testing.assert_close(first.bias, torch.stack([shared, bias[1], bias[2]]))


@pytest.mark.parametrize("outputs", [(4,), (4, 0), (0, 4)])
def test_init_from_background_does_nothing_without_old_or_new_outputs(outputs):
    heads = grown(*outputs)
    before = [p.detach().clone() for p in heads.parameters()]
    heads.init_from_background()
    assert all(a.equal(b) for a, b in zip(before, heads.parameters(), strict=True))


def test_init_from_background_refuses_heads_it_does_not_know():
    heads = grown(4)
    heads.grow(2, Scaled)
    with pytest.raises(SettingError, match="1x1 convolutions"):
        heads.init_from_background()


def test_heads_without_outputs_and_wrong_calls_are_refused():
    with pytest.raises(ValueError, match="call grow first"):
        Heads(8)(features()[0])
    with pytest.raises(ValueError, match="cannot grow by -1"):
        Heads(8).grow(-1)
    with pytest.raises(ValueError, match="1 auxiliary features for 2 auxiliary heads"):
        grown(4)(features()[0], features()[1][:1])


def test_new_heads_take_the_mode_of_the_others():
    heads = grown(4).eval()
    heads.grow(2)
    assert not any(module.training for module in heads.modules())
