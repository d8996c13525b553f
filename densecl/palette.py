"""VOC's colours of classes, and a scale of colours for numbers."""

import functools

# of matplotlib's viridis, an eighth of the scale apart: brightness rises evenly, for all kinds of colour vision
_SCALE = (
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129), (92, 200, 99),
    (170, 220, 50), (253, 231, 37),
)  # fmt: skip


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


@functools.cache
def scale() -> bytes:
    """The colours of the numbers 0..255 from dark violet to yellow: 768 bytes, red, green, blue."""
    result, last = [], len(_SCALE) - 1
    for number in range(256):
        place = number / 255 * last
        index = min(int(place), last - 1)
        pairs = zip(_SCALE[index], _SCALE[index + 1], strict=True)
        result += [round(low + (high - low) * (place - index)) for low, high in pairs]
    return bytes(result)
