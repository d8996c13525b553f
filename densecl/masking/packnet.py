"""PackNet: tasks share the weights of a network among themselves (Mallya & Lazebnik, CVPR 2018, section 3).

    add_owners(network)
    begin(network)                       # the next task trains all weights that nobody owns
    ...                                  # train the network's parameters, with any optimiser and weight decay
    prune(network, 0.5)                  # the smallest half of each layer is given up
    ...                                  # train on: the rest
    finish(network)
    select(network, 1)                   # the network as task 1 left it: weights with 0 < owner <= 1

Nothing is overwritten along the way: what an optimiser does to weights of other tasks (weight decay, momentum) never
shows, and is undone by `finish`.
"""

from collections.abc import Collection
from enum import IntEnum

import torch
from torch import Tensor, nn

from densecl.errors import SettingError, UnknownNameError
from densecl.masking.bits import bits_for, bits_in, multiply, pack
from densecl.masking.parametrized import HEADS, Key, WeightView, add_views, fix_layers, make_room, views


class Phase(IntEnum):
    """Progress of the latest task."""

    FINISHED = 0
    TRAINING = 1  # all free weights are its own for now
    RETRAINING = 2  # some are given up


class OwnedWeight(WeightView):
    """The owner of each weight of a layer: 0 nobody, k the k-th task.

    In a state dict: `owner`, packed into ceil(log2(tasks + 1)) bits a weight; `progress` (task, phase); and `kept`, the
    weights of earlier tasks, while a task is learnt.
    """

    def __init__(self, shape: torch.Size):
        super().__init__(shape)
        self.active: int | None = None  # the task whose weights are seen; None: all weights
        self.task, self.phase = 0, Phase.FINISHED  # of the latest task, 0 before the first
        self._trainable: Tensor | None = None
        self.register_buffer("owner", pack(torch.zeros(shape, dtype=torch.bool)))
        self.register_buffer("progress", torch.zeros(2, dtype=torch.int64))

    def owners(self) -> Tensor:
        """The owner of each weight, uint8 of the weight's shape."""
        return self.unpacked("owner").to(torch.uint8)

    def trainable(self) -> Tensor:
        """True where the task being learnt may change the weight: bool of the weight's shape."""
        if self._trainable is None:
            self._trainable = self.owners() == (0 if self.phase == Phase.TRAINING else self.task)
        return self._trainable

    def put(self, owners: Tensor, task: int, phase: Phase) -> None:
        """Take over an ownership map."""
        self.task, self.phase, self._trainable = task, phase, None
        self.owner = pack(owners, bits_for(task + 1))
        self.progress = torch.tensor([task, phase], device=owners.device)

    def begin(self, weight: Tensor) -> None:
        """Let the next task train what nobody owns."""
        owners = self.owners()
        self.register_buffer("kept", weight.detach() * (owners > 0))
        self.put(owners, self.task + 1, Phase.TRAINING)
        self.active = self.task

    def prune(self, weight: Tensor, share: float) -> None:
        """Give up the smallest of the task's own weights."""
        own = self.trainable()
        survivors = own & ~smallest(weight.detach().abs(), own, share)
        self.put(torch.where(survivors, self.task, self.owners()).to(torch.uint8), self.task, Phase.RETRAINING)

    def finish(self, weight: Tensor) -> None:
        """Make the task's weights final; it owns those that it did not give up."""
        own = self.trainable()
        with torch.no_grad():
            weight.copy_(self.combined(weight))
        self.put(torch.where(own, self.task, self.owners()).to(torch.uint8), self.task, Phase.FINISHED)
        del self.kept

    def combined(self, weight: Tensor) -> Tensor:
        """`weight` where it may change; elsewhere the values of earlier tasks, without gradient."""
        return weight * self.trainable() + self.buffer("kept")  # exact: one of both is 0. `where` is far slower

    def forward(self, weight: Tensor) -> Tensor:
        """The weight as the active task sees it; while it is learnt, with a gradient where it may change."""
        if self.active is None:
            return weight
        if self.phase != Phase.FINISHED and self.active == self.task:
            return self.combined(weight)
        return self.shown(weight)

    def view_key(self) -> Key:
        """See `WeightView`."""
        owner = self.buffer("owner")
        return (self.active, self.phase, owner._version, owner.data_ptr())

    def compose(self, weight: Tensor, out: Tensor | None) -> Tensor:
        """See `WeightView`."""
        assert self.active is not None
        packed = self.buffer("owner")
        own = [int(0 < owner <= self.active) for owner in range(1 << bits_in(packed, self.shape.numel()))]
        return multiply(packed, weight if self.phase == Phase.FINISHED else self.buffer("kept"), own, out)

    def adopt(self, tensors: dict[str, Tensor]) -> None:
        """See `WeightView`."""
        if "progress" in tensors:
            task, phase = tensors["progress"].tolist()
            if self.active == self.task:
                self.active = task
            self.task, self.phase, self._trainable = task, Phase(phase), None
        if "owner" in tensors:
            make_room(self, tensors, self._place.device)

    def __getstate__(self):
        """See `WeightView`."""
        return {**super().__getstate__(), "_trainable": None}


def smallest(magnitude: Tensor, among: Tensor, share: float) -> Tensor:
    """True for the round(share * n) smallest of the n weights in `among`; of equal ones the first are chosen."""
    values = magnitude[among]
    count = round(share * values.numel())
    chosen = torch.zeros_like(among)
    if count == 0:
        return chosen
    cut = values.cpu().kthvalue(count).values.to(values.device)
    picked = values < cut
    equal = values == cut
    picked |= equal & (equal.cumsum(0) <= count - picked.sum())
    chosen[among] = picked
    return chosen


def add_owners(network: nn.Module, skip: Collection[str] = HEADS) -> None:
    """Let the weights outside `skip` be owned; the network works as before until a task begins."""
    add_views(network, OwnedWeight, skip, "share")


def begin(network: nn.Module) -> int:
    """Start the next task and return its number, from 1.

    It sees all weights and trains those nobody owns; from the second task on biases are fixed.
    """
    layers = list(views(network, OwnedWeight))
    first = layers[0][2]
    if first.phase != Phase.FINISHED:
        raise SettingError(f"task {first.task} has not been finished")
    if all(bool((view.owners() > 0).all()) for _, _, view in layers):
        raise SettingError("no weight is left for another task", "prune more, or share a wider network")
    for _, weight, view in layers:
        view.begin(weight)
    if first.task > 1:
        fix_layers(network, OwnedWeight, weights=False)
    return first.task


def prune(network: nn.Module, share: float) -> None:
    """Give up a share of the task's own weights, the smallest of each layer, once.

    In Piggyback's comparison the share is 0.5 for the first task and 0.75 later.
    """
    if not 0 <= share < 1:
        raise SettingError(f"prune={share} is no share", "give 0 <= prune < 1")
    for _, weight, view in views(network, OwnedWeight):
        if view.phase != Phase.TRAINING:
            raise SettingError("there is no task to prune", "begin one; each is pruned once")
        view.prune(weight, share)


def finish(network: nn.Module) -> None:
    """Make the task's weights final; not pruned, it owns all that was free."""
    for _, weight, view in views(network, OwnedWeight):
        if view.phase == Phase.FINISHED:
            raise SettingError("there is no task to finish", "begin one")
        view.finish(weight)


def phase(network: nn.Module) -> Phase:
    """Progress of the latest task; a task that is not finished may have been pruned."""
    return next(views(network, OwnedWeight))[2].phase


def trained(network: nn.Module) -> list[Tensor]:
    """The whole weights that tasks share, for an optimiser."""
    return [weight for _, weight, _ in views(network, OwnedWeight)]


def select(network: nn.Module, task: int | None) -> None:
    """Show the weights of a task that was learnt, from 1, or all weights for None."""
    for _, weight, view in views(network, OwnedWeight):
        if task is not None and not 1 <= task <= view.task:
            raise UnknownNameError("task", str(task), map(str, range(1, view.task + 1)), "it was never learnt")
        view.active = task
        if task is not None and (view.phase == Phase.FINISHED or task < view.task):
            view.shown(weight)


def owners(network: nn.Module) -> dict[str, Tensor]:
    """The owner of each weight, uint8, by the names of the weights."""
    return {name: view.owners() for name, _, view in views(network, OwnedWeight)}
