"""The reader of data sets with a mask an image, or none; a data set is one constructor that lists the files."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from densecl.data.decode import image_size, present, read_indices, read_rgb
from densecl.errors import DataError

VOID = 255
DEFAULT_MEMORY = 1 << 30


class Sample(NamedTuple):
    """An image and its mask, as they are in the files."""

    image: Tensor  # (3, H, W) uint8 RGB
    mask: Tensor  # (H, W) uint8: 0 background, 1..n classes in the data set's official order, 255 void


class DenseDataset:
    """Images with a mask each, or without, read on demand; picklable, and nothing changes after construction.

    Attributes:
        name: the data set, as `open_dataset` calls it.
        root: the folder that was read.
        split: the split that was asked for.
        ids: a name an image, unique in the split.
        class_names: the n classes without background, in official order; class c is `class_names[c - 1]`.
        has_background: whether label 0 occurs in masks (CamVid: no).
        has_masks: whether there are any; if not, every mask is background throughout.
        source: the lists and folders that the split was read from, for plans and records.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        split: str,
        *,
        ids: Sequence[str],
        images: Sequence[str],
        masks: Sequence[str] | None,
        class_names: Sequence[str],
        has_background: bool = True,
        labels: Mapping[int, int] | None = None,
        source: str = "",
    ):
        """Describe a data set; no file is opened.

        Args:
            name: the data set.
            root: its folder.
            split: the split.
            ids: N names.
            images: N paths of images.
            masks: N paths of masks; None for images without.
            class_names: the classes without background.
            has_background: whether label 0 occurs.
            labels: id in the files -> label; ids that are absent here are illegal. None: 0..n and 255 stand for
                themselves.
            source: what the split was read from.
        """
        self.has_masks = masks is not None
        masks = images if masks is None else masks  # what is looked at for changes
        if not len(ids) == len(images) == len(masks):
            raise ValueError(f"{len(ids)} ids, {len(images)} images and {len(masks)} masks")
        self.name, self.root, self.split, self.source = name, Path(root), split, source
        self.ids = tuple(ids)
        self.class_names = tuple(class_names)
        self.has_background = has_background
        self.image_files = tuple(images)  # strings: ten thousand Path objects cost more than reading their sizes
        self.mask_files = tuple(masks)
        if labels is None:
            labels = {c: c for c in (*range(len(self.class_names) + 1), VOID)}
        self.labels = dict(labels)
        self._legal = np.zeros(256, dtype=bool)
        self._table = np.full(256, VOID, dtype=np.uint8)
        for stored, label in self.labels.items():
            self._legal[stored] = True
            self._table[stored] = label
        self._identity = all(stored == label for stored, label in self.labels.items())

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.split!r}, {len(self)} images, {str(self.root)!r})"

    def image_path(self, i: int) -> Path:
        """The file of image `i`."""
        return Path(self.image_files[i])

    def mask_path(self, i: int) -> Path:
        """The file of mask `i`."""
        return Path(self.mask_files[i])

    @property
    def content(self) -> str:
        """Hash of the names and sizes of all files: equal for copies elsewhere, different for other pixels."""
        digest = hashlib.sha256(self.name.encode())
        for name, *files in zip(self.ids, self.image_files, self.mask_files, strict=True):
            sizes = [os.stat(file).st_size if os.path.exists(file) else -1 for file in files]  # noqa: PTH110, PTH116
            digest.update(f"{name} {sizes}\n".encode())
        return digest.hexdigest()

    def read(self, i: int) -> Sample:
        """Decode image and mask `i`.

        Raises:
            DataError: a file is missing or unreadable, the sizes differ, or the mask holds an illegal id.
        """
        mask = self.read_mask(i)  # (H, W)
        image = read_rgb(self.image_files[i])  # (H, W, 3)
        self._check_size(i, image.shape[:2], mask.shape)
        return Sample(torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(mask))

    def read_mask(self, i: int) -> np.ndarray:
        """Decode mask `i` alone.

        Returns:
            (H, W) uint8 labels.

        Raises:
            DataError: the mask is missing, unreadable, or holds an illegal id.
        """
        if not self.has_masks:
            return np.zeros(image_size(self.image_files[i]), np.uint8)
        stored = read_indices(self.mask_files[i])
        self._check_ids(i, present(stored))
        return stored if self._identity else self._table[stored]

    def read_labels(self, i: int) -> np.ndarray:
        """Which labels mask `i` holds; the image's size is compared from its header.

        Returns:
            (256,) bool.

        Raises:
            DataError: as `read`, but of the image only the header is read.
        """
        if not self.has_masks:
            image_size(self.image_files[i])  # is it an image?
            return np.arange(256) == 0
        stored = read_indices(self.mask_files[i])
        found = present(stored)
        self._check_ids(i, found)
        self._check_size(i, image_size(self.image_files[i]), stored.shape)
        if self._identity:
            return found
        labels = np.zeros(256, dtype=bool)
        labels[self._table[found]] = True
        return labels

    def without_masks(self) -> "DenseDataset":
        """The same images for tasks that do not look at masks, which are then not read."""
        return DenseDataset(
            self.name,
            self.root,
            self.split,
            ids=self.ids,
            images=self.image_files,
            masks=None,
            class_names=(),
            source=self.source,
        )

    def fits_in_memory(self, limit_bytes: int = DEFAULT_MEMORY) -> bool:
        """Whether all samples, decoded, would take at most `limit_bytes`, if all were as large as the first."""
        if not len(self):
            return True
        height, width = image_size(self.image_files[0])
        return len(self) * 4 * height * width <= limit_bytes  # 3 bytes of image and 1 of mask a pixel

    def cached(self, limit_bytes: int = DEFAULT_MEMORY) -> "DenseDataset":
        """The data set that keeps each sample in memory once read; itself when it would not fit."""
        return InMemory(self) if self.fits_in_memory(limit_bytes) else self

    def _check_ids(self, i: int, found: np.ndarray) -> None:
        illegal = np.flatnonzero(found & ~self._legal)
        if illegal.size:
            shown = ", ".join(map(str, illegal[:5])) + (", ..." if illegal.size > 5 else "")
            noun = "id" if illegal.size == 1 else "ids"
            raise DataError(
                f"mask {self.mask_files[i]} holds the class {noun} {shown}",
                f"legal in {self.name}: {_ranges(self.labels)}",
            )

    def _check_size(self, i: int, image: tuple[int, ...], mask: tuple[int, ...]) -> None:
        if image != mask:
            raise DataError(
                f"mask {self.mask_files[i]} is {mask[1]}x{mask[0]}, "
                f"its image {self.image_files[i]} is {image[1]}x{image[0]}",
                "a mask has the width and height of its image",
            )


class InMemory(DenseDataset):
    """A data set whose samples stay in memory once read. They are shared: change none of them in place.

    A copy sent to another process starts empty.
    """

    def __init__(self, dataset: DenseDataset):
        self.__dict__.update(dataset.__dict__)
        self._samples: list[Sample | None] = [None] * len(dataset)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_samples": [None] * len(self)}

    def read(self, i: int) -> Sample:
        """As `DenseDataset.read`, decoded once."""
        sample = self._samples[i]
        if sample is None:
            sample = self._samples[i] = super().read(i)
        return sample

    def read_mask(self, i: int) -> np.ndarray:
        """As `DenseDataset.read_mask`; from memory when the sample has been read."""
        sample = self._samples[i]
        return super().read_mask(i) if sample is None else sample.mask.numpy()

    def cached(self, limit_bytes: int = DEFAULT_MEMORY) -> DenseDataset:
        """Itself."""
        return self


def _ranges(ids: Mapping[int, int]) -> str:
    """`0-20, 255` for the ids 0..20 and 255."""
    parts: list[list[int]] = []
    for stored in sorted(ids):
        if parts and stored == parts[-1][1] + 1:
            parts[-1][1] = stored
        else:
            parts.append([stored, stored])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)
