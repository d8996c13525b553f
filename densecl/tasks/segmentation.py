"""Semantic segmentation: one output for each class and one for background; mean intersection over union."""

from typing import TYPE_CHECKING, Any, Self

from densecl.errors import SettingError
from densecl.tasks.base import Context, Picture, Prepared, Task, number

if TYPE_CHECKING:
    from torch import Tensor

    from densecl.training.batch import Batch


class Segmentation(Task):
    """The task of labelling each pixel with a class.

    `classes` counts them without background; None where they arrive over time. Then the stream makes the labels, and
    strategies and the runner's confusion matrix take the place of `loss` and `metrics`.
    """

    kind = "segmentation"
    primary = "miou"
    needs_masks = True

    def __init__(self, name: str, *, classes: int | None = None, has_background: bool = True):
        super().__init__(name)
        self.outputs = None if classes is None else classes + 1
        self.has_background = has_background

    @classmethod
    def build(cls, name: str, values: dict[str, Any], context: Context) -> Self:
        """The task of all classes of the data set."""
        return cls(name, classes=len(context.class_names), has_background=context.has_background)

    def prepare(self, image: "Tensor", mask: "Tensor") -> Prepared:
        """The image as it is, and its labels."""
        return Prepared(image, mask.long())

    def loss(self, logits: "Tensor", batch: "Batch") -> "Tensor":
        """Cross-entropy, mean over pixels that are not void."""
        from densecl.losses import cross_entropy

        return cross_entropy(logits, batch.target, weight=batch.weight)

    def distillation(self, logits: "Tensor", teacher_logits: "Tensor") -> "Tensor":
        """Cross-entropy with the teacher's probabilities, mean over classes and pixels."""
        from densecl.losses import distillation

        return distillation(logits, teacher_logits)

    def metrics(self) -> "SegmentationMetrics":
        """A confusion matrix; SettingError if the number of classes is not known."""
        if self.outputs is None:
            raise SettingError(f"task '{self.name}' does not say how many classes it has")
        return SegmentationMetrics(self.outputs, self.has_background)

    def score(self, metrics: dict[str, Any]) -> float:
        """The mean over all classes."""
        return number(metrics["miou"]["all"])

    def picture(self, image: "Tensor", output: "Tensor", mask: "Tensor") -> Picture:
        """Labels in VOC's colours; `output` may also be labels (H, W)."""
        labels = output.argmax(0) if output.ndim == 3 else output
        return Picture(image, paint(labels), paint(mask))


class SegmentationMetrics:
    """Mean intersection over union of all classes, from one confusion matrix: rows are the truth."""

    def __init__(self, labels: int, has_background: bool):
        import torch

        self.sums, self._first = torch.zeros(labels, labels, dtype=torch.int64), 0 if has_background else 1

    def update(self, output: "Tensor", image: "Tensor", target: "Tensor") -> None:
        """Count a batch of logits (B, C, H, W) or of labels (B, H, W); see `Metrics`."""
        from densecl.metrics.confusion import count_pairs

        labels = output.max(1).indices if output.ndim == 4 else output
        self.sums = self.sums + count_pairs(labels, target, len(self.sums), 255)

    def compute(self) -> dict[str, Any]:
        """`miou` (`all`: over classes that occur, background counted where there is one) and `iou` by label."""
        from densecl.metrics import iou_from_confusion

        values: list[float] = iou_from_confusion(self.sums.numpy()).tolist()
        counted = [value for value in values[self._first :] if value == value]
        mean = sum(counted) / len(counted) if counted else float("nan")
        return {"miou": {"all": mean}, "iou": [value if value == value else None for value in values]}


def colours() -> "Tensor":
    """(256, 3) uint8 RGB: VOC's colour of each label."""
    import torch

    from densecl.palette import palette

    return torch.frombuffer(bytearray(palette()), dtype=torch.uint8).view(256, 3)


def paint(labels: "Tensor") -> "Tensor":
    """(3, H, W) uint8 RGB of labels (H, W), in VOC's colours."""
    return colours()[labels.long().cpu()].permute(2, 0, 1).contiguous()
