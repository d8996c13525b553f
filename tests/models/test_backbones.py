"""BiSeNet, U-Net and the network around them: sizes, parameter counts, gradients, errors."""

import pytest
import torch

from densecl.errors import SettingError, UnknownNameError
from densecl.models import BiSeNet, Network, UNet
from densecl.settings.backbone import build_backbone

torch.set_num_threads(1)

SMALL = {
    "bisenet wide": ("bisenet", {"encoder": "mini", "width": 16, "spatial": [8, 12, 16]}),
    "bisenet narrow": (
        "bisenet",
        {"encoder": "mini", "spatial": (24, 48), "spatial_width": 64, "context_width": 64, "width": 128, "fusion": 1},
    ),
    "bisenet resnet": ("bisenet", {"encoder": "resnet18", "weights": "none", "width": 16, "spatial": (8, 8, 16)}),
    "unet batch": ("unet", {"width": 4, "depth": 3, "norm": "batch"}),
    "unet instance": ("unet", {"width": 4, "depth": 3, "norm": "instance"}),
    "unet mixed": ("unet", {"width": 4, "depth": 3, "norm": "instance", "decoder_norm": "batch"}),
    "fcn": ("fcn", {"encoder": "mini"}),
    "fcn learned": ("fcn", {"encoder": "resnet18", "weights": "none", "upsampling": "learned"}),
    "wrn": ("wrn", {"depth": 10, "width": 1}),
    "resblock": ("resblock", {"width": 4, "blocks": 2}),
    "resblock batch": ("resblock", {"width": 4, "blocks": 2, "norm": "batch", "head": 1}),
}


def network(kind: str, *outputs: int) -> Network:
    torch.manual_seed(0)
    name, arguments = SMALL[kind]
    net = Network(build_backbone(name, arguments))
    for n in outputs or (5,):
        net.grow(n)
    return net


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("size", [(33, 47), (64, 64), (17, 50)])
def test_logits_have_the_size_of_any_input(kind, size):
    net = network(kind, 4, 2)
    image = torch.randn(2, 3, *size)
    output = net(image)
    assert output.logits.shape == (2, 6, *size)
    assert all(x.shape == (2, 6, *size) for x in output.auxiliary)
    assert len(output.auxiliary) == (2 if "bisenet" in kind else 0)
    assert output.decoded.shape[:2] == (2, net.backbone.channels)
    heights = [x.shape[2] for x in output.encoded]
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == len(heights)


@pytest.mark.parametrize("kind", SMALL)
def test_evaluation_gives_no_auxiliary_and_takes_a_single_image(kind):
    output = network(kind).eval()(torch.randn(1, 3, 48, 48))
    assert output.auxiliary == ()
    assert output.logits.shape == (1, 5, 48, 48)


@pytest.mark.parametrize("kind", SMALL)
def test_gradients_reach_every_parameter(kind):
    net = network(kind, 4, 2)
    output = net(torch.randn(2, 3, 64, 64))
    sum((x**2).mean() for x in (output.logits, *output.auxiliary)).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_the_last_encoded_map_is_the_deepest_of_the_encoder():
    net = network("bisenet resnet").eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        output, maps = net(image), net.backbone.encoder(image)
    assert output.encoded[-1].equal(maps[-1])
    assert output.encoded[-1].shape == (1, 512, 2, 3)
    assert network("unet batch").eval()(image).encoded[-1].shape == (1, 16, 8, 12)


def test_the_network_grows_without_touching_old_outputs():
    net = network("bisenet narrow", 4).eval()
    image = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        before = net(image).logits
        net.grow(3)
        after = net(image).logits
    assert net.n_outputs == 7
    torch.testing.assert_close(after[:, :4], before)


def test_logits_are_the_heads_outputs_upsampled_bilinearly():
    net = network("bisenet wide").eval()
    with torch.no_grad():
        output = net(torch.randn(1, 3, 40, 56))
        low = net.heads(output.decoded)[0]
    expected = torch.nn.functional.interpolate(low, size=(40, 56), mode="bilinear", align_corners=False)
    assert low.shape[2:] == (5, 7)
    assert output.logits.equal(expected)


@pytest.mark.parametrize(("spatial", "stride"), [((24, 48), 4), ((8, 8, 8), 8)])
def test_features_have_the_stride_of_the_spatial_path(spatial, stride):
    backbone = BiSeNet("mini", width=16, spatial=spatial, spatial_width=20, fusion=1)
    assert backbone(torch.randn(2, 3, 64, 64)).decoded.shape == (2, 16, 64 // stride, 64 // stride)
    assert backbone.spatial.channels == 20


def test_auxiliary_heads_can_be_left_out():
    net = Network(BiSeNet("mini", width=16, spatial=(8, 8), auxiliary=False))
    net.grow(3)
    assert net(torch.randn(2, 3, 32, 32)).auxiliary == ()
    assert len(net.heads.places) == 1


def test_auxiliary_heads_see_the_refined_context_maps():
    backbone = BiSeNet("resnet18", "none")
    assert backbone.auxiliary_channels == (256, 512)
    assert backbone.fusion.mix[0].in_channels == 1024  # 256 + 256 + 512
    features = backbone(torch.randn(2, 3, 64, 64))
    assert [tuple(x.shape) for x in features.auxiliary] == [(2, 256, 8, 8), (2, 512, 8, 8)]


@pytest.mark.parametrize(
    ("encoder", "reference", "classifier"),
    [("resnet18", 14.9, 512 * 1000 + 1000), ("resnet50", 39.0, 2048 * 1000 + 1000)],
)
def test_bisenet_has_as_many_parameters_as_the_reference_code(encoder, reference, classifier):
    # The reference figures count the encoder's unused classifier, which `features_only` drops. They are given to 0.1
    # million; the backbone alone agrees, and so do heads of 16 classes, but those of 21 would round to 39.1.
    with torch.device("meta"):
        net = Network(BiSeNet(encoder, "none"))
        net.grow(16)
    assert round((count(net.backbone) + classifier) / 1e6, 1) == reference
    assert round((count(net) + classifier) / 1e6, 1) == reference


def test_unet_has_exactly_the_published_number_of_parameters():
    net = Network(UNet(norm="instance"))
    net.grow(81)
    assert count(net) == 14_786_193
    assert count(net) * 4 / 2**20 == pytest.approx(56.4, abs=0.05)  # MiB, as the paper prints it
    convolutions = [p.numel() for p in net.backbone.parameters() if p.dim() == 4]
    assert sum(convolutions) == 14_776_000  # the weights that Piggyback masks


def test_unet_follows_convolution_relu_norm_and_returns_all_stages():
    backbone = UNet(width=4, depth=4, norm="instance")
    names = [type(layer).__name__ for layer in backbone.down[0]]
    assert names == ["Conv2d", "ReLU", "InstanceNorm2d"] * 2
    features = backbone(torch.randn(1, 3, 48, 48))
    assert [tuple(x.shape[1:]) for x in features.encoded] == [
        (4, 48, 48),
        (8, 24, 24),
        (16, 12, 12),
        (32, 6, 6),
        (32, 3, 3),
    ]
    assert features.decoded.shape == (1, 4, 48, 48)


def test_unet_normalises_encoder_and_decoder_as_told():
    def norms(part):
        return {type(m).__name__ for m in part.modules() if "Norm" in type(m).__name__}

    mixed = UNet(4, 2, norm="instance", decoder_norm="batch")
    assert norms(mixed.down) == {"InstanceNorm2d"}
    assert norms(mixed.merge) == {"BatchNorm2d"}
    assert norms(UNet(4, 2, norm="instance").merge) == {"InstanceNorm2d"}


@pytest.mark.parametrize("kind", SMALL)
def test_decoder_parts_are_children_behind_the_encoder(kind):
    backbone = network(kind).backbone
    children = dict(backbone.named_children())
    assert set(backbone.decoder_parts) < set(children)
    image = torch.randn(2, 3, 48, 48)
    before = backbone.eval()(image).encoded
    with torch.no_grad():
        for name in backbone.decoder_parts:
            for parameter in children[name].parameters():
                parameter.zero_()
    shallow = backbone(image).encoded[0]
    assert shallow.equal(before[0])


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (15, 16), (31, 33)])
def test_unet_takes_images_smaller_than_its_stride(size):
    assert UNet(4, 4).eval()(torch.randn(1, 3, *size)).decoded.shape == (1, 4, *size)


def test_a_single_image_trains_in_the_narrow_form():
    output = network("bisenet narrow").train()(torch.randn(1, 3, 48, 48))
    assert len(output.auxiliary) == 2


def test_unknown_names_and_keys_get_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown backbone 'bisnet'\. did you mean 'bisenet'"):
        build_backbone("bisnet", {})
    with pytest.raises(UnknownNameError, match="did you mean 'encoder'"):
        build_backbone("bisenet", {"encodr": "mini"})
    with pytest.raises(UnknownNameError, match="key of backbone unet 'weights'"):
        build_backbone("unet", {"weights": "none"})


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("bisenet", {"width": "64"}, "width='64'"),
        ("bisenet", {"width": 0}, "width=0"),
        ("bisenet", {"width": True}, "width=True"),
        ("bisenet", {"spatial": 8}, "spatial=8"),
        ("bisenet", {"spatial": []}, "spatial="),
        ("bisenet", {"spatial": (8, "x")}, "spatial="),
        ("bisenet", {"encoder": "mini", "fusion": 2}, "fusion=2"),
        ("bisenet", {"encoder": 5}, "encoder=5"),
        ("unet", {"norm": "group"}, "norm='group'"),
        ("unet", {"decoder_norm": "group"}, "decoder_norm='group'"),
        ("fcn", {"encoder": "mini", "upsampling": "cubic"}, "upsampling='cubic'"),
        ("fcn", {"encoder": "vgg16", "dropout": 1.0}, "dropout=1.0"),
        ("resblock", {"head": 2}, "head=2"),
        ("resblock", {"blocks": -1}, "blocks=-1"),
        ("unet", {"width": 1.5}, "width=1.5"),
        ("unet", {"depth": 0}, "depth=0"),
    ],
)
def test_wrong_types_and_values_are_named_in_one_line(name, arguments, message):
    with pytest.raises(SettingError) as caught:
        build_backbone(name, arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_single_stage_encoders_are_refused():
    with pytest.raises(SettingError, match="bisenet needs two"):
        BiSeNet("vit_tiny_patch16_224", "none")


def test_the_wide_network_of_the_decathlon_has_the_parameters_counted_by_hand():
    """Of depth 28 and width 4: a stem, three groups of four blocks, BatchNorm; Zagoruyko and Komodakis, Table 1."""
    total, inputs = 27 * 16, 16
    for outputs in (64, 128, 256):
        for k in range(4):
            first = inputs if k == 0 else outputs
            total += 9 * first * outputs + 9 * outputs**2 + 2 * first + 2 * outputs + (first * outputs if k == 0 else 0)
        inputs = outputs
    assert count(build_backbone("wrn")) == total + 2 * 256
    with pytest.raises(SettingError, match=r"wrn\(depth=20, width=4\).*16, 22"):
        build_backbone("wrn", {"depth": 20})
