"""Parts of independent computations in NumPy."""

import numpy as np


def draw(*shape: int, seed: int = 0, scale: float = 1.5) -> np.ndarray:
    """Normal numbers of mean 0 and standard deviation `scale`."""
    return np.random.default_rng(seed).normal(0, scale, shape)


def sigmoid(z: np.ndarray) -> np.ndarray:
    """The logistic function."""
    return 1 / (1 + np.exp(-z))
