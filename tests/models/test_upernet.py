"""UPerNet: values against the paper's form in float64, layers counted by hand, maps that are left out."""

import pytest
import torch
import torch.nn.functional as F

from densecl.errors import SettingError
from densecl.models import Network
from densecl.models.backbones.upernet import FeaturePyramid
from densecl.settings.backbone import build_backbone

torch.set_num_threads(1)


def convolved(layer, x):
    """A convolution, BatchNorm as built (mean 0, variance 1) and ReLU."""
    padding = layer[0].kernel_size[0] // 2
    return (F.conv2d(x, layer[0].weight, padding=padding) / (1 + 1e-5) ** 0.5).relu()


def grown(x, size):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def test_levels_are_sums_from_deep_to_fine():
    torch.manual_seed(0)
    decoder = FeaturePyramid((3, 4, 5), 6, (1, 2), 0.5).double().eval()
    fine, middle, deep = (torch.randn(2, c, 16 >> k, 12 >> k).double() for k, c in enumerate((3, 4, 5)))
    means = [deep.mean((2, 3), keepdim=True), deep.unfold(2, 2, 2).unfold(3, 2, 1).mean((4, 5))[..., [0, -1]]]
    assert means[1].shape == (2, 5, 2, 2)  # of 4 x 3 pixels: columns 0-1 and 1-2
    pooled = [grown(convolved(b[1], x), (4, 3)) for b, x in zip(decoder.pooled.branches, means, strict=True)]
    low = convolved(decoder.pooled.mix, torch.cat([deep, *pooled], 1))
    mid = convolved(decoder.lateral[1], middle) + grown(low, (8, 6))
    top = convolved(decoder.lateral[0], fine) + grown(mid, (16, 12))
    levels = [convolved(decoder.smooth[0], top), convolved(decoder.smooth[1], mid), low]
    expected = convolved(decoder.mix[0], torch.cat([grown(x, (16, 12)) for x in levels], 1))
    with torch.no_grad():
        torch.testing.assert_close(decoder([fine, middle, deep]), expected)


def test_layers_are_counted_by_hand():
    with torch.device("meta"):
        net = Network(build_backbone("upernet", {"encoder": "resnet50", "weights": "none", "width": 64}))
        net.grow(21)
    norm = 2 * 64
    pooled = 4 * (2048 * 64 + norm) + 9 * (2048 + 4 * 64) * 64 + norm
    levels = sum(c * 64 + norm for c in (256, 512, 1024)) + 3 * (9 * 64 * 64 + norm)
    assert sum(p.numel() for p in net.backbone.decoder.parameters()) == pooled + levels + 9 * 4 * 64 * 64 + norm
    assert sum(p.numel() for p in net.heads.parameters()) == 21 * 64 + 21


@pytest.mark.parametrize(("encoder", "strides"), [("mini", [16]), ("resnet18", [16, 32])])
def test_maps_below_the_finest_stride_are_not_made(encoder, strides):
    backbone = build_backbone("upernet", {"encoder": encoder, "weights": "none", "width": 8, "finest": 16}).eval()
    output = backbone(torch.randn(2, 3, 50, 64))
    assert backbone.encoder.strides == tuple(strides)
    assert [x.shape[2:] for x in output.encoded] == [(-(-50 // s), 64 // s) for s in strides]
    assert output.decoded.shape == (2, 8, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"finest": 32}, "finest=32.*'mini' has no map of that stride"),
        ({"finest": 2}, "finest=2.*give .*finest >= 4"),
        ({"width": 0}, "width=0"),
        ({"bins": ()}, r"bins=\(\)"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_what_makes_no_network_is_refused_by_name(arguments, message):
    with pytest.raises(SettingError, match=message) as caught:
        build_backbone("upernet", {"encoder": "mini", **arguments})
    assert "\n" not in str(caught.value)
