"""Backbone and heads joined: image in, logits at input resolution out, growing with the steps."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecl.errors import DataError, SettingError, UnknownNameError
from densecl.models.heads import BuildHead, Heads, ImageHead, MakeHeads, TaskHeads, pointwise

Norm = Literal["batch", "instance"]  # that a backbone can be given; instance: without scale and shift
_LAYERS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d}
NORMS = {"batch": nn.modules.batchnorm._BatchNorm, "group": nn.GroupNorm, "layer": nn.LayerNorm}
NORMS["instance"] = nn.modules.instancenorm._InstanceNorm


class Features(NamedTuple):
    """Maps that a backbone returns."""

    decoded: Tensor  # (B, D, h, w), the main head's input
    encoded: tuple[Tensor, ...]  # encoder stages, shallow to deep, (B, F_i, h_i, w_i)
    auxiliary: tuple[Tensor, ...] = ()  # (B, A_j, h, w), the auxiliary heads' inputs; only in training
    raw: tuple[Tensor, ...] = ()  # encoder stages before their last activation; only after `Backbone.keep_raw`


class Output(NamedTuple):
    """Maps that a network returns: `Features`, and the logits of C outputs grown so far."""

    logits: Tensor  # (B, C, H, W) at input resolution; (B, C, 1, 1) of a task of whole images
    auxiliary: tuple[Tensor, ...] = ()  # further supervised logits of the same shape (BiSeNet: two); only in training
    encoded: tuple[Tensor, ...] = ()
    decoded: Tensor | None = None
    coarse: Tensor | None = None  # (B, C, h, w), the logits before they grow to the image's size
    raw: tuple[Tensor, ...] = ()


class Backbone(nn.Module):
    """Image to features; knows nothing of classes."""

    channels: int  # D of `Features.decoded`
    auxiliary_channels: tuple[int, ...] = ()  # A_j of `Features.auxiliary`, one for each auxiliary head
    decoder_parts: ClassVar[tuple[str, ...]] = ()  # children behind the encoder, which a task may have of its own
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # arguments by name, for `preset=NAME` in its call
    nonnegative: bool = False  # True: no value of `Features.decoded` is ever below 0
    keeps_classifier: ClassVar[bool] = False  # True: with pretrained weights it has a `classifier`
    # weight (C, D) and bias of the last layer that its pretrained weights came with
    classifier: tuple[Tensor, Tensor] | None = None

    @classmethod
    def settled(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments that depend on the given ones, for those that are not given; their defaults elsewhere."""
        return {}

    @property
    def norms(self) -> frozenset[str]:
        """Kinds of normalisation in it: batch, group, instance, layer; empty without any."""
        return norms_of(self)

    @property
    def encoder_modules(self) -> list[nn.Module]:
        """The child `encoder`, or all children before the decoder."""
        children = dict(self.named_children())
        own = {"encoder": children["encoder"]} if "encoder" in children else children
        return [module for name, module in own.items() if name not in self.decoder_parts]

    @property
    def attention(self) -> list[nn.Linear]:
        """The linear layers of the attention of its encoder: children of modules that are called so."""
        modules = [
            m for part in self.encoder_modules for m in part.modules() if "attention" in type(m).__name__.lower()
        ]
        return [layer for module in modules for layer in module.children() if type(layer) is nn.Linear]

    def require(self, needs: Iterable[str]) -> None:
        """Refuse a method that needs a property which the backbone does not have."""
        for name in needs:
            if name not in ("attention", "batchnorm", "nonnegative"):
                raise UnknownNameError("property of a backbone", name, ["attention", "batchnorm", "nonnegative"])
            if name == "attention" and not self.attention:
                raise SettingError(
                    f"{type(self).__name__} has no attention, and the method adapts it", "use a transformer as encoder"
                )
            if name == "batchnorm" and "batch" not in norms_of(getattr(self, "encoder", self)):
                raise SettingError(
                    f"the encoder of {type(self).__name__} has no BatchNorm, which the method merges",
                    "use one that has, such as resnet50 or mini",
                )
            if name == "nonnegative" and not self.nonnegative:
                raise SettingError(
                    f"the decoded map of {type(self).__name__} has values below 0, and the method needs one without",
                    "use a backbone that ends with ReLU, such as bisenet or deeplabv3",
                )

    def keep_raw(self) -> None:
        """Fill `Features.raw` from now on; refused where stages do not end with an activation."""
        keep: Any = getattr(getattr(self, "encoder", None), "keep_raw", None)
        if keep is None:
            raise SettingError(
                f"{type(self).__name__} has no stages that end with an activation, and the method needs the maps "
                "before it",
                "use bisenet, deeplabv3 or fcn with an encoder such as resnet50",
            )
        keep()

    def build_head(self, channels: int, outputs: int) -> nn.Module:
        """The head that belongs to this backbone: (B, channels, h, w) to (B, outputs, h', w')."""
        return pointwise(channels, outputs)

    def build_image_head(self, channels: int, outputs: int, task: str, *, given: bool = False) -> ImageHead:
        """The head of a task of whole images: (B, channels, h, w) to (B, outputs, 1, 1).

        Where it is `given`, it is the last layer of the pretrained weights, if the backbone has them (a plan and a
        finished run do without); DataError for another number of classes.
        """
        head = ImageHead(channels, outputs)
        if given and self.classifier is not None:
            weight, bias = self.classifier
            if len(weight) != outputs:
                fault = f"the pretrained weights have {len(weight)} classes, and task '{task}' has {outputs}"
                raise DataError(fault, "give the data set that they were trained on")
            with torch.no_grad():
                head.linear.weight.copy_(weight[..., None, None])
                head.linear.bias.copy_(bias)  # pyright: ignore[reportOptionalMemberAccess]
        return head

    def forward(self, image: Tensor) -> Features:
        """Features of an image batch (B, 3, H, W) of any size."""
        raise NotImplementedError


def norms_of(module: nn.Module) -> frozenset[str]:
    """Kinds of normalisation below a module."""
    return frozenset(name for name, kind in NORMS.items() for part in module.modules() if isinstance(part, kind))


class Network(nn.Module):
    """A backbone with heads that grow. It has no outputs until `grow` has been called."""

    heads: Heads

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone
        self.heads = Heads(backbone.channels, backbone.auxiliary_channels)

    def make_heads(self, factory: MakeHeads = Heads) -> None:
        """Have the heads that `factory(channels, auxiliary_channels)` makes; once, before the first outputs."""
        if self.n_outputs or getattr(self.heads, "tasks", None):
            raise ValueError("heads are made once, before the first outputs")
        heads = factory(self.backbone.channels, self.backbone.auxiliary_channels)
        self.heads = cast(Heads, heads.to(self._device))  # TaskHeads has the interface of Heads

    def collect(self, maps: Iterable[str]) -> None:
        """Have outputs carry further maps ("raw"), where the backbone has them; before any copy or compilation."""
        for name in maps:
            if name != "raw":
                raise UnknownNameError("map", name, ["raw"])
            self.backbone.keep_raw()

    @property
    def task_heads(self) -> TaskHeads:
        """The heads of a network by task."""
        assert isinstance(self.heads, TaskHeads)
        return self.heads

    def logits_of(self, task: str, output: Output, image: Tensor) -> Tensor:
        """Logits of another task's heads on the features behind `output`, at the resolution of `image`."""
        assert output.decoded is not None
        heads = self.task_heads.of(task)
        logits = heads(output.decoded)[0]
        return logits if heads.image_level else upsample(logits, image)

    @property
    def n_outputs(self) -> int:
        """Output channels grown so far."""
        return self.heads.n_outputs

    def grow(self, outputs: int, build_head: BuildHead | None = None) -> None:
        """Add `outputs` new outputs (0 counts as a step) to every head; old parameters stay what they are.

        `build_head(channels, outputs)` makes a new head's module; by default the backbone's own does.
        """
        self.heads.grow(outputs, build_head or self.backbone.build_head, self._device)

    @property
    def _device(self) -> torch.device | None:
        parameter = next(self.backbone.parameters(), None)
        return None if parameter is None else parameter.device

    def forward(self, image: Tensor, stride: int | None = 1) -> Output:
        """Logits at the resolution of `image` (B, 3, H, W), or of it as a whole; auxiliary ones in training only.

        With a stride they are (B, C, H // stride, W // stride), for a loss that looks at fewer pixels; with None
        they stay coarse, for whom the maps are enough.
        """
        features = self.backbone(image)
        coarse = self.heads(features.decoded, features.auxiliary if self.training else ())
        if stride is None or self.heads.image_level:
            logits, *auxiliary = coarse
        else:
            logits, *auxiliary = (upsample(x, image, stride) for x in coarse)
        return Output(logits, tuple(auxiliary), features.encoded, features.decoded, coarse[0], features.raw)


def upsample(x: Tensor, like: Tensor, stride: int = 1) -> Tensor:
    """Bilinear (align_corners=False) to the height and width of `like`; the same tensor when they agree.

    With a stride it is `middle` of that, without what is left out.
    """
    size = like.shape[-2:]
    if x.shape[-2:] == size:
        return middle(x, stride)
    if stride > 1:
        rows, columns = (_grown(small, large, stride, x) for small, large in zip(x.shape[-2:], size, strict=True))
        return rows.T @ x @ columns
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _grown(small: int, large: int, stride: int, like: Tensor) -> Tensor:
    """(small, large // stride): the share of each of `small` values in the middle ones of `large`."""
    eye = torch.eye(small, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
    shares = F.interpolate(eye[None], size=large, mode="linear", align_corners=False)[0]
    return shares[:, stride // 2 : large // stride * stride : stride].to(like)


def middle(x: Tensor, stride: int) -> Tensor:
    """Values (..., H, W) at the middle pixels of squares of side `stride`: (..., H // stride, W // stride)."""
    if stride == 1:
        return x
    height, width = (size // stride * stride for size in x.shape[-2:])
    return x[..., stride // 2 : height : stride, stride // 2 : width : stride]


def norm_layer(name: str, channels: int) -> nn.Module:
    """BatchNorm, or instance normalisation without scale and shift."""
    if name not in _LAYERS:
        raise SettingError(f"norm={name} does not exist", f"use one of {', '.join(_LAYERS)}")
    return _LAYERS[name](channels)


class ConvNormReLU(nn.Sequential):
    """Convolution without bias that keeps the size (divided by `stride`), BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1):
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )
