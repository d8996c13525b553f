"""Semantic segmentation: one output a class and one for background; mean intersection over union."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from densecl.errors import SettingError
from densecl.tasks.base import Picture, Prepared, Targets, Task, number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Segmentation(Task):
    """The task of labelling each pixel with a class.

    Attributes:
        classes: without background; None where they arrive over time. Then the stream makes the labels, and strategies
            and the runner's confusion matrix take the place of `loss` and `metrics`.
    """

    classes: int | None = None

    @property
    def outputs(self) -> int | None:
        """One a class and one for background."""
        return None if self.classes is None else self.classes + 1

    def prepare(self, image: "Tensor", mask: "Tensor") -> Prepared:
        """The image as it is, and its labels."""
        return Prepared(image, mask.long())

    def loss(self, logits: "Tensor", batch: Targets) -> "Tensor":
        """Cross-entropy, mean over pixels that are not void."""
        from densecl.losses import cross_entropy

        return cross_entropy(logits, batch.target, weight=batch.weight)

    def distillation(self, logits: "Tensor", teacher_logits: "Tensor") -> "Tensor":
        """Cross-entropy with the teacher's probabilities, mean over classes and pixels."""
        from densecl.losses import distillation

        return distillation(logits, teacher_logits)

    def metrics(self) -> "SegmentationMetrics":
        """A confusion matrix.

        Raises:
            SettingError: the number of classes is not known.
        """
        if self.classes is None:
            raise SettingError(f"task '{self.name}' does not say how many classes it has")
        return SegmentationMetrics(self.classes + 1, self.has_background)

    def score(self, metrics: dict[str, Any]) -> float:
        """The mean over all classes."""
        return number(metrics["miou"]["all"])

    def picture(self, image: "Tensor", output: "Tensor", mask: "Tensor") -> Picture:
        """Labels in VOC's colours; `output` may also be labels (H, W)."""
        labels = output.argmax(0) if output.ndim == 3 else output
        return Picture(image, paint(labels), paint(mask))


class SegmentationMetrics:
    """Mean intersection over union of all classes, from one confusion matrix.

    Attributes:
        sums: (n, n) int64 on the CPU; rows are the truth, columns the prediction.
    """

    def __init__(self, labels: int, has_background: bool):
        from densecl.metrics import ConfusionMatrix

        self._confusion, self._first = ConfusionMatrix(labels), 0 if has_background else 1

    @property
    def sums(self) -> "Tensor":
        """The matrix."""
        return self._confusion.matrix

    @sums.setter
    def sums(self, value: "Tensor") -> None:
        self._confusion.matrix = value

    def update(self, output: "Tensor", image: "Tensor", target: "Tensor") -> None:
        """Count a batch of logits (B, C, H, W) or of labels (B, H, W); see `Metrics`."""
        self._confusion.update(output.argmax(1) if output.ndim == 4 else output, target)

    def compute(self) -> dict[str, Any]:
        """`miou` (`all`: over classes that occur, background counted where there is one) and `iou` by label."""
        values: list[float] = self._confusion.iou().tolist()
        counted = [value for value in values[self._first :] if value == value]
        mean = sum(counted) / len(counted) if counted else float("nan")
        return {"miou": {"all": mean}, "iou": [value if value == value else None for value in values]}


def segmentation(name: str, *, classes: int | None = None, has_background: bool = True) -> Segmentation:
    """The task of labelling each pixel with a class; see `Segmentation`."""
    return Segmentation(name, "segmentation", "miou", has_background=has_background, classes=classes)


def paint(labels: "Tensor") -> "Tensor":
    """(3, H, W) uint8 RGB of labels (H, W), in VOC's colours."""
    import torch

    from densecl.palette import palette

    colours = torch.frombuffer(bytearray(palette()), dtype=torch.uint8).view(256, 3)
    return colours[labels.long().cpu()].permute(2, 0, 1).contiguous()
