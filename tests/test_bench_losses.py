import pytest
import torch

from densecl.bench.losses import measure, peak_bytes, textbook_cross_entropy, textbook_distillation
from densecl.losses import unbiased_cross_entropy, unbiased_distillation

torch.set_num_threads(1)


def test_the_textbook_forms_compute_the_same_losses():
    torch.manual_seed(0)
    logits, teacher = torch.randn(2, 6, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    target = torch.randint(0, 6, (2, 4, 4))
    target[0, 0] = 255
    torch.testing.assert_close(
        textbook_cross_entropy(logits, target, 3), unbiased_cross_entropy(logits, target, n_old=3)
    )
    torch.testing.assert_close(textbook_distillation(logits, teacher), unbiased_distillation(logits, teacher))


def test_peak_bytes_counts_what_is_held_at_once():
    def call():
        a = torch.empty(1000, dtype=torch.uint8)
        del a
        b, c = torch.empty(700, dtype=torch.uint8), torch.empty(600, dtype=torch.uint8)
        del b, c

    assert peak_bytes(call) == pytest.approx(1300, abs=200)  # allocations are rounded up to 64 bytes


def test_measure_reports_ratios_and_the_memory_goal_is_met():
    shape = (4, 21, 96, 96)
    result = measure(repeats=1, shape=shape)
    assert set(result) == {"unbiased_cross_entropy", "unbiased_distillation"}
    for row in result.values():
        assert row["speedup"] == pytest.approx(row["textbook_seconds"] / row["seconds"])
        assert min(row["bytes"], row["textbook_bytes"]) >= 4 * 21 * 96 * 96 * 4  # each at least holds the gradient
        assert row["memory_ratio"] <= 0.6
