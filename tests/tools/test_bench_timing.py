"""The clock of the bench, and forms that take turns."""

import pytest
import torch.utils.benchmark

from bench import rows
from bench.rows import Form, Spent, in_turn
from bench_parts import Clock

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_forms_take_turns_and_every_second_turn_is_the_other_way_round(clock):
    order = []
    forms = [Form(name, lambda name=name: order.append(name)) for name in "ab"]
    spent = in_turn(forms, 3, warmup=2)
    assert "".join(order) == "aabb" + "ab" + "ba" + "ab"
    assert [len(turn) for turn in spent] == [2, 2, 2]


def test_warm_up_is_not_counted(clock):
    turns = in_turn([Form("a", clock.work(100.0, 2.0, 3.0))], 2)
    assert [spent.clock for (spent,) in turns] == [2.0, 3.0]


def test_short_work_is_repeated_and_one_call_is_what_counts(clock):
    calls = []
    work = clock.work(0.004)
    turns = in_turn([Form("a", lambda: (calls.append(1), work()))], 2, least=0.02)
    assert len(calls) == 1 + 2 * 5
    assert [spent.clock for (spent,) in turns] == pytest.approx([0.004, 0.004])


def test_what_is_prepared_is_handed_over_and_not_timed(clock):
    made, used, work = [], [], clock.work(1.0)

    def prepare():
        clock.now += 50
        made.append(len(made))
        return made[-1]

    turns = in_turn([Form("a", lambda given: (used.append(given), work()), prepare)], 2, least=9.0)
    assert [spent.clock for (spent,) in turns] == [1.0, 1.0]
    assert used == made == [0, 1, 2]


def test_a_part_of_the_work_counts_as_often_as_its_form_says(clock):
    turns = in_turn([Form("a", clock.work(2.0), scale=8.0)], 1)
    assert turns == [[Spent(16.0, 8.0)]]


def test_the_clock_is_that_of_torch_which_waits_for_a_gpu():
    assert rows.timer is torch.utils.benchmark.timer
    ((waited,),) = in_turn([Form("a", lambda: rows.time.sleep(0.05))], 1, warmup=0)
    assert 0.05 <= waited.clock < 5
    assert waited.processor < 0.05
