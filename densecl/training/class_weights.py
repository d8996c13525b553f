"""Weights of classes in the supervised loss, from their frequencies in a step's labels."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from densecl.data.dataset import DenseDataset
from densecl.streams.samples import StepImages


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
