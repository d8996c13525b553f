"""All-MLP decoder and plain transformers: layers counted by hand, values against the papers' form, sizes, masks."""

import pytest
import timm
import torch
import torch.nn.functional as F

from densecl.check.tiny import tiny_loop, tiny_network, tiny_scenario
from densecl.errors import SettingError
from densecl.masking.parametrized import maskable
from densecl.models import Network
from densecl.models.backbones.allmlp import AllMLPDecoder
from densecl.models.backbones.vit import PlainViT, SimplePyramid
from densecl.runner.methods import parse_method
from densecl.runner.plan import make_plan
from densecl.settings.backbone import build_backbone

torch.set_num_threads(1)

VIT = {"encoder": "mini_vit", "encoder.embed_dim": 24, "width": 8}


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_decoder_is_a_convolution_of_the_maps_side_by_side():
    torch.manual_seed(0)
    decoder = AllMLPDecoder((3, 5), 4, 0.1).double().eval()
    maps = [torch.randn(2, 3, 6, 8).double(), torch.randn(2, 5, 3, 4).double()]
    joined = torch.cat(
        [F.interpolate(b[0](x), size=(6, 8), mode="bilinear") for b, x in zip(decoder.branches, maps, strict=True)], 1
    )
    weight = torch.cat([branch[1].weight for branch in decoder.branches], 1)  # of the 1x1 convolution behind it
    expected = (F.conv2d(joined, weight) / (1 + 1e-5) ** 0.5).relu()  # BatchNorm as built: mean 0, variance 1
    with torch.no_grad():
        torch.testing.assert_close(decoder(maps), expected)


@pytest.mark.parametrize(
    ("encoder", "channels", "normalised"),
    [("pvt_v2_b0", (32, 64, 160, 256), True), ("swin_tiny_patch4_window7_224", (96, 192, 384, 768), False)],
)
def test_allmlp_has_the_layers_of_segformers_decoder_counted_by_hand(encoder, channels, normalised):
    with torch.device("meta"):
        net = Network(build_backbone("allmlp", {"encoder": encoder, "weights": "none", "width": 256}))
        net.grow(21)
    backbone = net.backbone
    assert count(backbone.decoder) == sum(256 * c + 256 for c in channels) + 4 * 256 * 256 + 2 * 256
    assert count(backbone.map_norms) == (0 if normalised else sum(2 * c for c in channels))
    assert count(net.heads) == 21 * 256 + 21
    assert count(backbone) == count(backbone.encoder) + count(backbone.map_norms) + count(backbone.decoder)


def test_a_vision_transformer_has_its_layers_counted_by_hand():
    """ViT-Tiny of 12 blocks of width 192; pyramid: convolutions of stride 2, four outputs, the all-MLP decoder."""
    with torch.device("meta"):
        backbone = build_backbone("vit", {"encoder": "vit_tiny_patch16_224", "weights": "none"})
    block = 12 * 192 * 192 + 13 * 192
    assert count(backbone.encoder) == 3 * 256 * 192 + 192 + 197 * 192 + 192 + 12 * block + 2 * 192
    up = 4 * 192 * 96 + 96
    grown = up + 2 * 96 + 4 * 96 * 48 + 48 + up
    outputs = sum(c * 256 + 9 * 256 * 256 + 4 * 256 for c in (48, 96, 192, 192))
    mixed = 4 * (256 * 256 + 256) + 4 * 256 * 256 + 2 * 256
    assert count(backbone.decoder) == grown + outputs + mixed
    assert (backbone.channels, backbone.encoder.strides) == (256, (16,) * 4)


@pytest.mark.parametrize("size", [(33, 47), (64, 64), (17, 50)])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("allmlp", {"encoder": "mini_swin", "width": 8}),
        ("allmlp", {"encoder": "mini", "width": 8}),
        ("vit", VIT),
        ("vit", VIT | {"decoder": "linear"}),
        ("vit", VIT | {"decoder": "mlp", "maps": 2}),
    ],
)
def test_logits_have_the_size_of_any_input_and_gradients_reach_all(name, arguments, size):
    torch.manual_seed(0)
    net = Network(build_backbone(name, arguments))
    net.grow(4)
    net.grow(2)
    output = net(torch.randn(2, 3, *size))
    assert output.logits.shape == (2, 6, *size)
    assert output.decoded.shape[2:] == (-(-size[0] // 4), -(-size[1] // 4))
    output.logits.square().mean().backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("encoder", "prefix"), [("vit_small_patch14_reg4_dinov2", 5), ("vit_small_patch16_dinov3", 5)])
def test_maps_are_tokens_of_evenly_spaced_blocks_without_class_and_register_tokens(encoder, prefix):
    with torch.device("meta"):
        vit = PlainViT(encoder, "none", 4, {"img_size": 32})
        maps = vit(torch.empty(1, 3, 65, 100))
    patch = vit.strides[0]
    assert vit.net.num_prefix_tokens == prefix
    assert vit.indices == [2, 5, 8, 11]
    assert [x.shape for x in maps] == [(1, 384, -(-65 // patch), -(-100 // patch))] * 4


def test_maps_are_those_of_the_whole_transformer_and_normalised(tmp_path):
    torch.manual_seed(0)
    options = {"embed_dim": 24, "num_heads": 2, "depth": 4, "patch_size": 8, "img_size": 32}
    whole = timm.create_model("vit_tiny_patch16_224", **options).eval()
    torch.save(whole.state_dict(), tmp_path / "vit.pth")
    vit = PlainViT("vit_tiny_patch16_224", str(tmp_path / "vit.pth"), 2, options).eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        maps = vit(image)
        tokens = whole.forward_features(image)[:, 1:]
    assert vit.indices == [1, 3]
    torch.testing.assert_close(maps[-1], tokens.transpose(1, 2).reshape(2, 24, 4, 4))
    assert all(x.mean(1).abs().max() < 1e-5 for x in maps)


def test_a_pyramid_has_no_map_finer_than_three_pixels():
    for stride, sides in ((16, (16, 8, 4, 2)), (14, (16, 8, 4, 2)), (8, (8, 4, 2)), (4, (4, 2))):
        maps = SimplePyramid(8, stride, 4)(torch.randn(1, 8, 4, 4))
        assert tuple(x.shape[2] for x in maps) == sides


def test_attention_is_masked_on_its_linear_layers():
    backbone = build_backbone("vit", VIT)
    masked = set(maskable(backbone))
    for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        assert f"encoder.net.blocks.3.{part}" in masked


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("vit", {"encoder": "resnet18", "weights": "none"}, "'resnet18' is no plain vision transformer"),
        ("vit", {"encoder": "swin_tiny_patch4_window7_224", "weights": "none"}, "no plain vision transformer"),
        ("vit", VIT | {"maps": 5}, r"maps=5.*has 4 blocks"),
        ("vit", VIT | {"encoder.window_size": 5}, r"encoder\.window_size=5"),
        ("vit", VIT | {"decoder": "mask"}, "decoder='mask'"),
        ("vit", VIT | {"dropout": 1.0}, "dropout=1.0"),
        ("allmlp", {"encoder": "mini", "width": 0}, "width=0"),
    ],
)
def test_what_makes_no_network_is_refused_by_name(name, arguments, message):
    with pytest.raises(SettingError, match=message) as caught:
        build_backbone(name, arguments)
    assert "\n" not in str(caught.value)


def test_methods_refuse_a_transformer_that_lacks_what_they_need_in_one_line():
    with pytest.raises(SettingError, match="dkd: the decoded map of ViT has values below 0") as caught:
        make_plan("shapes15-5", "dkd", backbone="vit(encoder=mini_vit, decoder=linear)", device="cpu")
    assert "\n" not in str(caught.value)
    for backbone in ("allmlp(encoder=mini_swin)", "vit(encoder=mini_vit, decoder=mlp)"):
        assert (
            make_plan("shapes15-5", "dkd", backbone=backbone, device="cpu").backbone_name == backbone.partition("(")[0]
        )
    network = tiny_network("allmlp", encoder="mini_swin", width=8)  # the decoder has BatchNorm
    with pytest.raises(SettingError, match="the backbone's encoder has no such layer"):
        tiny_loop(parse_method("mib+deepinversion"), tiny_scenario(), network)
