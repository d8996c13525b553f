"""DeepInversion: images a network takes for its classes, from the network alone.

Per iteration one forward pass of jittered, perhaps mirrored images; the loss is

    class loss of pooled logits + BatchNorm distance + priors + competition * (1 - JS(teacher, student))

and its gradient goes to the images only: weights ask for none while a batch is made.
"""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.errors import RunError
from densecl.inversion.competition import jensen_shannon, legacy_divergence
from densecl.inversion.pooling import lse_lba_pool
from densecl.inversion.priors import l2_norm, total_variation_l1, variation_energies
from densecl.inversion.settings import Inversion
from densecl.inversion.statistics import BatchStatistics, Reduce
from densecl.models.network import Network
from densecl.seeding import derive, generator

TINY = 1e-12  # below it a square root has no gradient
KEEP_EVERY = 30.0  # seconds between states that an interrupted batch goes on from
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

State = Mapping[str, Tensor]
Divergence = Callable[[Tensor, Tensor], Tensor]


class Range(NamedTuple):
    """Normalised values of black and white, (3, 1, 1) each."""

    low: Tensor
    high: Tensor


class Made(NamedTuple):
    """The best images (B, 3, H, W), normalised, and the loss each was kept for (B,)."""

    images: Tensor
    losses: Tensor


class Job(NamedTuple):
    """One batch to be made.

    Attributes:
        targets: (B, C) bool, of this process. size: (height, width). seed: of noise, jitter and flips, the same in all
            processes, but for `start`.
        start: (B, 3, H, W) to begin with; None draws noise. valid: the range that images are clipped to.
    """

    targets: Tensor
    size: tuple[int, int]
    seed: int
    valid: Range
    start: Tensor | None = None


def pixel_range(mean: Tensor, std: Tensor) -> Range:
    """What black and white become: (0 - mean) / std and (1 - mean) / std."""
    return Range(-mean / std, (1 - mean) / std)


def coarse_logits(network: Network, images: Tensor, stride: int) -> Tensor:
    """Logits (B, C, ~H / stride, ~W / stride), from the features' resolution; none are made at the images'."""
    logits = network.heads(network.backbone(images).decoded)[0]
    factor = max(1, round(stride * logits.shape[-2] / images.shape[-2]))
    return F.avg_pool2d(logits, factor, ceil_mode=True) if factor > 1 else logits


def class_loss(pooled: Tensor, targets: Tensor, objective: str) -> Tensor:
    """(B,): how far pooled scores (B, C) are from showing just the wanted classes (B, C) bool."""
    wanted = targets.to(pooled.dtype)
    if objective == "sigmoid":
        losses = F.binary_cross_entropy_with_logits(pooled[:, 1:], wanted[:, 1:], reduction="none")
        return losses.sum(1)
    if objective == "foreground":
        pooled, wanted = pooled[:, 1:], wanted[:, 1:]
    return -(wanted * pooled.log_softmax(1)).sum(1) / wanted.sum(1)


def synthesise(
    teacher: Network,
    job: Job,
    settings: Inversion,
    *,
    student: Network | None = None,
    device: torch.device | str = "cpu",
    reduce: Reduce | None = None,
    kept: State | None = None,
    keep: Callable[[State], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Made:
    """Make one batch of images.

    Of each image the version with the lowest loss is returned, among those at full resolution, as it was when its loss
    was measured. What the batch has in common (statistics, TV-l2) counts alike for all its images.

    Args:
        teacher: the network; left as it was found.
        job: what is wanted.
        settings: how.
        student: whom the images shall confuse, with at least the teacher's outputs.
        device: where the teacher is.
        reduce: sums a tensor over the processes that share the batch, so that statistics are of all its images.
        kept: a state to go on from.
        keep: is handed states now and then.
        progress: hears of iterations done.

    Raises:
        SettingError: the network has no BatchNorm with running statistics.
        RunError: the loss is not finite.
    """
    rows, targets = len(job.targets), job.targets.to(device)
    valid = Range(*(v.to(device) for v in job.valid))
    x = _start(job, settings.init).to(device)
    if settings.clip:
        x = x.clamp(valid.low, valid.high)
    best, losses = x.clone(), torch.full((rows,), math.inf, device=device)
    rows_of_all = rows if reduce is None else int(reduce(torch.tensor(float(rows), device=device)))
    frozen = _frozen(teacher)
    assert frozen is not None
    loss = Loss(frozen, _frozen(student), targets, settings, rows_of_all, reduce)
    with loss.statistics:
        done, kept_at = 0, time.monotonic()
        for factor, iterations in settings.stages():
            x.requires_grad_()
            optimizer = torch.optim.Adam([x], lr=settings.lr, betas=settings.betas)
            scaler = torch.amp.GradScaler("cuda") if settings.precision == "fp16" else None
            if kept is not None and done + iterations <= int(kept["done"]):
                done += iterations
                continue
            first = 0
            if kept is not None:
                first, kept = int(kept["done"]) - done, _restore(kept, x, optimizer, best, losses)
            for i in range(first, iterations):
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr * _factor(i, iterations, settings.warmup)
                own, common = loss(_view(x, factor, settings, generator(job.seed, "view", done + i)))
                if factor == 1:
                    _keep_better(best, losses, x, own, common)
                total = own.sum() / rows_of_all + common
                (x.grad,) = torch.autograd.grad(total if scaler is None else scaler.scale(total), x)
                if scaler is None:
                    optimizer.step()
                else:
                    scaler.step(optimizer)
                    scaler.update()
                if settings.clip:
                    with torch.no_grad():
                        x.clamp_(valid.low, valid.high)
                if progress is not None:
                    progress(done + i + 1)
                if keep is not None and time.monotonic() - kept_at > KEEP_EVERY:
                    keep(_state(x, optimizer, best, losses, done + i + 1))
                    kept_at = time.monotonic()
            done += iterations
    if not torch.isfinite(losses).all():
        raise RunError("the loss of synthetic images is not finite", "lower the plugin's lr, or use precision=fp32")
    return Made(best.detach(), losses)


class Loss:
    """The loss of a batch of images in two parts: of each image (B,), and of all in common."""

    def __init__(
        self,
        teacher: Network,
        student: Network | None,
        targets: Tensor,
        settings: Inversion,
        rows: int,
        reduce: Reduce | None,
    ):
        self.teacher, self.student, self.targets, self.settings = teacher, student, targets, settings
        self.share, self.reduce = len(targets) / rows, reduce
        self.statistics = BatchStatistics(teacher)
        self.divergence: Divergence = jensen_shannon if settings.divergence == "js" else legacy_divergence

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The losses of normalised images (B, 3, H, W)."""
        s = self.settings
        self.statistics.clear()
        with self._autocast(images):
            logits = coarse_logits(self.teacher, images, s.stride).float()
        pooled = lse_lba_pool(logits, s.r0, s.beta)
        own = s.classification * class_loss(pooled, self.targets, s.objective)
        if s.tv_l1:
            own = own + s.tv_l1 * total_variation_l1(images)
        if s.l2:
            own = own + s.l2 * l2_norm(images)
        if s.competition and self.student is not None:
            with self._autocast(images):
                other = coarse_logits(self.student, images, s.stride).float()
            own = own + s.competition * (1 - self.divergence(logits, other[:, : logits.shape[1]]))
        common = images.new_zeros(())
        if s.statistics:
            common = common + s.statistics * self.statistics.distance(s.first, self.share, self.reduce)
        if s.tv_l2:
            energies = variation_energies(images)
            if self.reduce is not None:  # the others' energy is a constant here
                energies = energies + (self.reduce(energies.detach()) - energies.detach())
            common = common + s.tv_l2 * (energies + TINY).sqrt().sum()
        return own, common

    def _autocast(self, images: Tensor) -> contextlib.AbstractContextManager[object]:
        name = self.settings.precision
        return contextlib.nullcontext() if name == "fp32" else torch.autocast(images.device.type, dtype=TYPES[name])


def _start(job: Job, std: float) -> Tensor:
    """Noise drawn on the CPU, so that all devices start alike."""
    if job.start is not None:
        return job.start.clone()
    rng = torch.Generator().manual_seed(derive(job.seed, "noise"))
    return torch.randn((len(job.targets), 3, *job.size), generator=rng).mul_(std)


def _factor(i: int, iterations: int, warmup: int) -> float:
    """Of the learning rate: linear warm-up times cosine to 0."""
    warmup = min(warmup, iterations // 2)
    ramp = min(1.0, (i + 1) / warmup) if warmup else 1.0
    return ramp * 0.5 * (1 + math.cos(math.pi * i / iterations))


def _view(x: Tensor, factor: int, settings: Inversion, rng: np.random.Generator) -> Tensor:
    """The images as the networks see them in one iteration: shrunk, rolled, mirrored."""
    images = F.avg_pool2d(x, factor) if factor > 1 else x
    images = images.contiguous(memory_format=torch.channels_last)
    jitter = settings.jitter // factor
    down, right = (int(n) for n in rng.integers(-jitter, jitter + 1, 2))
    if down or right:
        images = torch.roll(images, (down, right), (2, 3))
    return images.flip(3) if settings.flip and rng.random() < 0.5 else images


@torch.no_grad()
def _keep_better(best: Tensor, losses: Tensor, x: Tensor, own: Tensor, common: Tensor) -> None:
    """Keep the images as they are where they are better than what was kept; a loss that is not finite never is."""
    now = (own + common).detach()
    better = now < losses
    torch.where(better.view(-1, 1, 1, 1), x, best, out=best)
    torch.where(better, now, losses, out=losses)


def _frozen(network: Network | None) -> Network | None:
    """A copy in evaluation mode whose weights ask for no gradient, in the memory format that is faster without them."""
    if network is None:
        return None
    return copy.deepcopy(network).eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _state(x: Tensor, optimizer: torch.optim.Optimizer, best: Tensor, losses: Tensor, done: int) -> State:
    memory = optimizer.state[x]
    moments = {name: memory[name] for name in ("step", "exp_avg", "exp_avg_sq")}
    return {"x": x.detach(), "best": best, "losses": losses, "done": torch.tensor(done), **moments}


def _restore(kept: State, x: Tensor, optimizer: torch.optim.Optimizer, best: Tensor, losses: Tensor) -> None:
    """Take over a state; returns None, as it is used up."""
    with torch.no_grad():
        x.copy_(kept["x"])
        best.copy_(kept["best"])
        losses.copy_(kept["losses"])
    moments = {name: kept[name].to(x.device) for name in ("exp_avg", "exp_avg_sq")}
    optimizer.state[x] = {**moments, "step": kept["step"]}
