"""Terms that need all of a batch at once, where several processes have a part of it each."""

import torch
from torch import Tensor

from densecl.streams.samples import UNCOUNTED
from densecl.training import distributed
from densecl.training.batch import Batch, sizes


def of_all(batch: Batch, *maps: Tensor) -> tuple[Tensor, ...]:
    """Maps (B, ...) of the whole batch, of which this process's rows keep their gradient; copies are left out.

    A loss computed from them must go through `as_share`.
    """
    if distributed.world() == 1:
        return maps
    counted = batch.index != UNCOUNTED
    return tuple(distributed.gather(values[counted]) for values in maps)


def mean_of_all(mean: Tensor, places: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """A mean over so many places of a process, as its part of the mean over those of all; all places; all images.

    The part is as `as_share` gives it: the loop multiplies it by the share of the process's images.
    """
    own = torch.stack([places.float(), sizes(batch)[1]])
    all_places, images = distributed.total(own * (own[1] > 0))
    part = mean * (own[0] / all_places.clamp(min=1)) * (images / own[1].clamp(min=1))
    return part, all_places, images


def as_share(term: Tensor, batch: Batch) -> Tensor:
    """A term of the whole batch, as a process hands it to the loop, which multiplies it by the share of its images.

    The values of all processes then add up to the term, and their gradients to its gradient.
    """
    if distributed.world() == 1:
        return term
    images = sizes(batch)[1]
    share = images / distributed.total(images)
    value = term.detach()
    return value + (term - value) / share.clamp(min=torch.finfo(share.dtype).tiny)
