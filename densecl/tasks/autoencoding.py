"""Autoencoding: the output is the input. The first task of residual-block networks (Matsumoto's slides, 2019)."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Self

from densecl.errors import UnknownNameError
from densecl.seeding import derive
from densecl.tasks.base import Context, Picture, Prepared, Task, decode_uint8, encode

if TYPE_CHECKING:
    from torch import Tensor, nn

    from densecl.training.batch import Batch

Reduce = Callable[[Iterable["nn.Parameter"]], None]
LOSSES = ("l1", "l2", "adversarial")


class Autoencoding(Task):
    """Three outputs, RGB in the unit of `base.encode`.

    The loss is `l1`, `l2`, or `adversarial`: 100 times L1 and that of a critic, as in pix2pix (Isola et al., CVPR
    2017). UnknownNameError for another one, ValueError if a critic is missing or has nothing to do.
    """

    kind = "autoencoding"
    primary = "mse"
    higher_is_better = False
    measures = ("mse", "ssim", "baseline")
    outputs = 3

    def __init__(self, name: str, *, loss: str = "l1", critic: "nn.Module | None" = None):
        super().__init__(name)
        if loss not in LOSSES:
            raise UnknownNameError("loss of autoencoding", loss, LOSSES)
        if (critic is None) == (loss == "adversarial"):
            need = "needs a" if critic is None else "has no use for a"
            raise ValueError(f"autoencoding with loss={loss} {need} critic")
        self.reconstruction = "l2" if loss == "l2" else "l1"
        self.critic = critic
        self.reconstruction_weight, self.adversarial_weight = (1.0, 0.0) if critic is None else (100.0, 1.0)
        if critic is not None:
            from densecl.optimizers import Adam

            self.optimizer = Adam(critic.parameters(), lr=2e-4, betas=(0.5, 0.999))  # as pix2pix

    @classmethod
    def declared(cls) -> dict[str, tuple[Any, Any]]:
        """The loss, by a name that a method has."""
        return {"loss": (Literal["l1", "l2", "adversarial"], "l1")}

    @classmethod
    def build(cls, name: str, values: dict[str, Any], context: Context) -> Self:
        """The critic starts from the run's seed."""
        if values["loss"] != "adversarial":
            return cls(name, loss=values["loss"])
        if not context.judge:
            return cls(name)
        from densecl.models.patchgan import initialised

        return cls(name, loss="adversarial", critic=initialised(derive(context.seed, "critic", name)))

    @property
    def settings(self) -> dict[str, Any]:
        """The terms of the loss."""
        terms = ("reconstruction", *(("reconstruction_weight", "adversarial_weight") if self.critic else ()))
        return {term: getattr(self, term) for term in terms}

    def prepare(self, image: "Tensor", mask: "Tensor") -> Prepared:
        """The image as it is, twice."""
        return Prepared(image, encode(image))

    def loss(self, logits: "Tensor", batch: "Batch") -> "Tensor":
        """The reconstruction and, with a critic, how sure it is that outputs are made; weights must be (B,) then."""
        from densecl.losses.images import sample_mean

        loss = self.reconstruct(logits, batch)
        if self.critic is None:
            return loss
        return loss + self.adversarial_weight * sample_mean(self.deception(logits), batch.weight)

    def reconstruct(self, logits: "Tensor", batch: "Batch") -> "Tensor":
        """The weighted distance of outputs to their target, a scalar."""
        from densecl.losses import images

        distance = images.squared_error if self.reconstruction == "l2" else images.absolute_error
        return self.reconstruction_weight * distance(logits, batch.target, weight=batch.weight)

    def deception(self, logits: "Tensor") -> "Tensor":
        """How sure the critic is that outputs are made, (B,); gradients reach the outputs, not the critic."""
        from densecl.losses.images import deception_loss

        assert self.critic is not None
        self._move_critic(logits)
        self.critic.requires_grad_(False)
        try:
            return deception_loss(self.critic(logits.float()))
        finally:
            self.critic.requires_grad_(True)

    def update_critic(
        self, logits: "Tensor", batch: "Batch", *, share: "float | Tensor" = 1.0, reduce: Reduce | None = None
    ) -> None:
        """Train the critic on the outputs and on the images they should be."""
        if self.critic is None:
            return
        import torch

        from densecl.losses.images import critic_loss

        self._move_critic(logits)
        with torch.enable_grad():
            loss = critic_loss(self.critic(batch.target.detach()), self.critic(logits.float().detach())) * share
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        if reduce is not None:
            reduce(self.critic.parameters())
        self.optimizer.step()

    def _move_critic(self, logits: "Tensor") -> None:
        """Follow the outputs to their device; parameters stay the same objects, so the optimiser keeps them."""
        if self.critic is not None and next(self.critic.parameters()).device != logits.device:
            self.critic.to(logits.device)

    def scores(self, output: "Tensor", image: "Tensor", target: "Tensor") -> dict[str, "Tensor"]:
        """`mse` and `ssim` of the uint8 RGB image; `baseline`, the error of an image's mean colour; (B,) each."""
        from densecl.metrics.image_quality import mse, ssim

        made = decode_uint8(output)
        mean = image.float().mean((2, 3), keepdim=True).round().expand_as(image)
        return {"mse": mse(made, image), "ssim": ssim(made, image), "baseline": mse(mean, image)}

    def picture(self, image: "Tensor", output: "Tensor", mask: "Tensor") -> Picture:
        """The image, its reconstruction, and the image again."""
        return Picture(image, decode_uint8(output), image)

    def state_dict(self) -> dict[str, Any]:
        """The critic's weights and the moments of its optimiser."""
        if self.critic is None:
            return {}
        return {"network": self.critic.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if self.critic is not None:
            self.critic.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
