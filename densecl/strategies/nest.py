"""NeST: new outputs made from old ones (Xie, Lu, Xiao, Wang, Zhang, Liu, ECCV 2024)."""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from densecl.errors import SettingError
from densecl.losses import unbiased_cross_entropy
from densecl.losses.reduction import widen
from densecl.models.network import upsample
from densecl.seeding import derive, generator
from densecl.strategies.base import Plugin, Strategy
from densecl.strategies.tools.rows import require_rows
from densecl.streams.scenario import Experience
from densecl.training import distributed
from densecl.training.batch import sizes
from densecl.training.schedule import make_optimizer, make_schedule


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
        weight, classes = weight.flatten(1), experience.new_classes  # (C_old, D)
        sums, pixels = weight.new_zeros(len(classes), *weight.shape), weight.new_zeros(len(classes))
        for batch in strategy.batches("nest"):
            with torch.no_grad(), strategy.loop.precision.autocast():
                seen = strategy.teacher(batch.image)
            own = alignment(seen.decoded, seen.coarse, weight, batch.target, classes=classes, size=self.size)
            sums, pixels = sums + own[0], pixels + own[1]
        maps, shares = start(distributed.total(sums) / distributed.total(pixels).clamp(min=1).view(-1, 1, 1))
        rng, bound = generator(strategy.seed, "nest", strategy.step), weight.shape[1] ** -0.5
        new_bias = torch.tensor(rng.uniform(-bound, bound, len(classes))).to(weight)
        factors, scale = torch.ones_like(weight[0]), weight.new_ones(())
        trained = [maps, shares, new_bias, factors, scale]

        def rows() -> Tensor:  # (C, D), background first
            return torch.cat([scale * factors * weight[:1], weight[1:], compose(shares, maps, weight)])

        self._train(strategy, trained, lambda f: F.conv2d(f, rows()[..., None, None], torch.cat([bias, new_bias])))
        with torch.no_grad():
            made = align(rows()[len(weight) :], new_bias, rows()[0], weight, bias)
            first, newest = strategy.network.heads.places[0][0], strategy.network.heads.places[0][-1]
            newest.weight.copy_(made[0].view_as(newest.weight))
            newest.bias.copy_(made[1])
            first.weight[0].copy_(made[2].view_as(first.weight[0]))
            first.bias[0].copy_(bias[0])
        for head in strategy.network.heads.earlier() if self.fix_heads else ():
            head.requires_grad_(False)

    def _train(self, strategy: Strategy, parameters: list[Tensor], head: Callable[[Tensor], Tensor]) -> None:
        """Train a head's parameters alone by the unbiased cross-entropy; statistics of BatchNorm move."""
        loop, n_old = strategy.loop, 0 if strategy.stream.setting == "sequential" else strategy.n_old
        order = loop.order(lambda keys, _epoch, _iteration: keys, least=distributed.least_share(loop.device))
        groups = [{"params": [p.requires_grad_() for p in parameters], "lr_scale": self.lr_scale}]
        optimizer = make_optimizer(groups, loop.settings, loop.step)
        schedule = make_schedule(optimizer, loop.settings, self.epochs * len(order))
        strategy.train_mode()
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


def alignment(
    features: Tensor, teacher_logits: Tensor, weight: Tensor, target: Tensor, *, classes: Sequence[int], size: int = 128
) -> tuple[Tensor, Tensor]:
    """Sums over the pixels of each class of 1[f_d w_od > 0] softmax(z)_o, and the counts of its pixels.

    Features and logits are brought to size x size bilinearly, labels by the nearest.

    Args:
        features: (B, D, h, w) of the teacher; a constant.
        teacher_logits: (B, C_old, h, w); a constant.
        weight: (C_old, D) rows of the teacher's head; a constant.
        target: (B, H, W) int64; not changed.
        classes: K new labels.
        size: side of the maps.

    Returns:
        (K, C_old, D), and (K,).
    """
    weight = widen(weight.detach())
    sums, pixels = weight.new_zeros(len(classes), *weight.shape), weight.new_zeros(len(classes))
    signs = (weight > 0).to(weight), (weight < 0).to(weight)
    for f, z, y in zip(
        features.detach(), teacher_logits.detach(), target, strict=True
    ):  # one at a time: maps are large
        grown, grown_z = (
            F.interpolate(widen(x[None]).to(weight), size=(size, size), mode="bilinear", align_corners=False)[0]
            for x in (f, z)
        )
        labels, q = F.interpolate(y[None, None].float(), size=(size, size))[0, 0].long(), grown_z.softmax(0)
        for k, label in enumerate(classes):
            place = labels == label
            at, share = grown[:, place], q[:, place]  # (D, n), (C_old, n)
            with torch.autocast(weight.device.type, enabled=False):
                for sign, of_feature in zip(signs, (at > 0, at < 0), strict=True):
                    sums[k] += sign * (share @ of_feature.to(weight).T)
            pixels[k] += place.sum()
    return sums, pixels


def start(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The maps and shares that training begins with: scores (K, C_old, D), and softmax_o of their sums over d."""
    scores = widen(scores)
    return scores.clone(), scores.sum(2).softmax(1)


def compose(shares: Tensor, maps: Tensor, weight: Tensor) -> Tensor:
    """Rows (K, D) of new outputs: sum_o share_ko map_ko * w_o.

    Args:
        shares: (K, C_old).
        maps: (K, C_old, D).
        weight: (C_old, D), a constant.
    """
    maps = widen(maps)
    return (widen(shares).unsqueeze(2) * maps * widen(weight.detach()).to(maps)).sum(1)


def align(
    new_weight: Tensor, new_bias: Tensor, background: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """New rows (K, D), their biases and background's row, rescaled to the norms of the old ones.

    The mean norm of rows becomes that of old rows, the norm of all biases that of the old biases, and the norm of
    background's row what it was. What is 0 stays 0.

    Args:
        new_weight: (K, D).
        new_bias: (K,).
        background: (D,), the row after training.
        weight: (C_old, D) old rows, background's first.
        bias: (C_old,).
    """
    new_weight, new_bias, background, weight, bias = map(widen, (new_weight, new_bias, background, weight, bias))
    rows = _ratio(weight.norm(dim=1).mean(), new_weight.norm(dim=1).mean())
    return (
        new_weight * rows,
        new_bias * _ratio(bias.norm(), new_bias.norm()),
        background * _ratio(weight[0].norm(), background.norm()),
    )


def _ratio(wanted: Tensor, own: Tensor) -> Tensor:
    return wanted / torch.where(own > 0, own, 1)
