"""A network of another code: `load.py:Network`, called with a step, gives a torch module from images to logits."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from densecl.errors import DenseCLError, RunError, SettingError
from densecl.settings.catalogue import file_of, line_of, load_object
from densecl.settings.grammar import parse_one
from densecl.streams.samples import LoadedSample, Normalisation, TestSamples
from densecl.training.batch import normalise


class ForeignNetwork(NamedTuple):
    """A network for each step, as the user names them: `load.py:Network(width=64)`."""

    text: str
    make: Callable[..., Any]
    arguments: dict[str, Any]
    file: Path | None

    def at(self, step: int, device: torch.device) -> nn.Module:
        """The module of a step in evaluation mode; SettingError if the function gives none."""
        module = self._call(lambda: self.make(step, **self.arguments), f"for step {step}")
        if not isinstance(module, nn.Module):
            fault = f"{self.text} gives a {type(module).__name__} for step {step}"
            raise SettingError(fault, "give a torch.nn.Module from normalised images to logits")
        return module.to(device).eval()

    @torch.no_grad()
    def ids(self, module: nn.Module, images: torch.Tensor, where: str) -> np.ndarray:
        """(B, h, w) int64: the channel with the highest logit, of normalised images (B, 3, H, W)."""
        logits = self._call(lambda: module(images), where)
        if not isinstance(logits, torch.Tensor) or logits.ndim != 4 or len(logits) != len(images):
            what = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise SettingError(f"{self.text} {where}: its output is {what}", "give logits (B, C, H, W)")
        if logits.isnan().any():
            raise RunError(f"{self.text} {where}: its logits are not numbers (NaN)")
        return logits.argmax(1).cpu().numpy()

    def _call(self, work: Callable[[], Any], where: str) -> Any:
        """Call the user's code; an error that it raises becomes one line."""
        try:
            return work()
        except Exception as error:
            if isinstance(error, DenseCLError):
                raise
            place = line_of(error, self.file) if self.file else ""
            raise DenseCLError(f"{self.text}{place} {where}: {type(error).__name__}: {error}") from error


def load_network(text: str) -> ForeignNetwork:
    """The function or class that makes the networks; its file is executed, so a person must have typed the name."""
    call = parse_one(text, "network")
    make = load_object(call.name)
    if not callable(make):
        raise SettingError(f"{call.name} is a {type(make).__name__}", "name a function or class that takes the step")
    return ForeignNetwork(call.name, make, dict(call.arguments), file_of(call.name))


def batches(
    samples: TestSamples, positions: Sequence[int], batch: int, workers: int, normalisation: Normalisation
) -> Iterator[tuple[list[LoadedSample], torch.Tensor]]:
    """Test samples of one size together, and their normalised images (B, 3, H, W)."""
    for loaded in DataLoader(Subset(samples, [*positions]), batch_size=batch, collate_fn=list, num_workers=workers):
        sizes: dict[tuple[int, ...], list[LoadedSample]] = {}
        for sample in loaded:
            sizes.setdefault(tuple(sample.target.shape), []).append(sample)
        for group in sizes.values():
            yield group, normalise(torch.stack([sample.image for sample in group]), *normalisation)
