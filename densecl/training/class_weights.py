"""Weights of classes in the supervised loss, from their frequencies in a step's labels."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from densecl.data.dataset import DenseDataset
from densecl.streams.samples import StepImages
from densecl.streams.scenario import Experience

if TYPE_CHECKING:
    from densecl.training.loop import Loop


def of_step(loop: "Loop", experience: Experience) -> Tensor:
    """(256,) float32: the weights that the settings of a loop give the labels of a step."""
    frequencies = label_frequencies(loop.scenario.training.readers[loop.step], experience.images)
    return class_weights(frequencies, loop.settings.class_weights).to(loop.device)


def label_frequencies(reader: DenseDataset, images: StepImages) -> np.ndarray:
    """(256,) share of pixels that carry each training target of a step, void left out; sums to 1."""
    table = images.table.numpy()

    def count(index: int) -> np.ndarray:
        return np.bincount(table[reader.read_mask(index)].ravel(), minlength=256)

    with ThreadPoolExecutor() as pool:  # decoding releases the interpreter
        total = sum(pool.map(count, images.indices.tolist()), np.zeros(256, dtype=np.int64))
    total[255] = 0
    return total / max(total.sum(), 1)


def class_weights(frequencies: np.ndarray, power: float) -> Tensor:
    """(256,) float32 weights frequency^-power, scaled so that the mean weight of a labelled pixel is 1.

    Labels that the step does not have (replayed ones) weigh 1.
    """
    present = frequencies > 0
    weights = np.ones_like(frequencies)
    weights[present] = frequencies[present] ** -power
    weights[present] /= (weights * frequencies)[present].sum()
    return torch.from_numpy(weights.astype(np.float32))
