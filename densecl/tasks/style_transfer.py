"""Style transfer by a feed-forward network (Johnson et al., ECCV 2016), one style a task."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from densecl.errors import DataError
from densecl.settings.task_recipe import Count, Positive
from densecl.tasks.base import Context, Picture, Prepared, Task, decode, decode_uint8, encode

if TYPE_CHECKING:
    from torch import Tensor

    from densecl.models.loss_network import LossNetwork
    from densecl.training.batch import Batch

ALL_WEIGHTS = ("content_weight", "style_weight", "normalised")


class Perceptual(NamedTuple):
    """Losses of each sample, (B,) each: the weighted terms, and the style term of the content image itself."""

    content: "Tensor"
    style: "Tensor"
    untouched: "Tensor"


class StyleTransfer(Task):
    """Three outputs, RGB in the unit of `base.encode`; content and style terms of a perceptual loss.

    Gram matrices of the style are over C H W, of images in ImageNet's normalisation, and computed once. `pixels` is the
    style image, (3, H, W) uint8 RGB, and `extractor` the loss network, which tasks may share; None for prediction
    alone. DataError if the style image is smaller than the network's maps need.
    """

    kind = "style_transfer"
    primary = "total_loss"
    higher_is_better = False
    measures = ("total_loss", "content_loss", "style_loss", "ssim", "baseline")
    outputs = 3

    style: str  # swirls, waves, a file, or words of a name in the data folder's `style`
    style_size: Count | None = None  # its shorter side, in pixels
    loss_network: Literal["vgg16", "random"] = "vgg16"
    loss_weights: str | None = None  # of vgg16: torchvision, a file, or none (random); None: as `stream.loss_weights`
    loss_seed: int = 0  # of random weights
    content_weight: Positive = 1e5
    style_weight: Positive = 1e10  # of the style term, summed over layers
    # each layer's style term is divided by the mean square of the style's Gram matrix, and the content term by the
    # variance of the style's map: weights then compare across networks and images
    normalised: bool = False

    def __init__(self, name: str, pixels: "Tensor | None", extractor: "LossNetwork | None", **values: Any):
        super().__init__(name, **values)
        self.pixels, self.extractor = pixels, extractor
        if pixels is None or extractor is None:
            return
        import torch

        from densecl.losses.images import gram

        if min(pixels.shape[-2:]) < extractor.smallest:
            raise DataError(
                f"the style image is {pixels.shape[-1]}x{pixels.shape[-2]}",
                f"{extractor.name} needs {extractor.smallest} pixels a side",
            )
        with torch.no_grad():
            maps = extractor(pixels[None].float() / 255)
            self.grams = [gram(x)[0] for x in maps]
        self.scales = [float(matrix.square().mean()) for matrix in self.grams] if self.normalised else []
        scale = float(maps[extractor.content].var()) if self.normalised else 1.0
        self.content_factor = self.content_weight / scale

    @classmethod
    def build(cls, name: str, values: dict[str, Any], context: Context) -> Self:
        """Tasks of equal loss networks share one."""
        if not context.judge:
            return cls(name, None, None, **values)
        import torch

        from densecl.data.styles import style_image
        from densecl.models.loss_network import build_loss_network

        pixels = style_image(values["style"], context.root, values["style_size"])
        key = (values["loss_network"], _loss_weights(values, context), values["loss_seed"])
        if key not in context.shared:
            context.shared[key] = build_loss_network(*key)
        return cls(name, torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), context.shared[key], **values)

    @classmethod
    def content(cls, values: dict[str, Any], context: Context) -> dict[str, Any]:
        """The style image and the file of weights count by what they hold."""
        from densecl.data.styles import style_image

        pixels = style_image(values["style"], context.root, values["style_size"])
        style = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        return {**values, "style": style, "loss_weights": _digest(_loss_weights(values, context))}

    @property
    def settings(self) -> dict[str, Any]:
        """The style image's digest, the loss network, the weights."""
        assert self.pixels is not None
        assert self.extractor is not None
        content = repr(tuple(self.pixels.shape)).encode() + self.pixels.numpy().tobytes()
        chosen = {"style": hashlib.sha256(content).hexdigest()[:16], "loss_network": self.extractor.name}
        return chosen | {key: getattr(self, key) for key in ALL_WEIGHTS}

    def prepare(self, image: "Tensor", mask: "Tensor") -> Prepared:
        """The image as it is, and as content."""
        return Prepared(image, encode(image))

    def loss(self, logits: "Tensor", batch: "Batch") -> "Tensor":
        """Content and style terms; weights must be (B,), since Gram matrices have no pixels."""
        from densecl.losses.images import sample_mean

        terms = self.terms(logits, batch.target)
        return sample_mean(terms.content + terms.style, batch.weight)

    def terms(self, logits: "Tensor", target: "Tensor") -> Perceptual:
        """The terms of the loss of each sample."""
        import torch

        from densecl.losses.images import content_distance, style_distance

        assert self.extractor is not None
        if self.grams[0].device != logits.device:
            self.extractor.to(logits.device)
            self.grams = [matrix.to(logits.device) for matrix in self.grams]
        with torch.no_grad():
            wanted = self.extractor(decode(target) / 255)
            untouched = style_distance(wanted, self.grams, self.scales)
        maps, at = self.extractor(decode(logits.float()) / 255), self.extractor.content
        return Perceptual(
            self.content_factor * content_distance(maps[at], wanted[at]),
            self.style_weight * style_distance(maps, self.grams, self.scales),
            self.style_weight * untouched,
        )

    def scores(self, output: "Tensor", image: "Tensor", target: "Tensor") -> dict[str, "Tensor"]:
        """`total_loss` and its weighted parts, `ssim` against the content image, (B,) each.

        `baseline` is the total loss of returning the content image.
        """
        import torch

        from densecl.metrics.image_quality import ssim

        with torch.no_grad():
            terms = self.terms(output, target)
        return {
            "total_loss": terms.content + terms.style,
            "content_loss": terms.content,
            "style_loss": terms.style,
            "ssim": ssim(decode_uint8(output), image),
            "baseline": terms.untouched,
        }

    def picture(self, image: "Tensor", output: "Tensor", mask: "Tensor") -> Picture:
        """The content, the stylised image, the style scaled to its size."""
        made = decode_uint8(output)
        if self.pixels is None:
            return Picture(image, made, image)
        import torch
        from torch.nn.functional import interpolate

        size = (image.shape[-2], image.shape[-1])
        style = interpolate(self.pixels[None].float(), size=size, mode="bilinear", antialias=True)
        return Picture(image, made, style[0].round().clamp(0, 255).to(torch.uint8))


def _loss_weights(values: dict[str, Any], context: Context) -> str | None:
    """Weights that the loss network is filled with."""
    return None if values["loss_network"] == "random" else values["loss_weights"] or context.weights


def _digest(weights: str | None) -> str | None:
    """A weights file by its content."""
    from densecl.models.weights import weights_place

    if weights in (None, "torchvision") and (place := weights_place("vgg16")).is_file():
        weights = str(place)  # put there by hand, used for the download
    if weights is not None and Path(weights).is_file():
        return hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    return weights
