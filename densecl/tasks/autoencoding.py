"""Autoencoding: the output is the input. The first task of residual-block networks (Matsumoto's slides, 2019)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from densecl.errors import UnknownNameError
from densecl.losses.adversarial import critic_loss, deception_loss
from densecl.losses.images import absolute_error, sample_mean, squared_error
from densecl.metrics.image_quality import ImageAverages, mse, ssim
from densecl.tasks.base import Picture, Prepared, Targets, Task
from densecl.tasks.pixels import decode_uint8, encode

Reduce = Callable[[Iterable[nn.Parameter]], None]
RECONSTRUCTIONS = {"l1": absolute_error, "l2": squared_error}


class Critic:
    """A discriminator with its optimiser (Adam, 2e-4, betas 0.5 and 0.999, as pix2pix has them).

    Args:
        network: images (B, 3, H, W) in the unit of `tasks.pixels` to logits, such as `models.patchgan.PatchGAN`.
        lr: its learning rate.
    """

    def __init__(self, network: nn.Module, lr: float = 2e-4):
        self.network = network
        self.optimizer = torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999))

    def train(self, made: Tensor, real: Tensor, share: float | Tensor = 1.0, reduce: Reduce | None = None) -> None:
        """One update on images that the network made and on real ones; the rest as `Task.update_critic`."""
        if next(self.network.parameters()).device != made.device:
            self.network.to(made.device)  # parameters stay the same objects, so the optimiser keeps them
        with torch.enable_grad():
            loss = critic_loss(self.network(real.detach()), self.network(made.detach())) * share
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        if reduce is not None:
            reduce(self.network.parameters())
        self.optimizer.step()

    def judge(self, made: Tensor) -> Tensor:
        """Logits of images; gradients reach them, not the critic."""
        if next(self.network.parameters()).device != made.device:
            self.network.to(made.device)
        self.network.requires_grad_(False)
        try:
            return self.network(made)
        finally:
            self.network.requires_grad_(True)

    def state_dict(self) -> dict[str, Any]:
        """Weights and the optimiser's moments."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


@dataclass(frozen=True)
class Autoencoding(Task):
    """Three outputs, RGB in the unit of `tasks.pixels`.

    Attributes:
        reconstruction: `l1` or `l2`.
        reconstruction_weight: of that term.
        adversarial_weight: of the critic's term.
        critic: None without an adversarial loss.
    """

    reconstruction: str = "l1"
    reconstruction_weight: float = 1.0
    adversarial_weight: float = 0.0
    critic: Critic | None = field(default=None, compare=False, repr=False)

    @property
    def outputs(self) -> int:
        """Red, green, blue."""
        return 3

    @property
    def settings(self) -> dict[str, Any]:
        """The terms of the loss."""
        chosen: dict[str, Any] = {"reconstruction": self.reconstruction}
        if self.critic is not None:
            weights = {"reconstruction": self.reconstruction_weight, "adversarial": self.adversarial_weight}
            chosen |= {f"{term}_weight": weight for term, weight in weights.items()}
        return chosen

    def prepare(self, image: Tensor, mask: Tensor) -> Prepared:
        """The image as it is, twice."""
        return Prepared(image, encode(image))

    def loss(self, logits: Tensor, batch: Targets) -> Tensor:
        """The reconstruction and, with a critic, how sure it is that outputs are made; weights must be (B,) then."""
        reconstruct = RECONSTRUCTIONS[self.reconstruction]
        loss = self.reconstruction_weight * reconstruct(logits, batch.target, weight=batch.weight)
        if self.critic is None:
            return loss
        deception = deception_loss(self.critic.judge(logits.float()))
        return loss + self.adversarial_weight * sample_mean(deception, batch.weight)

    def update_critic(
        self, logits: Tensor, batch: Targets, *, share: float | Tensor = 1.0, reduce: Reduce | None = None
    ) -> None:
        """Train the critic on the outputs and on the images they should be."""
        if self.critic is not None:
            self.critic.train(logits.float(), batch.target, share, reduce)

    def metrics(self) -> "AutoencodingMetrics":
        """See `AutoencodingMetrics`."""
        return AutoencodingMetrics()

    def picture(self, image: Tensor, output: Tensor, mask: Tensor) -> Picture:
        """The image, its reconstruction, and the image again."""
        return Picture(image, decode_uint8(output), image)

    def state_dict(self) -> dict[str, Any]:
        """The critic's."""
        return {} if self.critic is None else self.critic.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if self.critic is not None:
            self.critic.load_state_dict(state)


class AutoencodingMetrics(ImageAverages):
    """Averages over images.

    `mse` and `ssim` of the output as a uint8 RGB image; `baseline`, the error of an image's mean colour.
    """

    def __init__(self) -> None:
        super().__init__(("mse", "ssim", "baseline"))

    def update(self, output: Tensor, image: Tensor, target: Tensor) -> None:
        """See `Metrics`."""
        made = decode_uint8(output)
        mean = image.float().mean((2, 3), keepdim=True).round().expand_as(image)
        self.add({"mse": mse(made, image), "ssim": ssim(made, image), "baseline": mse(mean, image)})

    def compute(self) -> dict[str, Any]:
        """See the class."""
        return self.averages()


def autoencoding(
    name: str, *, loss: Literal["l1", "l2", "adversarial"] = "l1", critic: nn.Module | None = None
) -> Autoencoding:
    """The task of returning the input.

    Args:
        name: of the task.
        loss: `l1`, `l2`, or `adversarial`: 100 times L1 and a critic's, as in pix2pix (Isola et al., CVPR 2017).
        critic: the critic's network, needed for `adversarial`.

    Raises:
        UnknownNameError: another loss. ValueError: a critic is missing or has nothing to do.
    """
    if loss not in (*RECONSTRUCTIONS, "adversarial"):
        raise UnknownNameError("loss of autoencoding", loss, (*RECONSTRUCTIONS, "adversarial"))
    if (critic is None) == (loss == "adversarial"):
        raise ValueError(f"autoencoding with loss={loss} {'needs a' if critic is None else 'has no use for a'} critic")
    if critic is None:
        return Autoencoding(name, "autoencoding", "mse", False, reconstruction=loss)
    return Autoencoding(
        name,
        "autoencoding",
        "mse",
        False,
        reconstruction_weight=100.0,
        adversarial_weight=1.0,
        critic=Critic(critic),
    )
