"""Heads whose channels are not the labels themselves: without background, with an output more, with corrections."""

from collections.abc import Sequence

import torch
from torch import nn

from densecl.models.heads import BuildHead, Heads, pointwise


class ChannelHeads(Heads):
    """Heads of which a step adds modules of any number of channels; `outputs` still counts labels."""

    def __init__(self, channels: int, auxiliary_channels: Sequence[int] = ()):
        super().__init__(channels, auxiliary_channels)
        self.added: list[int] = []  # modules of each step, at every place

    def channels_of(self, outputs: int, first: bool) -> Sequence[int]:
        """Channels of each module that a step of so many labels adds; `first`: the stream's first one."""
        raise NotImplementedError

    def grow(self, outputs: int, build_head: BuildHead | None = None, device: torch.device | str | None = None) -> None:
        """Add a step's modules at every place; see `Heads.grow`."""
        sizes = self.channels_of(outputs, not self.outputs) if outputs else ()
        self.outputs.append(outputs)
        self.added.append(len(sizes))
        for channels, place in zip(self.channels, self._places(), strict=True):
            for size in sizes:
                place.append((build_head or pointwise)(channels, size).to(device).train(self.training))

    def earlier(self) -> list[nn.Module]:
        """The modules of the steps before the newest, at all places."""
        return [module for place in self._places() for module in place[: sum(self.added[:-1])]]


class ClassHeads(ChannelHeads):
    """Heads without an output for background: channel k is label k + 1."""

    def channels_of(self, outputs: int, first: bool) -> Sequence[int]:
        """The first of a stream's labels is background's and gets no channel."""
        return (outputs - first,)


@torch.no_grad()
def start_from(newest: nn.Module, source: nn.Module) -> None:
    """Start a head of any number of outputs as copies of a head of one, statistics included."""
    values = source.state_dict()
    for name, value in newest.state_dict().items():
        value.copy_(values[name].expand_as(value))
