"""Wide residual network of depth 28 and width 4, as the Visual Decathlon uses it on images of 64 to 72 pixels."""

from itertools import pairwise
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from densecl.errors import SettingError
from densecl.models.encoders import Encoder
from densecl.models.network import Backbone, Features
from densecl.models.weights import load_weights


class WRN(Backbone):
    """Zagoruyko and Komodakis (BMVC 2016), with stride 2 at the head of all three groups (Rosenfeld and Tsotsos, 2017).

    Args:
        depth: of layers, 6 n + 4.
        width: times the channels of a plain network, 16, 32 and 64.
        weights: "none" or a file of a network of this class.
    """

    def __init__(self, depth: int = 28, width: int = 4, weights: str = "none"):
        super().__init__()
        if depth < 10 or depth % 6 != 4 or width < 1:
            raise SettingError(f"wrn(depth={depth}, width={width})", "give a depth of 10, 16, 22, 28, ... and a width")
        self.encoder = WideEncoder((depth - 4) // 6, width)
        self.channels, self.nonnegative = self.encoder.channels[-1], True
        if weights != "none":
            load_weights(self.encoder, Path(weights))

    def forward(self, image: Tensor) -> Features:
        """Features of an image batch (B, 3, H, W) of any size."""
        maps = tuple(self.encoder(image))
        return Features(maps[-1], maps)


class WideEncoder(Encoder):
    """Maps of stride 2, 4 and 8."""

    def __init__(self, blocks: int, width: int):
        super().__init__()
        sizes = (16, 16 * width, 32 * width, 64 * width)
        self.stem = nn.Conv2d(3, sizes[0], 3, 1, 1, bias=False)
        self.groups = nn.ModuleList(
            nn.Sequential(*(WideBlock(i if k == 0 else o, o, 2 if k == 0 else 1) for k in range(blocks)))
            for i, o in pairwise(sizes)
        )
        self.norm = nn.BatchNorm2d(sizes[-1])
        self.channels, self.strides = sizes[1:], (2, 4, 8)

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Encoder`; the last map is normalised, and all of it above 0."""
        x, maps = self.stem(image), []
        for group in self.groups:
            x = group(x)
            maps.append(x)
        return [*maps[:-1], F.relu(self.norm(x))]


class WideBlock(nn.Module):
    """Two convolutions, each behind BatchNorm and ReLU; the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        changes = stride > 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        active = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(F.relu(self.norm2(self.conv1(active)))) + shortcut
