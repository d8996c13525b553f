"""DeepInversion's synthesis against its reference form: images times iterations a second, in turn in one process."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bench.rows import SPEED, Bench, Form, Goal, Row
from densecl.inversion import Inversion, Job, choose_targets, lse_lba_pool, pixel_range, synthesise
from densecl.inversion.priors import l2_norm, variation_energies
from densecl.models.network import Network
from densecl.settings.backbone import build_backbone

SMALL = {"iterations": 2, "batch": 15, "size": 16}
BACKBONE: dict[str, Any] = {
    "encoder": "mini",
    "weights": "none",
    "width": 128,
    "spatial": (24, 48),
    "spatial_width": 64,
    "context_width": 64,
    "fusion": 1,
    "auxiliary": False,
}


class ReferenceHook:
    """Statistics as the published code has them: the mean, then the variance of a transposed, contiguous copy."""

    def __init__(self, layer: nn.BatchNorm2d):
        self.distance = torch.zeros(())
        self.handle = layer.register_forward_hook(self._look)

    def _look(self, layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        x = inputs[0]
        mean = x.mean([0, 2, 3])
        variance = x.permute(1, 0, 2, 3).contiguous().view(x.shape[1], -1).var(1, unbiased=False)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        self.distance = (layer.running_var - variance).norm(2) + (layer.running_mean - mean).norm(2)


def reference_loss(network: Network, hooks: list[ReferenceHook], images: Tensor, targets: Tensor) -> Tensor:
    """The loss of the default settings: logits at the images' resolution, pooled there, and the hooks' distances."""
    s = Inversion()
    pooled = lse_lba_pool(network(images).logits, s.r0, s.beta)
    wanted = targets.float()
    loss = -(wanted * pooled.log_softmax(1)).sum(1).div(wanted.sum(1)).mean()
    weights = [s.first, *[1.0] * (len(hooks) - 1)]
    loss = loss + s.statistics * sum(w * hook.distance for w, hook in zip(weights, hooks, strict=True))
    return loss + s.tv_l2 * variation_energies(images).sqrt().sum() + s.l2 * l2_norm(images).mean()


def reference(network: Network, job: Job, iterations: int) -> Tensor:
    """The published loop: weights take part in every backward pass, and each layer is looked at twice."""
    s = Inversion(iterations=iterations)
    network.eval()
    hooks = [ReferenceHook(m) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    images = torch.randn(len(job.targets), 3, *job.size, generator=torch.Generator().manual_seed(job.seed))
    images = images.mul_(s.init).to(job.targets.device).requires_grad_()
    optimizer = torch.optim.Adam([images], lr=s.lr, betas=s.betas)
    rng = torch.Generator().manual_seed(job.seed)
    for i in range(iterations):
        for group in optimizer.param_groups:
            group["lr"] = s.lr * 0.5 * (1 + math.cos(math.pi * i / iterations))
        down, right = torch.randint(-s.jitter, s.jitter + 1, (2,), generator=rng).tolist()
        view = torch.roll(images, (down, right), (2, 3))
        if torch.rand(1, generator=rng).item() < 0.5:
            view = view.flip(3)
        optimizer.zero_grad()
        network.zero_grad()
        reference_loss(network, hooks, view, job.targets).backward()
        optimizer.step()
        with torch.no_grad():
            images.clamp_(job.valid.low, job.valid.high)
    for hook in hooks:
        hook.handle.remove()
    network.zero_grad()
    return images.detach()


def measure(bench: Bench, iterations: int = 6, batch: int = 60, size: int = 48) -> Iterator[Row]:
    """Synthesis of one batch on the embedded benchmark's network; both forms make as many images x iterations."""
    torch.manual_seed(0)
    network = Network(build_backbone("bisenet", BACKBONE))
    network.grow(16)
    network.to(bench.device)
    targets = choose_targets(range(1, 16), -(-batch // 15), 16, seed=0)[:batch].to(bench.device)
    mean, std = (torch.full((3, 1, 1), value, device=bench.device) for value in (0.45, 0.25))
    job = Job(targets, (size, size), 0, pixel_range(mean, std))
    settings = Inversion(iterations=iterations)
    yield bench.compare(
        f"DeepInversion, {iterations} iterations of {batch} images {size}x{size}",
        Form("statistics in one pass", lambda: synthesise(network, job, settings, device=bench.device)),
        Form("published hooks and loop", lambda: reference(network, job, iterations)),
        SPEED,
        goal=Goal(ratio=2),
    )
