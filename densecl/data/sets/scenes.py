"""Drawn rooms with boxes, balls and cylinders: labels, depth and normals, for the embedded sequence of unlike tasks.

A pinhole camera (64 x 64 pixels, focal length 64, 1.5 m above the floor) looks down a little at a floor and a wall,
with one to four objects on the floor. A ray a pixel gives the nearest surface, so depth and normals are those of the
shapes themselves. Colours, patterns and light are random: none of them tells a class, but shading does tell a normal.
"""

import os
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from densecl.data import drawing as blocks
from densecl.data.drawing import hsv_to_rgb, noise
from densecl.data.drawn import DrawnVOC
from densecl.data.maps import read_depth, read_normals, write_depth, write_normals
from densecl.data.rays import SIDE, Hits, Solids, hit_balls, hit_boxes, hit_cylinders, hit_floor, hit_wall, rays_of

CLASSES = ("floor", "box", "ball", "cylinder")
OBJECTS = 4  # at most, in an image
FOLDERS = {"depth": "Depth", "normals": "Normals"}


class SceneDrawing(NamedTuple):
    """The images of a split."""

    images: ndarray  # (N, 64, 64, 3) uint8
    masks: ndarray  # (N, 64, 64) uint8: 0 the wall, then `CLASSES`
    depth: ndarray  # (N, 64, 64) float32, metres along the optical axis
    normals: ndarray  # (N, 64, 64, 3) float32: x to the right, y up, z to the viewer


class Scenes(DrawnVOC):
    """The drawn rooms, read by the VOC reader: 1200 train, 200 val, 300 test images; val is for tuning."""

    name = "scenes"
    version = "6db6e4f7"
    class_names = CLASSES
    truths = ("depth", "normals")
    content_folders = (*DrawnVOC.content_folders, *FOLDERS.values())
    seeds = MappingProxyType({"train": 31, "val": 32, "test": 33})
    counts = MappingProxyType({"train": 1200, "val": 200, "test": 300})

    @staticmethod
    def draw(n: int, seed: int) -> SceneDrawing:
        """Draw `n` rooms."""
        rng = np.random.default_rng(seed)
        rooms, things = rng.random((n, 18)), rng.random((n, OBJECTS, 12))
        size = (n, SIDE, SIDE)
        drawing = SceneDrawing(
            np.empty((*size, 3), np.uint8),
            np.empty(size, np.uint8),
            np.empty(size, np.float32),
            np.empty((*size, 3), np.float32),
        )
        for start in range(0, n, blocks.CHUNK):
            part = slice(start, min(start + blocks.CHUNK, n))
            _draw(rooms[part], things[part], rng, part, drawing)
        return drawing

    @classmethod
    def write_sample(cls, root: Path, name: str, drawing: SceneDrawing, i: int) -> None:
        """Write all of sample `i`."""
        super().write_sample(root, name, drawing, i)
        write_depth(drawing.depth[i], f"{root}{os.sep}{FOLDERS['depth']}{os.sep}{name}")
        write_normals(drawing.normals[i], f"{root}{os.sep}{FOLDERS['normals']}{os.sep}{name}")

    def truth_files(self, truth: str) -> list[str]:
        """PNGs of millimetres, and RGB."""
        return [f"{self.root}{os.sep}{FOLDERS[truth]}{os.sep}{i}.png" for i in self.ids]

    def read_truth(self, i: int) -> ndarray:
        """Depth or normals of image `i`."""
        return (read_depth if self.truth == "depth" else read_normals)(self.mask_files[i])


def _draw(rooms: ndarray, things: ndarray, rng: np.random.Generator, part: slice, drawing: SceneDrawing) -> None:
    """Draw K images into the `part` of a drawing.

    `rooms`, (K, 18) uniform: pitch, distance of the wall, its turn, number of objects, light (3), one unused, then five
    each for floor and wall, see `Canvas.add`. `things`, (K, OBJECTS, 12): kind, distance, place across, radius, height,
    turn, width, then five for its looks.
    """
    rays, everything = rays_of(0.15 + 0.3 * rooms[:, 0]), np.arange(len(rooms))
    size = rays.directions.shape[1:]
    canvas = Canvas(np.full(size, np.inf), np.zeros((3, *size)), np.zeros((3, *size)), np.zeros(size, np.uint8))
    canvas.add(everything, hit_floor(rays), rooms[:, 8:13], label=1)
    wall = hit_wall(rays, 5 + 3 * rooms[:, 1], 0.8 * (rooms[:, 2] - 0.5))
    canvas.add(everything, wall, rooms[:, 13:18], label=0)
    for k in range(OBJECTS):
        present = rooms[:, 3] >= (0.0, 0.1, 0.35, 0.7)[k]
        kind = (things[:, k, 0] * 3).astype(np.intp)
        for number, hit in enumerate((hit_boxes, hit_balls, hit_cylinders)):
            which = np.flatnonzero(present & (kind == number))
            own = things[which, k]
            canvas.add(which, hit(rays.of(which), _solids(own)), own[:, 7:12], label=2 + number)
    pixels = np.moveaxis(canvas.colour * _light(canvas.normal, rooms), 0, -1)  # (K, 64, 64, 3)
    pixels = pixels + 0.04 * noise(rng, pixels.shape)
    drawing.images[part] = np.clip(np.floor(pixels * 255), 0, 255)
    drawing.masks[part], drawing.depth[part] = canvas.labels, canvas.depth
    drawing.normals[part] = np.moveaxis(rays.in_camera(canvas.normal), 0, -1)


class Canvas(NamedTuple):
    """The nearest surfaces of K images so far; vectors as in `rays`."""

    depth: ndarray  # (K, 64, 64)
    normal: ndarray  # (3, K, 64, 64)
    colour: ndarray  # (3, K, 64, 64) in 0..1
    labels: ndarray  # (K, 64, 64) uint8

    def add(self, which: ndarray, hits: Hits, looks: ndarray, label: int) -> None:
        """Keep what is nearer of a surface in the images `which`.

        `looks` are (K, 5) uniform: hue, saturation, brightness, pattern, its period.
        """
        k, row, column = np.nonzero(hits.depth < self.depth[which])
        image = which[k]
        self.depth[image, row, column] = hits.depth[k, row, column]
        shade = _shade(hits.surface[:, k, row, column], looks[k, 3:])
        colour = hsv_to_rgb(looks[:, 0], 0.1 + 0.7 * looks[:, 1], 0.45 + 0.5 * looks[:, 2])
        for axis in range(3):
            self.normal[axis, image, row, column] = hits.normal[axis, k, row, column]
            self.colour[axis, image, row, column] = shade * colour[k, axis]
        self.labels[image, row, column] = label


def _solids(own: ndarray) -> Solids:
    """Objects of (K, 7 or more) numbers."""
    distance = 2.2 + 3.3 * own[:, 1]
    across, radius, width = 0.75 * (own[:, 2] - 0.5) * distance, 0.25 + 0.35 * own[:, 3], 0.25 + 0.35 * own[:, 6]
    return Solids(across, distance, radius, 0.4 + own[:, 4], np.pi * own[:, 5], width)


def _shade(surface: ndarray, pattern: ndarray) -> ndarray:
    """Brightness (P,) of points of surfaces, (2, P) metres: plain, striped or checked by (P, 2) uniform numbers."""
    kind, period = (pattern[:, 0] * 3).astype(np.intp), 0.25 + 0.5 * pattern[:, 1]
    first, second = surface % period < period / 2
    return np.where(((kind == 1) & first) | ((kind == 2) & (first ^ second)), 0.65, 1.0)


def _light(normal: ndarray, rooms: ndarray) -> ndarray:
    """(K, 64, 64): how bright a surface is under a lamp that stands above and before the room."""
    angle, tilt, ambient = 2 * np.pi * rooms[:, 4], 0.5 + 0.4 * rooms[:, 5], 0.3 + 0.15 * rooms[:, 6, None, None]
    lamp = np.stack([np.sin(angle) * np.sin(tilt), np.cos(tilt), -np.abs(np.cos(angle)) * np.sin(tilt)])[
        ..., None, None
    ]
    lit = (normal[0] * lamp[0] + normal[1] * lamp[1] + normal[2] * lamp[2]).clip(0, 1)
    return ambient + (1 - ambient) * lit
