"""Stops training when a loss or a weight is lost, before a checkpoint is made of it."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from densecl.errors import RunError

OVERFLOWS = 20  # iterations in a row with a loss beyond fp16 that are no longer an overflow to be skipped
ADVICE = "try a lower training.lr, some training.warmup, or --precision fp32; the last good checkpoint is kept"


class LossGuard:
    """Watches the loss of one step without waiting for the device.

    With fp16 (`scaled`) a loss may overflow for some iterations, which the scaler skips: only a run of them counts.
    """

    def __init__(self, scaled: bool):
        self.limit = OVERFLOWS if scaled else 1
        self._names: tuple[str, ...] = ()  # of the terms; the tensors below are on the device
        self._run: Tensor | None = None  # iterations in a row with a lost loss
        self._first: Tensor | None = None  # the first iteration at the limit, -1 for none
        self._terms: Tensor | None = None  # True for each term that was lost then

    def look(self, loss: Tensor, terms: Mapping[str, Tensor], iteration: int) -> None:
        """Note a loss that is not finite, on the device."""
        lost = ~torch.isfinite(loss.detach())
        self._run = torch.where(lost, self._run + 1, 0) if self._run is not None else lost.long()
        if self._first is None:
            self._first = torch.full_like(self._run, -1)
        now = (self._run >= self.limit) & (self._first < 0)
        self._first = torch.where(now, iteration, self._first)
        flags = torch.stack([~torch.isfinite(term.detach()).all() for term in terms.values()])
        same = self._terms is not None and self._names == tuple(terms)
        self._terms = torch.where(now, flags, self._terms) if same else flags & now  # type: ignore[arg-type]
        self._names = tuple(terms)

    def check_loss(self, where: str) -> None:
        """Wait for the device; RunError if a loss was lost.

        `where` is such as "at step 1, epoch 2, iteration ", to which the message adds iteration and terms.
        """
        if self._first is None or int(self._first) < 0:
            return
        flags = self._terms.tolist() if self._terms is not None else []
        names = [name for name, lost in zip(self._names, flags, strict=False) if lost]
        verb = "is" if len(names) == 1 else "are"
        what = f"{' and '.join(names)} {verb} nan or infinite" if names else "the sum overflows"
        raise RunError(f"the loss is not finite {where}{int(self._first)}: {what}", ADVICE)


def check_weights(parameters: Iterable[Tensor], where: str) -> None:
    """RunError, naming where, if a weight is lost."""
    sums = torch.stack([p.detach().abs().sum() for p in parameters])
    if not torch.isfinite(sums).all():
        raise RunError(f"the weights are not finite after {where}", ADVICE)
