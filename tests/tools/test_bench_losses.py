import pytest
import torch

from bench import losses
from bench.losses import measure, peak_bytes, textbook_cross_entropy, textbook_distillation
from bench.rows import Bench, Missing, Row
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

    assert peak_bytes(call, torch.device("cpu")) == pytest.approx(
        1300, abs=200
    )  # allocations are rounded up to 64 bytes


def test_the_memory_goal_is_met_and_a_gradient_is_in_what_is_counted(monkeypatch):
    shape, counted = (4, 21, 96, 96), []
    monkeypatch.setattr(losses, "peak_bytes", lambda *a: counted.append(peak_bytes(*a)) or counted[-1])
    made = [row for row in measure(Bench(1), shape) if isinstance(row, Row)]
    assert [row.what.split(",")[0] for row in made] == ["unbiased cross-entropy", "unbiased distillation"]
    assert min(counted) >= 4 * 21 * 96 * 96 * 4  # each at least holds the gradient
    assert made[0].goal is not None
    assert all(row.memory is not None and row.memory <= 0.6 for row in made)


def test_compiled_forms_are_further_rows(monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend="eager"))
    made = list(measure(Bench(1, compile=True), (2, 5, 16, 16), n_old=3))
    assert [row.names[0] for row in made if isinstance(row, Row)][2:] == ["compiled by torch.compile"] * 2
    assert all(isinstance(row, Row) and (row.goal is None) == ("compiled" in row.names[0]) for row in made)
    torch.compiler.reset()


def test_without_a_compiler_they_are_left_out_with_a_line(monkeypatch):
    def broken(function):
        raise RuntimeError("\nno C++ compiler was found\npage after page")

    monkeypatch.setattr(torch, "compile", broken)
    *made, last = measure(Bench(1, compile=True), (2, 5, 16, 16), n_old=3)
    assert len(made) == 2
    assert isinstance(last, Missing)
    assert last.line.endswith("compiled: RuntimeError: no C++ compiler was found")
