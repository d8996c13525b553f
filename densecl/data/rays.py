"""Rays of a pinhole camera and what they hit: the geometry of the drawn rooms (`sets/scenes.py`).

The world has x to the right, y up and z ahead, in metres; the camera stands above its origin. A ray is scaled so that
its length along the optical axis is 1: the parameter of a hit is its depth. Vectors have their components first,
(3, K, 64, 64): sums over a last axis of three would take most of the time.
"""

from typing import NamedTuple

import numpy as np
from numpy import ndarray

SIDE, FOCAL = 64, 64.0  # pixels
HEIGHT = 1.5  # of the camera above the floor
NONE = np.inf  # the depth where nothing is hit


class Rays(NamedTuple):
    """The rays of K images."""

    pitch: ndarray  # (K,) radians by which a camera looks down
    directions: ndarray  # (3, K, 64, 64) in the world

    def of(self, which: ndarray) -> "Rays":
        """The rays of some of the images."""
        return Rays(self.pitch[which], self.directions[:, which])

    def in_camera(self, normals: ndarray) -> ndarray:
        """Vectors of the world as the camera has them: x to the right, y up, z to the viewer."""
        x, y, z = normals
        sine, cosine = _wide(np.sin(self.pitch)), _wide(np.cos(self.pitch))
        return np.stack([x, cosine * y + sine * z, sine * y - cosine * z])


class Solids(NamedTuple):
    """K objects that stand on the floor, one in each of K images; metres and radians, (K,) each."""

    across: ndarray
    ahead: ndarray
    radius: ndarray  # of boxes, half a side
    height: ndarray  # of balls twice the radius, whatever is said here
    turn: ndarray  # about the vertical
    width: ndarray  # half the other side of boxes


class Hits(NamedTuple):
    """First points that the rays of K images hit."""

    depth: ndarray  # (K, 64, 64), infinite where nothing
    normal: ndarray  # (3, K, 64, 64) in the world, away from the surface
    surface: ndarray  # (2, K, 64, 64) metres along the surface, for patterns


def rays_of(pitch: ndarray) -> Rays:
    """Rays through the centres of pixels of cameras that look down by `pitch`, (K,) radians."""
    offset = (np.arange(SIDE) + 0.5 - SIDE / 2) / FOCAL
    down = offset[None, :, None]
    sine, cosine = _wide(np.sin(pitch)), _wide(np.cos(pitch))
    shape = (len(pitch), SIDE, SIDE)
    parts = (offset[None, None], -cosine * down - sine, cosine - sine * down)
    return Rays(pitch, np.stack([np.broadcast_to(part, shape) for part in parts]))


def hit_floor(rays: Rays) -> Hits:
    """The floor."""
    depth, p = _level(rays.directions, -HEIGHT)
    return Hits(depth, _upwards(depth), p[[0, 2]])


def hit_wall(rays: Rays, distance: ndarray, turn: ndarray) -> Hits:
    """A wall ahead at a distance (K,), turned about the vertical by (K,)."""
    x, y, z = rays.directions
    sine, cosine = _wide(np.sin(turn)), _wide(np.cos(turn))
    depth = _wide(distance) / (x * sine + z * cosine)
    normal = np.stack([np.broadcast_to(part, depth.shape) for part in (-sine, np.zeros_like(sine), -cosine)])
    return Hits(depth, normal, np.stack([depth * (x * cosine - z * sine), depth * y]))


def hit_balls(rays: Rays, solids: Solids) -> Hits:
    """Balls."""
    d, r = rays.directions, _wide(solids.radius)
    centre = (_wide(solids.across), r - HEIGHT, _wide(solids.ahead))
    depth = _first_root(_dot(d, d), _dot(d, centre), _dot(centre, centre) - r * r)
    normal = np.stack([(p - c) / r for p, c in zip(_points(depth, d), centre, strict=True)])
    return Hits(depth, normal, np.stack([_around(normal, solids) * r, normal[1] * r]))


def hit_cylinders(rays: Rays, solids: Solids) -> Hits:
    """Upright cylinders."""
    d, r, top = rays.directions, _wide(solids.radius), _wide(solids.height - HEIGHT)
    centre = (_wide(solids.across), _wide(solids.ahead))
    flat = d[[0, 2]]
    side = _first_root(_dot(flat, flat), _dot(flat, centre), _dot(centre, centre) - r * r)
    p = _points(side, d)
    side = np.where((p[1] >= -HEIGHT) & (p[1] <= top), side, NONE)
    lid, q = _level(d, top)
    away = np.stack([q[0] - centre[0], q[2] - centre[1]])
    lid = np.where(_dot(away, away) <= r * r, lid, NONE)
    normal = np.stack([(p[0] - centre[0]) / r, np.zeros_like(side), (p[2] - centre[1]) / r])
    around = np.stack([_around(normal, solids) * r, p[1]])
    return Hits(np.minimum(side, lid), np.where(lid < side, _upwards(side), normal), np.where(lid < side, away, around))


def hit_boxes(rays: Rays, solids: Solids) -> Hits:
    """Boxes."""
    x, y, z = rays.directions
    sine, cosine = _wide(np.sin(solids.turn)), _wide(np.cos(solids.turn))
    across, ahead, height = _wide(solids.across), _wide(solids.ahead), _wide(solids.height)
    d = np.stack([x * cosine - z * sine, y, x * sine + z * cosine])  # along the box's own axes
    centre = (across * cosine - ahead * sine, height / 2 - HEIGHT, across * sine + ahead * cosine)
    half = (_wide(solids.radius), height / 2, _wide(solids.width))
    slabs = list(zip(d, centre, half, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        enter = [(c - np.sign(way) * h) / way for way, c, h in slabs]
        leave = [(c + np.sign(way) * h) / way for way, c, h in slabs]
    first, last = np.maximum.reduce(enter), np.minimum.reduce(leave)
    depth = np.where((first < last) & (first > 0), first, NONE)
    # the side through which a ray comes in is that which it passes last
    a, b, c = (np.where(first == own, -np.sign(way), 0.0) for own, way in zip(enter, d, strict=True))
    p, q, r = (part - c for part, c in zip(_points(depth, d), centre, strict=True))
    return Hits(
        depth,
        np.stack([a * cosine + c * sine, b, c * cosine - a * sine]),
        np.stack([np.where(a != 0, r, p), np.where(b != 0, r, q)]),
    )


def _wide(numbers: ndarray) -> ndarray:
    """(K,) -> (K, 1, 1)."""
    return numbers[:, None, None]


def _dot(a: "ndarray | tuple[ndarray, ...]", b: "ndarray | tuple[ndarray, ...]") -> ndarray:
    total = a[0] * b[0] + a[1] * b[1]
    return total if len(a) == 2 else total + a[2] * b[2]


def _points(depth: ndarray, directions: ndarray) -> ndarray:
    """Points (3, K, 64, 64) of hits from the camera; the camera itself where nothing is hit."""
    return np.where(np.isfinite(depth), depth, 0) * directions


def _upwards(depth: ndarray) -> ndarray:
    """Normals of level surfaces."""
    return np.stack([np.zeros_like(depth), np.ones_like(depth), np.zeros_like(depth)])


def _around(normal: ndarray, solids: Solids) -> ndarray:
    """The angle about the vertical, from where a solid is turned to."""
    return np.arctan2(normal[0], normal[2]) + _wide(solids.turn)


def _level(directions: ndarray, y: ndarray | float) -> tuple[ndarray, ndarray]:
    """Depth and points where rays that go down pass a height `y` from the camera, below it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where((directions[1] < 0) & (y < 0), y / directions[1], NONE)
    return depth, _points(depth, directions)


def _first_root(a: ndarray, half_b: ndarray, c: ndarray) -> ndarray:
    """The smaller root of a t^2 - 2 half_b t + c, where it is real and ahead of the camera."""
    square = half_b * half_b - a * c
    root = (half_b - np.sqrt(np.maximum(square, 0))) / a
    return np.where((square > 0) & (root > 0), root, NONE)
