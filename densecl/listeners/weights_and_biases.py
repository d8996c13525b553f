"""Losses and scores for Weights & Biases (wandb.ai).

A run there has the hash of ours as its id, so a killed one goes on where it was, on any machine. `WANDB_MODE=offline`,
`WANDB_PROJECT` and wandb's other variables work as they do anywhere.
"""

import os
from collections.abc import Callable
from typing import Any

from densecl.errors import RunError, first_line
from densecl.listeners.events import Listener, Look, Start, scores
from densecl.records.record import StepRecord

PROJECT = "densecl"
EXIT_CODES = {"finished": 0, "interrupted": 130}


class WeightsAndBiases(Listener):
    """Logs to one run of the project `densecl`; needs the package `wandb`. `say` hears where the run can be seen."""

    name = "wandb"

    _start: Start

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self._run: Any = None

    def run_started(self, start: Start) -> None:
        """Open the run, or go on with it; one that starts over replaces what was there."""
        import wandb

        record = start.record
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                id=record.hash,
                name=f"{record.benchmark} {record.strategy} s{record.seed}",
                group=record.benchmark,
                job_type=record.strategy[:64],
                dir=str(start.folder),
                config={**record.settings, "hash": record.hash, "environment": record.environment},
                resume="allow" if start.resumed else None,
                settings=wandb.Settings(console="off", silent=True),
            )
        except Exception as error:  # wandb raises what it likes
            advice = "log in with `wandb login`, set WANDB_MODE=offline, or leave out --wandb"
            raise RunError(f"wandb cannot start: {first_line(error)}", advice) from error
        self._start = start
        where = getattr(self._run, "url", None) or f"{self._run.dir} (`wandb sync` sends it)"
        self._say(f"wandb: {where}")

    def looked(self, look: Look) -> None:
        """Losses, the first learning rate, images per second. wandb leaves out iterations that it has seen before."""
        values = {**look.scalars(), **({"lr": look.rates[0]} if look.rates else {})}
        iteration = self._start.iterations_before(look.step) + look.iteration
        self._run.log({**values, "epoch": look.epoch, "step": look.step}, step=iteration)

    def step_finished(self, step: StepRecord) -> None:
        """The scores, beside the last iteration of the step, and in the run's summary."""
        numbers = scores(step, self._start.record)
        self._run.log({**numbers, "step": step.step}, step=self._start.iterations_before(step.step + 1))
        self._run.summary.update(numbers)

    def run_finished(self, status: str) -> None:
        """Close the run with the exit code that the command will have."""
        if self._run is not None:
            self._run.finish(exit_code=EXIT_CODES.get(status, 1))
