"""VOC's colours of classes."""

import functools


@functools.cache
def palette() -> bytes:
    """The colours of the labels 0..255: 768 bytes, red, green, blue.

    Bits 0, 3, 6 of a label become the highest bits of red, bits 1, 4, 7 those of green, bits 2, 5 those of blue.
    """
    return bytes(
        sum(((label >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3))
        for label in range(256)
        for channel in range(3)
    )
