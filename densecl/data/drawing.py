"""Pixels of the drawn data sets: reproducible noise, colours, outlines, borders; only `Generator.random` is called."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from densecl.data.dataset import VOID

SIZE = 48  # side of every drawn image in pixels
BLOCK = 8  # side of a background block in pixels
CHUNK = 125  # images drawn at once: bounds the memory, does not change the pixels


class Drawing(NamedTuple):
    """The images of a split."""

    images: np.ndarray  # (N, 48, 48, 3) uint8
    masks: np.ndarray  # (N, 48, 48) uint8: 0 background, 1.. classes, 255 void


class Things(NamedTuple):
    """One object in each of B images."""

    numbers: np.ndarray  # (B, 4 or more) uniform: radius, angle, centre (2)
    present: np.ndarray  # (B,) bool, which images have it
    outline: np.ndarray  # (B,) positions in a list of names
    colour: np.ndarray  # (B, 3) in 0..1
    label: np.ndarray  # (B,)
    fill: np.ndarray | None = None  # (B,) positions in a list of fills


class Fill(NamedTuple):
    """A pattern on an object: stripes that are `period` pixels apart, or squares; plain at 0."""

    period: int = 0
    checker: bool = False

    def light(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """True where the object has its full colour: at (K, 48, 48) pixels from its centre, along its axes."""
        if not self.period:
            return np.ones(x.shape, bool)
        stripes = x % self.period < self.period / 2
        return stripes ^ (y % self.period < self.period / 2) if self.checker else stripes


class Canvas(NamedTuple):
    """B images being drawn."""

    pixels: np.ndarray  # (B, 48, 48, 3) float64, 0..1
    instances: np.ndarray  # (B, 48, 48) uint8, number of the object seen at a pixel, 0 of none
    masks: np.ndarray  # (B, 48, 48) uint8 labels

    def paint(
        self, slot: int, things: Things, outlines: Sequence[str], fills: Sequence[Fill] = (), dark: float = 1.0
    ) -> None:
        """Paint object number `slot` over what is there; outside a fill's light parts its colour is times `dark`."""
        for kind, name in enumerate(outlines):
            which = np.flatnonzero(things.present & (things.outline == kind))
            x, y, radius = axes(things.numbers[which, :4])  # (K, 48, 48)
            inside = outline(name, x, y, radius)
            image, row, column = np.nonzero(inside)
            colour = things.colour[which[image]]
            if things.fill is not None:
                own = things.fill[which, None, None]
                light = np.zeros(inside.shape, bool)
                for number, fill in enumerate(fills):
                    light |= (own == number) & fill.light(x, y)
                colour = colour * np.where(light[inside], 1.0, dark)[:, None]
            self.pixels[which[image], row, column] = colour
            self.instances[which[image], row, column] = slot
            self.masks[which[image], row, column] = things.label[which[image]]


def compose(
    rng: np.random.Generator,
    things: np.ndarray,
    present: np.ndarray,
    slots: Iterable[int],
    background: Callable[[slice], np.ndarray],
    draw_slot: Callable[[np.ndarray, np.ndarray, int, Canvas], None],
    grain: float,
) -> Drawing:
    """Draw N images of S objects each, later ones over earlier ones, with a pixel of void around each.

    `things` are (N, S, ...) uniform numbers of each object, `present` (N, S) says which are there, `slots` numbers
    them. `background` gives the pixels (B, 48, 48, 3) of a part of the images before any object; `draw_slot` draws one
    object of each image, from its numbers (B, ...), whether it is there (B,), and its slot. Noise of deviation `grain`
    is drawn after everything else.
    """
    n = len(things)
    drawing = Drawing(np.empty((n, SIZE, SIZE, 3), np.uint8), np.empty((n, SIZE, SIZE), np.uint8))
    for start in range(0, n, CHUNK):
        part = slice(start, min(start + CHUNK, n))
        pixels, masks = background(part), drawing.masks[part]
        masks[:] = 0
        canvas = Canvas(pixels, np.zeros(masks.shape, np.uint8), masks)
        for k, slot in enumerate(slots):
            draw_slot(things[part, k], present[part, k], slot, canvas)
        pixels += grain * noise(rng, pixels.shape)
        drawing.images[part] = np.clip(np.floor(pixels * 255), 0, 255)
        masks[border(canvas.instances)] = VOID
    return drawing


def blocky(rng: np.random.Generator, colours: np.ndarray, contrast: float) -> Callable[[slice], np.ndarray]:
    """Backgrounds for `compose`: a colour an image, (N, 3), in blocks whose brightness varies by `contrast`."""
    shades = contrast * noise(rng, (len(colours), SIZE // BLOCK, SIZE // BLOCK))
    return lambda part: colours[part, None, None] + shades[part].repeat(BLOCK, 1).repeat(BLOCK, 2)[..., None]


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Nearly normal numbers of variance 1: sums of four uniform ones, exact on every machine."""
    draws = rng.random((*shape, 4))
    return (((draws[..., 0] + draws[..., 1]) + (draws[..., 2] + draws[..., 3])) - 2) * 3**0.5


def hsv_to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Colours of B hues, saturations and brightnesses in 0..1 (hue modulo 1): (B, 3) in 0..1, red, green, blue."""
    # each channel is full for a third of the circle around its own hue and falls off linearly (Smith 1978)
    sector = (hue[:, None] * 6 + np.array([5.0, 3.0, 1.0])) % 6
    return value[:, None] * (1 - saturation[:, None] * np.clip(np.minimum(sector, 4 - sector), 0, 1))


def axes(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels from the centre of K objects along their own axes, (K, 48, 48) each, and their radius (K, 1, 1).

    `numbers` are (K, 4) uniform: radius (0.2 to 0.34 of the side), angle, centre (2, 0.15 to 0.85 of the side).
    """
    radius, angle, *centre = (numbers[:, k, None, None] for k in range(4))  # each (K, 1, 1)
    radius, angle = (0.2 + 0.14 * radius) * SIZE, 2 * np.pi * angle
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    right, down = columns - (0.15 + 0.7 * centre[0]) * SIZE, rows - (0.15 + 0.7 * centre[1]) * SIZE
    return right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle), radius


def border(instances: np.ndarray) -> np.ndarray:
    """(B, H, W) bool: the pixels just outside each object, of (B, H, W) uint8 numbers; higher ones lie in front."""
    edge = np.zeros(instances.shape, bool)
    for axis in (1, 2):
        before = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        after = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        edge[before] |= instances[before] < instances[after]
        edge[after] |= instances[after] < instances[before]
    return edge


def outline(name: str, x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """(K, H, W) bool: the pixels of a shape, from what `axes` gives."""
    if name == "square":
        return np.maximum(np.abs(x), np.abs(y)) < 0.75 * radius
    if name == "bar":
        return (np.abs(x) < radius) & (np.abs(y) < 0.35 * radius)
    if name == "cross":
        far, near = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
        return (far < radius) & (near < 0.33 * radius)
    if name == "triangle":
        return (y < 0.7 * radius) & (y > 2 * np.abs(x) - radius)
    distance = x * x + y * y  # squared
    disc = distance < radius * radius
    if name == "star":  # r < R (0.65 + 0.35 cos 5a); cos 5a is a polynomial of cos a = x / r
        distance = np.sqrt(distance)
        cosine = x / np.maximum(distance, 1e-9)
        square = cosine * cosine
        return distance < radius * (0.65 + 0.35 * cosine * ((16 * square - 20) * square + 5))
    if name == "half-disc":
        return disc & (y > -0.1 * radius)
    return disc & (distance > 0.25 * radius * radius) if name == "ring" else disc
