"""Event files for TensorBoard, in `tensorboard/` of a run's folder.

`training/` has losses, learning rates and speed, by iteration counted over all steps; `steps/` has the scores, by step.
A resumed run writes further files, whose first event takes back what comes after the point that it goes on from, so
that no iteration is drawn twice.
"""

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

from densecl.listeners.events import Listener, Look, Start, StepStart, scores
from densecl.records.record import StepRecord

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
FLUSH = 30  # seconds that a kill may cost


class TensorBoard(Listener):
    """Writes scalars; needs the package `tensorboard`."""

    name = "tensorboard"

    _start: Start

    def __init__(self) -> None:
        self._writers: dict[str, SummaryWriter] = {}

    def run_started(self, start: Start) -> None:
        """Open the file of scores, which takes back what an earlier start wrote of the steps to come."""
        self._start = start
        if not start.resumed:
            shutil.rmtree(start.folder / FOLDER, ignore_errors=True)
        self._open("steps", len(start.record.steps))

    def step_started(self, start: StepStart) -> None:
        """Open the file of training, now that the first iteration to come is known."""
        if "training" not in self._writers:
            self._open("training", self._start.iterations_before(start.step) + start.done + 1)

    def looked(self, look: Look) -> None:
        """Losses, learning rates, images per second."""
        groups = {f"lr/group_{k}": rate for k, rate in enumerate(look.rates)}
        rates = {"lr": look.rates[0]} if len(set(look.rates)) == 1 else groups
        iteration = self._start.iterations_before(look.step) + look.iteration
        self._write("training", {**look.scalars(), **rates}, iteration)

    def step_finished(self, step: StepRecord) -> None:
        """The scores, and what the step cost."""
        costs = {"seconds": step.seconds, "stored_bytes": float(step.stored_bytes)}
        self._write("steps", {**scores(step, self._start.record), **costs}, step.step)
        for writer in self._writers.values():
            writer.flush()

    def run_finished(self, status: str) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()

    def _open(self, part: str, first: int) -> None:
        """Begin an event file, whose points from `first` on replace those of files before."""
        from torch.utils.tensorboard import SummaryWriter

        place = self._start.folder / FOLDER / part
        self._writers[part] = SummaryWriter(str(place), purge_step=first, flush_secs=FLUSH)

    def _write(self, part: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writers[part].add_scalar(name, value, step)
