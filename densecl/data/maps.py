"""Maps of numbers from files: depth is read from PNGs of 16 bits, normals from RGB, matrices from .mat."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from densecl.data.decode import Location, opened
from densecl.errors import DataError


def read_depth(path: Location, unit: float = 0.001) -> np.ndarray:
    """Decode a depth PNG of 16 bits, in units of so many metres, to (1, H, W) float32 metres; 0 is no depth."""
    with opened("depth", path) as image:
        if not image.mode.startswith("I"):
            fault = f"depth {os.fspath(path)} is an image of kind {image.mode}, not of 16 bits"
            raise DataError(fault, "a depth is a grey PNG of 16 bits")
        return (np.asarray(image).astype(np.float32) * np.float32(unit))[None]


def read_normals(path: Location) -> np.ndarray:
    """Decode normals, RGB = (n + 1) / 2 * 255, to (3, H, W) float32 of length 1, 0 where RGB is no direction.

    That is where a vector is shorter than 0.5 (grey) or longer than 1.5 (black or white).
    """
    with opened("normals", path) as image:
        if image.mode != "RGB":
            fault = f"normals {os.fspath(path)} are an image of kind {image.mode}, not RGB"
            raise DataError(fault, "normals are RGB, (n + 1) / 2 * 255 of each component")
        vectors = np.asarray(image).astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
    length = np.sqrt(np.square(vectors).sum(0))
    return np.where((length > 0.5) & (length < 1.5), vectors / np.maximum(length, 0.5), np.float32(0))


def read_matrix(path: Path, key: str, hint: str) -> np.ndarray:
    """A matrix of one of MATLAB's older files, which scipy reads; DataError with the hint where it is missing."""
    from scipy.io import loadmat

    if not path.is_file():
        raise DataError(f"{path} is missing", hint)
    try:
        return np.asarray(loadmat(path, variable_names=[key])[key])
    except Exception as error:  # scipy raises many kinds for a broken file
        raise DataError(f"{path} cannot be read: no {key} in it, or it is broken", "get it again") from error


def write_depth(depth: np.ndarray, path: Location) -> None:
    """Write a depth (H, W) in metres as a PNG of millimetres, 16 bits."""
    Image.fromarray(np.rint(depth * 1000).astype(np.uint16)).save(path, format="PNG", compress_level=1)


def write_normals(normals: np.ndarray, path: Location) -> None:
    """Write normals (H, W, 3) as RGB: within 0.4 degrees."""
    Image.fromarray(np.rint((normals + 1) * 127.5).astype(np.uint8)).save(path, format="PNG", compress_level=1)
