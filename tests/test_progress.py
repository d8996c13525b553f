import io

import pytest
import torch
from rich.console import Console

from densecl.reporting.progress import Progress
from densecl.reporting.record import Evaluation, StepRecord


def on_terminal(quiet=False):
    progress = Progress(quiet)
    progress.console = Console(file=io.StringIO(), force_terminal=True, width=200, highlight=False, soft_wrap=True)
    return progress


def step(number, lost):
    metrics = {"miou": {"all": 0.25}, "iou": [0.25], "forgetting": lost}
    evaluation = Evaluation(task="segmentation", metrics=metrics)
    return StepRecord(
        step=number, task="segmentation", new_classes=[1], iterations=5, seconds=1.5, evaluations=[evaluation]
    )


def refresh(progress):
    if progress._bar is not None:  # which draws itself ten times a second
        progress._bar.refresh()


def two_steps(progress):
    progress.run_started("results/x", 2, "2 classes")
    with progress:
        for number in range(2):
            progress.step_started(number, 1, 5)
            for iteration in range(1, 6):
                progress._looked = 0.0
                progress.iteration(0, iteration, {"task": torch.tensor(1.5), "regulariser": torch.tensor(0.25)}, 4)
            refresh(progress)
            progress.evaluating(number)
            refresh(progress)
            progress.step_finished(step(number, -1e-5 if number else None))


def test_a_terminal_shows_a_bar_with_the_named_losses():
    progress = on_terminal()
    two_steps(progress)
    shown = progress.console.file.getvalue()
    assert "task 1.500  regulariser 0.250  epoch 1" in shown
    assert "evaluating step 2 of 2" in shown
    assert "step 1 of 2: 5 iterations in 1.5 s, mIoU 0.250\n" in shown
    assert "step 2 of 2: 5 iterations in 1.5 s, mIoU 0.250, forgetting 0.000" in shown


def test_elsewhere_there_are_plain_lines(capsys):
    progress = Progress()
    two_steps(progress)
    progress.scan("masks")(3, 3)
    assert capsys.readouterr().err.splitlines() == [
        "results/x: 2 steps, 2 classes",
        "step 1 of 2: 5 iterations in 1.5 s, mIoU 0.250",
        "step 2 of 2: 5 iterations in 1.5 s, mIoU 0.250, forgetting 0.000",
    ]


@pytest.mark.parametrize("make", [on_terminal, Progress])
def test_quiet_shows_nothing(make, capsys):
    progress = make(quiet=True)
    two_steps(progress)
    progress.scan("masks")(3, 3)
    shown = capsys.readouterr()
    assert shown.err == shown.out == ""
    if make is on_terminal:
        assert progress.console.file.getvalue() == ""


def test_a_scan_counts_on_a_terminal_and_clears_its_line(capsys):
    scan = on_terminal().scan("masks")
    scan(1, 3)
    scan(2, 3)  # too soon to be shown
    scan(3, 3)
    assert capsys.readouterr().err == "\rmasks 1/3\rmasks 3/3\r\033[K"
