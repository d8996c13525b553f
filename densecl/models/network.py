"""Backbone and heads joined: image in, logits at input resolution out, growing with the steps."""

from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from densecl.models.heads import BuildHead, Heads, TaskHeads, pointwise


class Features(NamedTuple):
    """What a backbone returns.

    Attributes:
        decoded: (B, D, h, w): what the main head sees.
        encoded: encoder stages, shallow to deep, (B, F_i, h_i, w_i).
        auxiliary: (B, A_j, h, w): what the auxiliary heads see; empty outside training.
    """

    decoded: Tensor
    encoded: tuple[Tensor, ...]
    auxiliary: tuple[Tensor, ...] = ()


class Output(NamedTuple):
    """What a network returns.

    Attributes:
        logits: (B, C, H, W) at input resolution, C = outputs grown so far.
        auxiliary: further supervised logits of the same shape (BiSeNet: two); only in training.
        encoded: encoder stages, shallow to deep, (B, F_i, h_i, w_i); ILT distils the last.
        decoded: (B, D, h, w): what the main head sees.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...] = ()
    encoded: tuple[Tensor, ...] = ()
    decoded: Tensor | None = None


class Backbone(nn.Module):
    """Image to features; knows nothing of classes.

    Attributes:
        channels: D of `Features.decoded`.
        auxiliary_channels: A_j of `Features.auxiliary`, one for each auxiliary head.
        decoder_parts: names of the children behind the encoder: what a task may have of its own when it shares the
            encoder with others.
    """

    channels: int
    auxiliary_channels: tuple[int, ...] = ()
    decoder_parts: ClassVar[tuple[str, ...]] = ()

    def build_head(self, channels: int, outputs: int) -> nn.Module:
        """A module from (B, channels, h, w) to (B, outputs, h', w'): the head this network is described with."""
        return pointwise(channels, outputs)

    def forward(self, image: Tensor) -> Features:
        """Features of an image batch (B, 3, H, W) of any size."""
        raise NotImplementedError


class Network(nn.Module):
    """A backbone with heads that grow. It has no outputs until `grow` has been called.

    Attributes:
        backbone: image to features.
        heads: features to logits, one module a step at each place; of a sequence of tasks (`by_task`) those of each.
    """

    heads: Heads

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone
        self.heads = Heads(backbone.channels, backbone.auxiliary_channels)

    def by_task(self) -> None:
        """Have heads by task from now on; to be called before the first outputs."""
        if not isinstance(self.heads, TaskHeads):
            heads = TaskHeads(self.backbone.channels, self.backbone.auxiliary_channels)
            self.heads = heads  # type: ignore[assignment]  (it has the interface of Heads)

    @property
    def task_heads(self) -> TaskHeads:
        """The heads of a network by task."""
        assert isinstance(self.heads, TaskHeads)
        return self.heads

    def logits_of(self, task: str, output: "Output", image: Tensor) -> Tensor:
        """What the heads of another task make of the features behind `output`, at the resolution of `image`."""
        assert output.decoded is not None
        return upsample(self.task_heads.of(task)(output.decoded)[0], image)

    @property
    def n_outputs(self) -> int:
        """Output channels grown so far."""
        return self.heads.n_outputs

    def grow(self, outputs: int, build_head: BuildHead | None = None) -> None:
        """Add `outputs` new outputs to every head, on the backbone's device; old parameters stay what they are.

        Args:
            outputs: new output channels; 0 changes nothing but counts as a step.
            build_head: (channels, outputs) -> module, default the backbone's own.
        """
        parameter = next(self.backbone.parameters(), None)
        build_head = build_head or self.backbone.build_head
        self.heads.grow(outputs, build_head, device=None if parameter is None else parameter.device)

    def forward(self, image: Tensor) -> Output:
        """Logits at the resolution of `image` (B, 3, H, W); auxiliary ones in training only."""
        features = self.backbone(image)
        auxiliary = features.auxiliary if self.training else ()
        logits, *further = (upsample(x, image) for x in self.heads(features.decoded, auxiliary))
        return Output(logits, tuple(further), features.encoded, features.decoded)


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear (align_corners=False) to the height and width of `like`; the same tensor when they agree."""
    size = like.shape[-2:]
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
