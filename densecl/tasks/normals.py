"""Surface normals: a unit vector a pixel; 1 - mean dot product where the truth is known."""

import math
from typing import TYPE_CHECKING

from densecl.data.geometry import Geometry
from densecl.tasks.base import Picture, Prepared, Task, truth_or_nothing

if TYPE_CHECKING:
    from torch import Tensor

    from densecl.metrics.geometry import NormalMetrics
    from densecl.training.batch import Batch


class Normals(Task):
    """Three outputs, made a unit vector: x to the right, y up, z to the viewer. A vector of 0 is none.

    Angles are those of all known pixels of all test images together: mean, median (to 0.01 degrees), and the shares
    below 11.25, 22.5 and 30 degrees (Eigen and Fergus, ICCV 2015).
    """

    kind = "normals"
    primary = "angle"
    higher_is_better = False
    measures = ("angle", "median", "within_11.25", "within_22.5", "within_30")
    truth = "normals"
    outputs = 3

    def geometry(self) -> Geometry:
        """Mirrored and turned vectors."""
        return NormalGeometry()

    def prepare(self, image: "Tensor", mask: "Tensor") -> Prepared:
        """The image as it is, and its normals (B, 3, H, W) of length 1, with a weight of 0 where they are not known."""
        from torch.nn.functional import normalize

        from densecl.losses.images import known

        normals = normalize(truth_or_nothing(mask, 3), dim=1)  # files of 8 bits hold lengths near 1
        return Prepared(image, normals, known(normals).float())

    def predicted(self, logits: "Tensor") -> "Tensor":
        """Unit vectors (B, 3, H, W), in at least float32."""
        from torch.nn.functional import normalize

        from densecl.losses.reduction import widen

        return normalize(widen(logits), dim=1)

    def loss(self, logits: "Tensor", batch: "Batch") -> "Tensor":
        """Mean cosine distance over known pixels."""
        from densecl.losses.images import cosine_distance

        return cosine_distance(self.predicted(logits), batch.target, weight=batch.weight)

    def distillation(self, logits: "Tensor", teacher_logits: "Tensor") -> "Tensor":
        """Mean cosine distance to the teacher's normals."""
        from densecl.losses.images import cosine_distance

        return cosine_distance(self.predicted(logits), self.predicted(teacher_logits))

    def metrics(self) -> "NormalMetrics":
        """Sums over pixels."""
        from densecl.metrics.geometry import NormalMetrics

        return NormalMetrics()

    def picture(self, image: "Tensor", output: "Tensor", mask: "Tensor") -> Picture:
        """Normals as RGB, (n + 1) / 2 of each component; black where the truth is not known."""
        from densecl.metrics.colour import to_uint8

        truth = self.prepare(image[None], mask[None])
        assert truth.weight is not None
        shown = to_uint8((self.predicted(output[None])[0] + 1) * 127.5)
        return Picture(image, shown, (to_uint8((truth.target[0] + 1) * 127.5) * (truth.weight > 0)))


class NormalGeometry(Geometry):
    """Of vectors (3, H, W), x to the right and y up."""

    fill = 0.0

    def mirrored(self, truth: "Tensor") -> "Tensor":
        """Mirror the normals with the image: those to the right point to the left."""
        return truth * truth.new_tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)

    def turned(self, truth: "Tensor", degrees: float) -> "Tensor":
        """Turned about the optical axis with the image."""
        import torch

        sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        x, y, z = truth.unbind(0)
        return torch.stack([cosine * x - sine * y, sine * x + cosine * y, z])
