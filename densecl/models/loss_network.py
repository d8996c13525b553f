"""Frozen convolutional networks whose feature maps perceptual losses compare."""

import hashlib
import math
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from densecl.errors import DataError, UnknownNameError, first_line
from densecl.models.weights import load_weights, reach, weights_place

# Channels of the convolutions of each stage; a map is what the last ReLU of a stage gives.
STAGES = {
    "vgg16": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512)),  # relu1_2, 2_2, 3_3, 4_3
    "random": ((24,), (32,), (48,)),  # small: for the drawn benchmarks
}
VGG_FILE = "vgg16-397923af.pth"
VGG_URL = f"https://download.pytorch.org/models/{VGG_FILE}"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = ((0.45, 0.45, 0.45), (0.25, 0.25, 0.25))


class LossNetwork(nn.Module):
    """Feature maps of images; never trained, and gradients pass through to the image."""

    content = 1  # the map that the content loss compares, the second: relu2_2 of VGG-16
    mean: Tensor
    std: Tensor

    def __init__(self, architecture: str):
        super().__init__()
        stages = STAGES[architecture]
        self.name = architecture  # for records, with the origin of the weights: `vgg16 (random, seed 0)`
        self.channels = tuple(stage[-1] for stage in stages)
        self.smallest = 2 ** (len(stages) - 1)  # side of an image of which every map has a pixel
        # laid out, and so named, as torchvision's VGG: its files fit
        layers: list[nn.Module] = []
        self.taps: list[int] = []
        inputs = 3
        for k, stage in enumerate(stages):
            if k:
                layers.append(nn.MaxPool2d(2) if architecture == "vgg16" else nn.AvgPool2d(2))
            for outputs in stage:
                # not initialised: whoever builds it fills it, and the global generator stays what it was
                layers += [nn.utils.skip_init(nn.Conv2d, inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            self.taps.append(len(layers))
        self.features = nn.Sequential(*layers)
        mean, std = IMAGENET if architecture == "vgg16" else GREY
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps (B, channels[k], H / 2^k, W / 2^k), rounded down, of RGB images (B, 3, H, W) in 0..1."""
        x = (image - self.mean) / self.std
        maps = []
        for start, end in pairwise((0, *self.taps)):
            x = self.features[start:end](x)
            maps.append(x)
        return maps


def build_loss_network(architecture: str, weights: str | None = None, seed: int = 0) -> LossNetwork:
    """A loss network: `vgg16` (Simonyan and Zisserman, 2015) or `random` (three small convolutions).

    Weights of `vgg16` are `torchvision` (the default: pretrained on ImageNet, downloaded unless a file lies at one of
    `places`), a file (.safetensors or .pth) or `none`, random ones of `seed`, as `random` always has.

    Raises:
        UnknownNameError: another architecture. DataError: see `load_weights`; or the download failed.
    """
    if architecture not in STAGES:
        raise UnknownNameError("loss network", architecture, STAGES)
    network = LossNetwork(architecture)
    weights = weights or ("torchvision" if architecture == "vgg16" else "none")
    if weights == "none":
        _randomise(network, seed)
        network.name = f"{architecture} (random, seed {seed})"
    elif weights == "torchvision" and architecture == "vgg16":
        load_weights(network, _pretrained())
        network.name = "vgg16 (ImageNet)"
    else:
        load_weights(network, Path(weights))
        network.name = f"{architecture} ({_digest(network)})"
    return network


def places() -> tuple[Path, Path]:
    """Where a user may put VGG-16's weights: as safetensors, or torchvision's file under its own name."""
    place = weights_place("vgg16")
    return place, place.with_name(VGG_FILE)


def _randomise(network: LossNetwork, seed: int) -> None:
    """He initialisation; half of each filter's mean is taken away, so that it sees edges more than brightness."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.features:
        if isinstance(module, nn.Conv2d):
            shape = module.weight.shape
            weight = torch.randn(shape, generator=generator)
            weight -= 0.5 * weight.mean((1, 2, 3), keepdim=True)
            module.weight.copy_(weight * math.sqrt(2 / (shape[1] * 9)))
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def _pretrained() -> Path:
    """VGG-16's weights put there by hand, in torch's cache of downloads, or downloaded now (528 MB)."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
    if file := next((place for place in (*places(), cached) if place.is_file()), None):
        return file
    try:
        reach(VGG_URL)
        cached.parent.mkdir(parents=True, exist_ok=True)
        # the beginning of their SHA-256 is in the name and is compared
        torch.hub.download_url_to_file(VGG_URL, str(cached), hash_prefix="397923af", progress=False)
        return cached
    except (OSError, RuntimeError) as error:  # no network, no such host, refused; or another file than expected
        raise DataError(
            f"cannot fetch torchvision's weights of vgg16: {first_line(error)}",
            f"put {VGG_URL} at {places()[1]}, or name a file or 'none' (a random network) as weights",
        ) from error


def _digest(network: nn.Module) -> str:
    """The first digits of the SHA-256 of all weights."""
    content = hashlib.sha256()
    for value in network.state_dict().values():
        content.update(value.contiguous().numpy().tobytes())
    return content.hexdigest()[:8]
