"""Style transfer by a feed-forward network (Johnson et al., ECCV 2016), one style a task."""

import hashlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from densecl.errors import DataError
from densecl.losses.images import sample_mean
from densecl.losses.perceptual import content_distance, gram, style_distance
from densecl.metrics.image_quality import ImageAverages, ssim
from densecl.tasks.base import Picture, Prepared, Targets, Task
from densecl.tasks.pixels import decode, decode_uint8, encode

CONTENT_WEIGHT, STYLE_WEIGHT = 1e5, 1e10  # with Gram matrices over C H W, of images in ImageNet's normalisation


class Extractor(Protocol):
    """A frozen network whose maps are compared, such as `models.loss_network.LossNetwork`."""

    name: str
    content: int
    smallest: int

    def __call__(self, image: Tensor, /) -> list[Tensor]:
        """Maps of RGB images (B, 3, H, W) in 0..1."""
        ...


class Perceptual(NamedTuple):
    """Losses of each sample, (B,) each: the weighted terms, and the style term of the content image itself."""

    content: Tensor
    style: Tensor
    untouched: Tensor


class PerceptualLoss(nn.Module):
    """Content and style terms of one style image; its Gram matrices are computed once, here.

    Args:
        extractor: whose maps are compared.
        style: (3, H, W) uint8 RGB.
        content_weight: of the content term.
        style_weight: of the style term, summed over layers.
        normalised: each layer's style term is divided by the mean square of the style's Gram matrix, and the content
            term by the variance of the style's map: weights then compare across networks and images.

    Raises:
        DataError: the style image is smaller than the network's receptive maps need.
    """

    def __init__(
        self, extractor: Extractor, style: Tensor, content_weight: float, style_weight: float, normalised: bool
    ):
        super().__init__()
        if min(style.shape[-2:]) < extractor.smallest:
            raise DataError(
                f"the style image is {style.shape[-1]}x{style.shape[-2]}",
                f"{extractor.name} needs {extractor.smallest} pixels a side",
            )
        self.extractor = extractor
        with torch.no_grad():
            maps = extractor(style[None].float() / 255)
            grams = [gram(x)[0] for x in maps]
        self.layers = len(grams)
        for k, matrix in enumerate(grams):
            self.register_buffer(f"gram{k}", matrix)
        self.scales = [float(matrix.square().mean()) for matrix in grams] if normalised else []
        self.content_weight = content_weight / (float(maps[extractor.content].var()) if normalised else 1.0)
        self.style_weight = style_weight

    def forward(self, image: Tensor, content: Tensor) -> Perceptual:
        """The terms of images (B, 3, H, W) against content images of the same shape, RGB in 0..255."""
        grams: list[Tensor] = [getattr(self, f"gram{k}") for k in range(self.layers)]
        with torch.no_grad():
            wanted = self.extractor(content / 255)
            untouched = style_distance(wanted, grams, self.scales)
        maps, at = self.extractor(image / 255), self.extractor.content
        return Perceptual(
            self.content_weight * content_distance(maps[at], wanted[at]),
            self.style_weight * style_distance(maps, grams, self.scales),
            self.style_weight * untouched,
        )


@dataclass(frozen=True)
class StyleTransfer(Task):
    """Three outputs, RGB in the unit of `tasks.pixels`; perceptual loss.

    Attributes:
        perceptual: the loss with its network and Gram matrices; it follows the outputs from device to device.
        style: (3, H, W) uint8, the style image.
    """

    perceptual: PerceptualLoss = field(kw_only=True, compare=False, repr=False)
    style: Tensor = field(kw_only=True, compare=False, repr=False)
    chosen: dict[str, Any] = field(kw_only=True)

    __hash__ = object.__hash__

    @property
    def outputs(self) -> int:
        """Red, green, blue."""
        return 3

    @property
    def settings(self) -> dict[str, Any]:
        """The style image's digest, the loss network, the weights."""
        return dict(self.chosen)

    def prepare(self, image: Tensor, mask: Tensor) -> Prepared:
        """The image as it is, and as content."""
        return Prepared(image, encode(image))

    def loss(self, logits: Tensor, batch: Targets) -> Tensor:
        """Content and style terms; weights must be (B,), since Gram matrices have no pixels."""
        terms = self.terms(logits, batch.target)
        return sample_mean(terms.content + terms.style, batch.weight)

    def terms(self, logits: Tensor, target: Tensor) -> Perceptual:
        """The terms of the loss of each sample."""
        if self.perceptual.gram0.device != logits.device:
            self.perceptual.to(logits.device)
        return self.perceptual(decode(logits.float()), decode(target))

    def metrics(self) -> "StyleMetrics":
        """See `StyleMetrics`."""
        return StyleMetrics(self)

    def picture(self, image: Tensor, output: Tensor, mask: Tensor) -> Picture:
        """The content, the stylised image, the style scaled to its size."""
        size = (image.shape[-2], image.shape[-1])
        style = nn.functional.interpolate(self.style[None].float(), size=size, mode="bilinear", antialias=True)
        return Picture(image, decode_uint8(output), style[0].round().clamp(0, 255).to(torch.uint8))


class StyleMetrics(ImageAverages):
    """Averages over images.

    `total_loss` and its parts `content_loss` and `style_loss`, weighted; `ssim` of the result (uint8) against the
    content image; `baseline`, the total loss of returning the content image.
    """

    def __init__(self, task: StyleTransfer):
        super().__init__(("total_loss", "content_loss", "style_loss", "ssim", "baseline"))
        self._task = task

    @torch.no_grad()
    def update(self, output: Tensor, image: Tensor, target: Tensor) -> None:
        """See `Metrics`."""
        terms = self._task.terms(output, target)
        self.add(
            {
                "total_loss": terms.content + terms.style,
                "content_loss": terms.content,
                "style_loss": terms.style,
                "ssim": ssim(decode_uint8(output), image),
                "baseline": terms.untouched,
            }
        )

    def compute(self) -> dict[str, Any]:
        """See the class."""
        return self.averages()


def style_transfer(
    name: str,
    style: Tensor,
    extractor: Extractor,
    *,
    content_weight: float = CONTENT_WEIGHT,
    style_weight: float = STYLE_WEIGHT,
    normalised: bool = False,
) -> StyleTransfer:
    """The task of painting images in the style of another one.

    Args:
        name: of the task.
        style: (3, H, W) uint8 RGB.
        extractor: the loss network; tasks may share one.
        content_weight: see `PerceptualLoss`.
        style_weight: see `PerceptualLoss`.
        normalised: see `PerceptualLoss`.

    Raises:
        DataError: the style image is too small.
    """
    perceptual = PerceptualLoss(extractor, style, content_weight, style_weight, normalised)
    chosen = {
        "style": hashlib.sha256(repr(tuple(style.shape)).encode() + style.numpy().tobytes()).hexdigest()[:16],
        "loss_network": extractor.name,
        "content_weight": content_weight,
        "style_weight": style_weight,
        "normalised": normalised,
    }
    return StyleTransfer(name, "style_transfer", "total_loss", False, perceptual=perceptual, style=style, chosen=chosen)
