"""DeepLabV3: sizes, output strides, parameter counts against independent ones, errors; the recipe of the papers."""

import pytest
import torch
from torchvision.models.segmentation import deeplabv3_resnet101

from densecl.errors import SettingError, UnknownNameError
from densecl.models import DeepLabV3, Network
from densecl.models.backbones.deeplabv3 import AtrousPyramid
from densecl.runner.plan import make_plan
from densecl.settings.backbone import build_backbone, resolve_backbone
from densecl.settings.grammar import Call, format_call, parse_one

torch.set_num_threads(1)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(**changes) -> DeepLabV3:
    torch.manual_seed(0)
    return DeepLabV3(**({"encoder": "resnet10t", "weights": "none", "width": 16} | changes))


@pytest.mark.parametrize(("stride", "rates"), [(16, [6, 12, 18]), (8, [12, 24, 36])])
def test_features_and_deep_stages_have_the_output_stride(stride, rates):
    backbone = small(output_stride=stride).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, 64, 96))
    assert features.decoded.shape == (1, 16, 64 // stride, 96 // stride)
    assert [x.shape[1] for x in features.encoded] == [64, 128, 256, 512]
    assert [64 // x.shape[2] for x in features.encoded] == [4, 8, stride, stride]
    holes = [b[0].dilation[0] for b in backbone.pyramid.branches if b[0].kernel_size == (3, 3)]
    assert holes == rates


def holes(backbone: DeepLabV3) -> list[list[int]]:
    """The dilation of each 3x3 convolution of the two deepest stages."""
    stages = (backbone.encoder.get_submodule(f"net.layer{k}") for k in (3, 4))
    return [[m.dilation[0] for m in s.modules() if getattr(m, "kernel_size", 0) == (3, 3)] for s in stages]


@pytest.mark.parametrize(("encoder", "each"), [("resnet10t", 2), ("resnet26", 2)])  # 3x3 convolutions in a stage
def test_the_first_convolution_of_a_dilated_stage_has_the_holes_that_are_asked_for(encoder, each):
    # MiB: dilation [1, 1, 1, 2] (or [1, 1, 2, 4]) in every block of a stage; timm: the first as the stage before
    assert holes(small(encoder=encoder)) == [[1] * each, [1, *[2] * (each - 1)]]
    assert holes(small(encoder=encoder, dilate_first=True)) == [[1] * each, [2] * each]
    assert holes(small(encoder=encoder, output_stride=8, dilate_first=True)) == [[2] * each, [4] * each]
    plain, dilated = small(encoder=encoder).eval(), small(encoder=encoder, dilate_first=True).eval()
    for parameter in plain.parameters():  # a fresh block's last normalisation is 0 and hides its convolutions
        torch.nn.init.normal_(parameter, 0.1, 0.1)
    dilated.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        assert dilated(image).decoded.shape == plain(image).decoded.shape
        assert not torch.equal(dilated(image).decoded, plain(image).decoded)
    with pytest.raises(SettingError, match=r"dilate_first=true.*encoder 'mini' is no ResNet"):
        small(encoder="mini", dilate_first=True)


def test_weights_of_torchvision_are_a_name_of_the_encoder():
    assert small(encoder="resnet50.tv_in1k").encoder.channels == (256, 512, 1024, 2048)


@pytest.mark.parametrize("size", [(33, 47), (64, 64), (17, 50)])
@pytest.mark.parametrize("encoder", ["mini", "resnet10t"])
def test_logits_have_the_size_of_any_input_and_gradients_reach_all(encoder, size):
    net = Network(small(encoder=encoder))
    net.grow(4)
    net.grow(2)
    output = net(torch.randn(2, 3, *size))
    assert output.logits.shape == (2, 6, *size)
    assert output.auxiliary == ()
    output.logits.square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_evaluation_takes_a_single_image():
    net = Network(small()).eval()
    net.grow(3)
    with torch.no_grad():
        assert net(torch.randn(1, 3, 40, 40)).logits.shape == (1, 3, 40, 40)


def test_the_default_network_has_the_layers_of_the_paper_counted_by_hand():
    # ResNet-101 without its classifier: 44,549,160 - 2048 x 1000 - 1000. ASPP: a 1x1 and three 3x3 convolutions and
    # the pooled one from 2048 to 256 channels, a projection from 5 x 256 to 256, each with BatchNorm's scale and shift.
    pyramid = 2 * 2048 * 256 + 3 * 9 * 2048 * 256 + 5 * 256 * 256 + 6 * 2 * 256
    with torch.device("meta"):
        net = Network(DeepLabV3(weights="none"))
        net.grow(21)
    assert count(net.backbone.encoder) == 44_549_160 - 2_049_000
    assert count(net.backbone.pyramid) == pyramid
    assert count(net) == 42_500_160 + pyramid + 21 * 256 + 21


def test_torchvision_counts_the_same_but_for_its_further_convolution():
    with torch.device("meta"):
        net = Network(DeepLabV3(weights="none"))
        net.grow(21)
        theirs = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=21, aux_loss=False)
    further = 9 * 256 * 256 + 2 * 256  # a 3x3 convolution with BatchNorm between ASPP and the classifier
    assert count(net) == count(theirs) - further


def test_the_output_stride_changes_no_parameter():
    assert {k: v.shape for k, v in small(output_stride=8).state_dict().items()} == {
        k: v.shape for k, v in small(output_stride=16).state_dict().items()
    }


def test_the_pyramid_is_the_sum_of_its_parts_computed_one_by_one():
    torch.manual_seed(0)
    pyramid = AtrousPyramid(3, 2, (1, 2)).eval()
    x = torch.randn(1, 3, 5, 7)
    parts = []
    with torch.no_grad():
        for branch, rate in zip(pyramid.branches, (0, 1, 2), strict=True):
            weight = branch[0].weight
            y = torch.nn.functional.conv2d(x, weight, padding=rate, dilation=max(rate, 1))
            parts.append((y / (1 + 1e-5) ** 0.5).relu())  # BatchNorm as built: mean 0, variance 1
        mean = (pyramid.pooling[1][0].weight[:, :, 0, 0] @ x[0].mean((1, 2)) / (1 + 1e-5) ** 0.5).relu()
        parts.append(mean[None, :, None, None].repeat(1, 1, 5, 7))
        joined = torch.nn.functional.conv2d(torch.cat(parts, 1), pyramid.project[0].weight)
        torch.testing.assert_close(pyramid(x), (joined / (1 + 1e-5) ** 0.5).relu())


MIB = {key: value for key, value in DeepLabV3.presets["mib"].items() if key not in ("encoder", "dilate_first")}
DKD = {key: value for key, value in DeepLabV3.presets["dkd"].items() if key != "encoder"}


@pytest.mark.parametrize("options", [MIB, DKD, {"joint_norm": True}, {"pooling": "added"}])
@pytest.mark.parametrize("encoder", ["mini", "resnet10t"])
def test_every_form_gives_logits_and_gradients_reach_all(encoder, options):
    net = Network(small(encoder=encoder, **options))
    net.grow(4)
    output = net(torch.randn(2, 3, 33, 47))
    assert output.logits.shape == (2, 4, 33, 47)
    output.logits.square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    assert net.backbone.nonnegative == (options is not MIB)
    assert (output.decoded.min() >= 0) == net.backbone.nonnegative


def test_the_options_of_the_papers_codes_have_their_layers_counted_by_hand():
    """MiB: one BatchNorm of 1024, a pooled branch of two 1x1, a sum with BatchNorm; DKD: a 3x3 behind ASPP."""
    kernels = 2048 * 256 + 3 * 9 * 2048 * 256
    with torch.device("meta"):
        mib, dkd = (DeepLabV3(weights="none", **options) for options in (MIB, DKD))
    pooled = 2048 * 256 + 2 * 256 + 256 * 256
    assert count(mib.pyramid) == kernels + 2 * 1024 + 1024 * 256 + pooled + 2 * 256
    plain = 2 * 2048 * 256 + 3 * 9 * 2048 * 256 + 5 * 256 * 256 + 6 * 2 * 256
    assert count(dkd.pyramid) == plain + 9 * 256 * 256 + 2 * 256
    for net, kind in ((mib, torch.nn.LeakyReLU), (dkd, torch.nn.ReLU)):
        activations = {type(m) for m in net.modules() if isinstance(m, torch.nn.ReLU | torch.nn.LeakyReLU)}
        assert activations == {kind}
    assert {m.momentum for m in dkd.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.01}
    assert {m.momentum for m in dkd.pyramid.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.1}
    assert [m.p for m in dkd.pyramid.modules() if isinstance(m, torch.nn.Dropout)] == [0.1]


RESNET = 42_500_160  # without its classifier
PLAIN = 2 * 2048 * 256 + 3 * 9 * 2048 * 256 + 5 * 256 * 256 + 6 * 2 * 256  # ASPP as in the paper
NETWORKS = {  # encoder and ASPP, and a head of C outputs, counted from the layers of each code
    "mib": (
        RESNET + 2048 * 256 + 3 * 9 * 2048 * 256 + 2 * 1024 + 1024 * 256 + 2048 * 256 + 2 * 256 + 256 * 256 + 2 * 256,
        lambda c: 256 * c + c,
    ),
    "dkd": (RESNET + PLAIN + 9 * 256 * 256 + 2 * 256, lambda c: 256 * c + c),
    "ssul": (RESNET + PLAIN, lambda c: 9 * 256 * 256 + 2 * 256 + 256 * c + c),
}


@pytest.mark.parametrize("preset", NETWORKS)
def test_the_networks_of_the_papers_have_their_layers_counted_by_hand(preset):
    body, head = NETWORKS[preset]
    with torch.device("meta"):
        net = Network(build_backbone("deeplabv3", {"preset": preset, "weights": "none"}))
        for outputs in (16, 5):
            net.grow(outputs)
    assert set(DeepLabV3.presets) == set(NETWORKS)
    assert count(net) == body + head(16) + head(5)
    torchvision = resolve_backbone("deeplabv3", {"preset": preset})["encoder"] == "resnet101.tv_in1k"
    assert torchvision == (preset != "mib")


def test_what_is_given_beside_a_preset_comes_before_it_and_records_hold_its_values():
    values = resolve_backbone("deeplabv3", {"preset": "dkd", "encoder": "mini", "dropout": 0.3}, "none")
    assert (values["encoder"], values["dropout"], values["last"]) == ("mini", 0.3, "3x3")
    assert "preset" not in values
    assert resolve_backbone("deeplabv3", values) == values
    values = resolve_backbone("deeplabv3", {"encoder": "swin_tiny_patch4_window7_224", "encoder.drop_path_rate": 0.3})
    assert values["encoder.drop_path_rate"] == 0.3
    assert resolve_backbone("deeplabv3", values) == values
    assert parse_one(format_call(Call("deeplabv3", values)), "backbone").arguments == values
    with pytest.raises(UnknownNameError, match=r"key of backbone unet 'encoder\.depth'"):
        resolve_backbone("unet", {"encoder.depth": 3})


def test_heads_of_three_by_three_belong_to_each_step():
    net = Network(small(encoder="mini", head="3x3", init="kaiming"))
    net.grow(3)
    net.grow(2)
    assert [len(head) for head in net.heads.places[0]] == [2, 2]
    assert net(torch.randn(2, 3, 40, 56)).logits.shape == (2, 5, 40, 56)
    assert not torch.equal(net.heads.places[0][0][0][0].weight, net.heads.places[0][1][0][0].weight)


def test_swin_keeps_its_stride_of_32_behind_a_layer_norm():
    tiny = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 4}
    arguments = {"encoder": "swin_tiny_patch4_window7_224", "weights": "none", "width": 8}
    backbone = build_backbone("deeplabv3", arguments | {f"encoder.{key}": value for key, value in tiny.items()})
    features = backbone.train()(torch.randn(2, 3, 64, 96))
    assert backbone.encoder.strides == (4, 8, 16, 32)
    assert features.decoded.shape == (2, 8, 2, 3)
    assert backbone.norm(features.encoded[-1]).mean(1).abs().max() < 1e-5
    assert [branch[0].dilation[0] for branch in backbone.pyramid.branches] == [1, 6, 12, 18]
    assert small().norm(features.decoded) is features.decoded  # nothing, of encoders that normalise
    with pytest.raises(SettingError, match="cannot have output stride 16"):
        build_backbone("deeplabv3", arguments | {"output_stride": 16})
    assert resolve_backbone("deeplabv3", arguments)["output_stride"] == 32
    assert resolve_backbone("deeplabv3", {"encoder": "resnet10t"})["output_stride"] == 16


def test_the_pyramid_of_mib_is_the_sum_of_its_parts_computed_one_by_one():
    torch.manual_seed(0)
    pyramid = AtrousPyramid(3, 2, (1, 2), joint_norm=True, pooling="added").eval()
    x, still = torch.randn(1, 3, 5, 7), (1 + 1e-5) ** 0.5  # BatchNorm as built: mean 0, variance 1
    with torch.no_grad():
        maps = [
            torch.nn.functional.conv2d(x, branch.weight, padding=rate, dilation=max(rate, 1))
            for branch, rate in zip(pyramid.branches, (0, 1, 2), strict=True)
        ]
        projected = torch.nn.functional.conv2d((torch.cat(maps, 1) / still).relu(), pyramid.project.weight)
        mean = (pyramid.pooling[1][0].weight[:, :, 0, 0] @ x[0].mean((1, 2)) / still).relu()
        mean = pyramid.pooling[2].weight[:, :, 0, 0] @ mean
        torch.testing.assert_close(pyramid(x), ((projected + mean.view(1, -1, 1, 1)) / still).relu())


def test_weights_start_as_asked():
    """Deviation of normal weights: gain sqrt(2 / (in + out)) of Xavier, sqrt(2 / in) of Kaiming, by hand."""
    torch.manual_seed(0)
    inputs, outputs = 9 * 512, 9 * 64
    gain = (2 / (1 + 0.01**2)) ** 0.5
    for init, wanted in (("xavier", gain * (2 / (inputs + outputs)) ** 0.5), ("kaiming", (2 / inputs) ** 0.5)):
        net = small(init=init, width=64)
        assert net.pyramid.branches[1][0].weight.std().item() == pytest.approx(wanted, rel=0.02)
        deviation = net.build_head(64, 500).weight.std().item()
        bound = 64**-0.5 / 3**0.5  # torch's: uniform between +-1 / sqrt(in)
        assert deviation == pytest.approx((2 / 64) ** 0.5 if init == "kaiming" else bound, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_stride": 4, "weights": "none"}, "'resnet101' cannot have output stride 4"),
        ({"width": 0}, "width=0"),
        ({"rates": ()}, r"rates=\(\)"),
        ({"dropout": 1.0}, r"dropout=1\.0"),
        ({"momentum": 0.0}, r"momentum=0\.0"),
        ({"pooling": "none at all"}, "pooling='none at all'"),
        ({"encoder": "mini", "output_stride": 8}, "output stride 16, not 8"),
        ({"encoder": "vit_tiny_patch16_224", "weights": "none", "output_stride": 8}, "vit_tiny_patch16_224"),
        ({"preset": "dkt"}, "unknown preset of backbone deeplabv3 'dkt'. did you mean 'dkd'"),
        ({"preset": "mib", "encoder": "mini"}, "or dilate_first=false"),
    ],
)
def test_what_makes_no_network_is_refused_by_name(arguments, message):
    with pytest.raises((SettingError, UnknownNameError), match=message):
        build_backbone("deeplabv3", arguments)
    with pytest.raises(UnknownNameError, match="did you mean 'output_stride'"):
        build_backbone("deeplabv3", {"output_strid": 16})


def test_voc_with_deeplabv3_is_the_recipe_of_mib():
    # section 4 of Cermelli et al., CVPR 2020, and their code
    plan = make_plan("voc15-5s(labels=mib2020)", "mib", backbone="deeplabv3(encoder=resnet101)")
    training, values = plan.settings.training, plan.settings.backbone_values
    assert (training.epochs, training.later.epochs, training.iterations) == (30, None, None)
    assert (training.batch, training.optimizer, training.momentum, training.weight_decay) == (24, "sgd", 0.9, 1e-4)
    assert (training.lr, training.later.lr, training.power, training.warmup) == (0.01, 0.001, 0.9, 0)
    assert (training.augmentation, training.crop, training.scale) == ("reference", 512, (0.5, 2.0))
    assert plan.settings.evaluation.size == 512
    assert plan.settings.stream.labels == "mib2020"
    assert (values["encoder"], values["output_stride"], values["width"]) == ("resnet101", 16, 256)
    assert values["weights"] == "timm"
    assert plan.settings.strategy_values == {"distillation": 10.0}  # MiBv2's 100 on 15-1 is not the paper's
    assert plan.steps == (tuple(range(1, 16)), (16,), (17,), (18,), (19,), (20,))
