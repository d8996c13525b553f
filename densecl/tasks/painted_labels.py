"""Segmentation as image translation: labels painted in colours and learnt as an image (Matsumoto's slides, 2019)."""

from typing import TYPE_CHECKING, Any, Self

from densecl.tasks.autoencoding import Autoencoding, Reduce
from densecl.tasks.base import Context, Picture, Prepared, decode, encode, number
from densecl.tasks.segmentation import SegmentationMetrics, colours, paint

if TYPE_CHECKING:
    from torch import Tensor

    from densecl.training.batch import Batch


class PaintedLabels(Autoencoding):
    """Three outputs, the colours of VOC's palette in the unit of `base.encode`; the losses are those of autoencoding.

    A pixel's label is the class whose colour is nearest. Outputs at void pixels count nowhere: they are not in the
    distance, and the critic sees void's colour there in both images.
    """

    kind = "painted_labels"
    primary = "miou"
    higher_is_better = True
    measures = ()
    needs_masks = True

    @classmethod
    def build(cls, name: str, values: dict[str, Any], context: Context) -> Self:
        """The task of all classes of the data set; see `Autoencoding.build`."""
        task = super().build(name, values, context)
        task.has_background = context.has_background
        task.class_names = ("background" if context.has_background else "other", *context.class_names)
        return task

    def prepare(self, image: "Tensor", mask: "Tensor") -> Prepared:
        """The image as it is, and its labels painted, void too."""
        return Prepared(image, encode(colours().to(mask.device)[mask.long()].permute(0, 3, 1, 2)))

    def loss(self, logits: "Tensor", batch: "Batch") -> "Tensor":
        """The distance to the painted labels and, with a critic, how sure it is that outputs are made."""
        known = _known(batch.target)
        weight = known.float() if batch.weight is None else known * batch.weight.view(-1, 1, 1)
        loss = self.reconstruct(logits, batch._replace(weight=weight))
        if self.critic is None:
            return loss
        from densecl.losses.images import sample_mean

        deception = self.deception(logits.where(known.unsqueeze(1), batch.target))
        return loss + self.adversarial_weight * sample_mean(deception, batch.weight)

    def update_critic(
        self, logits: "Tensor", batch: "Batch", *, share: "float | Tensor" = 1.0, reduce: Reduce | None = None
    ) -> None:
        """Train the critic on outputs and on painted labels; both have void's colour where no label is known."""
        if self.critic is not None:
            made = logits.where(_known(batch.target).unsqueeze(1), batch.target)
            super().update_critic(made, batch, share=share, reduce=reduce)

    def metrics(self) -> "PaintedMetrics":
        """A confusion matrix of the nearest colours' labels."""
        return PaintedMetrics(self)

    def score(self, metrics: dict[str, Any]) -> float:
        """The mean IoU over all classes."""
        return number(metrics["miou"]["all"])

    def nearest(self, output: "Tensor") -> "Tensor":
        """Labels (B, H, W) int64 of outputs (B, 3, H, W): the class of the nearest colour, the first of equal ones."""
        own = encode(colours()[: len(self.class_names)].to(output.device))
        products = (own @ output.float().flatten(2)).unflatten(2, output.shape[2:])
        return (own.square().sum(1).view(-1, 1, 1) - 2 * products).argmin(1)  # |o - c|^2 less |o|^2

    def picture(self, image: "Tensor", output: "Tensor", mask: "Tensor") -> Picture:
        """The image, the painting as it is, and the painted labels."""
        from densecl.metrics.colour import to_uint8

        return Picture(image, to_uint8(decode(output.float())), paint(mask))


class PaintedMetrics(SegmentationMetrics):
    """Mean intersection over union of the nearest colours' labels."""

    def __init__(self, task: PaintedLabels):
        super().__init__(len(task.class_names), task.has_background)
        self.task = task

    def update(self, output: "Tensor", image: "Tensor", target: "Tensor") -> None:
        """Count a batch of outputs; the targets are painted labels, and those beyond the classes are void."""
        labels = unpainted(decode(target))
        super().update(self.task.nearest(output), image, labels.where(labels < len(self.sums), 255))


def _known(target: "Tensor") -> "Tensor":
    """(B, H, W) bool: where painted labels are not void."""
    return (decode(target).round() != colours()[255].to(target.device).view(3, 1, 1)).any(1)


def unpainted(image: "Tensor") -> "Tensor":
    """Labels (B, H, W) int64 of an image (B, 3, H, W) of colours of VOC's palette in 0..255, whose bits they are.

    Bits 7, 6, 5 of red are bits 0, 3, 6 of the label, those of green 1, 4, 7 and those of blue 2, 5; see `palette`.
    """
    import torch

    rgb = image.round().long()
    return torch.stack(
        [((rgb[:, channel] >> (7 - bit)) & 1) << (3 * bit + channel) for bit in range(3) for channel in range(3)]
    ).sum(0)
