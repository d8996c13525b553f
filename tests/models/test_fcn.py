"""FCN-32s: VGG's classifier as convolutions, the sizes of Piggyback's section 6, upsampling that starts bilinear."""

import pytest
import timm
import torch
import torch.nn.functional as F

from densecl.errors import UnknownNameError
from densecl.masking.parametrized import maskable
from densecl.models import FCN, Network
from densecl.models.backbones.fcn import FullyConvolutionalVGG, LearnedUpsampling, bilinear_kernel, rename_classifier

torch.set_num_threads(1)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_masks_and_new_layers_have_the_sizes_of_piggyback_section_6():
    with torch.device("meta"):
        network = Network(FCN("vgg16", "none", "learned"))
        network.grow(21)
    masked = sum(layer.weight.numel() for layer in maskable(network).values())
    assert masked == 134_248_128  # VGG-16's 138,357,544 without 1000 x 4097 of the classifier and 12,416 biases
    assert round(masked / 8 / 1e6) == 17  # MB, as printed there
    assert count(network.heads) == 4096 * 21 + 21 + 21 * 21 * 64 * 64
    assert 7.5 <= count(network.heads) * 4 / 1e6 < 7.6


def test_fully_connected_layers_give_at_the_centre_what_vgg_gives():
    # timm's VGG applies fc6 to a 7x7 map without padding; with padding 3 the centre of the map sees the same.
    torch.manual_seed(0)
    encoder = FullyConvolutionalVGG("vgg11", "none", 0.5).eval()
    assert encoder.strides == (4, 8, 16, 32)
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        maps = encoder(image)
        x = encoder.features(image)
        expected = F.conv2d(x, encoder.fc6.weight, encoder.fc6.bias).relu()
        expected = F.conv2d(expected, encoder.fc7.weight, encoder.fc7.bias).relu()
        small = encoder(torch.randn(1, 3, 33, 47))
    assert [tuple(m.shape[1:]) for m in maps] == [(128, 56, 56), (256, 28, 28), (512, 14, 14), (4096, 7, 7)]
    assert expected.shape == (1, 4096, 1, 1)
    torch.testing.assert_close(maps[-1][:, :, 3, 3], expected[:, :, 0, 0], rtol=1e-3, atol=1e-5)
    assert small[-1].shape[2:] == (2, 2)  # poolings round up


def test_the_classifier_is_renamed_and_reshaped_row_by_row():
    matrix = torch.arange(2.0 * 3 * 49).view(2, 3 * 49)
    renamed = rename_classifier({"classifier.0.weight": matrix, "features.0.bias": torch.ones(1)})
    assert set(renamed) == {"fc6.weight", "features.0.bias"}
    x = torch.randn(1, 3, 7, 7)
    torch.testing.assert_close(F.conv2d(x, renamed["fc6.weight"]).flatten(), matrix @ x.flatten())
    assert rename_classifier({"pre_logits.fc2.weight": torch.ones(2, 2, 1, 1)})["fc7.weight"].shape == (2, 2, 1, 1)


def test_a_file_of_a_classifier_fills_the_encoder(tmp_path, monkeypatch):
    create = timm.create_model
    monkeypatch.setattr("timm.create_model", lambda n, **k: create(n, **k, mlp_ratio=0.01))
    torch.manual_seed(1)
    source = create("vgg11", num_classes=3, mlp_ratio=0.01).eval()
    torch.save(source.state_dict(), tmp_path / "vgg.pth")
    encoder = FullyConvolutionalVGG("vgg11", str(tmp_path / "vgg.pth"), 0.0).eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(encoder(image)[-1][:, :, 3, 3], source.pre_logits(source.features(image))[..., 0, 0])


@pytest.mark.parametrize("stride", [2, 4, 32])
def test_learned_upsampling_starts_as_bilinear_interpolation(stride):
    torch.manual_seed(0)
    up = LearnedUpsampling(5, 3, stride)
    x = torch.randn(2, 5, 6, 4)
    with torch.no_grad():
        low, high = up[0](x), up(x)
    expected = F.interpolate(low, scale_factor=stride, mode="bilinear", align_corners=False)
    assert high.shape == expected.shape
    inner = slice(stride, -stride)  # at the border interpolation repeats the edge, a transposed convolution has zeros
    torch.testing.assert_close(high[..., inner, inner], expected[..., inner, inner])
    assert up[1].weight[0, 1].abs().sum() == 0  # outputs do not mix at first
    torch.testing.assert_close(bilinear_kernel(2)[0], torch.tensor([0.25, 0.75, 0.75, 0.25]) * 0.25)


def test_heads_belong_to_the_backbone_and_grow_by_step():
    network = Network(FCN("mini", "none", "learned"))
    network.grow(3)
    network.grow(2)
    assert all(isinstance(head, LearnedUpsampling) for head in network.heads.places[0])
    assert network(torch.randn(2, 3, 40, 56)).logits.shape == (2, 5, 40, 56)
    plain = Network(FCN("mini", "none"))
    plain.grow(3)
    assert type(plain.heads.places[0][0]) is torch.nn.Conv2d


def test_all_of_the_backbone_is_the_encoder():
    backbone = FCN("resnet18", "none")
    assert dict(backbone.named_children()).keys() == {"encoder"}
    assert (backbone.channels, backbone.stride) == (512, 32)


def test_an_unknown_vgg_gets_the_nearest():
    with pytest.raises(UnknownNameError, match="vgg16"):
        FCN("vgg61", "none")
