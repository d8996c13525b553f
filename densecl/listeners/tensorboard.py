"""Event files for TensorBoard, in `tensorboard/` of a run's folder.

`training/` has losses, learning rates and speed, by iteration counted over all steps; `steps/` has the scores, by step.
A resumed run writes further files, whose first event takes back what comes after the point that it goes on from, so
that no iteration is drawn twice.
"""

import shutil
from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from densecl.listeners.events import Listener, Look, Start, StepStart, scores
from densecl.records.record import StepRecord

FOLDER = "tensorboard"
FLUSH = 30  # seconds that a kill may cost


class TensorBoard(Listener):
    """Writes scalars; needs the package `tensorboard`."""

    name = "tensorboard"

    def __init__(self) -> None:
        self._start: Start | None = None
        self._before = 0  # iterations of earlier steps
        self._training: SummaryWriter | None = None
        self._steps: SummaryWriter | None = None

    def run_started(self, start: Start) -> None:
        """Open the file of scores; what an earlier start wrote of the steps to come is taken back."""
        self._start = start
        if not start.resumed:
            shutil.rmtree(start.folder / FOLDER, ignore_errors=True)
        self._steps = self._writer("steps", len(start.record.steps))

    def step_started(self, start: StepStart) -> None:
        """Open the file of training, where the first iteration to come is known."""
        assert self._start is not None
        self._before = sum(self._start.iterations[: start.step])
        if self._training is None:
            self._training = self._writer("training", self._before + start.done + 1)

    def looked(self, look: Look) -> None:
        """Losses, learning rates, images per second."""
        many = len(set(look.rates)) > 1
        rates = {f"lr/group_{k}" if many else "lr": rate for k, rate in enumerate(look.rates[: None if many else 1])}
        speed = {} if look.speed is None else {"images_per_second": look.speed}
        losses = {f"loss/{name}": value for name, value in look.losses.items()}
        _write(self._training, {**losses, **rates, **speed}, self._before + look.iteration)

    def step_finished(self, step: StepRecord) -> None:
        """The scores, and what the step cost."""
        assert self._start is not None
        found = scores(step, self._start.record)
        _write(self._steps, {**found, "seconds": step.seconds, "stored_bytes": float(step.stored_bytes)}, step.step)
        for writer in (self._training, self._steps):
            if writer is not None:
                writer.flush()

    def run_finished(self, status: str) -> None:
        """Close the files."""
        for writer in (self._training, self._steps):
            if writer is not None:
                writer.close()

    def _writer(self, part: str, first: int) -> SummaryWriter:
        """A new event file, whose points from `first` on replace those of files before."""
        assert self._start is not None
        place = self._start.folder / FOLDER / part
        return SummaryWriter(str(place), purge_step=first, flush_secs=FLUSH)


def _write(writer: SummaryWriter | None, values: Mapping[str, float], step: int) -> None:
    if writer is not None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
