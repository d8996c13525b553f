"""RCIL's branches against NumPy, and in training: what is merged, what stays, where a step begins."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from densecl.check.tiny import TRAINING, tiny_loop, tiny_network, tiny_scenario
from densecl.errors import SettingError
from densecl.losses import fold_new, pooled_channel_distillation, pooled_spatial_distillation, unbiased_distillation
from densecl.models.network import Backbone, Features
from densecl.runner.methods import parse_method
from densecl.runner.plan import make_plan
from densecl.strategies.rcil import branch_shares, merge
from densecl.strategies.tools.branches import Doubled, double

pytestmark = pytest.mark.usefixtures("one_thread")
DEEPLAB = {"encoder": "mini", "weights": "none", "width": 8, "encoder_widths": (8, 8, 12, 16)}


def made(text="rcil", steps=1, network=None):
    loop = tiny_loop(parse_method(text), tiny_scenario(), network or tiny_network("deeplabv3", **DEEPLAB), TRAINING)
    loop.train(loop.scenario.experiences[:steps])
    return loop


def drawn_pair(seed, bias=False, groups=1, dtype=torch.float64):
    """A convolution and a BatchNorm with statistics and factors of their own."""
    torch.manual_seed(seed)
    pair = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, groups=groups, bias=bias), nn.BatchNorm2d(6)).to(dtype)
    for value in (pair[1].weight, pair[1].bias, pair[1].running_mean):
        nn.init.normal_(value)
    nn.init.uniform_(pair[1].running_var, 0.2, 3)
    return pair


@pytest.mark.parametrize("bias", [True, False])
def test_merging_equals_numpy_and_the_mean_of_branches_in_evaluation(bias):
    branches = [drawn_pair(seed, bias, groups=2).eval() for seed in (0, 1)]
    before = copy.deepcopy(branches)
    weight, shift = merge(branches)
    kernels, shifts = [], []
    for convolution, norm in branches:
        k, b = convolution.weight.detach().numpy(), convolution.bias.detach().numpy() if bias else 0.0
        g, beta = norm.weight.detach().numpy(), norm.bias.detach().numpy()
        root = np.sqrt(norm.running_var.numpy() + norm.eps)
        kernels.append(k * (g / root)[:, None, None, None])
        shifts.append(beta + g * (b - norm.running_mean.numpy()) / root)
    np.testing.assert_allclose(weight.detach().numpy(), sum(kernels) / 2, rtol=1e-13)
    np.testing.assert_allclose(shift.detach().numpy(), sum(shifts) / 2, rtol=1e-12, atol=1e-15)
    x = torch.randn(2, 4, 7, 5, dtype=torch.float64)
    mean = (branches[0](x) + branches[1](x)) / 2
    merged = torch.nn.functional.conv2d(x, weight, shift, stride=2, padding=1, groups=2)
    assert (merged - mean).abs().max() < 1e-12
    for old, new in zip(before, branches, strict=True):
        assert all(torch.equal(value, new.state_dict()[name]) for name, value in old.state_dict().items())


def test_shares_follow_the_numbers():
    shares = branch_shares(torch.tensor([0.0, 0.32, 0.34, 0.65, 0.67, 1.0]))
    assert shares.tolist() == [[1, 1, 0, 0, 0.5, 0.5], [0, 0, 1, 1, 0.5, 0.5]]


def test_evaluation_is_the_mean_before_merging_and_after_it_and_training_the_drawn_shares():
    part = Doubled(*drawn_pair(0, dtype=torch.float32))
    part.branches[1].load_state_dict(drawn_pair(1, dtype=torch.float32).state_dict())
    x = torch.randn(2, 4, 6, 8)
    part.eval()
    mean = (part.branches[0](x) + part.branches[1](x)) / 2
    torch.testing.assert_close(part(x), mean, rtol=1e-6, atol=1e-6)
    part.train()
    part.branches.eval()  # the statistics stay, the way is that of training
    part.drawn = torch.tensor([[1.0, 0, 0.5] * 2, [0, 1, 0.5] * 2])
    maps = part.branches[0](x), part.branches[1](x)
    expected = torch.stack([maps[0][:, 0], maps[1][:, 1], (maps[0][:, 2] + maps[1][:, 2]) / 2], 1)
    torch.testing.assert_close(part(x)[:, :3], expected)
    part.close()
    torch.testing.assert_close(part.eval()(x), mean, rtol=1e-5, atol=1e-5)
    part.open()  # the next step: a quarter and three quarters of what the branches were
    torch.testing.assert_close(part(x), maps[0] / 4 + maps[1] * 3 / 4, rtol=1e-5, atol=1e-5)
    assert not any(p.requires_grad for p in part.branches[0].parameters())
    assert all(p.requires_grad for p in part.branches[1].parameters())


def test_doubling_changes_nothing_in_evaluation_and_reaches_every_branch_of_aspp():
    backbone = tiny_network("deeplabv3", **DEEPLAB).backbone.eval()
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before = backbone(image).decoded
        parts = double(backbone)
        torch.testing.assert_close(backbone(image).decoded, before, rtol=1e-4, atol=1e-5)
    assert len(parts) == 7 + 4  # stem and two in each of three blocks; ASPP has four branches with kernels
    assert [part.channels for part in parts[-4:]] == [8] * 4


def test_the_teacher_is_the_mean_that_was_trained_and_the_kept_branch_never_moves_again():
    loop = made(steps=0)
    parts, image = loop.strategy._doubled, torch.rand(2, 3, 32, 32)
    close = parts[-1].close
    seen = []

    def look():
        close()
        seen.append(loop.network.eval()(image).logits.detach())

    loop.train(loop.scenario.experiences[:1])
    evaluated = loop.network.eval()(image).logits
    kept = [copy.deepcopy(part.branches[0].state_dict()) for part in parts]
    loop.begin(loop.scenario.experiences[1])
    torch.testing.assert_close(loop.teacher(image).logits, evaluated)
    assert not torch.allclose(loop.network.eval()(image).logits[:, :3], evaluated, atol=1e-5)
    loop.begin_epoch()
    for batch in loop.loader:
        loop.update(batch)
    for part, before in zip(parts, kept, strict=True):
        assert all(torch.equal(value, before[name]) for name, value in part.branches[0].state_dict().items())
    parts[-1].close = look
    with torch.no_grad():
        mean = loop.network.eval()(image).logits.detach()
    loop.finish(loop.scenario.experiences[1])
    torch.testing.assert_close(seen[0], mean, rtol=1e-4, atol=1e-5)  # merging is no change of the function


def test_shares_of_a_batch_are_drawn_anew_and_alike_wherever_it_is_learnt():
    loop = made(steps=0)
    loop.begin(loop.scenario.experiences[0])
    drawn = []
    for _ in range(2):
        loop.begin_epoch()
        drawn.append([part.drawn.clone() for part in loop.strategy._doubled])
    assert all(map(torch.equal, *drawn))
    loop.update(next(iter(loop.loader)))
    assert not all(map(torch.equal, drawn[0], [part.drawn for part in loop.strategy._doubled]))


def test_new_rows_are_backgrounds_and_biases_are_not():
    loop = made()
    bias = loop.network.heads.places[0][0].bias.clone()
    loop.begin(loop.scenario.experiences[1])
    first, newest = loop.network.heads.places[0]
    assert torch.equal(newest.weight, first.weight[:1])
    assert torch.equal(first.bias, bias)
    assert not torch.equal(newest.bias, first.bias[:1])


def test_the_regulariser_is_the_sum_of_its_terms():
    loop = made("rcil(distillation=3,pooled=2,pooled_last=5)")
    loop.begin(loop.scenario.experiences[1])
    batch = loop.prepared(next(iter(loop.loader)), loop.task)
    own, teacher = loop.network.eval()(batch.image), loop.teach(batch.image)
    maps = [*zip(own.encoded, teacher.encoded, strict=True), (own.decoded, teacher.decoded)]
    spatial = [2 * pooled_spatial_distillation(*pair) for pair in maps]
    spatial.append(5 * pooled_spatial_distillation(fold_new(own.coarse, n_old=3), teacher.coarse))
    channel = [w * pooled_channel_distillation(*pair) for w, pair in zip((2, 2, 2, 5), maps, strict=True)]
    expected = 3 * unbiased_distillation(own.logits, teacher.logits)
    expected = expected + math.sqrt(4 / 1) * (sum(spatial) / 5 + sum(channel) / 4)
    assert loop.strategy.regulariser(own, batch, teacher).item() == pytest.approx(expected.item(), rel=1e-5)


class Plain(Backbone):
    """Convolutions without BatchNorm."""

    def __init__(self):
        super().__init__()
        self.encoder, self.channels = nn.Conv2d(3, 8, 3, 2, 1), 8

    def forward(self, image):
        """Features of an image."""
        x = self.encoder(image)
        return Features(x, (x,))


def test_an_encoder_without_batchnorm_is_refused():
    with pytest.raises(SettingError, match="rcil: the encoder of UNet has no BatchNorm"):
        make_plan("shapes15-5", "rcil", backbone="unet(norm=instance)")
    make_plan("shapes15-5", "rcil")
    with pytest.raises(SettingError, match="no 3x3 convolution with a BatchNorm"):
        double(Plain())
