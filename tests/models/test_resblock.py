"""Encoder, residual blocks, decoder: sizes, the notation of the papers, the autoencoder without blocks."""

import pytest
import torch
from torch import nn

from densecl.models import Network, ResBlockNet
from size_formulas import block_parameters, head_parameters

torch.set_num_threads(1)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_layers_and_sizes_follow_the_notation():
    # c7s1-64, d128, d256, R256 x 6, u128, u64, c7s1-3; parameters by hand, biases included.
    with torch.device("meta"):
        network = Network(ResBlockNet(blocks=6))
        network.grow(3)
    backbone = network.backbone
    assert count(backbone.encoder) == (3 * 64 * 49 + 64) + (64 * 128 * 9 + 128) + (128 * 256 * 9 + 256)
    assert count(backbone.blocks) == 6 * 2 * (256 * 256 * 9 + 256) == 6 * block_parameters(256)
    assert count(backbone.decoder) == (256 * 128 * 9 + 128) + (128 * 64 * 9 + 64)
    assert count(network.heads) == 64 * 3 * 49 + 3 == head_parameters(64, 3, 7)
    assert round(4 * block_parameters(256) / 2**20, 1) == 4.5


def test_without_blocks_it_is_the_autoencoder_and_needs_none():
    torch.manual_seed(0)
    backbone = ResBlockNet(4, 3).eval()
    image = torch.randn(1, 3, 20, 28)
    with torch.no_grad():
        with_blocks = backbone(image).decoded
        backbone.use_blocks = False
        without = backbone(image).decoded
        plain = ResBlockNet(4, 0).eval()
        plain.load_state_dict({k: v for k, v in backbone.state_dict().items() if not k.startswith("blocks")})
        assert without.equal(plain(image).decoded)
    assert not torch.allclose(with_blocks, without)


def test_blocks_add_to_what_they_get():
    backbone = ResBlockNet(4, 2).eval()
    with torch.no_grad():
        for block in backbone.blocks:
            block.body[-1] = nn.Sequential(nn.Identity())
            block.body[3].weight.zero_()
            block.body[3].bias.fill_(0.5)
        x = torch.randn(1, 16, 5, 5)
        torch.testing.assert_close(backbone.blocks(x), x + 1)


@pytest.mark.parametrize("size", [(5, 5), (17, 50), (18, 7)])
def test_sizes_that_stride_2_rounds_up_are_cropped(size):
    features = ResBlockNet(4, 1).eval()(torch.randn(1, 3, *size))
    assert features.decoded.shape == (1, 4, *size)
    assert features.encoded[-1].shape == (1, 16, -(-size[0] // 4), -(-size[1] // 4))


def test_background_can_be_shared_out_with_a_7x7_head():
    network = Network(ResBlockNet(4, 1)).eval()
    network.grow(3)
    image = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        before = network(image).logits.softmax(1)
        network.grow(2)
        network.heads.init_from_background()
        after = network(image).logits.softmax(1)
    torch.testing.assert_close(after[:, 1:3], before[:, 1:])
    torch.testing.assert_close(after[:, :1] + after[:, 3:].sum(1, keepdim=True), before[:, :1])
