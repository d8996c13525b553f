"""The confusion matrix of label maps, pooled over all pixels of all images."""

import torch
from torch import Tensor

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class ConfusionMatrix:
    """Counts of (true, predicted) label pairs.

    Attributes:
        matrix: (n, n) int64 on the CPU; rows are the truth, columns the prediction.
    """

    def __init__(self, n_classes: int, ignore_index: int = 255):
        self.n_classes = n_classes
        self.ignore_index = ignore_index
        self.matrix = torch.zeros(n_classes, n_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count the pixels of a batch of integer labels, of any shape and type; void ones are left out.

        ValueError, and nothing is counted, if shapes differ, a type is not integer or a label is out of range.
        """
        self.matrix += count_pairs(prediction, target, self.n_classes, self.ignore_index)

    def iou(self) -> Tensor:
        """(n,) float64: intersection over union per class, NaN where truth and prediction both lack the class."""
        counts = self.matrix.double()
        hits = counts.diagonal()
        return hits / (counts.sum(0) + counts.sum(1) - hits)  # 0 / 0 = NaN

    def reset(self) -> None:
        """Forget all counts."""
        self.matrix.zero_()

    def merge(self, other: "ConfusionMatrix") -> None:
        """Add the counts of another matrix of the same size (another process's share of the images)."""
        if other.n_classes != self.n_classes:
            raise ValueError(f"cannot merge a confusion matrix of {other.n_classes} classes into {self.n_classes}")
        self.matrix += other.matrix


def count_pairs(prediction: Tensor, target: Tensor, n_classes: int, ignore_index: int) -> Tensor:
    """(n, n) int64 on the CPU: pixels per (true, predicted) pair; see `ConfusionMatrix.update`."""
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
    for name, labels in (("prediction", prediction), ("target", target)):
        if labels.dtype not in INTEGERS:
            raise ValueError(f"{name} has type {labels.dtype}, not an integer type")
    if prediction.numel() == 0:
        return torch.zeros(n_classes, n_classes, dtype=torch.int64)
    for value in _extremes(prediction):
        if not 0 <= value < n_classes:
            raise ValueError(f"prediction holds {value}, not a label of 0..{n_classes - 1}")
    low, high = _extremes(target)
    if low < 0 or high >= 1 << 15:  # an unusual void label (-1, 65535) becomes one more class
        target = torch.where(target == ignore_index, n_classes, target.long())
        ignore_index = n_classes
        low, high = _extremes(target)
    for value in (low, high):
        if not 0 <= value < n_classes and value != ignore_index:
            raise ValueError(f"target holds {value}, not a label of 0..{n_classes - 1} nor void")
    # Void pixels get rows of their own, cut off below: on a CPU, masking them costs more than the counting. Two bytes a
    # pixel hold the pair's number up to 127 classes with void 255.
    rows = max(n_classes, high + 1)
    dtype = torch.int16 if rows * n_classes < 1 << 15 else torch.int64
    pairs = torch.add(prediction.to(dtype), target.to(dtype), alpha=n_classes)
    counts = torch.bincount(pairs.flatten(), minlength=rows * n_classes).view(rows, n_classes).cpu()
    if 0 <= ignore_index < rows:
        counts[ignore_index] = 0
    unknown = counts[n_classes:].sum(1).nonzero()
    if len(unknown):
        raise ValueError(f"target holds {n_classes + int(unknown[0])}, not a label of 0..{n_classes - 1} nor void")
    return counts[:n_classes]


def _extremes(labels: Tensor) -> tuple[int, int]:
    """Smallest and largest label."""
    low, high = labels.aminmax()
    return int(low), int(high)
