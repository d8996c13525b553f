"""Try a backbone: `densecl check small.py:Small`."""

import contextlib
import copy
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from densecl.check.findings import Finding, added_to, trying
from densecl.errors import DenseCLError
from densecl.models.network import Backbone, Features, Network
from densecl.settings.backbone import check_backbone, resolve_backbone

SIZES = ((64, 64), (64, 96), (49, 67))  # square, longer, divided by no stride
LARGEST = 512  # side of an image that is tried for a decoded map as high as it has channels


def check_backbone_class(cls: type[Backbone], values: Mapping[str, Any]) -> list[str]:
    """Find what is wrong with a backbone, in words; its encoder starts from random weights."""
    values = {"weights": "none", **values} if "weights" in inspect.signature(cls).parameters else values
    arguments, findings = check_backbone(cls, resolve_backbone(cls, values)), list[str]()
    with added_to(findings):
        backbone, same = _built(cls, arguments), _built(cls, arguments)
        for check in (_attributes, _weights, _maps, _gradients, _growth, _copies):
            findings += dict.fromkeys(check(backbone, same))
            if findings:
                break
    return findings


def _built(cls: type[Backbone], arguments: Mapping[str, Any]) -> Backbone:
    torch.manual_seed(0)
    with trying("building it", cls):
        return cls(**arguments)


def _noise(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def _attributes(backbone: Backbone, _same: Backbone) -> Iterator[str]:
    name, auxiliary = type(backbone).__name__, getattr(backbone, "auxiliary_channels", ())
    if not _is_count(getattr(backbone, "channels", None)):
        yield f"{name}.channels must be the number of channels of Features.decoded; set it in __init__"
    if not isinstance(auxiliary, tuple) or not all(map(_is_count, auxiliary)):
        yield f"{name}.auxiliary_channels is {auxiliary!r}; it must be a tuple of numbers of channels"
    children = dict(backbone.named_children())
    for part in backbone.decoder_parts:
        if part not in children:
            yield f"{name}.decoder_parts names '{part}', which is no child: it has {', '.join(children) or 'none'}"


def _weights(backbone: Backbone, same: Backbone) -> Iterator[str]:
    for (key, value), other in zip(backbone.state_dict().items(), same.state_dict().values(), strict=True):
        if not torch.equal(value, other):
            yield f"{key} differs between two builds with one seed: draw weights from torch's generator alone"
            return


def _maps(backbone: Backbone, _same: Backbone) -> Iterator[str]:
    """Look at the maps of images of several sizes, in training and in evaluation."""
    stride = 0.0
    for height, width in (*SIZES, *_as_high_as_channels(backbone)):
        images = _noise(height, width)
        for training in (True, False):
            shown = f"{'training' if training else 'evaluation'} on images of {height}x{width}"
            features = _features(backbone.train(training), images, shown)
            if faults := [f"{shown}: {fault}" for fault in _faults(backbone, features)]:
                yield from faults
                return
            if backbone.nonnegative and features.decoded.min() < 0:
                yield f"{shown}: Features.decoded holds {features.decoded.min():.3g}, but nonnegative is True"
            rows, columns = features.decoded.shape[2:]
            stride = stride or height / rows
            if abs((height / stride - rows) - (width / stride - columns)) > 1:  # sides may be rounded
                yield f"{shown}: Features.decoded is {rows}x{columns}; both sides must shrink alike, by {stride:.3g}"
            for i, (x, promised) in enumerate(zip(features.encoded, _strides(backbone), strict=False)):
                if abs(height / promised - x.shape[2]) >= 1 or abs(width / promised - x.shape[3]) >= 1:
                    size = "x".join(map(str, x.shape[2:]))
                    yield f"{shown}: Features.encoded[{i}] is {size}; encoder.strides promises stride {promised}"
        again = _features(backbone, images, shown)
        single = _features(backbone, images[:1], f"evaluation on one image of {height}x{width}")
        if not torch.equal(again.decoded, features.decoded):
            yield "evaluation gives other values for the same images: is something random, or counted, in forward?"
        elif not torch.allclose(single.decoded, features.decoded[:1], rtol=1e-3, atol=1e-4):
            yield "evaluation gives other values for an image alone than in a batch: images must not see each other"


def _strides(backbone: Backbone) -> tuple[int, ...]:
    """The strides that an encoder promises, if it does."""
    return getattr(getattr(backbone, "encoder", None), "strides", ())


def _as_high_as_channels(backbone: Backbone) -> list[tuple[int, int]]:
    """Find an image size whose decoded map is as high as it has channels: code that guesses the axes fails there."""
    with torch.no_grad(), trying("evaluation on images of 64x64", type(backbone)):
        decoded: Any = backbone.eval()(torch.zeros(1, 3, 64, 64))[0]
        side = backbone.channels * 64 // decoded.shape[2]
    return [(side, side + 32)] if 32 <= side <= LARGEST else []


def _features(backbone: Backbone, images: Tensor, shown: str) -> Features:
    passed = images.clone()
    with torch.no_grad(), trying(shown, type(backbone)):
        features = backbone(passed)
    if not isinstance(features, Features):
        raise Finding(f"forward returned a {type(features).__name__}; it must return densecl.models.Features")
    if not torch.equal(passed, images):
        raise Finding("forward changed the images in place: change a copy")
    return features


def _faults(backbone: Backbone, features: Features) -> Iterator[str]:
    """Look at the shapes and values of maps."""
    auxiliary = backbone.auxiliary_channels if backbone.training else ()
    encoded = features.encoded
    if not isinstance(encoded, tuple) or not encoded:
        yield "Features.encoded must be a tuple with at least one map of the encoder"
        return
    if len(features.auxiliary) != len(auxiliary) and backbone.training:
        yield f"there are {len(features.auxiliary)} auxiliary maps; auxiliary_channels promises {len(auxiliary)}"
    maps = [("decoded", features.decoded, backbone.channels)]
    maps += [(f"auxiliary[{i}]", x, c) for i, (x, c) in enumerate(zip(features.auxiliary, auxiliary, strict=False))]
    maps += [(f"encoded[{i}]", x, None) for i, x in enumerate(encoded)]
    for name, x, channels in maps:
        if not isinstance(x, Tensor) or x.dim() != 4 or len(x) != 2 or channels not in (None, x.shape[1]):
            is_now = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            yield f"Features.{name} is {is_now}; it must be a tensor (2, {channels or 'channels'}, h, w)"
        elif not torch.isfinite(x).all():
            yield f"Features.{name} holds values that are not finite"
    heights = [x.shape[2] for x in encoded if isinstance(x, Tensor) and x.dim() == 4]
    if heights != sorted(heights, reverse=True):
        yield f"Features.encoded has maps of height {heights}; they must go from shallow to deep"


def _gradients(backbone: Backbone, _same: Backbone) -> Iterator[str]:
    """Check that every parameter that trains gets a gradient from the logits."""
    network = Network(backbone.train())
    with trying("training", type(backbone)):
        network.grow(3)
        output = network(_noise(64, 96))
        torch.stack([x.square().mean() for x in (output.logits, *output.auxiliary)]).sum().backward()
    if output.logits.shape != (2, 3, 64, 96):
        yield f"a head of 3 outputs gives logits {tuple(output.logits.shape)}, not (2, 3, 64, 96); see build_head"
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            yield f"no gradient reaches {name}: use it in forward, or leave it out"
        elif parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            yield f"the gradient of {name} is not finite"
        parameter.grad = None


def _growth(backbone: Backbone, _same: Backbone) -> Iterator[str]:
    network, images = Network(backbone.eval()), _noise(64, 96)
    with torch.no_grad(), trying("growing heads", type(backbone)):
        network.grow(3)
        before = network(images).logits
        network.grow(2)
        after = network(images).logits
    if after.shape[1] != 5 or not torch.allclose(after[:, :3], before, rtol=1e-3, atol=1e-4):
        yield "a second head changes the outputs of the first one; build_head must return a new module each time"


def _copies(backbone: Backbone, same: Backbone) -> Iterator[str]:
    """Try what runs do with a network: copy it, load its state into a new one, ask for stages before activations."""
    images = _noise(64, 96)
    expected = _features(backbone.eval(), images, "evaluation").decoded
    with trying("copying it for a teacher", type(backbone)):
        teacher = copy.deepcopy(backbone)
    with trying("loading its state_dict into a new one", type(backbone)):
        nn.Module.load_state_dict(same, backbone.state_dict())
    for other, shown in ((teacher, "a copy"), (same, "a new one with its state_dict")):
        if not torch.equal(_features(other.eval(), images, shown).decoded, expected):
            yield f"{shown} gives other values: keep all that forward needs in parameters and buffers"
    with contextlib.suppress(DenseCLError):  # it has none
        teacher.keep_raw()
        features = _features(teacher, images, "evaluation after keep_raw")
        if len(features.raw) != len(features.encoded):
            yield f"after keep_raw there are {len(features.raw)} raw maps and {len(features.encoded)} encoded ones"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
