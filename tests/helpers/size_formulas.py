"""Parameters of networks and the papers' sums from their layers alone: an independent count."""

from densecl.strategies.storage import Counts

MIB = 2**20


def mebibytes(count: float) -> float:
    """Bytes in MiB, the "MB" of Matsumoto and Yanai."""
    return count / MIB


def convolution(inputs: int, outputs: int, kernel: int) -> tuple[int, int]:
    """(weights, biases) of a convolution, transposed or not."""
    return inputs * outputs * kernel**2, outputs


def head_parameters(channels: int, outputs: int, kernel: int = 1) -> int:
    """Parameters of a convolution as a head."""
    return sum(convolution(channels, outputs, kernel))


def unet_counts(width: int = 64, depth: int = 4) -> Counts:
    """Of the U-Net of Matsumoto and Yanai: 14,786,193 parameters with a head of 81 classes on the defaults."""
    skips = [width << level for level in range(depth)]
    stages = [*skips, skips[-1]]
    down = [pair for i, o in zip([3, *stages[:-1]], stages, strict=True) for pair in ((i, o, 3), (o, o, 3))]
    outputs = [width, *skips[:-1]]
    up = [layer for c, o in zip(skips, outputs, strict=True) for layer in ((c, c, 2), (2 * c, o, 3), (o, o, 3))]
    encoder, decoder = ([convolution(*layer) for layer in layers] for layers in (down, up))
    weights = sum(weight for weight, _ in encoder + decoder)
    return Counts(sum(map(sum, encoder)), sum(map(sum, decoder)), weights)


def block_parameters(channels: int) -> int:
    """Of a residual block of two 3x3 convolutions."""
    return 2 * sum(convolution(channels, channels, 3))


def rounded_total(first: float, further: float, tasks: int) -> float:
    """As the papers add their rows: MiB of the first task and of each further one, rounded to 0.1 before."""
    return round(round(first, 1) + (tasks - 1) * round(further, 1), 1)
