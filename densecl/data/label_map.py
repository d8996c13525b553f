"""Label maps of other programs: PNGs of ids, of which nobody knows beforehand how they were written."""

import os

import numpy as np

from densecl.data.decode import Location, opened, present
from densecl.errors import DataError
from densecl.palette import palette


def read_label_map(path: Location, *, any_palette: bool = False) -> np.ndarray:
    """Decode a label map to its ids, (H, W) integers: a grey PNG of 8 or 16 bits, or a palette PNG.

    The colours of a palette must be VOC's or shades of grey, each at its own index: else nobody knows whether indices
    or colours are meant, and only `any_palette` takes the indices. DataError for all else.
    """
    with opened("label map", path) as image:
        raw_mode = image.tile[0][3] if image.tile else image.mode
        stretched = image.mode == "L" and raw_mode != "L"  # PIL stretches grey values of fewer than 8 bits to 0..255
        if image.format != "PNG":
            fault = f"is a {image.format}"
        elif image.mode == "P":
            ids = np.array(image)
            odd = None if any_palette else _odd_colour(image.getpalette() or [], np.flatnonzero(present(ids)))
            if odd is None:
                return ids
            fault = f"has a palette of its own (index {odd}), whose indices may be no ids"
        elif image.mode.startswith("I") or (image.mode == "L" and not stretched):
            return np.asarray(image).astype(np.int64)
        else:
            fault = f"is an image of kind {'stretched grey' if stretched else image.mode}, not of class ids"
    raise DataError(f"label map {os.fspath(path)} {fault}", "save ids as grey of 8 or 16 bits, in a PNG")


def _odd_colour(colours: list[int], indices: np.ndarray) -> int | None:
    """An index whose colour shows that a palette is not in the order of ids; None where all are VOC's, or all grey."""
    used = np.full((256, 3), -1)
    used[: len(colours) // 3] = np.array(colours).reshape(-1, 3)
    voc = np.frombuffer(palette(), np.uint8).reshape(256, 3)
    grey = np.arange(256)[:, None].repeat(3, 1)
    odd = [[int(i) for i in indices if (used[i] != known[i]).any()] for known in (voc, grey)]
    return min(odd, key=len)[0] if all(odd) else None
