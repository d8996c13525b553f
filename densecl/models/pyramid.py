"""Backbones of a pyramid encoder and a decoder of all its maps."""

from torch import Tensor, nn

from densecl.models.encoders import Encoder, map_norm
from densecl.models.network import Backbone, Features


class PyramidBackbone(Backbone):
    """An encoder and a decoder that makes `channels` of its maps; features at the stride of the finest map.

    The decoder takes a list of maps (B, C_i, h_i, w_i), the finest one first, and ends with a ReLU.
    """

    decoder_parts = ("decoder",)
    nonnegative = True

    def __init__(self, encoder: Encoder, decoder: nn.Module, channels: int):
        super().__init__()
        self.encoder = encoder
        self.map_norms = nn.ModuleList(map_norm(encoder, i) for i in range(len(encoder.channels)))
        self.decoder = decoder
        self.channels = channels

    def forward(self, image: Tensor) -> Features:
        """Features of an image batch (B, 3, H, W) of any size; `encoded` are the encoder's maps."""
        encoded = tuple(self.encoder(image))
        maps = [norm(x) for norm, x in zip(self.map_norms, encoded, strict=True)]
        return Features(self.decoder(maps), encoded, raw=self.encoder.take_raw(encoded))
