"""A plain vision transformer with a feature pyramid (Li et al., ECCV 2022), a linear or an MLP decoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from densecl.errors import SettingError, first_line
from densecl.models.backbones.allmlp import AllMLPDecoder
from densecl.models.encoders import Encoder, Options, create_timm, embedded, on_meta, to_multiple
from densecl.models.network import Backbone, ConvNormReLU, Features
from densecl.models.weights import load_weights

FINEST = 3  # stride below which the pyramid has no map


class PlainViT(Encoder):
    """Tokens of some blocks of a vision transformer of timm as maps of one stride, each normalised by its last layer.

    Positions are interpolated to the size of an image, which is brought to sides that the patch divides. Class and
    register tokens take part in attention and are left out of the maps.

    Args:
        name: "mini_vit" or a plain vision transformer of timm.
        weights: as of `build_encoder`.
        maps: blocks whose tokens are maps, evenly spaced; the last one is the deepest.
        options: as of `build_encoder`.
    """

    layered = True

    def __init__(self, name: str, weights: str, maps: int, options: Options | None):
        super().__init__()
        made, weights, given = embedded(name, weights, options)
        try:
            net, chosen = on_meta(made, **given)
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            shown = ", ".join(f"encoder.{key}={value}" for key, value in given.items()) or "its defaults"
            raise SettingError(f"vit: encoder '{name}' cannot be built with {shown}: {first_line(error)}") from error
        infos = getattr(net, "feature_info", None)
        strides = {info["reduction"] for info in infos} if isinstance(infos, list) else set()
        if len(strides) != 1 or not hasattr(net, "forward_intermediates") or not hasattr(net, "blocks"):
            raise SettingError(
                f"vit: encoder '{name}' is no plain vision transformer", "use one such as vit_small_patch14_dinov2"
            )
        infos, depth = cast(list[dict[str, Any]], infos), len(cast(nn.Sequential, net.blocks))
        if not 1 <= maps <= depth:
            raise SettingError(f"vit(maps={maps}): encoder '{name}' has {depth} blocks", f"give 1 to {depth}")
        self.indices = [depth * (k + 1) // maps - 1 for k in range(maps)]
        created, source = create_timm(made, weights, **chosen)
        if source not in ("timm", "none"):
            load_weights(created, Path(source))
        self.net: Any = created
        self.net.prune_intermediate_layers(self.indices, prune_norm=False, prune_head=True)
        (stride,) = strides
        self.channels, self.strides = (infos[0]["num_chs"],) * maps, (stride,) * maps
        self.multiple = stride if "dynamic_img_size" in chosen else 1
        self.side: int = cast(Any, created).patch_embed.img_size[-1]

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Encoder`."""
        options: Options = {"norm": True, "output_fmt": "NCHW", "intermediates_only": True}
        return self.net.forward_intermediates(to_multiple(image, self.multiple), self.indices, **options)


class SimplePyramid(nn.Module):
    """Maps of four times, twice, once and half the resolution of one map, at one width (Li et al., ECCV 2022).

    Resolutions whose stride would be below 3 pixels are left out.
    """

    def __init__(self, channels: int, stride: int, width: int):
        super().__init__()
        from timm.layers.norm import LayerNorm2d

        half, quarter = max(1, channels // 2), max(1, channels // 4)
        twice = nn.ConvTranspose2d(channels, half, 2, 2)
        four = nn.Sequential(
            nn.ConvTranspose2d(channels, half, 2, 2),
            LayerNorm2d(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, 2),
        )
        grown = [(4, four, quarter), (2, twice, half), (1, nn.Identity(), channels)]
        scales = [(scale, c) for factor, scale, c in grown if stride >= FINEST * factor]
        scales.append((nn.MaxPool2d(2, ceil_mode=True), channels))
        self.scales = nn.ModuleList(scale for scale, _ in scales)
        self.outputs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c, width, 1, bias=False),
                LayerNorm2d(width),
                nn.Conv2d(width, width, 3, 1, 1, bias=False),
                LayerNorm2d(width),
            )
            for _, c in scales
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, channels, h, w) to maps (B, width, ...), the finest one first."""
        return [output(scale(x)) for scale, output in zip(self.scales, self.outputs, strict=True)]


class ViT(Backbone):
    """A plain vision transformer of timm, and one of three decoders.

    `decoder=pyramid`: the simple feature pyramid of the deepest map, joined as in `allmlp`; features at the stride of
    its finest map. `linear`: BatchNorm over the maps side by side, as in the linear evaluation of DINOv2 (Oquab et al.,
    2023). `mlp`: a 1x1 convolution with BatchNorm and ReLU behind them. For images of some 48 pixels:
    `vit(encoder=mini_vit, width=64)`.

    Args:
        encoder: a plain vision transformer of timm, such as `vit_small_patch14_reg4_dinov2` or `vit_tiny_patch16_224`,
            or "mini_vit".
        weights: "timm", "none" or a file; see `densecl.models.encoders.build_encoder`.
        decoder: "pyramid", "linear" or "mlp".
        maps: blocks, evenly spaced, whose tokens are `encoded`; linear and mlp see all of them, pyramid the deepest.
        width: channels of the pyramid's maps and of the features; `linear` has those of the maps.
        dropout: share of the features' channels that are dropped; not of `linear`.
        encoder_options: of the encoder, each written as `encoder.drop_path_rate=0.3`; see `build_encoder`.
    """

    decoder_parts = ("decoder",)

    def __init__(
        self,
        encoder: str = "vit_small_patch14_dinov2",
        weights: str = "timm",
        decoder: Literal["pyramid", "linear", "mlp"] = "pyramid",
        maps: int = 4,
        width: int = 256,
        dropout: float = 0.1,
        encoder_options: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if width < 1 or not 0 <= dropout < 1:
            raise SettingError(
                f"vit(width={width}, dropout={dropout}) makes no network", "give width >= 1 and 0 <= dropout < 1"
            )
        self.encoder = PlainViT(encoder, weights, maps, encoder_options)
        joined = sum(self.encoder.channels)
        self.pyramid = decoder == "pyramid"
        self.channels, self.nonnegative = joined if decoder == "linear" else width, decoder != "linear"
        if decoder == "pyramid":
            pyramid = SimplePyramid(self.encoder.channels[-1], self.encoder.strides[-1], width)
            self.decoder = nn.Sequential(pyramid, AllMLPDecoder([width] * len(pyramid.scales), width, dropout))
        elif decoder == "linear":
            self.decoder = nn.Sequential(nn.BatchNorm2d(joined))
        else:
            self.decoder = nn.Sequential(ConvNormReLU(joined, width, 1), nn.Dropout2d(dropout))

    def forward(self, image: Tensor) -> Features:
        """Features of an image batch (B, 3, H, W) of any size; `encoded` are maps of one stride, shallow to deep."""
        encoded = tuple(self.encoder(image))
        decoded = self.decoder(encoded[-1] if self.pyramid else torch.cat(encoded, 1))
        return Features(decoded, encoded, raw=self.encoder.take_raw(encoded))
