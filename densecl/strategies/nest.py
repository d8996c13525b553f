"""NeST: new outputs made from old ones (Xie, Lu, Xiao, Wang, Zhang, Liu, ECCV 2024)."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from densecl.errors import SettingError
from densecl.losses import unbiased_cross_entropy
from densecl.losses.reduction import widen
from densecl.models.network import upsample
from densecl.seeding import derive, generator
from densecl.strategies.base import Plugin, Strategy
from densecl.strategies.tools.composed import ComposedHead, align, alignment, compose, start
from densecl.strategies.tools.rows import require_rows
from densecl.streams.scenario import Experience
from densecl.training import distributed
from densecl.training.batch import sizes
from densecl.training.schedule import make_optimizer, make_schedule

__all__ = ["NeST", "align", "alignment", "compose", "start"]


class NeST(Plugin):
    """Before a step, new rows of the main head are composed of old rows, and what composes them is trained.

    Auxiliary heads start as the strategy starts them.
    """

    first_step = "shared"
    epochs: Annotated[int, Field(ge=1)] = 5  # of that training; 15 on ADE20K
    lr_scale: Annotated[float, Field(gt=0)] = 1.0  # of the step's rate, in that training; 500 on ADE20K
    size: Annotated[int, Field(ge=1)] = 128  # side of the maps on which old outputs and new classes are compared
    fix_heads: bool = False  # True: heads of earlier steps do not train in the step

    def configure(self, strategy: Strategy) -> None:
        """Refuse outputs without background's, or of later steps, and heads whose rows cannot be composed."""
        if strategy.sigmoid or strategy.oracle:
            name = type(strategy).__name__.lower()
            raise SettingError(
                f"nest does not go with {name}, which has outputs of its own", "use mib+nest or plop+nest"
            )
        require_rows(strategy, "nest")

    def before_step(self, strategy: Strategy, experience: Experience) -> None:
        """Make the new rows and biases; background has its earlier bias, whatever the strategy made of it."""
        if strategy.step == 0 or not experience.new_classes:
            return
        weight, bias = (
            torch.cat([getattr(head, name).detach() for head in strategy.teacher.heads.places[0]])
            for name in ("weight", "bias")
        )
        weight = weight.flatten(1)  # (C_old, D)
        scores = self._scores(strategy, weight, experience.new_classes)
        made = ComposedHead(scores, weight, bias, generator(strategy.seed, "nest", strategy.step))
        self._train(strategy, made)
        rows, new_bias, background = made.aligned()
        with torch.no_grad():
            first, newest = strategy.network.heads.places[0][0], strategy.network.heads.places[0][-1]
            newest.weight.copy_(rows.view_as(newest.weight))
            newest.bias.copy_(new_bias)
            first.weight[0].copy_(background.view_as(first.weight[0]))
            first.bias[0].copy_(bias[0])
        for head in strategy.network.heads.earlier() if self.fix_heads else ():
            head.requires_grad_(False)

    def _scores(self, strategy: Strategy, weight: Tensor, classes: Sequence[int]) -> Tensor:
        """(K, C_old, D) means of `alignment` over the pixels of each new class, in one pass of the teacher."""
        sums, pixels = weight.new_zeros(len(classes), *weight.shape), weight.new_zeros(len(classes))
        for batch in strategy.batches("nest"):
            with torch.no_grad(), strategy.loop.precision.autocast():
                seen = strategy.teacher(batch.image, None)
            own = alignment(seen.decoded, seen.coarse, weight, batch.target, classes=classes, size=self.size)
            sums, pixels = sums + own[0], pixels + own[1]
        return distributed.total(sums) / distributed.total(pixels).clamp(min=1).view(-1, 1, 1)

    def _train(self, strategy: Strategy, head: ComposedHead) -> None:
        """Train a head alone by the unbiased cross-entropy (MiB's eq. 5-6); statistics of BatchNorm move."""
        loop, n_old = strategy.loop, 0 if strategy.stream.setting == "sequential" else strategy.n_old
        order = loop.order(lambda keys, _epoch, _iteration: keys, least=distributed.least_share(loop.device))
        parameters = list(head.parameters())
        optimizer = make_optimizer([{"params": parameters, "lr_scale": self.lr_scale}], loop.settings, loop.step)
        schedule = make_schedule(optimizer, loop.settings, self.epochs * len(order))
        loop.train_mode()
        loader = loop.load(order)
        for epoch in range(self.epochs):
            order.set_epoch(derive(loop.seed, "nest training", loop.step, epoch))
            for batch in loader:
                batch = loop.prepared(batch.to(loop.device), loop.task)
                counted = sizes(batch)[1]
                with torch.no_grad(), loop.precision.autocast():
                    decoded = loop.network.backbone(batch.image).decoded
                logits = upsample(head(widen(decoded)), batch.image)
                loss = unbiased_cross_entropy(logits, batch.target, n_old=n_old, normalise="pixels")
                optimizer.zero_grad()
                (loss * (counted / distributed.total(counted))).backward()
                distributed.sum_gradients(parameters)
                optimizer.step()
                schedule.step()
        distributed.average_buffers(loop.network)
