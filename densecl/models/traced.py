"""What follows what in a network: found by a pass on the meta device, in which nothing is computed."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

# modules that define layers
ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations")
POOLING = ("torch.nn.modules.pooling",)


def last_layers(encoder: Any, kinds: tuple[str, ...]) -> list[str]:
    """Name of the layer of some kinds that each map comes out of, "" for a map of another; nothing is computed."""
    traced = copy.deepcopy(encoder).to("meta").eval()
    outputs: dict[str, Tensor] = {}
    for name, module in traced.named_modules():
        if type(module).__module__.startswith(kinds):
            module.register_forward_hook(lambda _module, _inputs, output, name=name: outputs.update({name: output}))
    try:
        maps = traced(torch.empty(1, 3, 64, 64, device="meta"))
    except (AssertionError, RuntimeError):  # an encoder for images of one size
        return [""] * len(encoder.channels)
    return [next((name for name, output in outputs.items() if output is x), "") for x in maps]


def followed_by_norm(backbone: nn.Module) -> list[tuple[str, str]]:
    """Names of each convolution and of the BatchNorm that gets its output and nothing else; nothing is computed."""
    traced = copy.deepcopy(backbone).to("meta").eval()
    outputs: list[tuple[Tensor, str]] = []
    pairs = []
    for name, module in traced.named_modules():
        if type(module) is nn.Conv2d:
            module.register_forward_hook(lambda _m, _x, output, name=name: outputs.append((output, name)))  # type: ignore[arg-type]
        elif type(module) in (nn.BatchNorm2d, nn.SyncBatchNorm) and module.affine and module.track_running_stats:

            def look(_module: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
                pairs.extend((convolution, name) for output, convolution in outputs if output is inputs[0])

            module.register_forward_pre_hook(look)
    traced(torch.empty(2, 3, 64, 64, device="meta"))
    return pairs
