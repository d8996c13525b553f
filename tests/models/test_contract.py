"""The promises to methods: coarse logits, stages before their activation, heads of their own, signs and norms."""

import copy
import functools

import pytest
import timm
import torch
import torch.nn.functional as F
from test_backbones import SMALL
from torch import nn

from densecl.errors import SettingError, UnknownNameError
from densecl.models import Network
from densecl.models.encoders import TimmEncoder, build_encoder
from densecl.models.heads import Heads, TaskHeads
from densecl.settings.backbone import build_backbone
from densecl.training.precision import widened

torch.set_num_threads(1)

KINDS = {
    **SMALL,
    "deeplabv3": ("deeplabv3", {"encoder": "resnet18", "weights": "none", "width": 16}),
    "fcn convnext": ("fcn", {"encoder": "convnext_atto", "weights": "none"}),
    "fcn efficientnet": ("fcn", {"encoder": "efficientnet_lite0", "weights": "none"}),
    "fcn vgg": ("fcn", {"encoder": "vgg11", "weights": "none"}),
    "allmlp swin": ("allmlp", {"encoder": "mini_swin", "width": 8}),
    "upernet": ("upernet", {"encoder": "resnet18", "weights": "none", "width": 8, "finest": 8, "dropout": 0.0}),
    "vit": ("vit", {"encoder": "mini_vit", "encoder.embed_dim": 24, "width": 8}),
    "vit linear": ("vit", {"encoder": "mini_vit", "encoder.embed_dim": 24, "decoder": "linear"}),
    "vit mlp": ("vit", {"encoder": "mini_vit", "encoder.embed_dim": 24, "decoder": "mlp", "width": 8}),
}
RAW = ("bisenet wide", "bisenet resnet", "deeplabv3", "fcn", "fcn learned", "upernet")


@pytest.fixture(autouse=True)
def _small_vgg(monkeypatch):
    """Hidden layers of VGG with a hundredth of its channels."""
    create = timm.create_model
    small = {"mlp_ratio": 0.01}
    monkeypatch.setattr(timm, "create_model", lambda n, **k: create(n, **k, **(small if n.startswith("vgg") else {})))


def network(kind: str, *outputs: int, collect: tuple[str, ...] = ()) -> Network:
    torch.manual_seed(0)
    name, arguments = KINDS[kind]
    net = Network(build_backbone(name, arguments))
    net.collect(collect)
    for n in outputs or (3, 2):
        net.grow(n)
    return net


def moved(module: nn.Module) -> nn.Module:
    """Parameters as training may leave them; timm starts the last BatchNorm of a block at 0."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def image(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *(size or (48, 64)), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"fcn vgg"}))
def test_coarse_logits_grow_bilinearly_into_the_logits(kind):
    output = network(kind)(image(40, 56))
    assert output.coarse.shape[:2] == (2, 5)
    assert output.logits.equal(F.interpolate(output.coarse, size=(40, 56), mode="bilinear", align_corners=False))
    if output.coarse.shape == output.logits.shape:
        assert output.coarse is output.logits  # no copy


def test_logits_stay_coarse_for_whom_the_maps_are_enough():
    net = network("bisenet wide").eval()
    whole, maps = net(image()), net(image(), None)
    assert maps.logits is maps.coarse
    assert maps.coarse.equal(whole.coarse)
    assert maps.decoded.equal(whole.decoded)
    assert maps.coarse.shape != whole.logits.shape


@pytest.mark.parametrize("kind", RAW)
@pytest.mark.parametrize("training", [True, False])
def test_raw_stages_become_the_encoded_ones_and_nothing_else_changes(kind, training):
    plain, net = (moved(network(kind, collect=maps)).train(training) for maps in ((), ("raw",)))
    expected, output = plain(image()), net(image())
    assert expected.raw == ()
    assert len(output.raw) == len(output.encoded)
    for raw, encoded, unchanged in zip(output.raw, output.encoded, expected.encoded, strict=True):
        assert raw.min() < 0
        assert raw.relu().equal(encoded)
        assert encoded.equal(unchanged)
    assert output.logits.equal(expected.logits)
    assert list(net.state_dict()) == list(plain.state_dict())
    output.logits.square().mean().backward()
    expected.logits.square().mean().backward()
    for mine, other in zip(net.parameters(), plain.parameters(), strict=True):
        assert (mine.grad is None) == (other.grad is None)
        assert mine.grad is None or mine.grad.equal(other.grad)


def test_gradients_of_raw_stages_reach_the_encoder():
    net = network("bisenet resnet", collect=("raw",))
    sum(x.square().mean() for x in net(image()).raw).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.backbone.encoder.parameters())


def test_a_network_that_collects_is_copied_compiled_and_keeps_no_map():
    net = network("bisenet wide", collect=("raw", "raw"))
    net.collect(["raw"])
    output = net(image())
    teacher = copy.deepcopy(net).eval()
    assert not [m for m in net.modules() if isinstance(getattr(m, "input", None), torch.Tensor)]
    with torch.no_grad():
        assert len(teacher(image()).raw) == 3
        compiled = torch.compile(net.eval(), backend="eager", fullgraph=True)(image())
    assert all(a.equal(b) for a, b in zip(compiled.raw, teacher(image()).raw, strict=True))
    assert len(output.raw) == 3
    torch.compiler.reset()


@pytest.mark.parametrize("kind", ["unet batch", "resblock", "fcn vgg"])
def test_stages_without_an_activation_at_their_end_are_refused_in_one_line(kind):
    with pytest.raises(SettingError, match=r"activation.*\buse\b") as caught:
        network(kind, collect=("raw",))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["fcn convnext", "allmlp swin", "vit", "fcn efficientnet"])
def test_stages_that_end_with_a_sum_or_linearly_are_raw_themselves(kind):
    net = moved(network(kind, collect=("raw",)))
    output = net(image())
    assert len(output.raw) == len(output.encoded) > 1
    assert all(raw is encoded and raw.min() < 0 for raw, encoded in zip(output.raw, output.encoded, strict=True))
    assert network(kind)(image()).raw == ()


def test_unknown_maps_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'raw'"):
        network("unet batch", collect=("row",))


@pytest.mark.parametrize("kind", KINDS)
def test_nonnegative_says_whether_decoded_values_are_ever_below_0(kind):
    backbone = moved(network(kind).backbone)
    with torch.no_grad():
        lowest = min(backbone.train(training)(image()).decoded.min().item() for training in (True, False))
    assert backbone.nonnegative == (lowest >= 0)


@pytest.mark.parametrize("kind", KINDS)
def test_norms_are_those_of_the_layers(kind):
    backbone = network(kind).backbone
    layers = [m for m in backbone.modules() if "Norm" in type(m).__name__]
    names = {type(m).__name__ for m in layers if not any(child in layers for child in m.children())}
    found = {
        kind for name in names for kind in ("batch", "group", "instance", "layer") if name.lower().startswith(kind)
    }
    assert backbone.norms == found
    assert {"fcn vgg": set(), "fcn convnext": {"layer"}, "unet mixed": {"batch", "instance"}}.get(kind, found) == found


class Sigmoid(Heads):
    """Heads with an output more than labels, for `unknown`."""

    def forward(self, decoded, auxiliary=()):
        return tuple(torch.cat([x[:, :1] * 0 + 7, x], 1) for x in super().forward(decoded, auxiliary))


def test_a_method_brings_heads_of_its_own():
    net = network("bisenet narrow", 0)
    sizes = []

    def factory(channels, auxiliary_channels):
        sizes.append((channels, tuple(auxiliary_channels)))
        return Sigmoid(channels, auxiliary_channels)

    net = Network(net.backbone)
    net.make_heads(factory)
    net.grow(4)
    output = net(image())
    assert sizes == [(128, (64, 64))]
    assert net.n_outputs == 4
    assert [x.shape[1] for x in (output.logits, output.coarse, *output.auxiliary)] == [5, 5, 5, 5]
    torch.testing.assert_close(output.logits[:, 0], torch.full_like(output.logits[:, 0], 7))
    with pytest.raises(ValueError, match="before the first outputs"):
        net.make_heads()


def test_tasks_have_the_heads_of_the_method():
    net = Network(build_backbone("unet", {"width": 4, "depth": 2}))
    net.make_heads(functools.partial(TaskHeads, make=Sigmoid))
    for task, outputs in (("first", 3), ("second", 2)):
        net.task_heads.begin(task)
        net.grow(outputs)
    assert net(image()).logits.shape[1] == 3
    assert net.logits_of("first", net(image()), image()).shape[1] == 4
    with pytest.raises(ValueError, match="before the first outputs"):
        net.make_heads()
    plain = Network(net.backbone)
    plain.make_heads(TaskHeads)
    plain.task_heads.begin("first")
    assert type(plain.task_heads.of("first")) is Heads


class ChannelsBehind(nn.Module):
    """Stands for a transformer of timm."""

    output_fmt = "NHWC"

    def forward(self, x):
        return [F.avg_pool2d(x, 4)[:, [0, 1, 2, 0, 1, 2, 0, 1]].permute(0, 2, 3, 1)]


@pytest.mark.parametrize("size", [(32, 32), (32, 20), (24, 40)])  # of height 8 with 8 channels, and others
def test_channels_behind_come_to_the_front_also_where_the_height_equals_them(size):
    (x,) = TimmEncoder(ChannelsBehind(), [8], [4])(image(*size))
    assert x.equal(F.avg_pool2d(image(*size), 4)[:, [0, 1, 2, 0, 1, 2, 0, 1]])


def test_a_transformer_of_timm_gives_its_maps_in_the_promised_order():
    encoder = build_encoder("swin_tiny_patch4_window7_224", "none").eval()
    with torch.no_grad():
        maps = encoder(torch.zeros(1, 3, 224, 224))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (c, 224 // s, 224 // s) for c, s in zip(encoder.channels, encoder.strides, strict=True)
    ]


def test_outputs_in_half_precision_are_widened_and_one_tensor_stays_one():
    net = network("bisenet wide", collect=("raw",)).bfloat16()
    output = widened(net(image().bfloat16()))
    tensors = [output.logits, output.coarse, output.decoded, *output.auxiliary, *output.encoded, *output.raw]
    assert {x.dtype for x in tensors} == {torch.float32}
    assert len(tensors) == 3 + 2 + 3 + 3
    unet = network("unet batch").bfloat16()(image().bfloat16())
    wide = widened(unet)
    assert wide.coarse is wide.logits
    assert wide.raw == ()
    assert widened(wide) is wide
