import torch

from bench.features import SMALL, measure
from bench.rows import SPEED, Bench

torch.set_num_threads(1)


def test_kept_features_are_compared_with_computed_ones():
    [row] = measure(Bench(2), **SMALL)
    assert (row.names, row.sense) == (("kept features", "computed features"), SPEED)
    assert row.goal is not None
