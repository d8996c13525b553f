"""Encoder, residual blocks, decoder: the generator of Johnson et al. (ECCV 2016) and CycleGAN (ICCV 2017)."""

from torch import Tensor, nn

from densecl.errors import SettingError
from densecl.models.network import Backbone, Features, Norm, norm_layer


class ResidualBlock(nn.Module):
    """x + norm(conv3x3(ReLU(norm(conv3x3(x)))))."""

    def __init__(self, channels: int, norm: Norm):
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, 1, 1, padding_mode="reflect") for _ in range(2))
        self.body = nn.Sequential(*stage(first, channels, norm), second, norm_layer(norm, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same."""
        return x + self.body(x)


def stage(convolution: nn.Module, outputs: int, norm: Norm) -> nn.Sequential:
    """A convolution, normalisation, ReLU."""
    return nn.Sequential(convolution, norm_layer(norm, outputs), nn.ReLU(inplace=True))


class ResBlockNet(Backbone):
    """c7s1-64, d128, d256, R256 x blocks, u128, u64 and a c7s1-k head, in the notation of those papers.

    c7s1-k: 7x7 convolution of stride 1; dk: 3x3 of stride 2; Rk: residual block; uk: 3x3 transposed of stride 1/2.
    Encoder, blocks and decoder are children of these names. For "Resblock" (Matsumoto and Yanai, slides of 2019) they
    are first trained as an autoencoder without the blocks (`use_blocks = False`) and kept; each task then has blocks of
    its own. A block of 256 channels is 1,180,160 parameters, 4.5 MiB.

    Args:
        width: channels of the first stage; the deepest has four times as many.
        blocks: residual blocks.
        norm: "instance" (without scale and shift) or "batch".
        head: kernel of the head's convolution, 7 or 1.
        decoder_norm: of the decoder; None: as `norm`.
    """

    decoder_parts = ("blocks", "decoder")
    nonnegative = True

    def __init__(
        self, width: int = 64, blocks: int = 6, norm: Norm = "instance", head: int = 7, decoder_norm: Norm | None = None
    ):
        super().__init__()
        if width < 1 or blocks < 0:
            raise SettingError(f"resblock(width={width}, blocks={blocks}) makes no network", "give positive numbers")
        if head < 1 or head % 2 == 0:
            raise SettingError(f"resblock(head={head}): the kernel must be odd", "use 7 or 1")
        one, two, four = width, 2 * width, 4 * width
        first = stage(nn.Conv2d(3, one, 7, 1, 3, padding_mode="reflect"), one, norm)
        deeper = (stage(nn.Conv2d(i, o, 3, 2, 1), o, norm) for i, o in ((one, two), (two, four)))
        self.encoder = nn.ModuleList([first, *deeper])
        self._norm: Norm = norm
        self.set_blocks(blocks)
        self.decoder = nn.ModuleList(
            stage(nn.ConvTranspose2d(i, o, 3, 2, 1, output_padding=1), o, decoder_norm or norm)
            for i, o in ((four, two), (two, one))
        )
        self.channels, self.head = width, head
        self.use_blocks = True  # False leaves them out; no part of the state

    def set_blocks(self, count: int) -> None:
        """Have so many new blocks, drawn from torch's generator."""
        channels = self.encoder[2][0].out_channels  # type: ignore[index]
        self.blocks = nn.Sequential(*(ResidualBlock(channels, self._norm) for _ in range(count)))  # type: ignore[arg-type]

    def train_parts(self, *, halves: bool, blocks: bool) -> None:
        """Train encoder and decoder, and the blocks, or have them as in evaluation; then blocks are left out."""
        self.requires_grad_(halves).train(halves)
        self.blocks.requires_grad_(blocks).train(blocks)
        self.use_blocks = blocks

    def build_head(self, channels: int, outputs: int) -> nn.Module:
        """c7s1-k, or what `head` says."""
        return nn.Conv2d(channels, outputs, self.head, 1, self.head // 2, padding_mode="reflect")

    def forward(self, image: Tensor) -> Features:
        """Features of an image batch (B, 3, H, W) of at least 5 pixels a side; `encoded` ends behind the blocks."""
        first = self.encoder[0](image)
        second = self.encoder[1](first)
        third = self.encoder[2](second)
        x = third = self.blocks(third) if self.use_blocks else third
        for up, like in zip(self.decoder, (second, first), strict=True):
            x = up(x)[..., : like.shape[-2], : like.shape[-1]]  # sizes that stride 2 rounded up
        return Features(x, (first, second, third))
