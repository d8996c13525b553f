"""Augmentation of image and mask together; all randomness comes from the generator that is passed in.

A transform is called as `(image, mask, rng) -> (image, mask)` with (3, H, W) uint8 and (H, W) uint8 tensors, and
changes neither in place. A mask may be a map of numbers instead, (C, H, W) float32, of a `Geometry` of its own. Images
are resized bilinearly with antialiasing, to the bits of torchvision, whose import takes seconds. Masks take the pixel
whose centre is nearest, as PIL does: plain `nearest` takes the one above and to the left, which shifts masks against
their images by up to half a pixel.
"""

import dataclasses
import math
import platform
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from densecl.data.geometry import LABELS, Geometry
from densecl.errors import SettingError, UnknownNameError

Transform = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]
Size = int | tuple[int, int]  # side of a square, or (height, width), in pixels
AUGMENTATIONS = ("none", "flip", "reference", "rescale", "crop", "jitter", "rotation", "rotation+jitter")
IMAGENET_MEAN = (124, 116, 104)  # of padding, whose mask is void: zero after normalisation


class Box(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclasses.dataclass(frozen=True)
class Compose:
    """Several transforms, one after the other."""

    transforms: Sequence[Transform]

    def __call__(self, image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Apply all."""
        for transform in self.transforms:
            image, mask = transform(image, mask, rng)
        return image, mask


@dataclasses.dataclass(frozen=True)
class HorizontalFlip:
    """Mirror left to right with probability `p`."""

    p: float = 0.5
    geometry: Geometry = LABELS

    def __call__(self, image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Flip both or none."""
        if rng.random() >= self.p:
            return image, mask
        return image.flip(-1), self.geometry.mirrored(mask.flip(-1))


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Cut out a box of random area and shape and resize it to `size`, as torchvision's class of this name.

    `scale` are fractions of the image's *area*. The field's `scale=(0.5, 2.0)` therefore never enlarges the view: a
    box of more than the whole image does not fit, is rejected, and drawn again, up to ten times; then the whole image
    is taken.
    """

    size: Size
    scale: tuple[float, float] = (0.5, 2.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    geometry: Geometry = LABELS

    def __call__(self, image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Crop both at the same box and resize."""
        height, width = image.shape[-2:]
        box = self.draw(height, width, rng)
        image, mask = _crop_and_resize(image, mask, box, _pair(self.size))
        return image, self.geometry.enlarged(mask, math.sqrt(height * width / (box.height * box.width)))

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """The box for an image of this height and width."""
        low, high = (math.log(r) for r in self.ratio)
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(low, high))  # width / height, log-uniform
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < h <= height and 0 < w <= width:
                return Box(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
        # the largest centred box whose aspect is allowed
        w = min(width, round(height * self.ratio[1]))
        h = min(height, round(width / self.ratio[0]))
        return Box((height - h) // 2, (width - w) // 2, h, w)


@dataclasses.dataclass(frozen=True)
class RandomRescaleCrop:
    """Rescale at random (log-uniformly) and cut `size` out at random; what the image does not fill is padding.

    The box that will be seen is cut out first and resized alone, so the cost does not grow with the factor; its place
    is rounded to whole pixels of the original.
    """

    size: Size
    scale: tuple[float, float] = (0.5, 2.0)
    geometry: Geometry = LABELS

    def __call__(self, image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Rescale and cut both alike."""
        crop = _pair(self.size)
        box, seen, (top, left) = self.draw(image.shape[-2], image.shape[-1], rng)
        image, mask = _crop_and_resize(image, mask, box, seen)
        # of what is seen, whose sides are whole pixels, and not the factor that was drawn
        mask = self.geometry.enlarged(mask, math.sqrt(seen[0] * seen[1] / (box.height * box.width)))
        if seen == crop:
            return image, mask
        padding = (left, crop[1] - left - seen[1], top, crop[0] - top - seen[0])
        padded = image.new_tensor(IMAGENET_MEAN)[:, None, None].repeat(1, *crop)
        padded[:, top : top + seen[0], left : left + seen[1]] = image
        return padded, functional.pad(mask, padding, value=self.geometry.fill)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[Box, tuple[int, int], tuple[int, int]]:
        """The box that is seen of an image, its (height, width) after rescaling, and its (top, left) in the crop."""
        low, high = map(math.log, self.scale)
        factor = math.exp(rng.uniform(low, high))
        tall, wide = _pair(self.size)
        rows, columns = _window(height, tall, factor, rng), _window(width, wide, factor, rng)
        box = Box(rows[0], columns[0], rows[1], columns[1])
        return box, (rows[2], columns[2]), (rows[3], columns[3])


@dataclasses.dataclass(frozen=True)
class RandomRotation:
    """Turn about the centre by an angle drawn from -degrees..degrees; corners that come into view are padding."""

    degrees: float = 15.0
    geometry: Geometry = LABELS

    def __call__(self, image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Turn both by the same angle."""
        angle = rng.uniform(-self.degrees, self.degrees)
        F, modes = _torchvision()
        turned = F.rotate_image(image, angle, interpolation=modes.BILINEAR, fill=list(IMAGENET_MEAN))
        labels = F.rotate_image(mask[None], angle, interpolation=modes.NEAREST, fill=[self.geometry.fill])[0]
        return turned, self.geometry.turned(labels, angle)


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Multiply brightness, contrast and saturation by factors from 1-strength..1+strength, in random order."""

    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5

    def __call__(self, image: Tensor, mask: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Change the image's colours; the mask stays."""
        F, _ = _torchvision()
        steps = (
            (F.adjust_brightness_image, self.brightness),
            (F.adjust_contrast_image, self.contrast),
            (F.adjust_saturation_image, self.saturation),
        )
        factors = rng.uniform(-1, 1, len(steps))
        for i in rng.permutation(len(steps)).tolist():
            adjust, strength = steps[i]
            image = adjust(image, max(0.0, 1 + strength * float(factors[i])))
        return image, mask


@dataclasses.dataclass(frozen=True)
class ResizeCenterCrop:
    """Resize the shorter side to `size` and cut the centre out (the field's evaluation); not random.

    For (height, width) the image is resized as little as covers both.
    """

    size: Size

    def __call__(self, image: Tensor, mask: Tensor, rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Resize and cut both alike."""
        height, width = image.shape[-2:]
        h, w = _pair(self.size)
        if (height, width) == (h, w):
            return image, mask
        # the longer side is rounded down, as torchvision's Resize does; integers, so that no side falls one short
        full = [h, max(w, width * h // height)] if height * w <= width * h else [max(h, height * w // width), w]
        if [height, width] != full:
            image, mask = resize_image(image, full), resize_labels(mask, full)
        top, left = round((full[0] - h) / 2), round((full[1] - w) / 2)
        rows, columns = slice(top, top + h), slice(left, left + w)
        return image[:, rows, columns].contiguous(), mask[..., rows, columns].contiguous()


def augmentation(
    name: str, crop: Size | None, scale: tuple[float, float] | None = None, geometry: Geometry = LABELS
) -> Transform:
    """Build the training transform that a setting names, for truths of a geometry.

    It is `none` (resize and centre crop), `flip` (and random flips), `reference` (MiB's and PLOP's RandomResizedCrop
    and flips) or `rescale` (true rescaling, random crop, flips). The four of Table 1 of Di Salvo et al. (2021): `crop`
    (their "None": the RandomResizedCrop alone, no flips), `jitter` (and colour jitter, whose strength the paper does
    not tell), `rotation` (and +-15 degrees), `rotation+jitter`. Images keep their size where `crop` is None, which only
    `none` and `flip` allow; `scale` is the range of area fractions or of factors, by default (0.5, 2.0).
    """
    if name not in AUGMENTATIONS:
        raise UnknownNameError("augmentation", name, AUGMENTATIONS)
    if crop is not None and min(_pair(crop)) < 1:
        raise SettingError(f"crop {crop} has no pixels", "give a side or (height, width) of at least 1")
    low, high = scale or (0.5, 2.0)
    if not 0 < low <= high < math.inf:
        raise SettingError(f"scale ({low}, {high}) is no range", "give two positive numbers, the smaller one first")
    if name in ("none", "flip"):
        keep: tuple[Transform, ...] = () if crop is None else (ResizeCenterCrop(crop),)
        return Compose(keep if name == "none" else (*keep, HorizontalFlip(geometry=geometry)))
    if crop is None:
        raise SettingError(f"augmentation '{name}' needs a crop size", "set training.crop")
    if name == "rescale":
        return Compose((RandomRescaleCrop(crop, (low, high), geometry), HorizontalFlip(geometry=geometry)))
    cut = RandomResizedCrop(crop, (low, high), geometry=geometry)
    if name == "reference":
        return Compose((cut, HorizontalFlip(geometry=geometry)))
    # turned before it is cut: most of the padding falls outside, and whole images are smaller than crops of 512
    turn = (RandomRotation(geometry=geometry),) if "rotation" in name else ()
    return Compose((*turn, cut, *((ColorJitter(),) if "jitter" in name else ())))


def _torchvision() -> tuple[Any, Any]:
    """Functions of images and interpolations of torchvision, imported late: that takes seconds, most need none."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    return functional, InterpolationMode


def _pair(size: Size) -> tuple[int, int]:
    """(height, width)."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def resize_image(image: Tensor, size: Sequence[int]) -> Tensor:
    """(C, H, W) uint8 at a (height, width): bilinear, antialiased, in integers where torchvision has them."""
    if list(image.shape[-2:]) == list(size):
        return image
    fast = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")
    pixels = image[None] if fast else image[None].float()
    resized = functional.interpolate(pixels, size=list(size), mode="bilinear", align_corners=False, antialias=True)[0]
    return resized if resized.dtype == image.dtype else resized.round_().to(image.dtype)


def resize_labels(mask: Tensor, size: Sequence[int]) -> Tensor:
    """(H, W) uint8 or (C, H, W) float32 at a (height, width), each pixel as the one whose centre is nearest."""
    if list(mask.shape[-2:]) == list(size):
        return mask
    maps = mask.reshape(1, -1, *mask.shape[-2:])
    return functional.interpolate(maps, size=list(size), mode="nearest-exact").reshape(*mask.shape[:-2], *size)


def _crop_and_resize(image: Tensor, mask: Tensor, box: Box, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    return resize_image(image[:, rows, columns], size), resize_labels(mask[..., rows, columns], size)


def _window(side: int, crop: int, factor: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """One axis of a rescaled crop: start and length in the original, length after rescaling, start in the crop."""
    scaled = max(1, round(side * factor))
    offset = int(rng.integers(abs(scaled - crop) + 1))  # of the crop in the image, or of the image in the crop
    if scaled <= crop:
        return 0, side, scaled, offset
    length = min(side, max(1, round(crop * side / scaled)))
    return min(round(offset * side / scaled), side - length), length, crop, 0
