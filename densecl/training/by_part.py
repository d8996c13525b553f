"""Settings by part of the network (`training.parts`): what the optimiser gets, and the mode of layers."""

from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from densecl.models.network import Network
from densecl.settings.recipe import PartSettings, TrainingSettings

Part = Literal["backbone", "decoder", "old_heads", "new_heads"]
PARTS: tuple[Part, ...] = ("backbone", "decoder", "old_heads", "new_heads")


def part_groups(network: Network, settings: TrainingSettings, step: int) -> list[dict[str, Any]]:
    """Groups of parameters for the optimiser: one of all, unless settings differ by part."""
    if not differ(settings):
        return [{"params": [p for p in network.parameters() if p.requires_grad]}]
    given = {part: settings.part(part, step) for part in PARTS}
    groups: dict[Part, list[nn.Parameter]] = {part: [] for part in PARTS}
    for part, module in _modules(network):
        if not (isinstance(module, _BatchNorm) and given[part].batchnorm == "fixed"):
            groups[part] += [p for p in module.parameters(recurse=False) if p.requires_grad]
    return [{"params": parameters, **_of_optimiser(given[part])} for part, parameters in groups.items() if parameters]


def set_modes(network: Network, settings: TrainingSettings, step: int) -> None:
    """Set BatchNorm and dropout of a network in training mode as the settings say."""
    frozen = settings.batchnorm == "frozen" and step > 0
    if not frozen and not differ(settings):
        return
    given = {part: settings.part(part, step) for part in PARTS}
    for part, module in _modules(network):
        if isinstance(module, _BatchNorm):
            own = given[part].batchnorm
            module.train(not frozen if own is None else own == "train")
        elif isinstance(module, _DropoutNd) or type(module).__name__ == "DropPath":  # timm's, of whole branches
            module.train(given[part].dropout is not False)


def differ(settings: TrainingSettings) -> bool:
    """True if parts of the network are trained differently."""
    return bool(settings.parts.model_dump() or settings.later.parts.model_dump())


def _of_optimiser(given: PartSettings) -> dict[str, float]:
    return given.model_dump(include={"lr_scale", "weight_decay"}, exclude_none=True)


def _modules(network: Network) -> list[tuple[Part, nn.Module]]:
    """Every module of the network with its part, in the network's order."""
    earlier = {id(module) for head in network.heads.earlier() for module in head.modules()}
    decoder = {
        id(module) for name in network.backbone.decoder_parts for module in getattr(network.backbone, name).modules()
    }
    found: list[tuple[Part, nn.Module]] = []
    for name, module in network.named_modules():
        if name.startswith("backbone"):
            found.append(("decoder" if id(module) in decoder else "backbone", module))
        else:
            found.append(("old_heads" if id(module) in earlier else "new_heads", module))
    return found
