"""Replay of synthetic images: a pool of images, draws from it, composites, and losses."""

import contextlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from densecl.losses import cross_entropy, distillation, unbiased_distillation
from densecl.models.network import Network
from densecl.training.batch import Batch, normalise, weighted

VOID = 255
CHUNK = 64  # images a forward pass
ReplayLoss = Literal["unbiased", "mse", "kl", "pseudo"]
WEIGHTS: dict[str, float] = {"unbiased": 10.0, "mse": 1.0, "kl": 100.0, "pseudo": 1.0}  # when none is given
BatchNormMode = Literal["frozen", "separate", "shared"]


class Pool(NamedTuple):
    """Images to replay, on the training device."""

    images: Tensor  # (N, 3, H, W) uint8; drawn ones normalised
    objects: Tensor  # (N, H, W) bool, True on objects; of drawn ones (n, 1, H, W)


def find_objects(images: Tensor, teacher: Network, mean: Tensor, std: Tensor) -> Tensor:
    """(N, H, W) bool: pixels of uint8 images that the teacher does not give to background."""
    with torch.no_grad():
        return torch.cat([teacher(normalise(part, mean, std)).logits.argmax(1) > 0 for part in images.split(CHUNK)])


def scramble(keys: Tensor) -> Tensor:
    """int64 keys to evenly spread numbers in 0..2^62 (splitmix64, Steele et al., 2014), alike on all devices.

    Draws made from the keys of samples need no generator, do not wait for the device, and are the same however a batch
    is split over parts or processes.
    """
    x = keys * 0x1E3779B97F4A7C15
    for shift, factor in ((30, 0x3F58476D1CE4E5B9), (27, 0x14D049BB133111EB)):
        x = (x ^ (x >> shift)) * factor
    return (x ^ (x >> 31)) & ((1 << 62) - 1)


def draw(pool: Pool, numbers: Tensor, shift: float, mean: Tensor, std: Tensor) -> Pool:
    """One image of the pool for each of `numbers` (n,) of `scramble`, half of them mirrored, rolled at random.

    `shift` is the most that an image is rolled by in each direction, as a share of its height and width.
    """
    height, width = pool.images.shape[-2:]
    chosen, mirrored = numbers % len(pool.images), (numbers >> 20 & 1).bool()
    reach = int(shift * height), int(shift * width)
    down, right = (scramble(numbers + 1 + axis) % (2 * most + 1) - most for axis, most in enumerate(reach))
    rows = (torch.arange(height, device=numbers.device) - down[:, None]) % height  # (n, H)
    columns = torch.arange(width, device=numbers.device)
    columns = (torch.where(mirrored[:, None], width - 1 - columns, columns) - right[:, None]) % width  # (n, W)
    place = chosen[:, None, None], rows[:, :, None], columns[:, None, :]
    images = pool.images.permute(0, 2, 3, 1)[place].permute(0, 3, 1, 2)  # one gather of bytes
    return Pool(normalise(images, mean, std), pool.objects[place].unsqueeze(1))


def real_part(drawn: Pool, numbers: Tensor, share: float) -> Tensor:
    """(n, 1, H, W) bool: pixels of a real image, around the objects of a share of the replayed images."""
    return ((numbers >> 21) % 4096 < share * 4096).view(-1, 1, 1, 1) & ~drawn.objects


def visible_labels(batch: Batch, seen: Tensor) -> tuple[Batch, Tensor]:
    """Repeat a batch to the n images of `seen` (n, 1, H, W), bool, with void where a pixel is not seen.

    The weights of pixels sum to 1 in every image with a labelled pixel in sight. Also returns the share of such images:
    a mean over pixels, times that share, is a sum over images divided by n, however a batch is split.
    """
    copies = len(seen) // len(batch.image)
    shown = batch.map(lambda part: part.repeat(copies, *[1] * (part.ndim - 1)))
    target = shown.target.masked_fill(~seen.squeeze(1), VOID)
    weight = weighted((target != VOID).float(), shown)
    total = weight.sum((1, 2), keepdim=True)
    weight = weight / total.clamp(min=torch.finfo(torch.float32).tiny)
    return shown._replace(target=target, weight=weight), (total > 0).float().mean()


def replay_loss(logits: Tensor, wanted: Tensor, kind: ReplayLoss) -> Tensor:
    """Distance of a network's logits (n, C, H, W) from its teacher's (n, C_old, H, W) on replayed images.

    `unbiased` is MiB's distillation, in which background may be a new class; `kl` the cross-entropy of the old outputs
    alone; `mse` compares their logits, and `pseudo` learns the teacher's labels, background too.
    """
    if kind == "unbiased":
        return unbiased_distillation(logits, wanted)
    if kind == "kl":
        return distillation(logits, wanted)
    if kind == "mse":
        return F.mse_loss(logits[:, : wanted.shape[1]], wanted)
    return cross_entropy(logits, wanted.argmax(1))


@contextlib.contextmanager
def replay_mode(network: nn.Module, bn: BatchNormMode) -> Iterator[None]:
    """Set the statistics by which BatchNorm normalises replayed images.

    `frozen`: the running ones, as in evaluation; `separate`: their own, which are not remembered; `shared`: their own,
    which enter the running statistics of real images.
    """
    before = [(module, module.training) for module in network.modules()]
    norms = [m for m, _ in before if isinstance(m, _BatchNorm) and m.track_running_stats]
    if bn == "frozen":
        network.eval()
    for module in norms if bn == "separate" else ():
        module.train()
        module.track_running_stats = False
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
        for module in norms:
            module.track_running_stats = True
