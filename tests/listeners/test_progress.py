import io
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from densecl.listeners.bars import Estimate, Words
from densecl.listeners.events import Look, Start, StepStart
from densecl.listeners.progress import Progress
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
        "step 0 (1 of 2) begins: 40 iterations in 2 epochs",
        "step 0 (1 of 2): 75%, epoch 2 of 2, task 1.500, regulariser 0.250, 8 images/s, 50s left of the run",
        "step 0 (1 of 2): 40 iterations in 1.5 s, mIoU 25.0%",
        "step 1 (2 of 2) begins: 40 iterations in 2 epochs",
        "step 1 (2 of 2): 75%, epoch 2 of 2, task 1.500, regulariser 0.250, 8 images/s, 11s left of the run",
        "step 1 (2 of 2): 40 iterations in 1.5 s, mIoU 25.0%, forgetting 0.0%",
    ]


@pytest.mark.parametrize(("second", "count"), [(0.5, 0), (1, 1), (10, 9), (1000, 39)])
def test_lines_inside_a_step_come_at_tenths_not_sooner_than_30_s_and_not_later_than_10_min(second, count):
    clock = Clock()
    progress = Progress(console=console(False), clock=clock)
    two_steps(progress, clock, second)
    assert len(re.findall(r"step 0 \(1 of 2\): \d+%", progress.console.file.getvalue())) == count


def test_verbose_has_a_line_for_each_epoch():
    epochs = [
        line for line in plain(Clock(), verbose=True) if "epoch" in line and "%" not in line and "begins" not in line
    ]
    assert epochs == [
        f"step {k - 1} ({k} of 2), epoch {e} of 2: task 1.500, regulariser 0.250, 8 images/s"
        for k in (1, 2)
        for e in (1, 2)
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
    assert "step 0 (1 of 2): loaded, mIoU 25.0%" in progress.console.file.getvalue()


def test_a_task_sequence_names_each_tasks_score():
    progress = Progress(console=console(False))
    start(progress)
    found = [Evaluation(task=name, metrics={"mse": value}) for name, value in (("colours", 123.4), ("edges", 0.5))]
    progress.step_finished(step(0).model_copy(update={"evaluations": found, "model": {"tensors": 1, "file": 1}}))
    assert progress.console.file.getvalue().rstrip().endswith("; colours mse 123, edges mse 0.500")


# ---- bars


def frame(progress):
    """The lines that a terminal shows now."""
    screen = progress.console
    lines = screen.render_lines(progress.bars.get_renderable(), pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def drawn(width=80, **options):
    """The frame in the middle of the second step."""
    clock = Clock()
    progress = Progress(console=console(True, width, **options), clock=clock)
    start(progress)
    progress.step_finished(step(0))
    progress.step_started(StepStart(1, 2, 40, 20, 0))
    for iteration in range(1, 31):
        clock.now += 2
        progress.looked(look(1, iteration))
    progress.counted("synthesising 15 images (batch 1 of 2)", 3, 12)
    lines = frame(progress)
    progress.run_finished("finished")
    return lines


def test_a_terminal_shows_run_step_epoch_batch_time_left_losses_and_the_last_miou():
    run, training, numbers, synthesis = drawn(color_system=None)
    assert run == "run  " + 27 * "━" + 4 * " " + "  88% step 1 (2 of 2)  20s left"
    assert training == "step " + 23 * "━" + 8 * " " + "  75% epoch 2 of 2  batch 10 of 20  20s left"
    assert numbers == "mIoU 25.0%  task 1.500  regulariser 0.250  8 images/s"
    assert synthesis == "synthesising 15 images (batch 1 of 2) " + 7 * "━" + 22 * " " + "  25% 3 of 12"


@given(width=st.integers(4, 200))
@settings(max_examples=60, deadline=None)
def test_no_line_is_wider_than_the_terminal(width):
    for line in drawn(width):
        assert cell_len(line) <= width


@given(done=st.integers(0, 40), ascii_only=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_bar_tells_done_from_not_done_without_colour(done, ascii_only):
    screen = Console(file=Ascii() if ascii_only else io.StringIO(), force_terminal=True, width=60, no_color=True)
    progress = Progress(console=screen, clock=Clock())
    start(progress)
    progress.step_started(StepStart(1, 1, 40, 40, done))
    whole = 60 - len("step ") - len("  75% ") - len(f"epoch 1 of 1  batch {done} of 40")
    for line, share in zip(frame(progress), (0.5 + done / 80, done / 40), strict=True):
        full, half = re.match(r"(?:run |step) ([━-]*)(╸?) *\d+%", line).groups()
        assert len(full) + len(half) / 2 == pytest.approx(share * whole, abs=1)
    progress.run_finished("finished")


def test_words_are_left_out_whole_and_from_the_end():
    def shown(width):
        screen = console(True, width)
        (line,) = screen.render_lines(Words(["mIoU 0.1", "task 2", "long words"]), pad=False)
        return "".join(segment.text for segment in line)

    assert {width: shown(width) for width in (80, 26, 25, 16, 15, 5)} == {
        80: "mIoU 0.1  task 2  long words",
        26: "mIoU 0.1  task 2",
        25: "mIoU 0.1  task 2",
        16: "mIoU 0.1  task 2",
        15: "mIoU 0.1",
        5: "mIoU…",
    }
    lines = {width: drawn(width)[1] for width in (80, 56, 40, 20)}
    assert lines[80].endswith(" 75% epoch 2 of 2  batch 10 of 20  20s left")
    assert lines[56].endswith(" 75% epoch 2 of 2  batch 10 of 20  20s left")  # the bar shrinks first
    assert len(re.findall("━", lines[56])) < len(re.findall("━", lines[80]))
    assert lines[40].endswith(" 75% epoch 2 of 2  batch 10 of 20")
    assert lines[20].startswith("step")
    assert lines[20].endswith(" 75% epoch 2…")


class Ascii(io.StringIO):
    """A stream that cannot show the characters of bars."""

    encoding = "ascii"


def test_a_terminal_without_utf8_gets_ascii():
    progress = Progress(console=Console(file=Ascii(), force_terminal=True, force_interactive=True))
    start(progress)
    progress.step_started(StepStart(0, 1, 40, 40, 0))
    "".join(frame(progress)).encode("ascii")
    progress.run_finished("finished")


def test_the_bars_go_and_the_cursor_comes_back_when_a_run_ends():
    clock = Clock()
    progress = Progress(console=console(True), clock=clock)
    two_steps(progress, clock)
    shown = progress.console.file.getvalue()
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    assert "step 1 (2 of 2): 40 iterations in 1.5 s, mIoU 25.0%, forgetting 0.0%" in CODES.sub("", shown)
    progress.run_finished("finished")  # a second end does no harm


# ---- counts


def test_a_count_draws_one_line_and_clears_it():
    clock = Clock()
    progress = Progress(console=console(True, 60), clock=clock)
    for done in range(1, 1001):
        clock.now += 0.01
        progress.counted("masks", done, 1000)
    shown = progress.console.file.getvalue()
    frames = [CODES.sub("", frame).rstrip() for frame in shown.split("\r")]
    assert frames[-1] == ""
    assert shown.endswith("\r\x1b[K")
    assert "\n" not in shown
    assert 30 <= len(frames) <= 50  # four a second
    assert all(len(frame) < 60 for frame in frames)
    assert any(re.search(r"5\d% 5\d\d of 1000  5s left", frame) for frame in frames)


def test_a_count_that_ends_early_clears_its_line():
    progress = Progress(console=console(True), clock=Clock())

    def scan():
        with progress.scan("masks") as counted:
            counted(1, 9)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        scan()
    assert progress.console.file.getvalue().endswith("\r\x1b[K")


def test_a_count_in_a_file_speaks_only_of_what_takes_long():
    clock = Clock()
    progress = Progress(console=console(False), clock=clock)
    for done in range(1, 101):
        clock.now += 1
        progress.counted("masks", done, 100)
    lines = [line[9:] for line in progress.console.file.getvalue().splitlines()]
    assert lines == [f"masks: {done} of 100, {left} left" for done, left in ((31, "1m 09s"), (61, "39s"), (91, "9s"))]


def test_a_count_that_begins_in_the_middle_does_not_take_it_for_speed():
    """Synthesis that goes on after a kill begins at 900 of 1000."""
    clock = Clock()
    progress = Progress(console=console(True), clock=clock)
    progress.counted("images", 900, 1000)
    clock.now = 10.0
    progress.counted("images", 910, 1000)
    assert "910 of 1000  1m 30s left" in CODES.sub("", progress.console.file.getvalue())


def test_a_count_of_the_next_data_set_begins_anew():
    clock = Clock()
    progress = Progress(console=console(True), clock=clock)
    for done in (10, 20, 90, 10, 20):
        clock.now += 10
        progress.counted("masks", done, 100)
    assert CODES.sub("", progress.console.file.getvalue()).rstrip().endswith("20 of 100  1m 20s left")


# ---- time left


def test_time_left_counts_iterations_of_all_steps_and_what_steps_take_besides():
    """Each iteration takes 2 s, the first look comes after 3 s, each evaluation takes 10 s."""
    iterations, now = (50, 20, 30), 0.0
    estimate = Estimate(iterations, now)
    assert estimate.left(now) == (None, None)
    for number, count in enumerate(iterations):
        estimate.step_started(number, 0)
        now += 1
        for iteration in range(1, count + 1):
            now += 2
            estimate.looked(iteration, now)
            if iteration > 1 and number > 0:
                besides = 1 + 2 + 10  # start, first iteration, evaluation
                later = sum(iterations[number + 1 :]) * 2 + besides * len(iterations[number + 1 :])
                training = 2 * (count - iteration)
                assert estimate.left(now) == pytest.approx((training, later + training + besides))
                assert estimate.share() == pytest.approx((sum(iterations[:number]) + iteration) / 100)
        now += 10
        estimate.step_finished(number, now)
    assert estimate.left(now) == (None, 0)
    assert estimate.share() == 1


def test_a_resumed_or_loaded_step_counts_as_done_and_not_as_fast():
    estimate = Estimate((100, 100, 100), 0.0)
    estimate.step_finished(0, 1.0)  # loaded within a second
    estimate.step_started(1, 60)
    assert estimate.share() == pytest.approx(160 / 300)
    estimate.looked(61, 5.0)
    estimate.looked(71, 25.0)
    assert estimate.left(25.0) == pytest.approx((2 * 29, 2 * (29 + 100)))
