"""DeepInversion: images that a network takes for its classes, from the network alone.

Each iteration has one forward pass of jittered, perhaps mirrored images; the loss is

    class loss of pooled logits + BatchNorm distance + priors + competition * (1 - JS(teacher, student))

and its gradient goes to the images only: weights ask for none while a batch is made.
"""

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
from densecl.optimizers import Adam
from densecl.seeding import derive, generator

TINY = 1e-12  # below it a square root has no gradient
KEEP_EVERY = 30.0  # seconds between states that an interrupted batch goes on from
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

State = Mapping[str, Tensor]


class Range(NamedTuple):
    """Normalised values of black and of white, (3, 1, 1) each."""

    low: Tensor
    high: Tensor


class Made(NamedTuple):
    """The best images (B, 3, H, W), normalised, and their losses (B,)."""

    images: Tensor
    losses: Tensor


class Job(NamedTuple):
    """One batch to be made."""

    targets: Tensor  # (B, C) bool, of this process
    size: tuple[int, int]  # (height, width)
    seed: int  # of noise, jitter and flips, the same in all processes, but for `start`
    valid: Range  # that images are clipped to
    start: Tensor | None = None  # (B, 3, H, W) to begin with; None draws noise


def pixel_range(mean: Tensor, std: Tensor) -> Range:
    """Normalised black and white: (0 - mean) / std and (1 - mean) / std."""
    return Range(-mean / std, (1 - mean) / std)


def coarse_logits(network: Network, images: Tensor, stride: int) -> Tensor:
    """Logits (B, C, ~H / stride, ~W / stride), pooled from the resolution of the features."""
    logits = network.heads(network.backbone(images).decoded)[0]
    factor = max(1, round(stride * logits.shape[-2] / images.shape[-2]))
    return F.avg_pool2d(logits, factor, ceil_mode=True) if factor > 1 else logits


def class_loss(pooled: Tensor, targets: Tensor, objective: str) -> Tensor:
    """The loss (B,) of pooled scores (B, C) against the wanted classes (B, C) bool."""
    wanted = targets.to(pooled.dtype)
    if objective == "sigmoid":
        return F.binary_cross_entropy_with_logits(pooled[:, 1:], wanted[:, 1:], reduction="none").sum(1)
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

    Of each image the version with the lowest loss at full resolution is returned, as it was when its loss was
    measured. Losses of the whole batch (statistics, TV-l2) count alike for all its images.

    Args:
        teacher: the network; left as it was found.
        job: the batch.
        settings: of the synthesis.
        student: a network that the images shall confuse, with at least the teacher's outputs.
        device: of the teacher.
        reduce: sums a tensor over the processes that share the batch, so that statistics are of all its images.
        kept: a state to go on from.
        keep: is handed a state now and then.
        progress: hears the number of iterations done.

    Raises:
        SettingError: the network has no BatchNorm with running statistics.
        RunError: the loss is not finite.
    """
    rows, targets = len(job.targets), job.targets.to(device)
    valid = Range(*(v.to(device) for v in job.valid))
    x = _start(job, settings.init).to(device)
    if settings.clip and settings.clip_start:
        x = x.clamp(valid.low, valid.high)
    best, losses = x.clone(), torch.full((rows,), math.inf, device=device)
    rows_of_all = rows if reduce is None else int(reduce(torch.tensor(float(rows), device=device)))
    networks = [_frozen(teacher), *([] if student is None else [_frozen(student)])]
    loss = Loss(networks, targets, settings, rows_of_all, reduce)
    with loss.statistics:
        done, kept_at = 0, time.monotonic()
        for factor, iterations in settings.stages():
            x.requires_grad_()
            optimizer = Adam([x], lr=settings.lr, betas=settings.betas)
            scaler = torch.amp.GradScaler("cuda") if settings.precision == "fp16" else None
            if kept is not None and done + iterations <= int(kept["done"]):
                done += iterations
                continue
            first = 0
            if kept is not None:
                first, kept = int(kept["done"]) - done, _restore(kept, x, optimizer, best, losses)
            for i in range(first, iterations):
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr * _factor(i, iterations, settings.warmup, settings.schedule)
                beta = generator(job.seed, "beta", done + i).random() if settings.random_beta else settings.beta
                own, common = loss(_view(x, factor, settings, generator(job.seed, "view", done + i)), beta)
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
    """The loss of a batch of images in two parts: of each image (B,), and of the whole batch.

    The networks are the teacher and, where there is one, the student.
    """

    def __init__(self, networks: list[Network], targets: Tensor, settings: Inversion, rows: int, reduce: Reduce | None):
        self.networks, self.targets, self.settings = networks, targets, settings
        self.share, self.reduce = len(targets) / rows, reduce
        self.statistics = BatchStatistics(networks[0])
        self.divergence = jensen_shannon if settings.divergence == "js" else legacy_divergence

    def __call__(self, images: Tensor, beta: float = 0.0) -> tuple[Tensor, Tensor]:
        """The losses of normalised images (B, 3, H, W), with a `beta` of the pooling."""
        s = self.settings
        self.statistics.clear()
        logits = self._logits(0, images)
        pooled = lse_lba_pool(logits, s.r0, beta)
        own = s.classification * class_loss(pooled, self.targets, s.objective)
        if s.tv_l1:
            own = own + s.tv_l1 * total_variation_l1(images)
        if s.l2:
            own = own + s.l2 * l2_norm(images)
        if s.competition and len(self.networks) > 1:
            other = self._logits(1, images)[:, : logits.shape[1]]
            pair = (logits, other) if s.compete == "places" else (pooled, lse_lba_pool(other, s.r0, beta))
            own = own + s.competition * (1 - self.divergence(*pair))
        common = images.new_zeros(())
        if s.statistics:
            common = common + s.statistics * self.statistics.distance(s.first, self.share, self.reduce)
        if s.tv_l2:
            energies = variation_energies(images)
            if self.reduce is not None:  # the others' energy is a constant here
                energies = energies + (self.reduce(energies.detach()) - energies.detach())
            common = common + s.tv_l2 * (energies + TINY).sqrt().sum()
        return own, common

    def _logits(self, number: int, images: Tensor) -> Tensor:
        """Logits of a network under the precision of the settings."""
        kind = TYPES.get(self.settings.precision)
        with torch.autocast(images.device.type, dtype=kind, enabled=kind is not None):
            return coarse_logits(self.networks[number], images, self.settings.stride).float()


def _start(job: Job, std: float) -> Tensor:
    """Noise drawn on the CPU, so that all devices start alike."""
    if job.start is not None:
        return job.start.clone()
    rng = torch.Generator().manual_seed(derive(job.seed, "noise"))
    return torch.randn((len(job.targets), 3, *job.size), generator=rng).mul_(std)


def _factor(i: int, iterations: int, warmup: int, schedule: str) -> float:
    """The factor of the learning rate: linear warm-up, times cosine to 0 or followed by it."""
    warmup = min(warmup, iterations // 2)
    ramp = min(1.0, (i + 1) / warmup) if warmup else 1.0
    if schedule == "sequence":
        i, iterations = max(0, i - warmup), iterations - warmup
    return ramp * 0.5 * (1 + math.cos(math.pi * i / iterations))


def _view(x: Tensor, factor: int, settings: Inversion, rng: np.random.Generator) -> Tensor:
    """The images that the networks see in one iteration: shrunk, rolled, mirrored."""
    images = F.avg_pool2d(x, factor) if factor > 1 else x
    images = images.contiguous(memory_format=torch.channels_last)
    jitter = settings.jitter // factor
    down, right = (int(n) for n in rng.integers(-jitter, jitter + 1, 2))
    if down or right:
        images = torch.roll(images, (down, right), (2, 3))
    return images.flip(3) if settings.flip and rng.random() < 0.5 else images


@torch.no_grad()
def _keep_better(best: Tensor, losses: Tensor, x: Tensor, own: Tensor, common: Tensor) -> None:
    """Keep the images whose loss is lower than before; one that is not finite never is."""
    now = (own + common).detach()
    better = now < losses
    torch.where(better.view(-1, 1, 1, 1), x, best, out=best)
    torch.where(better, now, losses, out=losses)


def _frozen(network: Network) -> Network:
    """A copy in evaluation mode without gradients of weights, in the memory format that is then faster."""
    return copy.deepcopy(network).eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _state(x: Tensor, optimizer: torch.optim.Optimizer, best: Tensor, losses: Tensor, done: int) -> State:
    memory = optimizer.state[x]
    moments = {name: memory[name] for name in ("step", "exp_avg", "exp_avg_sq")}
    return {"x": x.detach(), "best": best, "losses": losses, "done": torch.tensor(done), **moments}


def _restore(kept: State, x: Tensor, optimizer: torch.optim.Optimizer, best: Tensor, losses: Tensor) -> None:
    """Take over a state; returns None, the state that is left."""
    with torch.no_grad():
        x.copy_(kept["x"])
        best.copy_(kept["best"])
        losses.copy_(kept["losses"])
    moments = {name: kept[name].to(x.device) for name in ("exp_avg", "exp_avg_sq")}
    optimizer.state[x] = {**moments, "step": kept["step"]}
