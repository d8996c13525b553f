"""LoRA on the attention of a transformer: a plugin whose low-rank factors join the weights when a step ends."""

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from densecl.errors import SettingError
from densecl.masking.added import low_rank_shapes, low_rank_start
from densecl.seeding import derive
from densecl.strategies.base import Plugin, Strategy
from densecl.streams.scenario import Experience

DOWN, UP = "lora_down", "lora_up"  # parameters of a linear layer while a step trains


class AttentionLoRA(Plugin):
    """Low-rank adaptation (Hu et al., ICLR 2022) of the encoder's attention, from step 1 on.

    A step trains x -> x W^T + alpha / rank * x down^T up^T in every linear layer of the encoder's attention, of which
    all else is fixed; decoder and heads train as the strategy says. When the step ends W becomes
    W + alpha / rank * up @ down, so the network is as large as before.
    """

    first_step = "shared"
    needs = frozenset({"attention"})
    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] = 8.0

    def configure(self, strategy: Strategy) -> None:
        """Refuse plugins before it, which would see the step's end before the factors join, and kept features."""
        self._network = strategy.network
        if strategy.settings.cache_features:
            raise SettingError(
                "training.cache_features does not go with lora, which adapts the encoder", "leave it out"
            )
        if strategy.loop.plugins[0] is not self:
            first = strategy.loop.plugins[0].name
            raise SettingError(f"lora must come before {first}", f"write +{self.name} right after the strategy")

    def before_step(self, strategy: Strategy, experience: Experience) -> None:
        """Fix the encoder and give its attention factors, of which the second is zero."""
        if strategy.step > 0:
            start = low_rank_start(self.rank, derive(strategy.seed, "lora", strategy.step))
            self._begin([start(layer.weight.detach()) for layer in self._layers])

    def after_step(self, strategy: Strategy, experience: Experience) -> None:
        """Add the factors to the weights, and let the encoder be trained again."""
        if not self._hooks:
            return
        for layer in self._layers:
            with torch.no_grad():
                layer.weight.addmm_(getattr(layer, UP), getattr(layer, DOWN), alpha=self.alpha / self.rank)
            delattr(layer, UP)
            delattr(layer, DOWN)
        for hook in self._hooks:
            hook.remove()
        self._train_encoder(True)
        self._hooks = []

    def state_dict(self) -> dict[str, Any]:
        """True under `open` while a step has factors; their values are the network's."""
        return {"open": bool(self._hooks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, with factors whose values the network's state brings."""
        if state["open"] and not self._hooks:
            shapes = [low_rank_shapes(layer.weight.shape, self.rank) for layer in self._layers]
            layers = zip(self._layers, shapes, strict=True)
            self._begin(
                [
                    {"down": layer.weight.new_zeros(down), "up": layer.weight.new_zeros(up)}
                    for layer, (down, up) in layers
                ]
            )

    _hooks: list[Any] = []  # noqa: RUF012 (replaced, never changed)

    @property
    def _layers(self) -> list[nn.Linear]:
        return self._network.backbone.attention

    def _train_encoder(self, train: bool) -> None:
        for module in self._network.backbone.encoder_modules:
            module.requires_grad_(train)

    def _begin(self, factors: list[dict[str, Tensor]]) -> None:
        self._train_encoder(False)
        for layer, values in zip(self._layers, factors, strict=True):
            layer.register_parameter(DOWN, nn.Parameter(values["down"]))
            layer.register_parameter(UP, nn.Parameter(values["up"]))
        self._hooks = [layer.register_forward_hook(self._adapt) for layer in self._layers]

    def _adapt(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        inner = F.linear(inputs[0], getattr(layer, DOWN))
        return output + self.alpha / self.rank * F.linear(inner, getattr(layer, UP))
