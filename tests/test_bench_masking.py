import torch

from densecl.bench.masking import measure
from densecl.masking.sizes import unet_counts

torch.set_num_threads(1)


def test_measure_reports_ratios_of_turns_and_times_of_the_network_it_is_given():
    result = measure(repeats=2, iterations=1, width=4, size=16, batch=2, switched_width=8)
    assert result["mask bits"] == unet_counts(8).weights
    lowest, highest = result["piggyback over fine-tuning, min"], result["piggyback over fine-tuning, max"]
    assert 0 < lowest <= result["piggyback over fine-tuning, median"] <= highest
    assert 0 < result["ms to change the task"] <= result["ms to change the task, max"]
