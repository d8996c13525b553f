"""The clock of the bench, and forms that take turns."""

from contextlib import nullcontext

import pytest
import torch

from bench import timing
from bench.timing import Form, Spent, in_turn, stopwatch
from bench_parts import Clock

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def clock():
    return Clock()


def test_forms_take_turns_and_every_second_turn_is_the_other_way_round(clock):
    order = []
    forms = [Form(name, lambda name=name: order.append(name)) for name in "ab"]
    spent = in_turn(forms, 3, clock, warmup=2)
    assert "".join(order) == "aabb" + "ab" + "ba" + "ab"
    assert [len(turns) for turns in spent] == [3, 3]


def test_warm_up_is_not_counted(clock):
    (spent,) = in_turn([Form("a", clock.work(100.0, 2.0, 3.0))], 2, clock)
    assert [each.seconds for each in spent] == [2.0, 3.0]


def test_short_work_is_repeated_and_one_call_is_what_counts(clock):
    calls = []
    work = clock.work(0.004)
    (spent,) = in_turn([Form("a", lambda: (calls.append(1), work()))], 2, clock, least=0.02)
    assert len(calls) == 1 + 2 * 5
    assert [each.seconds for each in spent] == pytest.approx([0.004, 0.004])


def test_what_is_prepared_is_handed_over_and_not_timed(clock):
    made, used, work = [], [], clock.work(1.0)

    def prepare():
        clock.now += 50
        made.append(len(made))
        return made[-1]

    (spent,) = in_turn([Form("a", lambda given: (used.append(given), work()), prepare)], 2, clock, least=9.0)
    assert [each.seconds for each in spent] == [1.0, 1.0]
    assert used == made == [0, 1, 2]


def test_a_part_of_the_work_counts_as_often_as_its_form_says(clock):
    (spent,) = in_turn([Form("a", clock.work(2.0), scale=8.0)], 1, clock)
    assert spent == [Spent(16.0, 8.0)]


def test_the_clock_of_a_cpu_measures_time_and_work():
    waited = stopwatch(torch.device("cpu"))(lambda: timing.time.sleep(0.05))
    assert 0.05 <= waited.seconds < 5
    assert waited.processor < 0.05


def test_the_clock_of_a_gpu_is_two_events_of_its_own_with_nothing_else_under_way(monkeypatch):
    said = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing
            self.name = "start" if "start" not in said else "end"
            said.append(self.name)

        def record(self):
            said.append(f"record {self.name}")

        def synchronize(self):
            said.append(f"wait for {self.name}")

        def elapsed_time(self, other):
            assert (self.name, other.name) == ("start", "end")
            return 250.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: said.append("wait for all"))
    spent = stopwatch(torch.device("cuda"))(lambda: said.append("work"))
    assert spent.seconds == 0.25
    assert said == ["start", "end", "wait for all", "record start", "work", "record end", "wait for end"]
