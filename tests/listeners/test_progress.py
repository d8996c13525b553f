import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from densecl.listeners.events import Look, Start, StepStart
from densecl.listeners.progress import Counter, Progress
from densecl.listeners.progress.bars import Row, bar, fit, rows
from densecl.listeners.progress.estimate import Estimate
from densecl.records.record import Evaluation, Record, StepRecord

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def console(terminal, width=80, **options):
    return Console(
        file=io.StringIO(), force_terminal=terminal, force_interactive=terminal, width=width, highlight=False, **options
    )


def record(steps=()):
    return Record(
        densecl="0",
        benchmark="toy",
        strategy="mib",
        backbone="bisenet",
        seed=0,
        hash="0",
        status="running",
        settings={},
        environment={},
        class_names=["background", "a"],
        has_background=True,
        planned_steps=[[1], [2]],
        steps=list(steps),
    )


def step(number, lost=None, shared=False):
    metrics = {"miou": {"all": 0.25}, "iou": [0.25], "forgetting": lost}
    evaluation = Evaluation(task="segmentation", metrics=metrics)
    return StepRecord(
        step=number,
        task="segmentation",
        new_classes=[1],
        iterations=0 if shared else 40,
        seconds=1.5,
        shared=shared,
        evaluations=[evaluation],
    )


def look(number, iteration, speed=8.0, batches=20):
    losses = {"task": 1.5, "regulariser": 0.25}
    return Look(number, (iteration - 1) // batches, iteration, losses, (0.1,), speed)


def start(progress, steps=(), iterations=(40, 40)):
    progress.run_started(Start(Path("results/x"), record(steps), iterations, bool(steps)))


def two_steps(progress, clock, second=1.0):
    """Two steps of two epochs of 20 iterations, each taking `second`."""
    start(progress)
    for number in range(2):
        progress.step_started(StepStart(number, 2, 40, 20, 0))
        for iteration in range(1, 41):
            clock.now += second
            progress.looked(look(number, iteration))
            if iteration % 20 == 0:
                progress.epoch_finished(look(number, iteration))
        progress.evaluating(number)
        progress.step_finished(step(number, -1e-5 if number else None))
    progress.run_finished("finished")


# ---- plain lines


def plain(clock, **options):
    progress = Progress(console=console(False, width=40), clock=clock, **options)
    two_steps(progress, clock)
    lines = progress.console.file.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    return [line[9:] for line in lines]


def test_a_file_gets_lines_with_the_time_of_day_at_sensible_intervals():
    """A tenth is 4 s here, so 30 s decide. Lines are longer than the console is wide and are not broken."""
    lines = plain(Clock())
    assert lines == [
        "step 1 of 2 begins: 40 iterations in 2 epochs",
        "step 1 of 2: 75%, epoch 2 of 2, task 1.500, regulariser 0.250, 8 images/s, 50s left of the run",
        "step 1 of 2: 40 iterations in 1.5 s, mIoU 0.250",
        "step 2 of 2 begins: 40 iterations in 2 epochs",
        "step 2 of 2: 75%, epoch 2 of 2, task 1.500, regulariser 0.250, 8 images/s, 11s left of the run",
        "step 2 of 2: 40 iterations in 1.5 s, mIoU 0.250, forgetting 0.000",
    ]


@pytest.mark.parametrize(("second", "count"), [(0.5, 0), (1, 1), (10, 9), (1000, 39)])
def test_lines_inside_a_step_come_at_tenths_not_sooner_than_30_s_and_not_later_than_10_min(second, count):
    clock = Clock()
    progress = Progress(console=console(False), clock=clock)
    two_steps(progress, clock, second)
    assert len(re.findall(r"step 1 of 2: \d+%", progress.console.file.getvalue())) == count


def test_verbose_has_a_line_for_each_epoch():
    epochs = [
        line for line in plain(Clock(), verbose=True) if "epoch" in line and "%" not in line and "begins" not in line
    ]
    assert epochs == [
        f"step {k} of 2, epoch {e} of 2: task 1.500, regulariser 0.250, 8 images/s" for k in (1, 2) for e in (1, 2)
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_shows_nothing(terminal):
    clock = Clock()
    progress = Progress(quiet=True, console=console(terminal), clock=clock)
    two_steps(progress, clock)
    progress.line("nobody reads this")
    progress.counted("masks", 1, 3)
    with progress.scan("masks") as scan:
        scan(1, 3)
    assert progress.console.file.getvalue() == ""


def test_a_loaded_step_says_so():
    progress = Progress(console=console(False))
    start(progress)
    progress.step_finished(step(0, shared=True))
    assert "step 1 of 2: loaded, mIoU 0.250" in progress.console.file.getvalue()


def test_a_task_sequence_names_each_tasks_score():
    progress = Progress(console=console(False))
    start(progress)
    found = [Evaluation(task=name, metrics={"mse": value}) for name, value in (("colours", 123.4), ("edges", 0.5))]
    progress.step_finished(step(0).model_copy(update={"evaluations": found, "model": {"tensors": 1, "file": 1}}))
    assert progress.console.file.getvalue().rstrip().endswith("; colours mse 123, edges mse 0.500")


# ---- bars


def drawn(width=80, **options):
    """The frame in the middle of the second step."""
    clock = Clock()
    progress = Progress(console=console(True, width, **options), clock=clock)
    start(progress, [step(0)])
    progress._miou = "mIoU 0.250"
    progress.step_started(StepStart(1, 2, 40, 20, 0))
    for iteration in range(1, 31):
        clock.now += 2
        progress.looked(look(1, iteration))
    progress.counted("synthesising 15 images (batch 1 of 2)", 3, 12)
    frame = [line.plain for line in progress.lines(width)]
    progress.run_finished("finished")
    return frame


def test_a_terminal_shows_run_step_epoch_batch_time_left_losses_and_the_last_miou():
    run, training, numbers, synthesis = drawn()
    assert run == "run  " + 21 * "━" + 3 * "─" + "  88%  step 2 of 2  20s left"
    assert training == "step " + 18 * "━" + 6 * "─" + "  75%  epoch 2 of 2  batch 10 of 20  20s left"
    assert numbers == "mIoU 0.250  task 1.500  regulariser 0.250  8 images/s"
    assert synthesis == "synthesising 15 images (batch 1 of 2) " + 6 * "━" + 18 * "─" + "  25%  3 of 12"


@given(width=st.integers(4, 200))
@settings(max_examples=60, deadline=None)
def test_no_line_is_wider_than_the_terminal(width):
    clock = Clock()
    progress = Progress(console=console(True, 200), clock=clock)
    progress._estimate = Estimate((40, 40), 0.0)
    progress.step_started(StepStart(1, 200, 40, 20, 0))
    progress._look, progress._miou = look(1, 30), "mIoU 0.250"
    progress._counters["scanning masks"] = Counter(progress.console, "scanning masks", clock=clock)
    for line in progress.lines(width):
        assert cell_len(line.plain) <= width


@given(share=st.floats(-1, 2), width=st.integers(0, 60), ascii_only=st.booleans())
def test_a_bar_has_its_width_and_tells_done_from_not_done_without_colour(share, width, ascii_only):
    text = bar(share, width, ascii_only).plain
    assert len(text) == width
    full, half, rest = "#>-" if ascii_only else "━╸─"
    assert re.fullmatch(f"{full}*{half}?{rest}*", text)
    assert abs(text.count(full) + text.count(half) / 2 - width * min(1, max(0, share))) <= 0.5


def test_words_are_left_out_whole_and_from_the_end():
    assert fit(["mIoU 0.1", "task 2", "long words"], 16) == "mIoU 0.1  task 2"
    assert fit(["mIoU 0.1", "task 2"], 5) == "mIoU…"
    texts = {width: rows([Row("run", 0.5, ["step 1 of 2", "9s left"])], width)[0].plain for width in (80, 34, 16)}
    assert texts[80].endswith(" 50%  step 1 of 2  9s left")
    assert texts[34].endswith(" 50%  step 1 of 2")
    assert "━" in texts[34]
    assert texts[16].startswith("run  50%")


def test_a_terminal_without_utf8_gets_ascii():
    class Ascii(io.StringIO):
        encoding = "ascii"

    progress = Progress(console=Console(file=Ascii(), force_terminal=True, force_interactive=True))
    progress.step_started(StepStart(0, 1, 40, 40, 0))
    "".join(line.plain for line in progress.lines(80)).encode("ascii")


def test_the_bars_go_and_the_cursor_comes_back_when_a_run_ends():
    clock = Clock()
    progress = Progress(console=console(True), clock=clock)
    two_steps(progress, clock)
    shown = progress.console.file.getvalue()
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    assert "step 2 of 2: 40 iterations in 1.5 s, mIoU 0.250, forgetting 0.000" in CODES.sub("", shown)
    progress.run_finished("finished")  # a second end does no harm


# ---- counters


def test_a_counter_draws_one_line_and_clears_it():
    clock = Clock()
    counter = Counter(console(True, 60), "masks", clock=clock)
    for done in range(1, 1001):
        clock.now += 0.01
        counter(done, 1000)
    shown = counter.console.file.getvalue()
    frames = [CODES.sub("", frame).rstrip() for frame in shown.split("\r")]
    assert frames[-1] == ""
    assert shown.endswith("\r\x1b[K")
    assert "\n" not in shown
    assert 30 <= len(frames) <= 50  # four a second
    assert all(len(frame) < 60 for frame in frames)
    assert any(re.search(r"5\d%  5\d\d of 1000  5s left", frame) for frame in frames)


def test_a_counter_that_ends_early_clears_its_line():
    counter = Counter(console(True), "masks", clock=Clock())
    counter(1, 9)
    with pytest.raises(ValueError, match="broken"), counter:
        raise ValueError("broken")
    assert counter.console.file.getvalue().endswith("\r\x1b[K")


def test_a_counter_in_a_file_speaks_only_of_what_takes_long():
    clock = Clock()
    counter = Counter(console(False), "masks", clock=clock)
    for done in range(1, 101):
        clock.now += 1
        counter(done, 100)
    lines = [line[9:] for line in counter.console.file.getvalue().splitlines()]
    assert lines == [f"masks: {30 * k} of 100, {humane} left" for k, humane in ((1, "1m 10s"), (2, "40s"), (3, "10s"))]


def test_a_counter_that_begins_in_the_middle_does_not_take_it_for_speed():
    """Synthesis that goes on after a kill begins at 900 of 1000."""
    clock = Clock()
    counter = Counter(console(True), "images", clock=clock)
    counter(900, 1000)
    clock.now = 10.0
    counter(910, 1000)
    assert counter.words() == ["910 of 1000", "1m 30s left"]


# ---- time left


def test_time_left_counts_iterations_of_all_steps_and_what_steps_take_besides():
    """Each iteration takes 2 s, the first look comes after 3 s, each evaluation takes 10 s."""
    iterations, now = (50, 20, 30), 0.0
    estimate = Estimate(iterations, now)
    assert estimate.left(now) is None
    for number, count in enumerate(iterations):
        estimate.step_started(number, 0)
        now += 1
        for iteration in range(1, count + 1):
            now += 2
            estimate.looked(iteration, now)
            if iteration > 1 and number > 0:
                besides = 1 + 2 + 10  # start, first iteration, evaluation
                later = sum(iterations[number + 1 :]) * 2 + besides * len(iterations[number + 1 :])
                assert estimate.left(now) == pytest.approx(later + 2 * (count - iteration) + besides)
                assert estimate.step_left(now) == pytest.approx(2 * (count - iteration))
                assert estimate.share() == pytest.approx((sum(iterations[:number]) + iteration) / 100)
        now += 10
        estimate.step_finished(number, now)
    assert estimate.left(now) == 0
    assert estimate.share() == 1


def test_a_resumed_or_loaded_step_counts_as_done_and_not_as_fast():
    estimate = Estimate((100, 100, 100), 0.0)
    estimate.step_finished(0, 1.0)  # loaded within a second
    estimate.step_started(1, 60)
    assert estimate.share() == pytest.approx(160 / 300)
    estimate.looked(61, 5.0)
    estimate.looked(71, 25.0)
    assert estimate.left(25.0) == pytest.approx(2 * (29 + 100))
