# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""A user's file, as type checkers see it: `pyright` reads it in `make check`, and `mypy --strict` accepts it too."""

from typing import Any

from torch import Tensor, nn

import densecl
from densecl.models import Backbone, Features


class Mine(densecl.Strategy):
    """A method."""

    weight: float = 1.0

    def pixel_loss(self, logits: Tensor, batch: densecl.Batch) -> Tensor:
        """Weigh the supervised loss."""
        return self.weight * super().pixel_loss(logits, batch)


class Small(Backbone):
    """A backbone."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.channels = width
        self.layer = nn.Conv2d(3, width, 3, padding=1)

    def forward(self, image: Tensor) -> Features:
        """Features of an image batch (B, 3, H, W)."""
        features: Tensor = self.layer(image)
        return Features(features, (features,))


def run_all() -> list[float]:
    """Call what is public, with objects and with names."""
    densecl.run("voc15-5", "mib+replay(memory=20)", backbone="unet(width=8)", seed=1, output="results")
    densecl.run("voc15-5", Mine, backbone=Small, precision="bf16")
    record = densecl.run("voc15-5", Mine(weight=2.0), backbone=nn.Conv2d(3, 8, 1), quiet=False)
    densecl.run("voc15-5", Mine, sead=1)  # type: ignore[call-arg]
    densecl.run("voc15-5", Mine, precision="fp8")  # type: ignore[arg-type]
    benchmark = densecl.benchmark("voc15-5", seed=1)
    densecl.benchmark("voc15-5", sede=1)  # type: ignore[call-arg]
    scores: list[dict[str, Any]] = []
    network = nn.Conv2d(3, 21, 1)
    for experience in benchmark.train_stream:
        for batch in experience.loader():
            loss: Tensor = network(batch.image).sum()
            loss.backward()  # type: ignore[no-untyped-call]
        scores.append(benchmark.evaluate(network, experience.step, before=scores))
    for table in densecl.table("results", sort="all"):
        print(table, [row.strategy for row in table.rows])
    found: list[float] = [step.seconds for kept in densecl.records("results") for step in kept.steps]
    return [record.steps[-1].seconds, *found]
