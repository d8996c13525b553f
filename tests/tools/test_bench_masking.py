import torch

from bench.masking import SMALL, measure
from bench.rows import COST, Bench
from size_formulas import unet_counts

torch.set_num_threads(1)


def test_training_packing_and_changing_the_task_of_the_network_it_is_given():
    trained, packed, changed = measure(Bench(2), **SMALL)
    assert (trained.names, trained.sense) == (("Piggyback", "fine-tuning"), COST)
    assert f"{unet_counts(8).weights:,} mask bits" in packed.what
    assert "width 8" in changed.what
    assert all(row.goal is not None for row in (trained, packed, changed))
